use super::*;
use crate::data::{
    ImageSource, LoaderConfig, Resizer, ShapesSource, ShapesSplit, Transform, ValLoader, ValSampler,
};
use crate::eval::evaluate_losses;
use crate::model::small::models;
use crate::model::var::{InitScales, Var};
use crate::model::vqvae::codes::Tokenizer;
use crate::{Error, Share};
use nextscale_tensor::{Device, Math, cuda, ops};
use std::sync::Arc;

/// Side of the small models' images: maps of 4 tokens, one for every 2 pixels.
const SIDE: usize = 8;
const TOKENS: usize = 1 + 4 + 16;
/// The small transformer's classes.
const CLASSES: usize = 10;

struct Case {
    tokenizer: Tokenizer,
    var: Var,
    source: Arc<dyn ImageSource>,
}

impl Case {
    fn new(device: Device, images: usize) -> Self {
        // Conditions and codes that matter, as after training.
        let scales = InitScales {
            hd: 5.0,
            alng: 0.5,
            ..InitScales::default()
        };
        let (mut vqvae, mut var) = models(Device::Cpu, Math::FULL, false, scales);
        var.to_device(device, Math::FULL).unwrap();
        vqvae.to_device(device, Math::FULL).unwrap();
        let source = ShapesSource::new(SIDE, ShapesSplit::HeldOut, images, 3).unwrap();
        Self {
            tokenizer: vqvae.into(),
            var,
            source: Arc::new(source),
        }
    }

    fn model(&self) -> TeacherForcing<'_> {
        TeacherForcing {
            tokenizer: &self.tokenizer,
            var: &self.var,
        }
    }

    fn loader(&self, batch: usize) -> ValLoader {
        let sampler = ValSampler::new(self.source.len(), batch, Share::WHOLE).unwrap();
        let transform = Transform::new(SIDE, 1.0, false).unwrap();
        let source = Arc::clone(&self.source);
        ValLoader::new(source, transform, sampler, LoaderConfig::default()).unwrap()
    }

    fn found(&self, batch: usize, compared: &[u32]) -> crate::Result<Likelihood> {
        let team = Team::alone();
        let mut loader = self.loader(batch);
        evaluate_likelihood(
            self.model(),
            &mut loader,
            SIDE,
            compared,
            &team,
            &mut |_| (),
        )
    }

    /// Nats of one image under one class: a pass of its own, costs in float64 from the logits.
    fn naive(&self, index: usize, class: i32) -> f64 {
        let transform = Transform::new(SIDE, 1.0, false).unwrap();
        let mut pixels = vec![0; transform.bytes()];
        let image = self.source.image(index).unwrap();
        transform
            .center(&image, &mut Resizer::default(), &mut pixels)
            .unwrap();
        let image = ops::from_pixels([1, SIDE, SIDE, 3], &pixels).unwrap();
        let image = image.to(self.var.device()).unwrap();
        let inputs = self.model().of_images(&image, 3).unwrap();
        let labels = self.var.labels(&[class]).unwrap();
        let pass = crate::model::ForwardPass::plain(self.var.math);
        let logits = self
            .var
            .forward(&pass, &labels, inputs.input.as_ref(), 3, None)
            .unwrap();
        let logits = logits.to(Device::Cpu).unwrap();
        let targets = inputs.targets.to(Device::Cpu).unwrap();
        let rows = logits.f32().unwrap().chunks_exact(logits.shape().last());
        rows.zip(targets.i32().unwrap())
            .map(|(row, &target)| {
                let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
                sum.ln() - f64::from(row[target as usize])
            })
            .sum()
    }
}

/// The CPU, and a GPU where there is one.
fn devices() -> Vec<Device> {
    let gpu = (cuda::count() > 0).then_some(Device::Cuda(0));
    std::iter::once(Device::Cpu).chain(gpu).collect()
}

#[test]
fn nats_are_the_losses_of_an_evaluation() {
    for device in devices() {
        let case = Case::new(device, 10);
        let found = case.found(4, &[]).unwrap();
        found.check().unwrap();
        assert_eq!((found.tokens, found.values), (TOKENS, SIDE * SIDE * 3));
        let losses = evaluate_losses(
            case.model(),
            &mut case.loader(4),
            SIDE,
            &Team::alone(),
            &mut |_| (),
        )
        .unwrap();
        let mean = found.nats().mean / TOKENS as f64;
        let off = (mean / losses.loss_mean() - 1.0).abs();
        assert!(off < 1e-5, "{mean} {}", losses.loss_mean());
        for (i, image) in found.images.iter().enumerate() {
            assert_eq!((image.index, image.label, image.guess), (i, i as u32, None));
            let naive = case.naive(i, i as i32);
            assert!((image.nats / naive - 1.0).abs() < 1e-5, "{image:?} {naive}");
        }
        assert!(found.top(1).is_none());
    }
}

#[test]
fn classes_are_compared_as_a_loop_over_them_does() {
    let classes: Vec<u32> = (0..CLASSES as u32).collect();
    for device in devices() {
        let case = Case::new(device, 10);
        let found = case.found(3, &classes).unwrap();
        let mut right = [0usize; 2];
        for image in &found.images {
            let nats: Vec<f64> = (0..CLASSES as i32)
                .map(|class| case.naive(image.index, class))
                .collect();
            let own = nats[image.label as usize];
            assert!((image.nats / own - 1.0).abs() < 1e-5, "{image:?} {own}");
            let least = nats.iter().copied().fold(f64::INFINITY, f64::min);
            let best = nats.iter().position(|&n| n == least).unwrap();
            let all: f64 = nats.iter().map(|n| (least - n).exp()).sum();
            let guess = image.guess.unwrap();
            assert_eq!(guess.class as usize, best, "{nats:?}");
            assert!((guess.probability - 1.0 / all).abs() < 1e-3, "{guess:?}");
            let rank = nats.iter().filter(|&&n| n < own).count();
            assert_eq!(guess.rank, rank, "{nats:?}");
            right[0] += usize::from(rank == 0);
            right[1] += usize::from(rank < 5);
        }
        let top = [1, 5].map(|k| found.top(k).unwrap().mean * 10.0);
        assert_eq!(top.map(|n| n.round() as usize), right);
        // Some are right and some wrong, or this test would not notice a wrong order.
        let ranks: Vec<usize> = found.images.iter().map(|i| i.guess.unwrap().rank).collect();
        assert!(ranks.iter().any(|&r| r != ranks[0]), "{ranks:?}");
        assert_eq!(found.top(CLASSES).unwrap().mean, 1.0);
    }
}

#[test]
fn neither_the_batch_nor_the_other_classes_matter() {
    let case = Case::new(Device::Cpu, 10);
    let of_all = case.found(1, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap();
    // Labels that are not compared have their likelihood all the same.
    let of_two = case.found(4, &[7, 2]).unwrap();
    let alone = case.found(10, &[]).unwrap();
    for ((a, b), c) in of_all.images.iter().zip(&of_two.images).zip(&alone.images) {
        for other in [b.nats, c.nats] {
            assert!((a.nats / other - 1.0).abs() < 1e-6, "{a:?} {other}");
        }
        let guess = b.guess.unwrap();
        assert!([2, 7].contains(&guess.class));
        let is_compared = [2, 7].contains(&b.label);
        assert_eq!(guess.rank == 2, !is_compared, "{b:?}");
    }
    assert_eq!(case.found(4, &[7, 2]).unwrap(), of_two);
}

#[test]
fn of_equals_the_first_comes_first() {
    let of = |label| guess(&[3.0, 2.0, 2.0, 5.0], &[4, 6, 8, 9], label).unwrap();
    assert_eq!([4, 6, 8, 9, 1].map(|l| of(l).rank), [2, 0, 1, 3, 4]);
    assert_eq!(of(4).class, 6);
    let all = 2.0 + (-1.0f64).exp() + (-3.0f64).exp();
    assert!((of(4).probability - 1.0 / all).abs() < 1e-12);
    // Differences that float64 can't hold as likelihoods.
    let far = guess(&[9000.0, 8000.0], &[0, 1], 0).unwrap();
    assert_eq!((far.class, far.probability), (1, 1.0));
    assert_eq!(guess(&[], &[], 0), None);
}

#[test]
fn means_have_their_standard_errors() {
    let of = |values: &[f64]| Estimated::of(values.iter().copied());
    let some = of(&[1.0, 2.0, 3.0, 4.0]);
    // Deviations 2.25 + 0.25 + 0.25 + 2.25, over 3 and over 4.
    assert_eq!(some.mean, 2.5);
    assert!((some.error - (5.0f64 / 12.0).sqrt()).abs() < 1e-15);
    assert_eq!(some.over(2.0).mean, 1.25);
    assert!(of(&[1.0]).error.is_nan());
}

fn made(images: Vec<ImageLikelihood>) -> Likelihood {
    Likelihood {
        images,
        tokens: TOKENS,
        values: SIDE * SIDE * 3,
        compared: 10,
    }
}

fn image(index: usize, label: u32, nats: f64, class: u32) -> ImageLikelihood {
    ImageLikelihood {
        index,
        label,
        nats,
        guess: Some(Guess {
            class,
            probability: 0.25,
            rank: 2,
        }),
    }
}

#[test]
fn what_is_no_number_is_refused() {
    let bad = made(vec![image(0, 1, f64::NAN, 2), image(1, 2, 3.0, 2)]);
    let text = bad.check().unwrap_err().to_string();
    assert!(text.contains("1 of 2"), "{text}");
    assert_eq!(made(vec![image(0, 1, 1.0, 2)]).most_frequent(), 1.0);
}

#[test]
fn files_hold_a_row_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let source = ShapesSource::new(SIDE, ShapesSplit::HeldOut, 10, 3).unwrap();
    let nats = TOKENS as f64 * 2.0;
    let found = made(vec![image(0, 0, nats, 3), image(4, 4, 0.1, 4)]);
    let jsonl = LikelihoodFile::new(dir.path().join("a.jsonl")).unwrap();
    jsonl.write(&found, &source).unwrap();
    let text = std::fs::read_to_string(jsonl.path()).unwrap();
    let rows: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 2);
    let names = source.class_names();
    assert_eq!(rows[0]["image"], source.name(0));
    assert_eq!(rows[0]["class"], names[0]);
    assert_eq!(rows[0]["predicted"], 3);
    assert_eq!(rows[0]["predicted_class"], names[3]);
    assert_eq!(rows[0]["predicted_probability"], 0.25);
    assert_eq!(
        (&rows[0]["nats"], &rows[0]["rank"]),
        (&nats.into(), &2.into())
    );
    assert_eq!(rows[0]["nats_per_token"], 2.0);
    let bits = rows[0]["bits_per_dim"].as_f64().unwrap();
    assert!((bits - nats / 2f64.ln() / 192.0).abs() < 1e-15);
    assert_eq!(rows[1]["nats"], 0.1);

    let mut plain = found;
    plain.images.iter_mut().for_each(|i| i.guess = None);
    let csv = LikelihoodFile::new(dir.path().join("a.CSV")).unwrap();
    csv.write(&plain, &source).unwrap();
    let text = std::fs::read_to_string(csv.path()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "image,label,class,nats,nats_per_token,bits_per_dim"
    );
    assert!(lines[1].contains(",42.0,2.0,"), "{text}");
    assert_eq!(lines.len(), 3);

    let wrong = LikelihoodFile::new("a.txt").unwrap_err();
    assert!(matches!(&wrong, Error::Field { name, .. } if *name == "out"));
    assert!(wrong.to_string().contains(".jsonl"), "{wrong}");
}

#[test]
fn foreign_classes_are_refused() {
    let case = Case::new(Device::Cpu, 12);
    let text = case.found(4, &[]).unwrap_err().to_string();
    assert!(text.starts_with("class 11: the model has"), "{text}");
    let case = Case::new(Device::Cpu, 2);
    assert!(case.found(4, &[11]).is_err());
}
