use super::*;
use crate::run::BUILTIN_SHAPES;

fn options(length: Length) -> FeatureOptions {
    FeatureOptions {
        data_path: BUILTIN_SHAPES.into(),
        size: Some(32),
        mid_reso: 1.0,
        length,
        batch: 32,
        ..FeatureOptions::default()
    }
}

fn run(options: &FeatureOptions) -> (Result<TrainedClassifier>, Vec<Round>) {
    let mut rounds = Vec::new();
    let run = FeatureRun {
        options,
        device: Device::Cpu,
        precision: Precision::Tf32,
        stop: StopSignal::detached(),
    };
    let trained = run.run(&mut |told| {
        if let Told::Round(round) = told {
            rounds.push(*round);
        }
    });
    (trained, rounds)
}

#[test]
fn shapes_are_told_apart_after_seconds_and_a_file_of_it_does_so_too() {
    let o = options(Length::Steps(120));
    let (trained, rounds) = run(&o);
    let trained = trained.unwrap();
    let record = &trained.record;
    assert!(record.accuracy > 0.9, "{record:?}");
    assert!(record.chance < 0.2 && record.held_out > 100, "{record:?}");
    assert_eq!(
        (record.steps, record.batch, &*record.precision),
        (120, 32, "fp32")
    );
    let last = rounds.last().unwrap();
    assert!(
        last.loss > 0.0 && last.held_out > 0.9 && last.train > 0.5,
        "{rounds:?}"
    );
    assert!(last.epochs == last.of && last.left.is_zero());

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.safetensors");
    trained.write(&path).unwrap();
    let again = TrainedClassifier::open(&path).unwrap();
    let data = Dataset::open(BUILTIN_SHAPES, &o.folder, 32, record.mid_reso, false).unwrap();
    assert_eq!(again.class_names, data.train.class_names());
    let mut loader = data.val_loader(50, LoaderConfig::default()).unwrap();
    let stop = StopSignal::detached();
    let found =
        eval::evaluate_classification(&again.classifier, &mut loader, &stop, &mut |_| {}).unwrap();
    assert_eq!(found.accuracy(), record.accuracy);
    assert_eq!(found.chance(), record.chance);
}

#[test]
fn a_seed_gives_the_same_weights_and_another_one_others() {
    let print = |seed, workers| {
        let o = FeatureOptions {
            seed,
            workers,
            batch: 8,
            hflip: true,
            mid_reso: 1.125,
            ..options(Length::Steps(3))
        };
        run(&o).0.unwrap().fingerprint().unwrap()
    };
    let first = print(1, 1);
    assert_eq!(print(1, 3), first);
    assert_ne!(print(2, 1), first);
}

#[test]
fn what_is_timed_leaves_no_trace() {
    let o = FeatureOptions {
        batch: 8,
        ..options(Length::Minutes(1e-6))
    };
    // One step, as nothing fits.
    let timed = run(&o).0.unwrap();
    assert_eq!(timed.record.steps, 1);
    let length = Length::Steps(1);
    let plain = run(&FeatureOptions { length, ..o }).0.unwrap();
    assert_eq!(timed.fingerprint().unwrap(), plain.fingerprint().unwrap());
}

#[test]
fn one_class_is_refused_in_plain_words() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..3 {
        let mut file = b"P6 16 16 255\n".to_vec();
        file.extend([i; 3 * 16 * 16]);
        std::fs::write(dir.path().join(format!("{i}.ppm")), file).unwrap();
    }
    let o = FeatureOptions {
        data_path: dir.path().display().to_string(),
        ..options(Length::Steps(1))
    };
    let e = run(&o).0.err().unwrap();
    assert_eq!(e.exit_code(), 2);
    assert!(e.to_string().contains("all images are of one class"), "{e}");
}

#[test]
fn bad_options_are_named() {
    for (change, told) in [
        (
            Box::new(|o: &mut FeatureOptions| o.size = Some(8)) as Box<dyn Fn(&mut FeatureOptions)>,
            "`size`=8: ",
        ),
        (Box::new(|o| o.batch = 0), "`batch`=0: "),
        (Box::new(|o| o.batch = 1 << 20), "`batch`=1048576: "),
        (Box::new(|o| o.lr = 0.0), "`lr`=0: "),
        (Box::new(|o| o.wd = -1.0), "`wd`=-1: "),
        (Box::new(|o| o.mid_reso = 0.5), "`mid_reso`=0.5: "),
        (Box::new(|o| o.length = Length::Steps(0)), "`steps`=0: "),
    ] {
        let mut o = options(Length::Steps(1));
        change(&mut o);
        let e = run(&o).0.err().unwrap();
        assert_eq!(e.exit_code(), 2);
        assert!(e.to_string().starts_with(told), "{e}");
    }
}

#[test]
fn what_diverges_or_is_stopped_gives_no_classifier() {
    let o = FeatureOptions {
        lr: 1e30,
        batch: 8,
        ..options(Length::Steps(20))
    };
    let e = run(&o).0.err().unwrap();
    assert!(matches!(e, Error::Diverged(_)), "{e}");
    assert!(e.to_string().contains("`lr`="), "{e}");
    let stop = StopSignal::detached();
    stop.ask();
    let run = FeatureRun {
        options: &options(Length::Steps(5)),
        device: Device::Cpu,
        precision: Precision::Fp32,
        stop,
    };
    assert!(matches!(run.run(&mut |_| {}), Err(Error::Stopped)));
}
