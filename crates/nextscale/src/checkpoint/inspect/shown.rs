//! A description as `info` prints it.

use super::super::class_names::list_some;
use super::super::weights::format_patch_nums;
use super::{Description, FileKind};
use crate::model::vqvae::state_dict::PhiKind;
use crate::text::{counted, shown};
use std::fmt;

/// Classes that are named, at most.
const LISTED: usize = 100;

/// Several lines for people.
impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            FileKind::VaeWeights => "VQVAE tokenizer weights",
            FileKind::VarWeights => "VAR transformer weights",
            FileKind::Trainer => "training checkpoint",
            FileKind::BothWeights => "weights of a VAR transformer and a VQVAE tokenizer",
            FileKind::Tokens => "token file: images as tokens, to train on",
            FileKind::Classifier => "classifier of a folder's classes, to take features from",
            FileKind::Foreign => "tensors of something else than VAR",
        };
        writeln!(f, "{}", shown(&self.path.display().to_string()))?;
        writeln!(
            f,
            "  kind       {kind} ({}, {} bytes)",
            self.format, self.file_bytes
        )?;
        for p in &self.parts {
            // Moments, averages, tokens and labels are numbers, and no weights of a model.
            let of_a_model = matches!(p.name.as_str(), "var" | "vae" | "weights");
            let [one, many] = match of_a_model {
                true => ["parameter", "parameters"],
                false => ["number", "numbers"],
            };
            writeln!(
                f,
                "  {:<10} {}, {}, {}",
                p.name,
                counted(p.tensors, "tensor", "tensors"),
                counted(p.parameters, one, many),
                counted(p.bytes, "byte", "bytes")
            )?;
        }
        if let Some(v) = &self.var {
            let pn = v
                .patch_nums
                .as_deref()
                .map_or("unknown".into(), format_patch_nums);
            writeln!(
                f,
                "  VAR        depth {}, width {}, heads {}, classes {}, V {}, Cvae {}, L {} in {} scales, patch numbers {pn}, \
                 {}, attention {}",
                v.depth,
                v.width,
                v.heads,
                v.num_classes,
                v.vocab_size,
                v.cvae,
                v.seq_len,
                v.num_scales,
                if v.shared_aln {
                    "shared modulation"
                } else {
                    "modulation per block"
                },
                if v.anorm {
                    "normalised"
                } else {
                    "not normalised"
                },
            )?;
        }
        if let Some(v) = &self.vae {
            let phi = match v.phi {
                PhiKind::None => "no φ".to_owned(),
                PhiKind::Shared => "1 shared φ".to_owned(),
                PhiKind::Partial(n) => format!("{n} partially shared φ"),
                PhiKind::PerScale(n) => format!("{n} φ, one a scale"),
            };
            let scales = v
                .num_scales
                .map_or(String::new(), |n| format!(", code counts of {n} scales"));
            writeln!(
                f,
                "  VQVAE      ch {}, multipliers {:?}, {} residual blocks, V {}, Cvae {}, {phi}{scales}",
                v.ch, v.ch_mult, v.num_res_blocks, v.vocab_size, v.cvae
            )?;
        }
        if let Some((config, record)) = &self.classifier {
            let on = self.canvas.map_or_else(String::new, |c| format!("; {c}"));
            writeln!(
                f,
                "  images     {side}x{side} pixels{on}",
                side = config.side
            )?;
            writeln!(
                f,
                "  features   {}, after levels of {:?} channels",
                config.features(),
                config.widths
            )?;
            writeln!(
                f,
                "  trained    {}, {} of {}, seed {}; {:.2} % of {} right, {:.2} % by chance",
                counted(record.images, "image", "images"),
                counted(record.steps, "step", "steps"),
                record.batch,
                record.seed,
                100.0 * record.accuracy,
                counted(record.held_out, "held-out image", "held-out images"),
                100.0 * record.chance
            )?;
        }
        if let Some([images, crops, row]) = self.tokens.filter(|_| self.kind == FileKind::Tokens) {
            writeln!(
                f,
                "  tokens     {}, {} of each, {} a crop",
                counted(images, "image", "images"),
                counted(crops, "crop", "crops"),
                counted(row, "token", "tokens")
            )?;
        }
        if let Some((side, scales, patch)) = &self.sizes {
            let scales = format_patch_nums(scales);
            let on = self.canvas.map_or_else(String::new, |c| format!("; {c}"));
            writeln!(
                f,
                "  images     {side}x{side} pixels, {patch}x{patch} a token, scales {scales}{on}"
            )?;
        }
        match &self.class_names {
            Some(names) => writeln!(
                f,
                "  classes    {}: {}",
                names.len(),
                list_some(names, LISTED)
            )?,
            None if self.var.is_some() => {
                writeln!(f, "  classes    the file does not say what they are called")?;
            }
            None => {}
        }
        if !self.roots.is_empty() {
            writeln!(f, "  under      {}", shown(&self.roots.join(", ")))?;
        }
        match self.non_finite.is_empty() {
            true => writeln!(f, "  values     all are finite numbers")?,
            false => writeln!(f, "  NOT FINITE {}", self.non_finite)?,
        }
        if let Some(p) = &self.progress {
            write!(
                f,
                "  progress   epoch {}, iteration {}, {}",
                p.epoch,
                p.iter,
                counted(p.adam_step, "optimizer step", "optimizer steps")
            )?;
            if let Some(g) = p.g_it {
                write!(f, ", {} in all", counted(g, "iteration", "iterations"))?;
            }
            if let Some(s) = &p.scaler {
                write!(f, ", loss scale {}", s.scale)?;
            }
            writeln!(f)?;
        }
        if !self.names.is_empty() {
            writeln!(f, "  names      {}", shown(&self.names.join(", ")))?;
        }
        for (k, v) in &self.metadata {
            let line = format!("{k}: {}", v.chars().take(120).collect::<String>());
            writeln!(f, "  {}", shown(&line))?;
        }
        Ok(())
    }
}
