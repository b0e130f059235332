//! `nextscale doctor`: what this machine can compute on, and what is missing.

mod cpu;
mod groups;
mod nccl;

use nextscale::device::automatic;
use nextscale::{Error, Result, say};
use nextscale_tensor::cuda::{self, Arch, Library};
use nextscale_tensor::ops::kernels::modules;
use std::process::ExitCode;
use std::time::Instant;

/// What was run, and what should do.
const SUPPORTED: &str = "CUDA 12.0 or newer (driver 525 or newer) and cuDNN 9; \
     run so far with drivers of CUDA 13 and kernels of NVRTC 12.9 and 13";

/// Flags of `doctor`.
#[derive(clap::Args)]
#[command(
    rename_all = "snake_case",
    after_long_help = "Libraries are looked for in the folders that NEXTSCALE_CUDA_PATH names (separated by colons), on the loader's \
        path, in CUDA toolkits and in Python packages, in this order; the first that the driver serves is taken. \
        NEXTSCALE_CUDA_PATH=FOLDER therefore chooses a library, such as NVRTC 12.9 beside a newer one, and \
        NEXTSCALE_WITHOUT=cuDNN,NCCL leaves some out."
)]
pub struct Args {
    /// Also compile every kernel, without running any, for these compute capabilities, such as 80,90,100
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    compile: Vec<u32>,
    #[command(flatten)]
    nccl: nccl::NcclArgs,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    Library::check_left_out().map_err(Error::input)?;
    if args.nccl.nccl {
        return nccl::run(&args.nccl);
    }
    if args.nccl.processes.is_given() {
        return Err(Error::input(
            "several processes are for doctor --nccl: give it too",
        ));
    }
    machine(args)?;
    Ok(ExitCode::SUCCESS)
}

/// What this machine has.
fn machine(args: &Args) -> Result<()> {
    cpu::print()?;
    let wanted = cpu::wants_libraries();
    if wanted {
        say!("supported    {SUPPORTED}")?;
    }
    let missing = libraries()?;
    gpus()?;
    if wanted {
        kernels()?;
    }
    let (device, passed_over) = automatic();
    say!("device       --device=auto computes on {device}")?;
    for why in passed_over {
        say!("not used     {why}")?;
    }
    for library in missing {
        if library.is_left_out() {
            say!("left out     {} by NEXTSCALE_WITHOUT", library.name())?;
            continue;
        }
        if wanted {
            say!(
                "missing      {} ({}): {}",
                library.name(),
                library.purpose(),
                library.missing()
            )?;
        }
    }
    if !wanted {
        say!("with a GPU   {SUPPORTED}")?;
    }
    for &number in &args.compile {
        compile(number)?;
    }
    Ok(())
}

/// Prints what was found; what was not.
fn libraries() -> Result<Vec<Library>> {
    let mut missing = Vec::new();
    for library in Library::ALL {
        if library.is_there() {
            say!("library      {}", library_line(library))?;
        } else {
            missing.push(library);
        }
    }
    Ok(missing)
}

/// A library's name, version and file.
fn library_line(library: Library) -> String {
    let version = match library.version() {
        Some((major, minor, 0)) => format!("{major}.{minor}"),
        Some((major, minor, patch)) => format!("{major}.{minor}.{patch}"),
        None => "version unknown".into(),
    };
    let path = library.find().map(|f| f.path.display().to_string());
    format!("{} {version}, {}", library.name(), path.unwrap_or_default())
}

/// Prints the GPUs.
fn gpus() -> Result<()> {
    let there = cuda::count();
    for ordinal in 0..there {
        match cuda::gpu::describe(ordinal) {
            Ok(g) => {
                let old = g.arch < Arch::LEAST;
                say!(
                    "gpu {ordinal}        {}, compute capability {}.{}, {:.0} GiB, {} multiprocessors{}",
                    g.name,
                    g.arch.major,
                    g.arch.minor,
                    g.memory as f64 / f64::from(1 << 30),
                    g.multiprocessors,
                    if old { ": too old, 8.0 is needed" } else { "" }
                )?;
            }
            Err(e) => say!("gpu {ordinal}        {e}")?,
        }
    }
    if there == 0 {
        cpu::without_gpu()?;
    }
    Ok(())
}

fn kernels() -> Result<()> {
    let Some(folder) = cuda::cache::folder() else {
        return say!("kernel cache none: neither HOME nor NEXTSCALE_KERNEL_CACHE is set");
    };
    let files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let (mut count, mut bytes) = (0, 0);
    for file in files {
        count += 1;
        bytes += file.metadata().map_or(0, |m| m.len());
    }
    say!(
        "kernel cache {}: {count} files, {} KiB",
        folder.display(),
        bytes / 1024
    )
}

/// Compiles every module for one compute capability, given as 80 or 100.
fn compile(number: u32) -> Result<()> {
    let arch = Arch {
        major: number / 10,
        minor: number % 10,
    };
    if arch < Arch::LEAST {
        return Err(Error::input(format!(
            "--compile={number}: compute capabilities are written as 80, 90 or 100; the least is 80"
        )));
    }
    Library::Nvrtc.required()?;
    say!("compiler     {}", library_line(Library::Nvrtc))?;
    for module in modules() {
        let start = Instant::now();
        let code = cuda::compile(module, arch)?;
        say!(
            "compiled     {} for {}: {} kernels, {} bytes, {:.0} ms",
            module.name,
            arch.name(module.specific),
            module.kernels.len(),
            code.len(),
            1e3 * start.elapsed().as_secs_f64()
        )?;
    }
    Ok(())
}
