//! Which recipe goes with a folder and a machine.

use super::Facts;
use crate::options::Recipe;
#[cfg(feature = "cli")]
use crate::{
    Error, Result,
    checkpoint::open::sizes_in,
    options::values::{DeviceChoice, parse_pn},
    options::{DataOptions, FolderOptions, ScheduleOptions, TokenizerOptions, TransformerOptions},
    world::{World, of_first, on_first},
};

/// An image may be enlarged by this much: more shows only blur.
const ENLARGED: f64 = 1.5;
/// Memory of a GPU from which on pictures of 256 pixels are trained on.
const FOR_256: usize = 15 << 30;
/// Images from which on they are: fewer can't fill so large a model.
const IMAGES_FOR_256: usize = 1000;

/// The recipe for small data that goes with these images and this machine: the largest pictures that the images have the pixels for
/// and the machine the speed.
pub fn recipe(facts: &Facts) -> Recipe {
    let fits = |side: usize| facts.side == 0 || facts.side as f64 * ENLARGED >= side as f64;
    match &facts.gpu {
        Some((_, memory)) if fits(256) && *memory >= FOR_256 && facts.images >= IMAGES_FOR_256 => {
            Recipe::Medium256
        }
        Some(_) if fits(128) => Recipe::Small128,
        _ if fits(64) => Recipe::Small64,
        _ => Recipe::Small32,
    }
}

/// Epochs in which a transformer of this recipe sees about as many pictures as it can learn from before it knows them by heart.
pub fn epochs(recipe: Recipe, images: usize) -> usize {
    let seen = match recipe {
        Recipe::Small32 | Recipe::Small64 => 100_000,
        Recipe::Small128 => 600_000,
        _ => 2_000_000,
    };
    (seen / images.max(1)).clamp(10, 200)
}

/// Chooses a recipe for a tokenizer and sets its flags, but for those that are given; what was chosen, as it can be written down.
///
/// # Errors
/// When the folder or the device can't be used.
#[cfg(feature = "cli")]
pub(crate) fn choose_tokenizer(
    options: &mut TokenizerOptions,
    is_given: impl Fn(&str) -> bool,
    world: &World,
) -> Result<String> {
    let facts = facts(
        &options.data,
        &options.folder,
        options.machine.device,
        world,
    )?;
    let recipe = recipe(&facts);
    recipe.apply_to_tokenizer(options, &is_given);
    Ok(chosen(&facts, recipe, &options.schedule))
}

/// The same for a transformer, whose tokenizer says how large pictures are where there is one.
///
/// # Errors
/// When the folder or the device can't be used.
#[cfg(feature = "cli")]
pub(crate) fn choose_transformer(
    options: &mut TransformerOptions,
    is_given: impl Fn(&str) -> bool,
    world: &World,
) -> Result<String> {
    let facts = facts(
        &options.data,
        &options.folder,
        options.machine.device,
        world,
    )?;
    let of_tokenizer = options.tokenizer.as_deref().and_then(|path| {
        let (pn, patch_size) = sizes_in(path).ok().flatten()?;
        let side = parse_pn(&pn).ok()?.last()? * patch_size;
        Recipe::SMALL
            .into_iter()
            .find(|recipe| recipe.side().is_some_and(|own| own >= side))
    });
    let recipe = of_tokenizer.unwrap_or_else(|| recipe(&facts));
    recipe.apply(options, &is_given);
    if !is_given("ep") && !is_given("steps") {
        options.schedule.ep = epochs(recipe, facts.images);
    }
    Ok(chosen(&facts, recipe, &options.schedule))
}

/// What the first process sees of the folder and its machine, on all processes.
#[cfg(feature = "cli")]
fn facts(
    data: &DataOptions,
    folder: &FolderOptions,
    device: DeviceChoice,
    world: &World,
) -> Result<Facts> {
    let path = data.data_path.as_deref().ok_or_else(|| {
        let why = "it is chosen by looking at the images, and `data_path` is missing; give that, or one of the other recipes";
        Error::field("recipe", Recipe::Auto.name(), why)
    })?;
    let seen = on_first(world, || Facts::of_folder(path, folder, device))?;
    of_first(world, seen)?.ok_or_else(|| Error::failed("the first process saw no images"))
}

/// What was chosen, so that it can be written down.
#[cfg(feature = "cli")]
fn chosen(facts: &Facts, recipe: Recipe, schedule: &ScheduleOptions) -> String {
    let length = match schedule.steps {
        Some(steps) => format!("--steps={steps}"),
        None => format!("--ep={}", schedule.ep),
    };
    format!(
        "--recipe=auto: {} training images of about {} pixels and {}: as --recipe={} {length}",
        facts.images,
        facts.side,
        facts.machine(),
        recipe.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(images: usize, side: usize, gpu: Option<usize>) -> Facts {
        Facts {
            images,
            side,
            gpu: gpu.map(|gib| ("a".into(), gib << 30)),
            cores: 2,
        }
    }

    #[test]
    fn size_follows_from_images_and_machine() {
        for (images, side, gpu, want) in [
            (400, 500, None, Recipe::Small64),
            (400, 40, None, Recipe::Small32),
            (400, 43, None, Recipe::Small64),
            (400, 500, Some(80), Recipe::Small128),
            (4000, 500, Some(80), Recipe::Medium256),
            (4000, 500, Some(8), Recipe::Small128),
            (4000, 72, Some(80), Recipe::Small64),
            (4000, 0, None, Recipe::Small64),
        ] {
            assert_eq!(recipe(&facts(images, side, gpu)), want, "{images} {side}");
        }
    }

    #[test]
    fn more_images_are_seen_less_often() {
        assert_eq!(epochs(Recipe::Small64, 100), 200);
        assert_eq!(epochs(Recipe::Small64, 2000), 50);
        assert_eq!(epochs(Recipe::Small64, 1 << 20), 10);
        assert_eq!(epochs(Recipe::Medium256, 0), 200);
    }
}
