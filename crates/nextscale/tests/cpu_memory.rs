//! What passes are said to take of a machine's memory is what they take. In a process of its own, as the pool that is measured is
//! the whole process's.

use nextscale::Team;
use nextscale::memory::{Estimate, Workload};
use nextscale::model::Pyramid;
use nextscale::model::classifier::{Classifier, ClassifierConfig};
use nextscale::model::perceptual::{FeatureDistance, Perceptual};
use nextscale::model::var::{Var, VarConfig};
use nextscale::model::vqvae::{Vqvae, VqvaeConfig};
use nextscale::options::values::DeviceChoice;
use nextscale::options::{
    DataOptions, MachineOptions, OutputOptions, ScheduleOptions, TokenizerOptions,
};
use nextscale::run::TokenizerRun;
use nextscale::train::classifier_trainer::ClassifierTrainer;
use nextscale::train::schedule::LrWd;
use nextscale::train::tokenizer_trainer::{TokenizerSettings, TokenizerStep, TokenizerTrainer};
use nextscale::train::var_trainer::{TransformerStep, VarTrainer};
use nextscale_tensor::cpu::pool;
use nextscale_tensor::{Math, Tensor};
use std::sync::Arc;

/// The pool's peak while `run` goes on, beside what was estimated for it: within 6 parts of a hundred.
fn near(what: &str, estimated: usize, run: impl FnOnce()) {
    pool::release_free();
    pool::reset_peak();
    run();
    let (estimated, taken) = (estimated as f64, pool::peak_bytes() as f64);
    let off = 100.0 * (estimated / taken - 1.0);
    assert!(
        off.abs() < 6.0,
        "{what}: {estimated} bytes estimated, {taken} taken: {off:.1} %"
    );
}

/// A whole run whose steps take one image, with its evaluation and the picture of 16 images after it, takes no more than is said.
fn a_run_of_single_images() {
    let dir = tempfile::tempdir().unwrap();
    for (split, count) in [("train", 2u8), ("val", 17)] {
        let class = dir.path().join(split).join("only");
        std::fs::create_dir_all(&class).unwrap();
        for i in 0..count {
            let mut file = b"P6 128 128 255\n".to_vec();
            file.extend((0..3 * 128 * 128).map(|p| (p % 251) as u8 ^ i));
            std::fs::write(class.join(format!("{i}.ppm")), file).unwrap();
        }
    }
    let options = TokenizerOptions {
        pn: "1_2_4_8".into(),
        ch: 32,
        vocab: 256,
        data: DataOptions {
            data_path: Some(dir.path().display().to_string()),
            mid_reso: 1.0,
            ..DataOptions::default()
        },
        schedule: ScheduleOptions {
            steps: Some(2),
            bs: 1,
            ..ScheduleOptions::default()
        },
        output: OutputOptions {
            out: dir.path().join("out"),
            ..OutputOptions::default()
        },
        machine: MachineOptions {
            device: DeviceChoice::Cpu,
            ..MachineOptions::default()
        },
        ..TokenizerOptions::default()
    };
    let vqvae = VqvaeConfig {
        ch: 32,
        vocab: 256,
        ..VqvaeConfig::published(Pyramid::square(&[1, 2, 4, 8]).unwrap())
    };
    let workload = Workload::TrainTokenizer {
        vqvae: &vqvae,
        math: Math::FULL,
        settings: TokenizerSettings::default(),
        perceptual: None,
    };
    let need = Estimate::on_cpu(workload).unwrap().need(1).unwrap();
    pool::release_free();
    pool::reset_peak();
    let run = TokenizerRun {
        options: &options,
        cmd: String::new(),
        team: Team::alone(),
        observers: Vec::new(),
    };
    assert!(run.run().unwrap().complete);
    let taken = pool::peak_bytes();
    assert!(
        taken < need.least + need.least / 16,
        "{} bytes estimated, {taken} taken",
        need.least
    );
}

#[test]
fn a_dry_cpu_takes_what_a_cpu_takes() {
    let pyramid = Pyramid::square(&[1, 2, 4]).unwrap();
    let vqvae = VqvaeConfig {
        ch: 32,
        vocab: 256,
        ch_mult: vec![1, 2, 2],
        ..VqvaeConfig::published(pyramid.clone())
    };
    let images = |batch| Tensor::zeros([batch, 16, 16, 3]);
    let features = || {
        let classifier = Classifier::new(ClassifierConfig::for_side(16, 3).unwrap(), false);
        let distance = FeatureDistance::new(classifier.unwrap()).unwrap();
        Perceptual::Features(Box::new(distance))
    };
    for (batch, compares) in [(16, false), (64, false), (64, true)] {
        let network = compares.then(features);
        let workload = Workload::TrainTokenizer {
            vqvae: &vqvae,
            math: Math::FULL,
            settings: TokenizerSettings::default(),
            perceptual: network.as_ref(),
        };
        let need = Estimate::on_cpu(workload).unwrap().need(batch).unwrap();
        drop(network);
        near("tokenizer", need.least, || {
            let model = Vqvae::new(vqvae.clone(), true).unwrap();
            let mut t = TokenizerTrainer::new(model, TokenizerSettings::default()).unwrap();
            t.perceptual = compares.then(|| Arc::new(features()));
            for it in 0..3 {
                t.step(&images(batch), &TokenizerStep::usual(it)).unwrap();
            }
        });
    }
    let var = VarConfig {
        vocab: 256,
        ..VarConfig::of_depth(3, 10, pyramid)
    };
    let workload = Workload::Train {
        var: &var,
        vqvae: &vqvae,
        from_tokens: false,
        math: [Math::FULL; 2],
        ema: None,
        recompute: 0,
        shares: 1,
    };
    let need = Estimate::on_cpu(workload).unwrap().need(96).unwrap();
    near("transformer", need.least, || {
        let tokenizer = Vqvae::new(vqvae.clone(), false).unwrap();
        let model = Var::new(var.clone(), true).unwrap();
        let mut t = VarTrainer::new(tokenizer, model, 0.0, 0).unwrap();
        for it in 0..3 {
            let plan = TransformerStep::whole(it);
            t.step(&images(96), &vec![0; 96], &plan).unwrap();
        }
    });
    let config = ClassifierConfig::for_side(32, 10).unwrap();
    let workload = Workload::TrainClassifier {
        classifier: &config,
        math: Math::FULL,
    };
    let need = Estimate::on_cpu(workload).unwrap().need(64).unwrap();
    near("classifier", need.least, || {
        let model = Classifier::new(config.clone(), true).unwrap();
        let mut t = ClassifierTrainer::new(model).unwrap();
        let images = Tensor::zeros([64, 32, 32, 3]);
        let classes = Tensor::from_i32([64], vec![0; 64]);
        let at = LrWd { lr: 1e-3, wd: 0.05 };
        for _ in 0..3 {
            t.step(&images, &classes, &[0; 64], at).unwrap();
        }
    });
    a_run_of_single_images();
}
