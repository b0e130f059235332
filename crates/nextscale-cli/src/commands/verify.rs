//! `nextscale verify`: this build beside recorded numbers of the reference.

use nextscale::device::resolve_device;
use nextscale::options::precision::agreed;
use nextscale::options::values::{DeviceChoice, precision_parser, training_precision};
use nextscale::{Error, Result, say};
use nextscale_tensor::Precision;
use nextscale_verify::{Bundle, Counts, Machine};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Flags of `verify`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// Folders of recorded numbers (such as fixtures/vae), or folders of such folders
    #[arg(required = true, value_name = "BUNDLE")]
    bundles: Vec<PathBuf>,
    /// Where to compute: auto, cpu, cuda or cuda:N
    #[arg(long, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// Precision on a GPU; without it fp32; in half precision only losses are judged
    #[arg(long, value_parser = precision_parser())]
    precision: Option<Precision>,
    /// The same as the reference's flag says it: 0 float32 (without TF32), 1 float16, 2 bfloat16
    #[arg(long, value_name = "0|1|2")]
    fp16: Option<u8>,
    /// Also write logits and all gradients of the recorded forward passes to this file (safetensors), to compare elsewhere
    #[arg(long, value_name = "FILE")]
    dump_grads: Option<PathBuf>,
    /// Print only what fails or is not compared, and the summaries
    #[arg(long)]
    quiet: bool,
}

impl Args {
    fn asked_precision(&self) -> Result<Precision> {
        match self.precision {
            None => training_precision(self.fp16.unwrap_or(0), false),
            Some(Precision::Tf32) => Err(Error::field(
                "precision",
                Precision::Tf32,
                "the recorded numbers are float32's; give fp32, or bf16 or fp16, which only losses are judged in",
            )),
            Some(precision) => agreed(precision, self.fp16, None).map(|_| precision),
        }
    }
}

/// Checks every bundle: 0 when all pass, 1 when a quantity fails, 2 when something can't be used.
///
/// # Errors
/// When a folder is missing or no bundle, before anything is checked.
pub fn run(args: &Args) -> Result<ExitCode> {
    let device = resolve_device(args.device)?;
    let precision = args.asked_precision()?;
    if !device.is_async() && precision.is_half() {
        return Err(Error::input(match args.fp16 {
            Some(fp16) => {
                format!("--fp16={fp16}: half precision is for GPUs; use --fp16=0 on the CPU")
            }
            None => format!(
                "--precision={precision}: half precision is for GPUs; use --precision=fp32 on the CPU"
            ),
        }));
    }
    let machine = Machine::new(device, precision);
    let mut bundles = Vec::new();
    for path in &args.bundles {
        bundles.extend(Bundle::find(path)?);
    }
    // Checks go on where lines can't be printed: the exit code still tells.
    let mut printed = Ok(());
    let mut print = |line: &dyn std::fmt::Display| {
        if printed.is_ok() {
            printed = say!("{line}");
        }
    };
    print(&format_args!(
        "abs is the largest absolute difference, rel the relative L2 difference; computed on {device} in {}",
        precision.in_words()
    ));
    if let Some(path) = &args.dump_grads {
        let n = nextscale_verify::dump_gradients(&bundles, machine, path)?;
        print(&format_args!("{n} tensors written to {}", path.display()));
    }
    let mut total = Counts::default();
    let mut unusable: Vec<Error> = Vec::new();
    for bundle in &bundles {
        let (kind, start) = (bundle.kind.name(), Instant::now());
        let outcome = bundle.check(machine, &mut |line| {
            if !args.quiet || line.verdict != nextscale_verify::Verdict::Pass {
                print(&format_args!("{kind:<11}  {line}"));
            }
        });
        let place = bundle.path.display();
        match outcome {
            Ok(c) => {
                let verdict = if c.failed == 0 { "pass" } else { "FAIL" };
                let time = start.elapsed().as_secs_f64();
                print(&format_args!(
                    "{kind:<11}  {verdict}  {place}: {c} in {time:.1} s"
                ));
                total.passed += c.passed;
                total.failed += c.failed;
                total.unchecked += c.unchecked;
            }
            Err(e) => {
                print(&format_args!(
                    "{kind:<11}  FAIL  {place}: can't be used: {e}"
                ));
                // Further bundles are still worth checking; the first is named at the end, on one line.
                unusable.push(e);
            }
        }
    }
    if bundles.len() > 1 {
        print(&format_args!("{} bundles: {total}", bundles.len()));
    }
    let others = unusable.len().saturating_sub(1);
    match unusable.into_iter().next() {
        Some(e) if others == 0 => Err(e),
        Some(e) => Err(e.and(&format!("{others} more can't be used"))),
        None if total.failed > 0 => Ok(ExitCode::FAILURE),
        None if printed.is_err() => printed.map(|()| ExitCode::SUCCESS),
        None => Ok(ExitCode::SUCCESS),
    }
}
