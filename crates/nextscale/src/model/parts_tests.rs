//! In the backward pass of either model each part's gradients are handed out once, in the order in which they are complete.

use super::small::{DEPTH, VOCAB, models};
use super::var::{InitScales, Var, VarConfig};
use super::vqvae::{DropoutDraw, Vqvae, VqvaeConfig};
use super::{ForwardPass, Pyramid};
use nextscale_tensor::cuda;
use nextscale_tensor::{CompletePart, Cx, Device, Math, Params, Tape, Tensor, ops};
use std::ops::Range;

/// The CPU, and a GPU where there is one.
fn devices() -> Vec<Device> {
    let gpu = (cuda::count() > 0).then_some(Device::Cuda(0));
    std::iter::once(Device::Cpu).chain(gpu).collect()
}

/// Runs backward; the first parameter of every part in the order in which parts were handed out. What was handed out must be the
/// final sums, and each element of the buffer once.
fn handed_out(tape: Tape, loss: &Tensor, params: &Params) -> Vec<String> {
    let mut told: Vec<(Range<usize>, Vec<f32>)> = Vec::new();
    let mut grads = params.buffer().unwrap();
    let mut sink = |mut part: CompletePart<'_>| {
        let sums = if params.device() == Device::Cpu {
            part.cpu_mut()?.to_vec()
        } else {
            part.on_gpu()?.to(Device::Cpu)?.f32()?.to_vec()
        };
        told.push((part.range(), sums));
        Ok(())
    };
    let seed = Tensor::from_vec([1], vec![1.0]);
    let seed = seed.to(params.device()).unwrap();
    let target = (params, &mut grads);
    tape.backward_by_parts(loss, seed, target, &[], &mut sink)
        .unwrap();
    grads.to_device(Device::Cpu).unwrap();
    let all = grads.cpu().unwrap();
    let mut times = vec![0; all.len()];
    for (range, sums) in &told {
        assert_eq!(sums, &all[range.clone()], "{range:?}");
        assert!(sums.iter().any(|&g| g != 0.0), "{range:?} has no gradient");
        times[range.clone()].iter_mut().for_each(|n| *n += 1);
    }
    assert!(times.iter().all(|&n| n == 1));
    let first = |range: &Range<usize>| {
        let info = params.infos().iter().find(|i| i.offset == range.start);
        info.unwrap().name.clone()
    };
    told.iter().map(|(range, _)| first(range)).collect()
}

/// A small transformer whose gates are not all but shut, so that every weight has a gradient.
fn transformer(device: Device, shared_aln: bool) -> Var {
    let (_, var) = models(Device::Cpu, Math::FULL, true, InitScales::default());
    let config = VarConfig {
        shared_aln,
        ..var.config
    };
    let scales = InitScales {
        alng: 0.5,
        hd: 1.0,
        ..InitScales::default()
    };
    let mut var = Var::new(config, true).unwrap();
    var.init(scales, 3).unwrap();
    var.to_device(device, Math::FULL).unwrap();
    var
}

/// Its loss on two made-up images.
fn loss_of(var: &Var, tape: &Tape) -> Tensor {
    let (b, total, cvae) = (2, var.config.pyramid.total(), var.config.cvae);
    let input = (0..b * (total - 1) * cvae).map(|i| (i as f32).sin());
    let input = Tensor::from_vec([b, total - 1, cvae], input.collect());
    let targets = (0..b * total).map(|i| (i * 7 % VOCAB) as i32).collect();
    let targets = Tensor::from_i32([b, total], targets);
    let there = |t: Tensor| t.to(var.device()).unwrap();
    let (input, targets) = (there(input), there(targets));
    let labels = var.labels(&[1, 2]).unwrap();
    let pass = ForwardPass::on(Cx::on(tape));
    let scales = var.config.pyramid.count();
    let logits = var
        .forward(&pass, &labels, Some(&input), scales, None)
        .unwrap();
    let weights = vec![1.0 / total as f32; total];
    ops::cross_entropy(&pass.cx, logits, &targets, &weights, 0.0)
        .unwrap()
        .loss
}

#[test]
fn a_transformer_s_gradients_are_complete_block_by_block() {
    for device in devices() {
        for shared_aln in [false, true] {
            let mut var = transformer(device, shared_aln);
            let tape = Tape::new();
            let loss = loss_of(&var, &tape);
            let order = handed_out(tape, &loss, &var.params);
            // Neither does a block change the order that is run again.
            for recompute in [1, 2] {
                var.recompute = recompute;
                let tape = Tape::new();
                let loss = loss_of(&var, &tape);
                assert_eq!(handed_out(tape, &loss, &var.params), order);
            }
            let first = if shared_aln {
                "ada_gss"
            } else {
                "attn.scale_mul_1H11"
            };
            let mut want = vec!["head_nm.ada_lin.1.weight".to_string()];
            want.extend((0..DEPTH).rev().map(|i| format!("blocks.{i}.{first}")));
            want.push("pos_start".into());
            assert_eq!(order, want, "{device:?}");
        }
    }
}

#[test]
fn blocks_that_are_run_again_have_the_same_gradients() {
    for device in devices() {
        for shared_aln in [false, true] {
            let mut var = transformer(device, shared_aln);
            let mut gradients = |recompute| {
                var.recompute = recompute;
                let tape = Tape::new();
                let loss = loss_of(&var, &tape);
                let value = loss.scalar().unwrap();
                let mut grads = var.params.buffer().unwrap();
                tape.backward(&loss, 1.0, Some((&var.params, &mut grads)), &[])
                    .unwrap();
                grads.to_device(Device::Cpu).unwrap();
                (value, grads.cpu().unwrap().to_vec())
            };
            let want = gradients(0);
            for recompute in [1, 2, 3] {
                assert!(gradients(recompute) == want, "{device:?} {recompute}");
            }
        }
    }
}

/// A block is handed out, its own modulation layer included, before the walk comes to the block before it.
#[test]
fn a_block_is_handed_out_before_the_next_one_s_gradients_begin() {
    let var = transformer(Device::Cpu, false);
    let parts: Vec<_> = var.params.parts().collect();
    for done in 1..parts.len() {
        let tape = Tape::new();
        let loss = loss_of(&var, &tape);
        let mut grads = var.params.buffer().unwrap();
        let mut sink = |part: CompletePart<'_>| match part.range() == parts[done] {
            true => part.on_gpu().map(|_| ()),
            false => Ok(()),
        };
        let seed = Tensor::from_vec([1], vec![1.0]);
        let target = (&var.params, &mut grads);
        // The sink's error ends the walk at this part.
        let ended = tape.backward_by_parts(&loss, seed, target, &[], &mut sink);
        assert!(ended.is_err());
        let all = grads.cpu().unwrap();
        assert!(all[parts[done].clone()].iter().any(|&g| g != 0.0));
        let before = &all[..parts[done].start];
        assert!(before.iter().all(|&g| g == 0.0), "part {done}");
    }
}

#[test]
fn a_tokenizer_s_gradients_are_complete_level_by_level() {
    for device in devices() {
        let config = VqvaeConfig {
            ch: 32,
            vocab: 50,
            ch_mult: vec![1, 2],
            num_res_blocks: 1,
            dropout: 0.1,
            ..VqvaeConfig::published(Pyramid::square(&[1, 2, 4]).unwrap())
        };
        let mut vqvae = Vqvae::new(config, true).unwrap();
        vqvae.init(1).unwrap();
        vqvae.to_device(device, Math::FULL).unwrap();
        let pixels = (0..2 * 8 * 8 * 3).map(|i| (i as f32).sin()).collect();
        let images = Tensor::from_vec([2, 8, 8, 3], pixels).to(device).unwrap();
        let tape = Tape::new();
        let pass = ForwardPass::on(Cx::on(&tape));
        let drop = DropoutDraw {
            seed: 1,
            step: 0,
            first: 0,
        };
        let out = vqvae.train_forward(&pass, &images, Some(drop)).unwrap();
        let error = ops::mse(&pass.cx, &out.image, &images).unwrap();
        let loss = ops::weighted_sum(&pass.cx, &[(out.vq_loss, 1.0), (error, 1.0)]).unwrap();
        let order = handed_out(tape, &loss, &vqvae.params);
        let want = [
            "decoder.norm_out.weight",
            "decoder.up.0.block.0.norm1.weight",
            "decoder.up.1.block.0.norm1.weight",
            "decoder.conv_in.weight",
            "quantize.quant_resi.qresi_ls.0.weight",
            "encoder.mid.block_1.norm1.weight",
            "encoder.down.1.block.0.norm1.weight",
            "encoder.down.0.block.0.norm1.weight",
            "encoder.conv_in.weight",
        ];
        assert_eq!(order, want, "{device:?}");
    }
}
