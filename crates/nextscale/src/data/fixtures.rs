//! Reads the transform fixtures for tests.

use std::path::PathBuf;

use safetensors::SafeTensors;

/// Where an input image of the transform fixtures lies.
pub fn input(name: &str) -> PathBuf {
    folder().join("inputs").join(name)
}

/// The folder of the transform fixtures.
pub fn folder() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fixtures/transforms"
    ))
}

/// The tensors of one fixture file.
pub struct Expected(Vec<u8>);

impl Expected {
    /// Opens `file` of the transform fixtures.
    pub fn open(file: &str) -> Self {
        Self(std::fs::read(folder().join(file)).expect("fixture"))
    }

    /// Height, width and bytes of a U8 tensor, if there is one of that name.
    pub fn get(&self, name: &str) -> Option<(usize, usize, Vec<u8>)> {
        let tensors = SafeTensors::deserialize(&self.0).expect("safetensors");
        let tensor = tensors.tensor(name).ok()?;
        let shape = tensor.shape();
        assert_eq!(shape[2], 3);
        Some((shape[0], shape[1], tensor.data().to_vec()))
    }
}

/// How two pictures differ: largest and mean absolute difference, share of equal values.
pub struct Difference {
    /// Largest difference in grey levels.
    pub max: u8,
    /// Mean absolute difference in grey levels.
    pub mean: f64,
    /// Share of values that are equal.
    pub equal: f64,
}

/// Compares two buffers of one length.
pub fn difference(a: &[u8], b: &[u8]) -> Difference {
    assert_eq!(a.len(), b.len());
    assert!(!a.is_empty());
    let pairs = || a.iter().zip(b).map(|(&a, &b)| a.abs_diff(b));
    let n = a.len() as f64;
    Difference {
        max: pairs().max().unwrap_or(0),
        mean: pairs().map(f64::from).sum::<f64>() / n,
        equal: pairs().filter(|&d| d == 0).count() as f64 / n,
    }
}
