//! Validation images taken from among the training images, where a folder has none of its own.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::data::{ImageSource, Subset};
use crate::{Error, Result};

/// The share that is taken where none is asked for.
pub const VAL_SHARE: f64 = 0.05;

/// Images of a class from which on one at least is taken.
const LEAST: usize = 5;

/// Training and validation images of one source. Which are which follows from a hash of what an image is called below its folder: images
/// whose hash is below the share validate, also when others are added or the folder is moved, and a larger share holds a smaller one. A
/// class of [`LEAST`] images on that has none of these gives the one with the lowest hash, which may be another when it grows. Every class
/// keeps one to train with as long as another class can validate.
///
/// # Errors
/// Where there is one image only.
pub(super) fn cut(
    all: Arc<dyn ImageSource>,
    share: f64,
    shown: &str,
) -> Result<[Arc<dyn ImageSource>; 2]> {
    if all.len() < 2 {
        return Err(Error::input(format!(
            "`data_path`={shown}: there is one image only; at least two are needed, one of them to validate with"
        )));
    }
    let mut of_class: Vec<Vec<(u64, u32)>> = vec![Vec::new(); all.class_names().len()];
    for index in 0..all.len() {
        let label = all.label(index) as usize;
        if let Some(images) = of_class.get_mut(label) {
            images.push((hash(&all.key(index)?), index as u32));
        }
    }
    // As a share of all hashes; 1 is never asked for.
    let below = (share * 2f64.powi(64)) as u64;
    let mut val = Vec::new();
    for images in &mut of_class {
        images.sort_unstable();
        let least = usize::from(images.len() >= LEAST);
        let taken = images.partition_point(|(hash, _)| *hash < below);
        let taken = taken.max(least).min(images.len().saturating_sub(1));
        val.extend(images[..taken].iter().map(|(_, index)| *index));
    }
    if val.is_empty() {
        // Small classes only.
        let largest = of_class.iter().max_by_key(|images| images.len());
        val.extend(
            largest
                .and_then(|images| images.first())
                .map(|(_, index)| *index),
        );
    }
    val.sort_unstable();
    let is_val = |index: &u32| val.binary_search(index).is_ok();
    let train: Vec<u32> = (0..all.len() as u32).filter(|i| !is_val(i)).collect();
    Ok([
        Arc::new(Subset::new(Arc::clone(&all), train)),
        Arc::new(Subset::new(all, val)),
    ])
}

fn hash(key: &str) -> u64 {
    let digest = Sha256::digest(key.as_bytes());
    let (first, _) = digest.as_slice().as_chunks::<8>();
    first.first().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::LoadBuffers;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Images that are names and classes alone.
    struct Names(Vec<(String, u32)>, Vec<String>);

    impl ImageSource for Names {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn class_names(&self) -> &[String] {
            &self.1
        }
        fn label(&self, index: usize) -> u32 {
            self.0[index].1
        }
        fn name(&self, index: usize) -> String {
            self.0[index].0.clone()
        }
        fn load(&self, _: usize, _: &mut LoadBuffers) -> Result<()> {
            Err(Error::input("a name alone"))
        }
    }

    fn parts(sizes: &[usize], share: f64) -> [BTreeSet<String>; 2] {
        let names = sizes.iter().enumerate().flat_map(|(class, size)| {
            (0..*size).map(move |i| (format!("c{class}/{i}.png"), class as u32))
        });
        let classes = (0..sizes.len()).map(|i| format!("c{i}")).collect();
        let all: Arc<dyn ImageSource> = Arc::new(Names(names.collect(), classes));
        let parts = cut(all, share, "there").unwrap();
        parts.map(|part| (0..part.len()).map(|i| part.name(i)).collect())
    }

    proptest! {
        #[test]
        fn every_image_is_in_one_part_and_stays_there(
            sizes in prop::collection::vec(0usize..60, 1..5),
            more in 0usize..40,
            share in 0.001f64..0.9,
        ) {
            prop_assume!(sizes.iter().sum::<usize>() > 1);
            let [train, val] = parts(&sizes, share);
            prop_assert!(train.is_disjoint(&val) && !train.is_empty() && !val.is_empty());
            prop_assert_eq!(train.len() + val.len(), sizes.iter().sum::<usize>());
            for (class, size) in sizes.iter().enumerate() {
                let of = |part: &BTreeSet<String>| part.iter().filter(|n| n.starts_with(&format!("c{class}/"))).count();
                // Of single images one has to validate.
                prop_assert!(*size == 0 || of(&train) > 0 || sizes.iter().all(|n| *n < 2));
                prop_assert!(*size < LEAST || of(&val) > 0);
            }
            // Only an image that was taken so that there is one at all may go back when there are others.
            let grown: Vec<usize> = sizes.iter().map(|n| n + more).collect();
            let [_, later] = parts(&grown, share);
            prop_assert!(val.difference(&later).count() <= sizes.len());
            // A larger share holds the smaller one, where classes are not all too small for it.
            let [_, wider] = parts(&grown, (share * 1.1).min(0.95));
            prop_assert!(later.is_subset(&wider) || grown.iter().all(|n| *n < LEAST));
        }
    }

    #[test]
    fn the_share_is_met_by_many() {
        let [train, val] = parts(&[4000, 4000], 0.05);
        assert!((320..480).contains(&val.len()), "{}", val.len());
        assert_eq!(train.len() + val.len(), 8000);
        // The same for everybody, for ever.
        assert_eq!(hash("cat/1.png"), 0x6a3b_843c_f66c_4612);
        assert!(
            cut(
                Arc::new(Names(vec![("a".into(), 0)], vec!["a".into()])),
                0.5,
                "x"
            )
            .is_err()
        );
    }
}
