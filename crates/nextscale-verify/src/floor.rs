//! The noise floor that a bundle records, and the limit that follows from it.

use super::compare::Limit;
use super::folder::Folder;
use nextscale::Result;
use serde_json::Value as Json;

/// How many times its floor a difference may be.
const FACTOR: f64 = 2.0;
/// A result can't be expected nearer than half a unit in the last place of a float32, whatever the floor.
const LEAST: f64 = 6.0e-8;

/// `noise_floor.json` of a bundle, or nothing.
pub struct Floors(Option<Json>);

impl Floors {
    /// Reads the bundle's file, where it has one.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn open(folder: &Folder) -> Result<Self> {
        let name = "noise_floor.json";
        Ok(Self(if folder.has(name) {
            Some(folder.json(name)?)
        } else {
            None
        }))
    }

    /// Twice the worst floor among the quantities of the section at `path` that `which` picks: of the relative L2
    /// differences, and of the absolute differences as shares of their quantity's largest magnitude. `None` where nothing
    /// is recorded.
    pub fn section(&self, path: &[&str], which: impl Fn(&str) -> bool) -> Option<Limit> {
        Some(self.worst(path, which)?.1)
    }

    /// The worst absolute difference among those quantities.
    pub fn absolute(&self, path: &[&str], which: impl Fn(&str) -> bool) -> Option<f64> {
        Some(self.worst(path, which)?.0)
    }

    /// Names of the sections.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        let all = self.0.as_ref().and_then(Json::as_object);
        all.into_iter().flat_map(|o| o.keys().map(String::as_str))
    }

    /// The same of gradients, where moreover the worst absolute difference counts as it is: a gradient is a sum whose terms may
    /// cancel, so its noise follows the terms and not what is left of them.
    pub fn gradients(&self, path: &[&str], which: impl Fn(&str) -> bool) -> Option<Limit> {
        let (abs, limit) = self.worst(path, which)?;
        Some(limit.or_absolute(FACTOR * abs))
    }

    /// The worst absolute difference, and the limit without it.
    fn worst(&self, path: &[&str], which: impl Fn(&str) -> bool) -> Option<(f64, Limit)> {
        let mut at = self.0.as_ref()?;
        for key in path {
            at = at.get(key)?;
        }
        let (mut rel, mut peak, mut worst, mut seen) = (LEAST, LEAST, 0.0f64, false);
        for run in ["threads1_vs_2", "f32_vs_f64"] {
            let Some(entries) = at.get(run).and_then(Json::as_object) else {
                continue;
            };
            for (_, e) in entries.iter().filter(|(n, _)| which(n)) {
                let number = |key: &str| e.get(key).and_then(Json::as_f64);
                let Some(abs) = number("max_abs") else {
                    continue;
                };
                seen = true;
                worst = worst.max(abs);
                // Of a quantity that is zero throughout there is no relative difference.
                rel = rel.max(number("rel_l2").unwrap_or(0.0));
                if let Some(absmax) = number("absmax").filter(|&m| m > 0.0) {
                    peak = peak.max(abs / absmax);
                }
            }
        }
        let limit = Limit {
            rel_l2: FACTOR * rel,
            abs: 0.0,
            peak: FACTOR * peak,
        };
        seen.then_some((worst, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_worst_of_a_section_counts() {
        let entry = |abs: f64, rel: f64| json!({"max_abs": abs, "rel_l2": rel, "absmax": 2.0});
        let floors = Floors(Some(json!({"s": {
            "threads1_vs_2": {"a": entry(2e-6, 1e-6), "n": {"mismatches": 0}},
            "f32_vs_f64": {"a": entry(1e-6, 3e-6), "grad.b": entry(1.0, 1.0)},
        }})));
        let l = floors.section(&["s"], |n| !n.starts_with("grad.")).unwrap();
        assert_eq!((l.rel_l2, l.peak), (6e-6, 2e-6));
        assert_eq!(l.abs, 0.0);
        let l = floors
            .gradients(&["s"], |n| !n.starts_with("grad."))
            .unwrap();
        assert_eq!((l.rel_l2, l.abs), (6e-6, 4e-6));
        assert!(floors.section(&["s"], |n| n == "n").is_none());
        assert_eq!(floors.absolute(&["s"], |n| n == "a"), Some(2e-6));
        assert_eq!(floors.sections().collect::<Vec<_>>(), ["s"]);
        assert!(floors.section(&["t"], |_| true).is_none());
        assert!(Floors(None).section(&[], |_| true).is_none());
    }
}
