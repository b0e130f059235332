//! `nextscale plan`: what a training takes on GPUs that need not be there.

use super::bench;
use nextscale::options::precision::agreed;
use nextscale::options::values::{parse_bool, precision_parser};
use nextscale::options::{Recipe, TransformerOptions};
use nextscale::plan::cluster::Given;
use nextscale::plan::{Cluster, Kind, Model, Plan, Tokens, Wishes, kinds, plan, table};
use nextscale::{Error, Result, say};
use nextscale_tensor::cuda::{self, Ceilings, Gpu};
use nextscale_tensor::{DType, Device, Precision};

/// Images of ImageNet's training set.
const IMAGENET: usize = 1_281_167;
/// Numbers of GPUs that --all shows.
const SIZES: [usize; 3] = [8, 64, 512];
/// Models and numbers of GPUs of one call at most.
const MOST_PLANS: usize = 200;

/// Flags of `plan`.
#[derive(clap::Args)]
#[command(
    rename_all = "snake_case",
    after_long_help = "Memory and work come from a dry run of the training step, so nothing is computed and no GPU is needed; times follow from what \
        operators reached of a GPU's ceilings. Everything here is a prediction: docs/scaling.md holds it against what was measured. Flags that `train` has too \
        mean the same here."
)]
pub struct Args {
    /// Published models, such as d16 or d16,d30; without it the model that the flags below give
    #[arg(long, value_enum, value_name = "LIST", value_delimiter = ',')]
    recipe: Vec<Recipe>,
    /// Plans for every recipe, on 8, 64 and 512 GPUs where --gpus is not given
    #[arg(long, conflicts_with = "recipe")]
    all: bool,
    /// Kind of GPU by its name (--gpu=list shows them), or `this` to measure the one at hand, which is taken where there is one
    #[arg(long, value_name = "KIND")]
    gpu: Option<String>,
    /// GPUs, or a list of numbers of them
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    gpus: Vec<usize>,
    /// Hosts that have them
    #[arg(long, value_name = "N")]
    hosts: Option<usize>,
    /// GPUs of a host, instead of what is usual for the kind
    #[arg(long, value_name = "N")]
    gpus_per_host: Option<usize>,
    /// Bus bandwidth of sums within a host, instead of the kind's (`doctor --nccl` measures it)
    #[arg(long, value_name = "GB/S")]
    link: Option<f64>,
    /// Bandwidth between hosts for each GPU, instead of the kind's
    #[arg(long, value_name = "GB/S")]
    network: Option<f64>,
    /// Cores for each GPU that read images
    #[arg(long, value_name = "N")]
    cores: Option<usize>,
    /// Blocks of the transformer
    #[arg(long, value_name = "N", help_heading = "Model")]
    depth: Option<usize>,
    /// Side lengths of the token maps: 256, 512, 1024 or a list
    #[arg(long, value_name = "LIST", help_heading = "Model")]
    pn: Option<String>,
    /// One adaptive norm shared by all blocks
    #[arg(long, value_name = "0|1", value_parser = parse_bool, help_heading = "Model")]
    saln: Option<bool>,
    /// Precision of products
    #[arg(long, value_parser = precision_parser(), help_heading = "Model")]
    precision: Option<Precision>,
    /// The same as the reference's flag says it: 0 TF32, 1 float16, 2 bfloat16
    #[arg(long, value_name = "0|1|2", help_heading = "Model")]
    fp16: Option<u8>,
    /// Base width of the tokenizer
    #[arg(long, value_name = "N", default_value_t = 160, help_heading = "Model")]
    ch: usize,
    /// Codes of the tokenizer
    #[arg(long, value_name = "N", default_value_t = 4096, help_heading = "Model")]
    vocab: usize,
    /// What a step starts from: images, or their tokens as `tokenize` writes them
    #[arg(long, value_enum, default_value_t = Tokens::Images, help_heading = "Model")]
    from: Tokens,
    /// Images in a step, over all GPUs and accumulated iterations
    #[arg(long, value_name = "N", help_heading = "Training")]
    bs: Option<usize>,
    /// Iterations of a step, instead of the fewest that fit
    #[arg(long, value_name = "N", help_heading = "Training")]
    ac: Option<usize>,
    /// Share weights and moments out or not, instead of what is faster
    #[arg(long, value_name = "0|1", value_parser = parse_bool, help_heading = "Training")]
    zero: Option<bool>,
    /// Run every Nth block again for its gradients, 0 none, instead of what is fastest of none, every fourth, every second and all
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "1", help_heading = "Training")]
    recompute: Option<usize>,
    /// Epochs
    #[arg(long, value_name = "N", help_heading = "Training")]
    ep: Option<usize>,
    /// Keep a moving average of the weights with this decay
    #[arg(long, value_name = "X", help_heading = "Training")]
    ema: Option<f64>,
    /// Images of the training set; without it ImageNet's
    #[arg(long, value_name = "N", default_value_t = IMAGENET, help_heading = "Training")]
    images: usize,
    /// Classes of the training set
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1000,
        help_heading = "Training"
    )]
    classes: usize,
    /// Print every plan as a line of JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    if args.gpu.as_deref() == Some("list") {
        return kinds().iter().try_for_each(|line| say!("{line}"));
    }
    let kind = args.kind()?;
    let recipes: Vec<Option<Recipe>> = match (args.all, args.recipe.is_empty()) {
        (true, _) => Recipe::PUBLISHED.into_iter().map(Some).collect(),
        (_, true) => vec![None],
        (_, false) => args.recipe.iter().copied().map(Some).collect(),
    };
    let sizes = match (args.gpus.is_empty(), args.all) {
        (true, true) => SIZES.to_vec(),
        (true, false) => vec![1],
        (false, _) => args.gpus.clone(),
    };
    let count = recipes.len() * sizes.len();
    if count > MOST_PLANS {
        return Err(Error::input(format!(
            "--recipe and --gpus ask for {count} plans; at most {MOST_PLANS} are made at once"
        )));
    }
    let models = recipes
        .iter()
        .map(|&recipe| args.model(recipe))
        .collect::<Result<Vec<_>>>()?;
    let (given, wishes) = (args.machines(), args.wishes());
    let mut plans = Vec::with_capacity(count);
    for model in &models {
        for &gpus in &sizes {
            let cluster = Cluster::new(&kind, gpus, given)?;
            let made = plan(model, &kind, cluster, wishes);
            plans.push(match made {
                // One of many that can't be is a row of the table.
                Err(e) if count > 1 && e.exit_code() == 2 => Err((
                    model.name(),
                    gpus,
                    nextscale::console::on_terminal(&e.to_string()),
                )),
                made => Ok(made?),
            });
        }
    }
    show(args, &plans)
}

fn show(args: &Args, plans: &[Result<Plan<'_>, (String, usize, String)>]) -> Result<()> {
    if args.json {
        for plan in plans {
            match plan {
                Ok(plan) => say!("{}", plan.json())?,
                Err((model, gpus, why)) => {
                    let line = serde_json::json!({"model": model, "gpus": gpus, "error": why});
                    say!("{line}")?;
                }
            }
        }
        return Ok(());
    }
    if let [Ok(plan)] = plans {
        plan.lines().iter().try_for_each(|line| say!("{line}"))?;
    } else {
        table(plans).iter().try_for_each(|line| say!("{line}"))?;
    }
    say!("")?;
    say!("assumptions")?;
    // Those of the largest speak for all.
    let largest = plans.iter().flatten().max_by_key(|p| p.cluster.gpus);
    let lines = largest.map(Plan::assumptions).unwrap_or_default();
    lines.iter().try_for_each(|line| say!("- {line}"))
}

impl Args {
    /// The kind of GPU that was named, or the one at hand.
    fn kind(&self) -> Result<Kind> {
        match self.gpu.as_deref() {
            Some(name) if name != "this" => Kind::named(name),
            asked => {
                if cuda::count() > 0 {
                    return measure();
                }
                let none = match asked {
                    Some(_) => "--gpu=this: there is no GPU at hand",
                    None => "--gpu is not given, and there is no GPU at hand to measure",
                };
                Err(Error::input(format!(
                    "{none}; name a kind: {}",
                    Kind::names()
                )))
            }
        }
    }

    fn machines(&self) -> Given {
        Given {
            hosts: self.hosts,
            per_host: self.gpus_per_host,
            link: self.link,
            network: self.network,
        }
    }

    fn wishes(&self) -> Wishes {
        Wishes {
            ac: self.ac,
            zero: self.zero,
            recompute: self.recompute,
            cores: self.cores,
        }
    }

    fn model(&self, recipe: Option<Recipe>) -> Result<Model> {
        let mut options = TransformerOptions::default();
        if let Some(recipe) = recipe {
            recipe.apply(&mut options, |_| false);
        }
        let set = |place: &mut usize, given: Option<usize>| {
            if let Some(n) = given {
                *place = n;
            }
        };
        set(&mut options.depth, self.depth);
        set(&mut options.schedule.bs, self.bs);
        set(&mut options.schedule.ep, self.ep);
        options.pn = self.pn.clone().unwrap_or(options.pn);
        options.saln = self.saln.unwrap_or(options.saln);
        options.fp16 = self.fp16.unwrap_or(options.fp16);
        if let Some(precision) = self.precision {
            let (fp16, tf32) = agreed(precision, self.fp16, None)?;
            options.fp16 = fp16;
            options.machine.tf32 = tf32.unwrap_or(options.machine.tf32);
        }
        options.schedule.ema = self.ema;
        let set = (self.images, self.classes);
        let mut model = Model::new(&options, set, [self.ch, self.vocab], self.from)?;
        model.bs_is_given = self.bs.is_some();
        Ok(model)
    }
}

/// The GPU at hand, measured.
fn measure() -> Result<Kind> {
    let device = Device::Cuda(0);
    let gpu = device.gpu()?.map_or_else(|| Gpu::get(0), Ok)?;
    let ceilings = Ceilings::measure(gpu, DType::Bf16, &bench::numbers())?;
    gpu.trim()?;
    Ok(Kind::measured(gpu.info(), ceilings))
}
