//! Which file it was: a sum over all of its bytes.

use crate::input::open_input;
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::Path;

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// SHA-256 of a file's bytes in hexadecimal digits, as `sha256sum` prints it.
///
/// # Errors
/// When it can't be read.
pub fn sha256_of(path: &Path) -> Result<String> {
    let (mut file, _) = open_input(path)?;
    let mut digest = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece).map_err(Error::io(path))? {
            0 => break,
            n => digest.update(&piece[..n]),
        }
    }
    let sum = digest.finalize();
    Ok(sum.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_usual_sum() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(
            sha256_of(&path).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(sha256_of(dir.path()).is_err());
    }
}
