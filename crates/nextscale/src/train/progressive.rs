//! Progressive training: the highest scale that takes part, and the weight of its loss.
//!
//! A *stage* is the index of the highest active scale; the sequence is cut after it. Which stage an
//! iteration belongs to is a function of the iteration ([`StagePlan`]); how far the newest scale's loss
//! weight has risen is state ([`StageState`]) that goes into the checkpoint.

use serde::{Deserialize, Serialize};

/// From which iterations on which stage is trained.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StagePlan {
    /// Share of the whole run at which the last stage is reached, in (0, 1].
    pub pg: f64,
    /// The first stage.
    pub first: usize,
    /// Number of scales; the last stage is one less.
    pub scales: usize,
    /// Length of the learning rate's warm-up in iterations; the first stage lasts at least so long.
    pub warmup_its: f64,
    /// Iterations in the whole run.
    pub max_it: u64,
    /// Iterations over which a new stage's loss weight rises.
    pub ramp_its: f64,
}

impl StagePlan {
    /// The stage at iteration `it`, counted from 0.
    pub fn stage(&self, it: u64) -> usize {
        let last = self.scales.saturating_sub(1);
        let it = it as f64;
        let end = self.max_it as f64 * self.pg;
        if it <= self.warmup_its {
            self.first
        } else if it >= end {
            last
        } else {
            let progress = ((it - self.warmup_its) / (end - self.warmup_its)).clamp(0.0, 1.0);
            let steps = last.saturating_sub(self.first) as f64;
            self.first + (progress * steps).round_ties_even() as usize
        }
    }
}

/// How long the current stage has lasted. The field names are those of the reference's checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageState {
    /// Iterations in the current stage, the running one included.
    pub prog_it: u64,
    /// The stage of the last iteration; −1 before the first iteration and without progressive training.
    pub last_prog_si: i64,
    /// Whether the run is still in its first stage.
    pub first_prog: bool,
}

impl Default for StageState {
    fn default() -> Self {
        Self {
            prog_it: 0,
            last_prog_si: -1,
            first_prog: true,
        }
    }
}

/// What one iteration trains.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage {
    /// The highest active scale, after which the sequence is cut; `None` when all scales are active.
    pub highest: Option<usize>,
    /// The factor, in (0, 1], on the loss weights of the scale `highest`.
    pub newest_weight: f64,
    /// The ramp's value whatever the stage, for logs. In the last stage it rises but is not applied.
    pub ramp: f64,
}

impl Stage {
    /// All scales, without progressive training.
    pub const ALL: Self = Self {
        highest: None,
        newest_weight: 1.0,
        ramp: 1.0,
    };
}

/// The ramp's first value.
const RAMP_START: f64 = 0.01;

impl StageState {
    /// Enters one iteration and says what it trains. `plan` is `None` without progressive training.
    ///
    /// The ramp counts iterations, not optimizer steps. The first stage has none (its warm-up is the
    /// learning rate's), and neither has the last one: all scales active is as if there were no stages.
    pub fn advance(&mut self, plan: Option<&StagePlan>, it: u64) -> Stage {
        let stage = plan.map(|plan| plan.stage(it));
        let si = stage.map_or(-1, |si| si as i64);
        if self.last_prog_si != si {
            if self.last_prog_si != -1 {
                self.first_prog = false;
            }
            self.last_prog_si = si;
            self.prog_it = 0;
        }
        self.prog_it += 1;
        let ramp = match plan {
            Some(plan) if !self.first_prog && plan.ramp_its > 0.0 => {
                (self.prog_it as f64 / plan.ramp_its).clamp(RAMP_START, 1.0)
            }
            _ => 1.0,
        };
        let highest = stage.filter(|si| plan.is_some_and(|plan| si + 1 < plan.scales));
        Stage {
            highest,
            newest_weight: if highest.is_some() { ramp } else { 1.0 },
            ramp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(pg: f64, first: usize, scales: usize) -> StagePlan {
        StagePlan {
            pg,
            first,
            scales,
            warmup_its: 10.0,
            max_it: 200,
            ramp_its: 4.0,
        }
    }

    #[test]
    fn every_stage_of_the_fixture() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../fixtures/schedules/progressive_stage.csv"
        );
        let text = std::fs::read_to_string(path).unwrap();
        let mut rows = 0;
        for line in text.lines().skip(1) {
            let cells: Vec<&str> = line.split(',').collect();
            let plan = plan(
                cells[0].parse().unwrap(),
                cells[1].parse().unwrap(),
                cells[2].parse().unwrap(),
            );
            let expected: usize = cells[4].parse().unwrap();
            assert_eq!(plan.stage(cells[3].parse().unwrap()), expected, "{line}");
            rows += 1;
        }
        assert_eq!(rows, 600);
    }

    #[test]
    fn without_a_plan_only_the_counter_moves() {
        let mut state = StageState::default();
        for it in 0..3 {
            let stage = state.advance(None, it);
            assert_eq!(
                (stage.highest, stage.newest_weight, stage.ramp),
                (None, 1.0, 1.0)
            );
        }
        // What the reference stores after three iterations of an ordinary run.
        assert_eq!(
            (state.prog_it, state.last_prog_si, state.first_prog),
            (3, -1, true)
        );
    }

    #[test]
    fn the_weight_ramps_in_every_stage_but_the_first_and_the_last() {
        let plan = plan(0.5, 0, 3);
        let mut state = StageState::default();
        let stages: Vec<Stage> = (0..200).map(|it| state.advance(Some(&plan), it)).collect();
        let first_of = |si: usize| stages.iter().position(|s| s.highest == Some(si)).unwrap();
        let full = stages.iter().position(|s| s.highest.is_none()).unwrap();
        assert_eq!(first_of(0), 0);
        assert!(stages[..first_of(1)].iter().all(|s| s.newest_weight == 1.0));
        let ramp: Vec<f64> = stages[first_of(1)..][..5]
            .iter()
            .map(|s| s.newest_weight)
            .collect();
        assert_eq!(ramp, [0.25, 0.5, 0.75, 1.0, 1.0]);
        assert!(
            stages[full..]
                .iter()
                .all(|s| s.highest.is_none() && s.newest_weight == 1.0)
        );
        assert_eq!(stages[full].ramp, 0.25);
        assert_eq!((state.last_prog_si, state.first_prog), (2, false));
    }

    #[test]
    fn the_ramp_starts_no_lower_than_a_hundredth() {
        let plan = StagePlan {
            ramp_its: 1000.0,
            ..plan(0.5, 0, 3)
        };
        let mut state = StageState {
            prog_it: 7,
            last_prog_si: 0,
            first_prog: true,
        };
        let it = (0..200).find(|&it| plan.stage(it) == 1).unwrap();
        assert_eq!(state.advance(Some(&plan), it).newest_weight, 0.01);
        assert_eq!(state.prog_it, 1);
    }

    #[test]
    fn a_saved_state_continues_the_same_ramp() {
        let plan = plan(0.8, 1, 10);
        let mut whole = StageState::default();
        let stages: Vec<Stage> = (0..200).map(|it| whole.advance(Some(&plan), it)).collect();
        for cut in [0u64, 10, 57, 100, 199] {
            let mut first = StageState::default();
            for it in 0..cut {
                first.advance(Some(&plan), it);
            }
            let text = serde_json::to_string(&first).unwrap();
            let mut second: StageState = serde_json::from_str(&text).unwrap();
            let rest: Vec<Stage> = (cut..200)
                .map(|it| second.advance(Some(&plan), it))
                .collect();
            assert_eq!(rest, stages[cut as usize..]);
        }
    }
}
