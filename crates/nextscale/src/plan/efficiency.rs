//! How near operators come to a GPU's ceilings.
//!
//! An operator takes the time of its products at a share of the ceiling of their arithmetic, and beside it that of its passes over
//! memory: so many times the bytes that it must move at least. For operators without products that is their floor over the
//! share of it that they reach.
//!
//! Source: the table of a step by operators on an H200 in docs/benchmarks.md (depth 16, 96 images, bf16; 812 TFLOP/s, 4.24 TB/s),
//! which these numbers give back. How an operator's time is split between products and passes follows from what it does: in the
//! feed-forward branch GELU is a pass over a map four times as wide, for instance. A step as a whole is at the card's limit of
//! power, so shares are those within a step and not those of an operator by itself.

use super::Kind;
use nextscale_tensor::cuda::{Precision, Row};

/// What an operator reaches.
struct Reach {
    operator: &'static str,
    /// The share of the ceiling that its products reach.
    products: f64,
    /// How often the bytes that it must move cross the memory beside its products.
    passes: f64,
}

const fn reach(operator: &'static str, products: f64, passes: f64) -> Reach {
    Reach {
        operator,
        products,
        passes,
    }
}

/// By operator; the milliseconds are those of the table that they follow from.
const REACHES: [Reach; 18] = [
    reach("feed-forward gradient", 0.83, 3.8),        // 58.4
    reach("feed-forward", 0.87, 2.2),                 // 27.2
    reach("linear gradient", 0.82, 0.6),              // 32.6
    reach("linear", 0.90, 0.3),                       // 14.6
    reach("attention gradient", 0.25, 0.0),           // 22.1
    reach("attention", 0.29, 0.0),                    // 7.6
    reach("gated residual norm gradient", 1.0, 1.15), // 12.7
    reach("gated residual norm", 1.0, 1.07),          // 6.5
    reach("optimizer", 1.0, 1.18),                    // 3.3
    reach("cross entropy", 1.0, 1.06),                // 0.27, by itself
    reach("cross entropy gradient", 1.0, 1.08),       // 0.54, by itself
    reach("adaptive norm", 1.0, 1.06),                // 0.101, by itself
    reach("adaptive norm gradient", 1.0, 1.25),       // 0.198, by itself
    // Which convolutions normalise on the way is measured for each GPU; a dry run takes others. Together with the norms they
    // give the time of tokenizing by itself, 43.7 ms.
    reach("normed conv2d", 0.61, 0.0),
    reach("conv2d", 0.65, 0.0),
    reach("group norm", 1.0, 2.9), // 0.9
    reach("quantizer", 0.36, 0.0), // 1.2
    reach("spatial attention", 0.3, 1.0),
];

/// Other operators, all small: embeddings, copies, gathers.
const OTHERS: Reach = reach("", 0.5, 1.25);

/// float16 beside bf16: more bits of the products change, and the card is at its limit of power. A step took 259.7 ms where
/// bf16 took 250.0 (docs/benchmarks.md).
pub(super) const FLOAT16: f64 = 1.06;

/// The least that a call takes: its kernels are not asked for faster.
const CALL_MS: f64 = 0.012;

/// Milliseconds that all calls of an operator take on a GPU.
pub fn row_ms(kind: &Kind, row: &Row) -> f64 {
    let reach = REACHES.iter().find(|r| r.operator == row.name);
    let reach = reach.unwrap_or(&OTHERS);
    let attention = matches!(row.name, "attention" | "attention gradient");
    let share = reach.products * if attention { kind.attention } else { 1.0 };
    let dearer = match row.rate {
        Precision::Fp16 => FLOAT16,
        _ => 1.0,
    };
    let products = dearer * row.flops / kind.ceilings.of(row.rate) / share;
    let passes = reach.passes * row.bytes / kind.ceilings.bandwidth;
    // Products with few rows wait for their operands.
    let least = kind.ceilings.floor_of(row) / 1e3;
    let ms = 1e3 * (products + passes).max(least);
    ms.max(CALL_MS * row.calls as f64)
}

/// Whether an operator belongs to the update, which a step has once, and not to an iteration.
pub fn is_of_update(operator: &str) -> bool {
    matches!(operator, "optimizer" | "gradient norm" | "moving average")
}

/// Whether an operator belongs to the backward pass, beside which gradients are summed.
pub fn is_backward(operator: &str) -> bool {
    operator.ends_with(" gradient")
}
