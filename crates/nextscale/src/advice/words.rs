//! A folder in words: what its images are like, and what to do with them.

use super::{Facts, StepTime};
use crate::data::{Aspect, SplitSurvey, Survey};
use crate::options::FolderOptions;
use crate::text::counted;
use nextscale_tensor::cuda::gib;

/// Classes that are named with their numbers of images.
const NAMED: usize = 12;
/// Sizes that are named.
const SIZES: usize = 3;
/// Bad images that are named.
const BAD: usize = 5;
/// What a square leaves out on average from which on it is told at the start of a run.
const LEFT_OUT: f64 = 0.05;
/// The share of small images from which on they are told of there.
const SMALL: f64 = 0.25;

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// What to know of a run's images at its start, of the few that were looked at.
pub(crate) fn at_start(survey: &SplitSurvey, side: usize, folder: &FolderOptions) -> Vec<String> {
    let looked_at = survey.looked_at();
    let of = match looked_at == survey.images {
        true => format!("{looked_at} training images"),
        false => format!("{looked_at} training images that were looked at"),
    };
    let mut lines = Vec::new();
    let transparent = survey.transparent();
    if transparent > 0 {
        let over = folder.canvas.chosen().background;
        lines.push(format!(
            "{transparent} of {of} have transparent parts; they are laid over {over} (--background)"
        ));
    }
    let (_, left_out, _) = survey.beyond_square();
    if folder.canvas.chosen().aspect == Aspect::Crop && left_out >= LEFT_OUT {
        lines.push(format!(
            "a square leaves out {} of an image on average (--aspect=pad keeps all of it)",
            percent(left_out)
        ));
    }
    let small = survey.smaller_than(side);
    if small as f64 >= SMALL * looked_at.max(1) as f64 && small > 0 {
        lines.push(format!(
            "{small} of {of} have fewer than {side} pixels along their shorter side and are enlarged"
        ));
    }
    lines
}

/// All that is known of a folder whose images become squares of `side`, a name and a text each.
pub fn describe(
    survey: &Survey,
    side: usize,
    folder: &FolderOptions,
) -> Vec<(&'static str, String)> {
    let (train, val) = (&survey.train, &survey.val);
    let all = |f: fn(&SplitSurvey) -> usize| f(train) + f(val);
    let images = train.images + val.images;
    let looked_at = all(SplitSurvey::looked_at);
    let mut out = vec![(
        "images",
        format!(
            "{images}: {} to train with, {} to validate with",
            train.images, val.images
        ),
    )];
    if looked_at < images {
        out.push(("", format!("what follows is of {looked_at} of them")));
    }
    out.push(("classes", classes(survey)));
    let sizes = train.sizes(SIZES).into_iter();
    let sizes: Vec<String> = sizes.map(|((w, h), n)| format!("{w}x{h} ({n})")).collect();
    let at = |share| train.side_at(share).unwrap_or(0);
    out.push((
        "sizes",
        format!(
            "shorter side {} to {} pixels, half of them below {}; most often {}",
            at(0.0),
            at(1.0),
            at(0.5),
            sizes.join(", ")
        ),
    ));
    let small = train.smaller_than(side) + val.smaller_than(side);
    if small > 0 {
        out.push((
            "",
            format!("{small} have fewer than {side} pixels there and are enlarged"),
        ));
    }
    let (odd, mean, most) = train.beyond_square();
    out.push((
        "shapes",
        match (odd, folder.canvas.chosen().aspect) {
            (0, _) => "all are squares".to_owned(),
            (_, Aspect::Pad) => format!("{odd} are no squares; they are laid on one (--aspect=pad)"),
            (_, Aspect::Crop) => format!(
                "{odd} are no squares; cut to one, an image loses {} on average and {} at most{} (--aspect=pad keeps all of it)",
                percent(mean),
                percent(most),
                survey.longest().map_or_else(String::new, |name| format!(", {name}"))
            ),
        },
    ));
    let transparent = all(SplitSurvey::transparent);
    if transparent > 0 {
        let over = folder.canvas.chosen().background;
        out.push((
            "transparent",
            format!(
                "{transparent} have transparent parts, which are laid over {over} (--background)"
            ),
        ));
    }
    let gray = all(SplitSurvey::gray);
    if gray > 0 {
        out.push(("gray", format!("{gray} without colours")));
    }
    let bad: Vec<_> = train.bad.iter().chain(&val.bad).collect();
    if !bad.is_empty() {
        out.push((
            "unreadable",
            format!(
                "{} can't be read; --bad_images=skip leaves them out",
                bad.len()
            ),
        ));
        let named = bad.iter().take(BAD).map(|b| ("", b.reason.clone()));
        out.extend(named);
    }
    if let Some((count, [first, again])) = survey.twins() {
        let have = match count {
            1 => "1 training image has".to_owned(),
            n => format!("{n} training images have"),
        };
        out.push((
            "twice",
            format!("{have} the same pixels as another; {again} is {first}"),
        ));
    }
    if let Some((count, [val, train])) = survey.in_both() {
        out.push((
            "in both",
            format!(
                "{} among the training images too, which makes losses look better than they are; {val} is {train}",
                match count {
                    1 => "1 validation image is".to_owned(),
                    n => format!("{n} validation images are"),
                }
            ),
        ));
    }
    out
}

fn classes(survey: &Survey) -> String {
    let names = survey.classes();
    let counts = &survey.train.by_class;
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by_key(|&class| std::cmp::Reverse(counts.get(class)));
    let shown = order.iter().take(NAMED);
    let shown: Vec<String> = shown
        .map(|&class| format!("{} {}", names[class], counts.get(class).unwrap_or(&0)))
        .collect();
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "{} by training images: {}{more}",
        names.len(),
        shown.join(", ")
    )
}

/// What a training takes, in words: memory, a step, all of them.
pub fn expected(time: StepTime, steps: u64) -> String {
    let all = time.seconds * steps as f64;
    let all = match all {
        ..90.0 => format!("{all:.0} s"),
        ..5400.0 => format!("{:.0} minutes", all / 60.0),
        ..172_800.0 => format!("{:.1} hours", all / 3600.0),
        _ => format!("{:.1} days", all / 86_400.0),
    };
    let memory = time.memory.map(|bytes| format!("about {}, ", gib(bytes)));
    let memory = memory.unwrap_or_default();
    format!(
        "{memory}{} of {:.3} s: {all}",
        counted(steps, "step", "steps"),
        time.seconds
    )
}

/// The first line of advice.
pub fn for_whom(facts: &Facts) -> String {
    format!("for these images and {}", facts.machine())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_units_that_fit() {
        let told = |seconds, steps| {
            let time = StepTime {
                seconds,
                timed: 3,
                memory: Some(1 << 30),
                ac: 1,
            };
            expected(time, steps)
        };
        assert_eq!(told(0.5, 100), "about 1.0 GiB, 100 steps of 0.500 s: 50 s");
        assert!(told(0.5, 1200).ends_with("10 minutes"));
        assert!(told(1.0, 7200).ends_with("2.0 hours"));
        assert!(told(1.0, 864_000).ends_with("10.0 days"));
        assert!(told(1.0, 1).contains("1 step of"));
    }
}
