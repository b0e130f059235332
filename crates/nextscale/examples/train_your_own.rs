//! Both models trained and images drawn, in one program: `cargo run --release --example train_your_own [FOLDER] [STEPS]`.
//!
//! FOLDER holds `train/CLASS/*` and `val/CLASS/*`; without it the built-in pictures are taken. Ten steps of each model show that it
//! goes; give some thousands for pictures worth looking at. Checkpoints and `samples.png` go to `my-model/`, where the same command goes
//! on.

use nextscale::checkpoint::open::open_pair;
use nextscale::generate::{SampleOptions, Sampler};
use nextscale::options::{
    DataOptions, OutputOptions, ScheduleOptions, TokenizerOptions, TransformerOptions,
};
use nextscale::pictures::grid;
use nextscale::run::{
    BUILTIN_SHAPES, Event, Observer, TokenizerRun, TransformerRun, tokenizer_paths,
    transformer_paths,
};
use nextscale::{Error, Result, Team};
use std::path::Path;

/// Prints every step's loss.
struct Losses(&'static str);

impl Observer for Losses {
    fn see(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Step(step) => {
                let loss = step.metrics.get("loss").unwrap_or(f64::NAN);
                println!("{} step {}: loss {loss:.4}", self.0, step.number);
            }
            Event::Warning(line) => println!("{}: {line}", self.0),
            _ => {}
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().unwrap_or_else(|| BUILTIN_SHAPES.to_owned());
    let steps = args.next().unwrap_or_else(|| "10".to_owned());
    let steps: u64 = steps
        .parse()
        .map_err(|_| Error::input(format!("{steps}: expected a number of steps")))?;
    let out = Path::new("my-model");
    // Maps of 1×1, 2×2 and 4×4 tokens of 8×8 pixels: images of 32×32.
    let pn = "1_2_4";
    let data = DataOptions {
        data_path: Some(folder),
        ..DataOptions::default()
    };
    let output = |name: &str| OutputOptions {
        out: out.join(name),
        ..OutputOptions::default()
    };

    let tokenizer = TokenizerOptions {
        pn: pn.to_owned(),
        ch: 32,
        ch_mult: "1_2_2_4".to_owned(),
        vocab: 256,
        data: data.clone(),
        schedule: ScheduleOptions {
            steps: Some(steps),
            bs: 8,
            seed: Some(1),
            ..ScheduleOptions::default()
        },
        output: output("tokenizer"),
        ..TokenizerOptions::default()
    };
    let run = TokenizerRun {
        options: &tokenizer,
        cmd: "train_your_own".to_owned(),
        team: Team::alone(),
        observers: vec![Box::new(Losses("tokenizer"))],
    };
    println!("{}", run.run()?.message);

    let transformer = TransformerOptions {
        tokenizer: Some(tokenizer_paths(&tokenizer.output.out).weights),
        depth: 4,
        pn: pn.to_owned(),
        patch_size: 8,
        data,
        schedule: ScheduleOptions {
            bs: 8,
            seed: Some(1),
            ..ScheduleOptions::default()
        },
        output: OutputOptions {
            stop_after: Some(steps),
            ..output("transformer")
        },
        ..TransformerOptions::default()
    };
    let run = TransformerRun {
        options: &transformer,
        cmd: "train_your_own".to_owned(),
        team: Team::alone(),
        observers: vec![Box::new(Losses("transformer"))],
    };
    println!("{}", run.run()?.message);

    let checkpoint = transformer_paths(&transformer.output.out).last;
    let pair = open_pair(&checkpoint, None, None)?;
    let sampler = Sampler {
        var: &pair.var,
        vqvae: &pair.tokenizer.vqvae,
    };
    let classes = pair.var.config.classes as i32;
    let labels: Vec<i32> = (0..16).map(|i| i % classes).collect();
    let drawn = sampler.draw(&labels, 0, &SampleOptions::default(), None, None)?;
    let picture = out.join("samples.png");
    grid(&drawn.pixels()?, drawn.images.dims()[1], 4).save(&picture)?;
    println!("16 images in {}", picture.display());
    Ok(())
}
