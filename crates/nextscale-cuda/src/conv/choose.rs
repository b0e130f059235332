//! Which path a convolution takes: measured at its first call, kept on disk, taken again ever after.

use super::cudnn::{Handle, Plan};
use super::describe::{self, FusedOp};
use super::engine::{Engine, Fusion, padded};
use super::{Call, Convolution, Gpu, Pass, columns, tiles, weight_tiles};
use crate::cache;
use crate::graph::StreamGuard;
use crate::libraries::Library;
use crate::matmul::DevicePtr;
use crate::pool::DeviceBuffer;
use crate::timing::fastest;
use crate::{DType, Error, Result};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Mutex;

/// Engines that are tried for a graph. The library names the likely fastest first, and compiles some for half a second.
const TRIED: usize = 5;
/// The same where engines that come compiled did it already: the others, compiled on the spot, are most of a first start.
const TRIED_BESIDE: usize = 2;
/// Runs of each; the fastest counts.
const RUNS: usize = 3;
/// Most bytes of scratch memory that an engine may take.
const WORKSPACE: usize = 1 << 30;
/// Operations below which a launch takes longer than the work: the first engine that works is taken.
const SMALL: f64 = 2e8;
/// Elements of a patch up to which a product over patches may be faster than cuDNN.
const NARROW: usize = 128;

/// Counts the sets of paths that there were to choose from: what was kept of an earlier one is measured again.
const CANDIDATES: u32 = 3;

/// A convolution on operands of a certain alignment, with what is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    c: Convolution,
    pass: Pass,
    bias: bool,
    residual: bool,
    alignment: u32,
}

/// A path.
enum Choice {
    /// A matrix product over patches.
    Columns,
    /// Our own kernels for Hopper.
    Tiles,
    /// An engine of cuDNN.
    Cudnn(Fusion, Plan),
}

/// cuDNN's handle, where there is cuDNN, and the choices of one GPU.
pub(crate) struct Chooser {
    handle: Option<Handle>,
    choices: HashMap<Key, Choice>,
}

/// Filled at the first convolution.
pub(crate) type Slot = Mutex<Option<Chooser>>;

/// Puts a pass into the stream.
pub(super) fn run(gpu: &'static Gpu, c: &Convolution, pass: Pass, call: &Call<'_>) -> Result<()> {
    let pointers = [
        Some(call.x),
        Some(call.w),
        Some(call.y),
        call.bias,
        call.residual,
    ];
    let alignment = pointers
        .iter()
        .flatten()
        .fold(16, |least, p| least.min(p.alignment()))
        .trailing_zeros();
    let key = Key {
        c: *c,
        pass,
        bias: call.bias.is_some(),
        residual: call.residual.is_some(),
        alignment,
    };
    if let Some(dry) = gpu.dry() {
        return run_dry(gpu, &key, dry.is_first(&key), call);
    }
    gpu.bind()?;
    // Before the lock: a thread that captures a graph must not wait for one that waits for the capture.
    let _guard = StreamGuard::take();
    let mut slot = gpu.conv_slot().lock().unwrap_or_else(|e| e.into_inner());
    let cudnn = Library::Cudnn.is_there();
    let chooser = match &mut *slot {
        Some(chooser) => chooser,
        None => slot.insert(Chooser {
            handle: cudnn.then(|| Handle::open(gpu)).transpose()?,
            choices: HashMap::new(),
        }),
    };
    if !chooser.choices.contains_key(&key) {
        gpu.outside_capture("choosing the engine of a convolution that was never run")?;
        let choice = chooser.choose(gpu, &key, call)?;
        chooser.choices.insert(key, choice);
    }
    let Some(choice) = chooser.choices.get(&key) else {
        return Err(Error::Device("convolution: the choice is gone".into()));
    };
    chooser.go(gpu, c, pass, choice, call)
}

/// What a convolution takes in a dry run: at the first time the result that engines are tried on, then what the likeliest
/// engine needs around it, or a product over patches where that may be the faster. Engines' own scratch memory, which
/// only the library knows, is not in it.
fn run_dry(gpu: &'static Gpu, key: &Key, first: bool, call: &Call<'_>) -> Result<()> {
    let c = &key.c;
    if gpu.is_dry_cpu() {
        return DeviceBuffer::new(gpu, cpu_scratch(c, key.pass)).map(|_| ());
    }
    if first {
        DeviceBuffer::new(gpu, result_bytes(c, key.pass))?;
    }
    if columns_may_win(c) || !Library::Cudnn.is_there() {
        return columns::run(gpu, c, key.pass, call);
    }
    if tiles_fit(gpu, key) {
        let bytes = match key.pass {
            Pass::Weights => weight_tiles::sums_bytes(gpu, c),
            _ => tiles::packed_bytes(c),
        };
        DeviceBuffer::new(gpu, bytes)?;
    }
    match fusions(key).first() {
        Some((fusion, _)) => Engine {
            gpu,
            plan: None,
            fusion,
        }
        .go(c, key.pass, call),
        None => Ok(()),
    }
}

/// What a CPU's convolution takes beside its operands: the packed weights, or the sums of the weights' gradient that
/// are taken side by side.
fn cpu_scratch(c: &Convolution, pass: Pass) -> usize {
    const SIDE_BY_SIDE: usize = 8;
    let sums = match pass {
        Pass::Weights => SIDE_BY_SIDE,
        Pass::Forward | Pass::Data => 1,
    };
    sums * c.weights() * 4
}

/// Bytes of what a pass writes.
fn result_bytes(c: &Convolution, pass: Pass) -> usize {
    match pass {
        Pass::Forward => c.y_bytes(),
        Pass::Data => c.x_bytes(),
        Pass::Weights => c.weights() * 4,
    }
}

/// Whether a product over patches is tried beside engines that work.
fn columns_may_win(c: &Convolution) -> bool {
    let exact = c.element == DType::F32 && !c.tf32;
    let narrow = c.taps() * c.inputs <= NARROW || c.pointwise();
    (exact || narrow) && c.operations() >= SMALL
}

/// Whether a kernel of ours takes it.
fn tiles_fit(gpu: &Gpu, key: &Key) -> bool {
    key.alignment >= 4
        && match key.pass {
            Pass::Weights => weight_tiles::fit(gpu, &key.c),
            pass => tiles::fit(gpu, &key.c, pass),
        }
}

impl Chooser {
    fn choose(&self, gpu: &'static Gpu, key: &Key, call: &Call<'_>) -> Result<Choice> {
        let version = Library::Cudnn.version();
        let made_by = crate::compile::made_by();
        let name = format!(
            "{key:?} {} {version:?} {made_by} {CANDIDATES}",
            gpu.info().name
        );
        let cached = || {
            let choice = cache::load("conv", &name).and_then(|b| self.parse(&b))?;
            // Of a program whose kernels took other convolutions.
            let gone = matches!(choice, Choice::Tiles) && !tiles_fit(gpu, key);
            (!gone).then_some(choice)
        };
        let _lock = match cache::choice_or_lock(gpu, "conv", cached) {
            Ok(choice) => return Ok(choice),
            Err(lock) => lock,
        };
        let (choice, all) = self.measure(gpu, key, call)?;
        if let (true, Some(bytes)) = (all, choice.bytes()) {
            cache::store("conv", &name, &bytes);
        }
        Ok(choice)
    }

    fn parse(&self, bytes: &[u8]) -> Option<Choice> {
        let (&[kind, result, count], rest) = bytes.split_first_chunk::<3>()?;
        match kind {
            0 => return Some(Choice::Columns),
            2 => return Some(Choice::Tiles),
            _ => {}
        }
        let (ops, text) = rest.split_at_checked(usize::from(count))?;
        let ops = ops
            .iter()
            .map(|op| FusedOp::ALL.get(usize::from(*op)).copied());
        let all = [DType::F32, DType::Bf16, DType::F16];
        let fusion = Fusion {
            epilogue: ops.collect::<Option<_>>()?,
            result: all.into_iter().find(|e| *e as u8 == result)?,
        };
        let plan = Plan::from_text(self.handle.as_ref()?, text).ok()?;
        Some(Choice::Cudnn(fusion, plan))
    }

    /// Tries what there is, on memory of its own so that results stay as they are. Also whether memory sufficed for all of it: a choice
    /// among few is not to be kept.
    fn measure(&self, gpu: &'static Gpu, key: &Key, call: &Call<'_>) -> Result<(Choice, bool)> {
        let (c, pass) = (&key.c, key.pass);
        let own = DeviceBuffer::new(gpu, result_bytes(c, pass))?;
        let own = DevicePtr(&own, 0);
        let trial = match pass {
            Pass::Forward => Call { y: own, ..*call },
            Pass::Data => Call { x: own, ..*call },
            Pass::Weights => Call { w: own, ..*call },
        };
        let small = c.operations() < SMALL;
        let exact = c.element == DType::F32 && !c.tf32;
        let time =
            |choice: &Choice, runs| fastest(gpu, runs, || self.go(gpu, c, pass, choice, &trial));
        let mut best: Option<(f32, Choice)> = None;
        let all = Cell::new(true);
        let take = |best: &mut Option<(f32, Choice)>, choice: Choice| {
            let mut t = match time(&choice, 1) {
                Ok(t) => t,
                Err(e) => {
                    all.set(all.get() && !matches!(e, Error::Memory(_)));
                    return false;
                }
            };
            // One run tells those that are far behind.
            let near = best.as_ref().is_none_or(|(b, _)| t < 1.2 * *b);
            if near && !small {
                t = time(&choice, RUNS).unwrap_or(t);
            }
            if best.as_ref().is_none_or(|(b, _)| t < *b) {
                *best = Some((t, choice));
            }
            true
        };
        let handle = self.handle.iter();
        let cudnn = handle.flat_map(|h| fusions(key).into_iter().map(move |fusion| (h, fusion)));
        for (handle, (fusion, enough)) in cudnn {
            let alignment = 1 << key.alignment;
            let shape = padded(c);
            let Ok(graph) = describe::graph(
                handle,
                &shape,
                pass,
                &fusion.epilogue,
                fusion.result,
                alignment,
            ) else {
                continue;
            };
            let most = match &best {
                _ if small => 1,
                None => TRIED,
                Some(_) => TRIED_BESIDE,
            };
            let mut tried = 0;
            for engine in graph.engines(exact)? {
                let Ok(plan) = Plan::new(handle, engine) else {
                    continue;
                };
                if plan.workspace() > WORKSPACE {
                    continue;
                }
                tried += usize::from(take(&mut best, Choice::Cudnn(fusion.clone(), plan)));
                if tried == most {
                    break;
                }
            }
            if tried > 0 && (enough || small) {
                break;
            }
        }
        if tiles_fit(gpu, key) {
            take(&mut best, Choice::Tiles);
        }
        // Engines for weights' gradients are far from what the products take, unless sums may come in any order.
        let weights = pass == Pass::Weights && !small;
        if best.is_none() || columns_may_win(c) || weights {
            take(&mut best, Choice::Columns);
        }
        match best {
            Some((_, choice)) => Ok((choice, all.get())),
            // Nothing worked: say why the path that takes everything did not.
            None => time(&Choice::Columns, 1).map(|_| (Choice::Columns, false)),
        }
    }

    fn go(
        &self,
        gpu: &'static Gpu,
        c: &Convolution,
        pass: Pass,
        choice: &Choice,
        call: &Call<'_>,
    ) -> Result<()> {
        match choice {
            Choice::Columns => columns::run(gpu, c, pass, call),
            Choice::Tiles if pass == Pass::Weights => weight_tiles::run(gpu, c, call),
            Choice::Tiles => tiles::run(gpu, c, pass, None, call),
            Choice::Cudnn(fusion, plan) => {
                let Some(handle) = &self.handle else {
                    return Err(Error::Device("convolution: cuDNN is gone".into()));
                };
                let engine = Engine {
                    gpu,
                    plan: Some((handle, plan)),
                    fusion,
                };
                engine.go(c, pass, call)
            }
        }
    }
}

/// What may be asked of cuDNN, the best first, and whether something that works makes the rest needless.
fn fusions(key: &Key) -> Vec<(Fusion, bool)> {
    let element = key.c.element;
    let fusion = |epilogue: &[FusedOp], result| Fusion {
        epilogue: epilogue.to_vec(),
        result,
    };
    match key.pass {
        Pass::Forward => {
            // A cropped output is followed by a kernel anyway, which can add the residual.
            let residual = key.residual && padded(&key.c).outputs == key.c.outputs;
            let chosen = |all: &[(bool, FusedOp)]| {
                let ops = all.iter().filter(|(wanted, _)| *wanted);
                ops.map(|(_, op)| *op).collect::<Vec<_>>()
            };
            let fused = chosen(&[(key.bias, FusedOp::Bias), (residual, FusedOp::Residual)]);
            // The order and types of the engines that come compiled: by far the fastest on large maps.
            let compiled = chosen(&[
                (residual, FusedOp::Residual),
                (key.bias, FusedOp::RoundedBias),
            ]);
            let mut all = vec![(fusion(&compiled, element), fused.is_empty())];
            if !fused.is_empty() {
                // Then those made on the spot, and a kernel behind the bare convolution where there are none.
                all.extend([
                    (fusion(&fused, element), true),
                    (fusion(&[], element), true),
                ]);
            }
            all
        }
        Pass::Data => vec![(fusion(&[], element), true)],
        Pass::Weights if element == DType::F32 => vec![(fusion(&[], element), true)],
        Pass::Weights => vec![
            (fusion(&[], DType::F32), true),
            (fusion(&[], element), true),
        ],
    }
}

impl Choice {
    /// What is kept of it; `None` where the library does not say.
    fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Columns => Some(vec![0; 3]),
            Self::Tiles => Some(vec![2, 0, 0]),
            Self::Cudnn(fusion, plan) => {
                let mut bytes = vec![1, fusion.result as u8, fusion.epilogue.len() as u8];
                bytes.extend(fusion.epilogue.iter().map(|op| *op as u8));
                bytes.extend(plan.text().ok()?);
                Some(bytes)
            }
        }
    }
}
