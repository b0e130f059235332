use super::*;
use crate::Share;
use crate::canvas::Canvas;
use crate::checkpoint::class_names::CLASSES_KEY;
use crate::checkpoint::weights::PATCH_NUMS_KEY;
use crate::data::{LoaderConfig, TrainSampler, ValSampler};
use crate::format::safetensors::{TextMetadata, read_safetensors, write_safetensors};
use crate::format::{HostDType, HostTensor};
use crate::model::Pyramid;
use crate::model::state::fingerprint;
use crate::model::vqvae::{Vqvae, VqvaeConfig};
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

fn config(workers: usize) -> LoaderConfig {
    LoaderConfig {
        workers,
        seed: 5,
        ..LoaderConfig::default()
    }
}

const IMAGES: usize = 7;
const CROPS: usize = 3;
/// Tokens of an image with the scales 1 and 2.
const ROW: usize = 5;

fn vqvae(vocab: usize) -> Vqvae {
    let config = VqvaeConfig {
        ch: 32,
        ch_mult: vec![1],
        num_res_blocks: 1,
        cvae: 4,
        vocab,
        ..VqvaeConfig::published(Pyramid::square(&[1, 2]).unwrap())
    };
    let mut model = Vqvae::new(config, false).unwrap();
    model.init(1).unwrap();
    model
}

/// A token that tells where it is.
fn token(image: usize, crop: usize, at: usize, vocab: usize) -> i32 {
    ((image * CROPS + crop) * ROW + at) as i32 * 631 % vocab as i32
}

fn all(vocab: usize) -> Vec<i32> {
    (0..IMAGES * CROPS * ROW)
        .map(|i| token(i / ROW / CROPS, i / ROW % CROPS, i % ROW, vocab))
        .collect()
}

fn write(path: &Path, model: &Vqvae, tokens: &[i32]) -> Result<()> {
    let labels: Vec<i32> = (0..IMAGES as i32).map(|i| i % 2).collect();
    let set = TokenSet {
        vqvae: model,
        pyramid: &model.config.pyramid,
        classes: &["cat".into(), "dog".into()],
        labels: &labels,
        info: TokenInfo {
            crops: CROPS,
            hflip: true,
            mid_reso: 1.125,
            seed: 9,
            canvas: Some(Canvas::default()),
            tokenizer: fingerprint(&model.params)?,
        },
    };
    // In pieces that are not whole images.
    write_tokens(path, &set, |put| tokens.chunks(11).try_for_each(put))
}

fn refused(path: &Path) -> String {
    let e = TokenFile::open(path).unwrap_err();
    let text = e.to_string();
    assert!(text.contains(&path.display().to_string()), "{text}");
    assert!(!text.contains('\n') && e.exit_code() == 2, "{text}");
    text
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.safetensors");
    // 16 bits with the upper half in use, and a codebook that needs more.
    for (vocab, dtype) in [(65_536, HostDType::U16), (65_537, HostDType::I32)] {
        let model = vqvae(vocab);
        write(&path, &model, &all(vocab)).unwrap();
        let mut file = TokenFile::open(&path).unwrap();
        assert_eq!(
            (file.len(), file.crops(), file.dtype()),
            (IMAGES, CROPS, dtype)
        );
        assert_eq!(file.classes(), ["cat", "dog"]);
        assert_eq!((file.label(0), file.label(1), file.label(99)), (0, 1, 0));
        let info = file.info().unwrap().clone();
        assert!(info.hflip && info.seed == 9 && info.mid_reso == 1.125);
        assert_eq!(info.tokenizer, fingerprint(&model.params).unwrap());
        for image in (0..IMAGES).rev() {
            for crop in 0..CROPS {
                let mut got = Vec::new();
                file.read(image, crop, vocab, &mut got).unwrap();
                let want: Vec<i32> = (0..ROW).map(|i| token(image, crop, i, vocab)).collect();
                assert_eq!(got, want);
            }
        }
        assert!(file.read(IMAGES, 0, vocab, &mut Vec::new()).is_err());
        assert!(file.read(0, CROPS, vocab, &mut Vec::new()).is_err());
        let e = file.again().unwrap().read(6, 2, 3, &mut Vec::new());
        let e = e.unwrap_err().to_string();
        assert!(e.contains("image 6") && e.contains("3 codes"), "{e}");
        let codes = file.codes().unwrap().unwrap();
        assert_eq!(codes.config, model.config);
        for info in codes.params.infos() {
            let (a, b) = (
                codes.params.export(&info.name),
                model.params.export(&info.name),
            );
            assert_eq!(a.unwrap(), b.unwrap(), "{}", info.name);
        }
    }
}

#[test]
fn files_that_are_not_whole_do_not_appear() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.safetensors");
    let (model, mut tokens) = (vqvae(64), all(64));
    for (n, what) in [(all(64).len() - 1, "fewer"), (all(64).len() + 1, "more")] {
        tokens.resize(n, 0);
        let e = write(&path, &model, &tokens).unwrap_err().to_string();
        assert!(e.contains(what), "{e}");
    }
    tokens = all(64);
    tokens[3] = 64;
    let e = write(&path, &model, &tokens).unwrap_err();
    assert!(e.to_string().contains("64") && e.exit_code() == 2, "{e}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn batches_are_the_sampler_s_whatever_the_threads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.safetensors");
    write(&path, &vqvae(64), &all(64)).unwrap();
    let file = TokenFile::open(&path).unwrap();
    let row = |image: u32, crop: usize| (0..ROW).map(move |i| token(image as usize, crop, i, 64));
    let sampler = TrainSampler::new(IMAGES, 2, Share::WHOLE, 5).unwrap();
    for readers in [1, 3, 0] {
        let start = (1, 2);
        let mut loader = TokenLoader::train(&file, (2, 64), start, config(readers)).unwrap();
        let mut at = start;
        for _ in 0..13 {
            let images = &sampler.epoch(at.0)[2 * at.1..2 * at.1 + 2];
            let crop = at.0 as usize % CROPS;
            let batch = loader.next_batch().unwrap().unwrap();
            let want: Vec<i32> = images.iter().flat_map(|&i| row(i, crop)).collect();
            assert_eq!(batch.tokens, want);
            let want: Vec<i32> = images.iter().map(|&i| file.label(i as usize)).collect();
            assert_eq!(batch.labels, want);
            at.1 += 1;
            if at.1 == sampler.iterations() {
                at = (at.0 + 1, 0);
            }
        }
        let mut loader = TokenLoader::val(&file, (3, 64), config(readers)).unwrap();
        let val = ValSampler::new(IMAGES, 3, Share::WHOLE).unwrap();
        for i in 0..val.iterations() {
            let batch = loader.next_batch().unwrap().unwrap();
            let want: Vec<i32> = val.indices(i).flat_map(|i| row(i as u32, 0)).collect();
            assert_eq!(batch.tokens, want);
        }
        assert_eq!(loader.next_batch().unwrap(), None);
        assert_eq!(loader.next_batch().unwrap(), None);
        // A token outside the codebook ends the run, not a thread in silence.
        let mut small = TokenLoader::val(&file, (7, 2), config(readers)).unwrap();
        assert!(small.next_batch().is_err());
    }
}

#[test]
fn files_of_plain_rows_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.safetensors");
    let mut dict = StateDict::new();
    let mut tokens = i32s(&(0..2 * ROW as i32).collect::<Vec<_>>()).unwrap();
    tokens.shape = vec![2, ROW];
    dict.insert("tokens", tokens);
    dict.insert("labels", i32s(&[0, 1]).unwrap());
    let text: TextMetadata = [(PATCH_NUMS_KEY, "1_2"), (CLASSES_KEY, "a\nb")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    write_safetensors(&path, &dict, &text).unwrap();
    let mut file = TokenFile::open(&path).unwrap();
    assert_eq!((file.crops(), file.info()), (1, None));
    let mut got = Vec::new();
    file.read(1, 0, 10, &mut got).unwrap();
    assert_eq!(got, [5, 6, 7, 8, 9]);
    assert!(file.codes().unwrap().is_none());

    let with = |key: &str, value: Option<&str>| {
        let mut text = text.clone();
        text.remove(key);
        if let Some(value) = value {
            text.insert(key.into(), value.into());
        }
        write_safetensors(&path, &dict, &text).unwrap();
        refused(&path)
    };
    assert!(with(PATCH_NUMS_KEY, Some("1_2_3")).contains("14"));
    assert!(with(PATCH_NUMS_KEY, Some("1_x")).contains("1_x"));
    assert!(with(PATCH_NUMS_KEY, None).contains(PATCH_NUMS_KEY));
    assert!(with(CLASSES_KEY, None).contains(CLASSES_KEY));
    assert!(with(CLASSES_KEY, Some("a")).contains("label 1 of image 1"));
    assert!(with(TOKENS_KEY, Some("{")).contains("damaged"));
    let two = r#"{"crops":2,"hflip":false,"mid_reso":1.0,"seed":0,"tokenizer":""}"#;
    assert!(with(TOKENS_KEY, Some(two)).contains("otherwise"));
    let put = |name: &str, tensor: HostTensor| {
        let mut dict = dict.clone();
        dict.insert(name, tensor);
        write_safetensors(&path, &dict, &text).unwrap();
        refused(&path)
    };
    assert!(put("labels", i32s(&[0]).unwrap()).contains("labels"));
    assert!(put("labels", i32s(&[0, -1]).unwrap()).contains("label -1"));
    let floats = HostTensor::from_f32(&[2, ROW], &[0.0; 2 * ROW]).unwrap();
    assert!(put("tokens", floats).contains("F32"));
    dict = StateDict::new();
    dict.insert("x", i32s(&[1]).unwrap());
    write_safetensors(&path, &dict, &text).unwrap();
    assert!(refused(&path).contains("nextscale tokenize"));
    assert!(read_safetensors(&path).is_ok());
}

#[test]
fn every_truncation_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.safetensors");
    write(&path, &vqvae(8), &all(8)).unwrap();
    let whole = fs::read(&path).unwrap();
    // The header byte by byte, of the rest a part.
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for len in (0..header + 8).chain((header..whole.len()).step_by(97)) {
        fs::write(&path, &whole[..len]).unwrap();
        refused(&path);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn damaged_files_never_panic(at in 0usize..2600, byte: u8, second in 0usize..2600, cut in 1usize..8000) {
        static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let mut bytes = WHOLE
            .get_or_init(|| {
                write(&path, &vqvae(8), &all(8)).unwrap();
                fs::read(&path).unwrap()
            })
            .clone();
        let n = bytes.len();
        bytes[at % n] = byte;
        bytes[second % n] = byte.wrapping_mul(31);
        if cut < n / 8 {
            bytes.truncate(n - cut);
        }
        fs::write(&path, &bytes).unwrap();
        if let Ok(mut file) = TokenFile::open(&path) {
            let _ = file.codes();
            let mut out = Vec::new();
            for image in 0..file.len() {
                for crop in 0..file.crops() {
                    if file.read(image, crop, 8, &mut out).is_ok() {
                        prop_assert!(out.iter().all(|t| (0..8).contains(t)));
                    }
                }
            }
        }
    }
}
