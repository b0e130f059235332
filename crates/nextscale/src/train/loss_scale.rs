//! The dynamic loss scale of float16 training.

use nextscale_tensor::ops::Scaling;
use nextscale_tensor::{DType, Math};

use crate::checkpoint::ScalerState;
use crate::{Error, Result};

/// A scale below this means that the gradients themselves are not finite.
const FLOOR: f64 = 1.0 / 65536.0;

impl From<Scaling> for ScalerState {
    fn from(s: Scaling) -> Self {
        Self {
            scale: s.scale,
            growth_factor: s.growth_factor,
            backoff_factor: s.backoff_factor,
            growth_interval: s.growth_interval,
            growth_tracker: s.growth_tracker,
        }
    }
}

impl From<&ScalerState> for Scaling {
    fn from(s: &ScalerState) -> Self {
        Self {
            scale: s.scale,
            growth_factor: s.growth_factor,
            backoff_factor: s.backoff_factor,
            growth_interval: s.growth_interval,
            growth_tracker: s.growth_tracker,
        }
    }
}

/// The loss scale that training begins with; `None` unless products are in float16.
pub fn scaler_of(math: Math) -> Option<Scaling> {
    (math.operands == DType::F16).then(Scaling::default)
}

/// Refuses to go on with a scale so small that no finite gradient could have overflowed.
///
/// # Errors
/// [`Error::Diverged`] with what to try.
pub fn check(scaling: &Scaling) -> Result<()> {
    if scaling.scale >= FLOOR {
        return Ok(());
    }
    Err(Error::Diverged(format!(
        "the loss scale fell to {:e}: the gradients are not finite whatever the scale; lower the learning rate, or train in bf16 or float32",
        scaling.scale
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn trace() -> Value {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../fixtures/amp/scaler_trace.json"
        );
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn the_whole_recorded_trace() {
        let trace = trace();
        let overflows: Vec<u64> = serde_json::from_value(trace["found_inf_steps"].clone()).unwrap();
        let steps = trace["n_steps"].as_u64().unwrap();
        let mut scale = Scaling::default();
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for step in 0..steps {
            before.push(scale);
            scale.update(overflows.contains(&step));
            after.push(scale);
        }
        let runs = trace["scale_before_runs"].as_array().unwrap();
        let mut covered = 0;
        for run in runs {
            for step in run["first"].as_u64().unwrap()..=run["last"].as_u64().unwrap() {
                assert_eq!(
                    before[step as usize].scale,
                    run["scale"].as_f64().unwrap(),
                    "step {step}"
                );
                covered += 1;
            }
        }
        assert_eq!(covered, steps);
        let events = trace["events"].as_array().unwrap();
        for event in events {
            let step = event["step"].as_u64().unwrap() as usize;
            assert_eq!(
                before[step].scale,
                event["scale_before"].as_f64().unwrap(),
                "{event}"
            );
            assert_eq!(
                after[step].scale,
                event["scale_after"].as_f64().unwrap(),
                "{event}"
            );
            assert_eq!(
                after[step].growth_tracker,
                event["growth_tracker_after"].as_u64().unwrap(),
                "{event}"
            );
            assert_eq!(
                before[step].scale.log2(),
                event["log2_scale_logged"].as_f64().unwrap(),
                "{event}"
            );
        }
        let changes = (0..steps as usize).filter(|&s| before[s].scale != after[s].scale);
        let listed: Vec<usize> = events
            .iter()
            .map(|e| e["step"].as_u64().unwrap() as usize)
            .collect();
        assert!(changes.into_iter().all(|step| listed.contains(&step)));
        let end: ScalerState = serde_json::from_value(trace["state_dict_at_end"].clone()).unwrap();
        assert_eq!(ScalerState::from(scale), end);
    }

    #[test]
    fn the_state_reads_back() {
        let end = trace()["state_dict_at_end"].clone();
        let state: ScalerState = serde_json::from_value(end).unwrap();
        assert_eq!(state.growth_tracker, 554);
        assert_eq!(ScalerState::from(Scaling::from(&state)), state);
    }

    #[test]
    fn endless_overflow_is_reported() {
        let mut scale = Scaling::default();
        let mut steps = 0;
        while check(&scale).is_ok() {
            scale.update(true);
            steps += 1;
            assert!(steps < 100);
        }
        assert_eq!(steps, 28);
        let message = check(&scale).unwrap_err().to_string();
        assert!(message.contains("bf16 or float32"), "{message}");
    }
}
