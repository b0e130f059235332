//! The processes that make a run together: what each takes of the work, and what they agree on.

use crate::{Error, Result};
pub use nextscale_world::World;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

impl From<nextscale_world::Error> for Error {
    fn from(e: nextscale_world::Error) -> Self {
        match e.is_input() {
            true => Self::Input(e.to_string()),
            false => Self::Failed(e.to_string()),
        }
    }
}

/// Which part of the work a process takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The process's number, from 0.
    pub rank: usize,
    /// The number of processes.
    pub size: usize,
}

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self { rank: 0, size: 1 };
}

impl Default for Share {
    fn default() -> Self {
        Self::WHOLE
    }
}

impl From<&World> for Share {
    fn from(world: &World) -> Self {
        Self {
            rank: world.rank(),
            size: world.size(),
        }
    }
}

/// Numbers of one process that are to be added to those of the others.
///
/// [`sum`] lays them side by side, so that one exchange adds them all.
pub(crate) trait Summed {
    /// Every number, in an order that is the same on all processes, and as many of them.
    fn numbers(&mut self) -> Vec<&mut dyn Number>;
}

/// A number that goes over the wire as float64, which holds counts up to 2⁵³ exactly.
pub(crate) trait Number {
    fn get(&self) -> f64;
    fn set(&mut self, value: f64);
}

macro_rules! number {
    ($($t:ty),*) => {$(
        impl Number for $t {
            fn get(&self) -> f64 {
                *self as f64
            }
            fn set(&mut self, value: f64) {
                *self = value as $t;
            }
        }
    )*};
}
number!(f64, u32, u64, usize);

/// Adds up what all processes have found.
///
/// # Errors
/// When another process is gone.
pub(crate) fn sum<T: Summed>(world: &World, mut found: T) -> Result<T> {
    if world.size() > 1 {
        let mut numbers = found.numbers();
        let mut values: Vec<f64> = numbers.iter().map(|n| n.get()).collect();
        world.sum(&mut values)?;
        for (number, value) in numbers.iter_mut().zip(values) {
            number.set(value);
        }
    }
    Ok(found)
}

/// What the first process has to say, on all of them.
///
/// # Errors
/// When another process is gone.
pub(crate) fn of_first<T: Serialize + DeserializeOwned>(world: &World, value: T) -> Result<T> {
    if world.size() == 1 {
        return Ok(value);
    }
    let mut bytes = to_bytes(&value)?;
    world.broadcast(&mut bytes)?;
    from_bytes(&bytes)
}

/// What every process has to say, in their order.
///
/// # Errors
/// When another process is gone.
pub(crate) fn of_all<T: Serialize + DeserializeOwned>(world: &World, value: T) -> Result<Vec<T>> {
    if world.size() == 1 {
        return Ok(vec![value]);
    }
    let all = world.gather(&to_bytes(&value)?)?;
    all.iter().map(|bytes| from_bytes(bytes)).collect()
}

fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|e| Error::failed(format!("a message to other processes: {e}")))
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::failed(format!("a message of another process can't be read: {e}")))
}

/// Work of the first process alone, for which the others wait.
///
/// # Errors
/// Of `work`, on the first process; the others then learn that it has left.
pub(crate) fn on_first<T>(world: &World, work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    let done = world.is_first().then(work).transpose()?;
    world.barrier()?;
    Ok(done)
}

/// Refuses processes that were not given the same: facts by name, as every process knows them.
///
/// # Errors
/// [`Error::Input`], the same on all processes, with the first fact that differs.
pub(crate) fn compare(world: &World, facts: BTreeMap<String, String>) -> Result<()> {
    let all = of_all(world, facts)?;
    let first = &all[0];
    for (rank, facts) in all.iter().enumerate() {
        let names = first.keys().chain(facts.keys());
        for name in names {
            let (a, b) = (first.get(name), facts.get(name));
            if a != b {
                let shown = |v: Option<&String>| v.map_or("nothing", String::as_str).to_owned();
                return Err(Error::input(format!(
                    "{} has {name} {}, {} has {}: all processes of a run need the same",
                    world.member(rank),
                    shown(b),
                    world.member(0),
                    shown(a),
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_has_all_of_the_work_and_its_sums_are_its_own() {
        struct Found(Vec<f64>, u64);
        impl Summed for Found {
            fn numbers(&mut self) -> Vec<&mut dyn Number> {
                let mut all: Vec<&mut dyn Number> = vec![&mut self.1];
                all.extend(self.0.iter_mut().map(|v| v as &mut dyn Number));
                all
            }
        }
        let world = World::alone();
        assert_eq!(Share::from(&world), Share::WHOLE);
        let found = sum(&world, Found(vec![1.5, -2.0], 7)).unwrap();
        assert_eq!((found.0, found.1), (vec![1.5, -2.0], 7));
        assert_eq!(of_all(&world, 3u64).unwrap(), [3]);
        assert_eq!(of_first(&world, "a".to_owned()).unwrap(), "a");
        assert_eq!(on_first(&world, || Ok(1)).unwrap(), Some(1));
        compare(&world, BTreeMap::from([("`bs`".into(), "3".into())])).unwrap();
    }
}
