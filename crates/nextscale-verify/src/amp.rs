//! The loss scaler's trace.

use super::compare::Limit;
use super::folder::Folder;
use super::report::Report;
use nextscale::checkpoint::ScalerState;
use nextscale::{Error, Result};
use nextscale_tensor::ops::Scaling;
use serde::Deserialize;

/// Most steps that are repeated.
const MOST_STEPS: u64 = 100_000_000;

#[derive(Deserialize)]
struct Trace {
    init_scale: f64,
    growth_factor: f64,
    backoff_factor: f64,
    growth_interval: u64,
    n_steps: u64,
    found_inf_steps: Vec<u64>,
    scale_before_runs: Vec<Span>,
    #[serde(default)]
    events: Vec<Event>,
    state_dict_at_end: Option<ScalerState>,
}

/// Steps from `first` to `last` with one scale.
#[derive(Debug, Deserialize, PartialEq)]
struct Span {
    first: u64,
    last: u64,
    scale: f64,
}

/// A step with an overflow or a change of scale.
#[derive(Debug, Deserialize, PartialEq)]
struct Event {
    step: u64,
    found_inf: bool,
    scale_before: f64,
    scale_after: f64,
    growth_tracker_after: u64,
    optimizer_stepped: bool,
    log2_scale_logged: f64,
}

/// Checks every trace of the folder.
pub(super) fn check(folder: &Folder, report: &mut Report<'_>) -> Result<()> {
    for stem in folder.stems(".json") {
        let name = format!("{stem}.json");
        let json = folder.json(&name)?;
        if super::kind_of_json(&json) != Some(super::Kind::Amp) {
            continue;
        }
        let trace: Trace = serde_json::from_value(json)
            .map_err(|e| Error::input(format!("{}: {e}", folder.file(&name).display())))?;
        if trace.n_steps > MOST_STEPS {
            return Err(Error::input(format!(
                "{}: {} steps are too many to repeat; at most {MOST_STEPS}",
                folder.file(&name).display(),
                trace.n_steps
            )));
        }
        replay(stem, &trace, report);
    }
    Ok(())
}

fn replay(stem: &str, trace: &Trace, report: &mut Report<'_>) {
    let mut scale = Scaling {
        scale: trace.init_scale,
        growth_factor: trace.growth_factor,
        backoff_factor: trace.backoff_factor,
        growth_interval: trace.growth_interval,
        growth_tracker: 0,
    };
    let overflows: std::collections::HashSet<u64> = trace.found_inf_steps.iter().copied().collect();
    let (mut runs, mut events) = (Vec::<Span>::new(), Vec::new());
    for step in 0..trace.n_steps {
        let before = scale;
        match runs.last_mut() {
            Some(run) if run.scale == before.scale => run.last = step,
            _ => runs.push(Span {
                first: step,
                last: step,
                scale: before.scale,
            }),
        }
        let found_inf = overflows.contains(&step);
        scale.update(found_inf);
        if found_inf || scale.scale != before.scale {
            events.push(Event {
                step,
                found_inf,
                scale_before: before.scale,
                scale_after: scale.scale,
                growth_tracker_after: scale.growth_tracker,
                optimizer_stepped: !found_inf,
                log2_scale_logged: before.scale.log2(),
            });
        }
    }
    let flat = |runs: &[Span]| -> Vec<f64> {
        runs.iter()
            .flat_map(|r| [r.first as f64, r.last as f64, r.scale])
            .collect()
    };
    report.numbers(
        format!("{stem}/scale_before_runs"),
        &flat(&runs),
        &flat(&trace.scale_before_runs),
        Limit::EXACT,
    );
    if !trace.events.is_empty() {
        let flat = |events: &[Event]| -> Vec<f64> {
            events
                .iter()
                .flat_map(|e| {
                    [
                        e.step as f64,
                        f64::from(u8::from(e.found_inf)),
                        e.scale_before,
                        e.scale_after,
                        e.growth_tracker_after as f64,
                        f64::from(u8::from(e.optimizer_stepped)),
                        e.log2_scale_logged,
                    ]
                })
                .collect()
        };
        report.numbers(
            format!("{stem}/events"),
            &flat(&events),
            &flat(&trace.events),
            Limit::EXACT,
        );
    }
    if let Some(end) = &trace.state_dict_at_end {
        report.same(
            format!("{stem}/state_dict_at_end"),
            &ScalerState::from(scale),
            end,
        );
    }
}
