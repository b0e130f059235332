//! Reading token files: the header and labels at once, rows of tokens when they are needed.

use super::{LABELS, QUANTIZER, TOKENS, TOKENS_KEY, TokenInfo, outside};
use crate::checkpoint::class_names::{CLASSES_KEY, named_twice, names_of_metadata};
use crate::checkpoint::weights::{PATCH_NUMS_KEY, TOKENIZER_KEY, parse_patch_nums};
use crate::format::safetensors::{SafetensorsFile, TextMetadata};
use crate::format::{HostDType, StateDict};
use crate::model::Pyramid;
use crate::model::state::load_params;
use crate::model::vqvae::VqvaeConfig;
use crate::model::vqvae::codes::Codes;
use crate::{Error, Result};
use std::path::Path;
use std::sync::Arc;

/// An open token file.
#[derive(Debug)]
pub struct TokenFile {
    file: SafetensorsFile,
    dtype: HostDType,
    crops: usize,
    pyramid: Pyramid,
    classes: Vec<String>,
    labels: Arc<Vec<i32>>,
    info: Option<TokenInfo>,
    bytes: Vec<u8>,
}

impl TokenFile {
    /// Opens a file and checks all but its tokens, each of which is checked when it is read.
    ///
    /// # Errors
    /// One line that names the file: when it is missing, damaged or truncated, is no token file, or a label is no class.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = SafetensorsFile::open(path)?;
        let bad = |why: String| Error::input(format!("{}: {why}", path.display()));
        let metadata = file.metadata();
        let Some((dtype, shape)) = file.info(TOKENS)? else {
            return Err(bad(
                "holds no tokens; make a token file with nextscale tokenize".into(),
            ));
        };
        let (n, crops, row) = match (dtype, shape) {
            (HostDType::U16 | HostDType::I32, &[n, row]) => (n, 1, row),
            (HostDType::U16 | HostDType::I32, &[n, crops, row]) => (n, crops, row),
            _ => {
                return Err(bad(format!(
                    "its tokens are {dtype} {shape:?}, expected U16 or I32 [images, crops, tokens]"
                )));
            }
        };
        if n == 0 || crops == 0 || u32::try_from(n).is_err() {
            return Err(bad(format!("holds {crops} crops of {n} images")));
        }
        let pyramid = pyramid_of(&metadata).map_err(bad)?;
        if pyramid.total() != row {
            return Err(bad(format!(
                "has {row} tokens an image, but its {PATCH_NUMS_KEY} make {}",
                pyramid.total()
            )));
        }
        let classes =
            names_of_metadata(&metadata).ok_or_else(|| bad(format!("lacks {CLASSES_KEY}")))?;
        if let Some(name) = named_twice(&classes) {
            return Err(bad(format!("names the class {name:?} twice")));
        }
        if !matches!(file.info(LABELS)?, Some((HostDType::I32, &[m])) if m == n) {
            return Err(bad(format!("needs {LABELS:?}, I32 [{n}]")));
        }
        let labels: Vec<i32> = file
            .read(LABELS)?
            .to_i64_vec()?
            .iter()
            .map(|&l| l as i32)
            .collect();
        let known = |l: &i32| usize::try_from(*l).is_ok_and(|l| l < classes.len());
        if let Some(i) = labels.iter().position(|l| !known(l)) {
            return Err(bad(format!(
                "label {} of image {i} is none of its {} classes",
                labels[i],
                classes.len()
            )));
        }
        let info: Option<TokenInfo> = parsed(&metadata, TOKENS_KEY).map_err(bad)?;
        if info.as_ref().is_some_and(|i| i.crops != crops) {
            return Err(bad(format!(
                "holds {crops} crops of an image, but its {TOKENS_KEY} say otherwise"
            )));
        }
        Ok(Self {
            dtype,
            crops,
            pyramid,
            classes,
            labels: Arc::new(labels),
            info,
            bytes: Vec::new(),
            file,
        })
    }

    /// Another handle to the file, for a thread of its own.
    ///
    /// # Errors
    /// When the file can't be opened any more, or is not what it was.
    pub fn again(&self) -> Result<Self> {
        let file = SafetensorsFile::open(self.path())?;
        let (before, now) = (self.file.info(TOKENS)?, file.info(TOKENS)?);
        if before != now {
            return Err(Error::input(format!(
                "{}: the file was changed while it was in use",
                self.path().display()
            )));
        }
        Ok(Self {
            dtype: self.dtype,
            crops: self.crops,
            pyramid: self.pyramid.clone(),
            classes: self.classes.clone(),
            labels: Arc::clone(&self.labels),
            info: self.info.clone(),
            bytes: Vec::new(),
            file,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Never: a file without images is refused.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Crops of an image.
    pub fn crops(&self) -> usize {
        self.crops
    }

    /// Element type of the tokens.
    pub fn dtype(&self) -> HostDType {
        self.dtype
    }

    /// The scales.
    pub fn pyramid(&self) -> &Pyramid {
        &self.pyramid
    }

    /// The classes' names.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The class of an image; 0 where there is no such image.
    pub fn label(&self, image: usize) -> i32 {
        self.labels.get(image).copied().unwrap_or(0)
    }

    /// How it was made, where the file says so.
    pub fn info(&self) -> Option<&TokenInfo> {
        self.info.as_ref()
    }

    /// Adds the tokens of a crop of an image to `out`; each must be below `vocab`.
    ///
    /// # Errors
    /// When there is no such image or crop, a token is outside the codebook, or reading fails.
    pub fn read(
        &mut self,
        image: usize,
        crop: usize,
        vocab: usize,
        out: &mut Vec<i32>,
    ) -> Result<()> {
        let path = self.path().display().to_string();
        if image >= self.len() || crop >= self.crops {
            return Err(Error::input(format!(
                "{path}: has no crop {crop} of image {image}"
            )));
        }
        let bytes = self.pyramid.total() * self.dtype.size();
        self.bytes.resize(bytes, 0);
        let from = (image * self.crops + crop) as u64 * bytes as u64;
        self.file.read_part(TOKENS, from, &mut self.bytes)?;
        let start = out.len();
        if self.dtype == HostDType::U16 {
            let (words, _) = self.bytes.as_chunks::<2>();
            out.extend(words.iter().map(|w| i32::from(u16::from_le_bytes(*w))));
        } else {
            let (words, _) = self.bytes.as_chunks::<4>();
            out.extend(words.iter().map(|w| i32::from_le_bytes(*w)));
        }
        let inside = |t: &i32| usize::try_from(*t).is_ok_and(|t| t < vocab);
        match out[start..].iter().find(|t| !inside(t)) {
            None => Ok(()),
            Some(&t) => Err(Error::input(format!(
                "{path}: image {image}: {}; the file is damaged or of another tokenizer",
                outside(i64::from(t), vocab)
            ))),
        }
    }

    /// The tokenizer's quantizer, if the file holds it.
    ///
    /// # Errors
    /// One line that names the file when the weights do not fit its description of the tokenizer.
    pub fn codes(&mut self) -> Result<Option<Codes>> {
        let name = self.path().display().to_string();
        let config: Option<VqvaeConfig> = parsed(&self.file.metadata(), TOKENIZER_KEY)
            .map_err(|e| Error::input(format!("{name}: {e}")))?;
        let Some(config) = config else {
            return Ok(None);
        };
        let names: Vec<String> = self
            .file
            .names()
            .filter(|n| n.starts_with(QUANTIZER))
            .map(str::to_owned)
            .collect();
        let mut dict = StateDict::new();
        for n in names {
            let tensor = self.file.read(&n)?;
            dict.insert(n, tensor);
        }
        // Sizes come from the file: they are held against its tensors before memory is asked for.
        let want = [config.vocab, config.cvae];
        match dict.get(crate::model::vqvae::CODEBOOK) {
            Some(t) if t.shape == want => {}
            _ => {
                return Err(Error::input(format!(
                    "{name}: has no codebook of the shape {want:?}; make it again with nextscale tokenize"
                )));
            }
        }
        // Without φ the count only places ticks.
        let most = match config.quant_resi.abs() > 1e-6 {
            true => dict.len(),
            false => 1 << 12,
        };
        if config.share_quant_resi.max(config.default_qresi_counts) > most {
            return Err(Error::input(format!(
                "{name}: has fewer φ than its {TOKENIZER_KEY} say; make it again with nextscale tokenize"
            )));
        }
        let mut codes = Codes::new(config)?;
        load_params(&mut codes.params, &dict, &name)?;
        Ok(Some(codes))
    }
}

/// The scales that a file states.
fn pyramid_of(metadata: &TextMetadata) -> Result<Pyramid, String> {
    let text = metadata
        .get(PATCH_NUMS_KEY)
        .ok_or_else(|| format!("lacks {PATCH_NUMS_KEY}"))?;
    let sides = parse_patch_nums(text).filter(|s| s.iter().all(|&n| n < 1 << 12));
    let sides = sides.ok_or_else(|| format!("its {PATCH_NUMS_KEY}={text:?} is not like 1_2_3"))?;
    Pyramid::square(&sides).map_err(|e| e.to_string())
}

/// A JSON entry of the free text.
fn parsed<T: serde::de::DeserializeOwned>(
    metadata: &TextMetadata,
    key: &str,
) -> Result<Option<T>, String> {
    metadata
        .get(key)
        .map(|text| serde_json::from_str(text).map_err(|e| format!("its {key} is damaged: {e}")))
        .transpose()
}
