//! What a call of `sample` draws: the flags that decide the pixels, and every image that follows from them.

use super::super::images::in_range;
use super::super::sweep::{Sweep, Swept};
use nextscale::generate::{Blend, Noise, SampleOptions};
use nextscale::{Error, Result};
use serde::{Deserialize, Serialize};

/// Images of a class at most: what more would take is no file or folder anybody keeps.
const MOST_OF_A_CLASS: usize = 1 << 16;
/// Images between two classes at most.
pub const MOST_FRAMES: usize = 1 << 10;

/// How pictures after every scale are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scales {
    /// A file each
    Files,
    /// One PNG file an image, side by side
    Strip,
    /// One animated GIF an image
    Gif,
}

/// Checks `--per_class`.
///
/// # Errors
/// One line that says what is possible.
pub fn check_count(per_class: usize) -> Result<()> {
    match per_class {
        1..=MOST_OF_A_CLASS => Ok(()),
        0 => Err(Error::input("--batch and --per_class must be at least 1")),
        n => Err(Error::input(format!(
            "--per_class={n}: it must be at most {MOST_OF_A_CLASS}"
        ))),
    }
}

/// The flags that decide the pixels, as a picture's file keeps them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Labels, in order.
    pub classes: Vec<i32>,
    /// What these classes are called, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<String>>,
    /// How far from the first of two classes to the second each image lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpolate: Option<Vec<f32>>,
    /// Images of each class.
    pub per_class: usize,
    pub seed: u64,
    /// The number of the first image within the seed.
    #[serde(default)]
    pub first: u64,
    pub cfg: f32,
    pub top_k: usize,
    pub top_p: f32,
    pub more_smooth: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Sweep>,
    /// Which pictures after scales are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scales: Option<Scales>,
    /// The scale after which a picture shows the image, where that is not the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<usize>,
    /// Images a row, as `--columns` has it.
    pub columns: usize,
    pub labels: bool,
    /// One image as it is, not in a grid.
    pub alone: bool,
}

/// One image to draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tile {
    /// Between the same class where it is of one.
    pub condition: Blend,
    /// Its number within the seed.
    pub number: u64,
    /// Which of the swept values.
    pub value: usize,
}

impl Tile {
    /// The class that it is of, if it lies between no two.
    pub fn class(&self) -> Option<i32> {
        let Blend { from, to, share } = self.condition;
        match share {
            0.0 => Some(from),
            1.0 => Some(to),
            _ => (from == to).then_some(from),
        }
    }

    /// Whether it is drawn for a label, not for a blend.
    pub fn is_of_label(&self) -> bool {
        self.condition.from == self.condition.to
    }
}

impl Call {
    /// Checks flags as a command line and a file may have them.
    ///
    /// # Errors
    /// One line that names the flag.
    pub fn check(&self) -> Result<()> {
        in_range("cfg", f64::from(self.cfg), 0.0..=1000.0)?;
        in_range("top_p", f64::from(self.top_p), 0.0..=1.0)?;
        check_count(self.per_class)?;
        if let Some(sweep) = &self.sweep {
            let bad = |e: String| Error::input(format!("--sweep={sweep}: {e}"));
            sweep.check().map_err(bad)?;
        }
        if let Some(shares) = &self.interpolate {
            let bad = |why: &str| Err(Error::input(format!("--interpolate: {why}")));
            if self.classes.len() != 2 {
                return bad("two classes are needed");
            }
            if shares.is_empty() || shares.len() > MOST_FRAMES {
                return bad(&format!("from 1 to {MOST_FRAMES} frames are possible"));
            }
            if shares.iter().any(|s| !(0.0..=1.0).contains(s)) {
                return bad("shares of the second class are numbers from 0 to 1");
            }
            if self.sweep.is_some() {
                return bad("it can't be joined with --sweep");
            }
        }
        let most = u64::try_from(self.classes.len() * self.per_class).unwrap_or(u64::MAX);
        if self.first.checked_add(most).is_none() {
            return Err(Error::input(format!(
                "the number of the first image, {}, is too large",
                self.first
            )));
        }
        Ok(())
    }

    /// Every image, row by row.
    pub fn tiles(&self) -> Vec<Tile> {
        let samples = 0..self.per_class as u64;
        if let (Some(shares), [from, to]) = (&self.interpolate, &self.classes[..]) {
            let (from, to) = (*from, *to);
            let row = |n: u64| {
                shares.iter().map(move |&share| Tile {
                    condition: Blend { from, to, share },
                    number: self.first + n,
                    value: 0,
                })
            };
            return samples.flat_map(row).collect();
        }
        let values = self.sweep.as_ref().map_or(1, |sweep| sweep.values.len());
        let row = |value: usize| {
            let each = |&class: &i32| std::iter::repeat_n(class, self.per_class);
            let labels = self.classes.iter().flat_map(each);
            labels.zip(self.first..).map(move |(class, number)| Tile {
                condition: Blend {
                    from: class,
                    to: class,
                    share: 0.0,
                },
                number,
                value,
            })
        };
        (0..values).flat_map(row).collect()
    }

    /// How images of the swept value number `value` are drawn.
    pub fn options(&self, value: usize) -> SampleOptions {
        let mut options = SampleOptions {
            cfg: self.cfg,
            top_k: self.top_k,
            top_p: self.top_p,
            more_smooth: self.more_smooth,
            noise: Noise::Seed(self.seed),
        };
        if let Some(sweep) = &self.sweep {
            let value = sweep.values[value];
            match sweep.flag {
                Swept::Cfg => options.cfg = value,
                Swept::TopP => options.top_p = value,
                Swept::TopK => options.top_k = value as usize,
            }
        }
        options
    }

    /// The call that draws one of the images alone.
    pub fn of_tile(&self, tile: &Tile) -> Self {
        let options = self.options(tile.value);
        let Blend { from, to, share } = tile.condition;
        let name = |class: i32| self.name(class).map(str::to_owned);
        let (classes, interpolate) = match tile.is_of_label() {
            true => (vec![from], None),
            false => (vec![from, to], Some(vec![share])),
        };
        Self {
            names: classes.iter().map(|&class| name(class)).collect(),
            classes,
            interpolate,
            per_class: 1,
            seed: self.seed,
            first: tile.number,
            cfg: options.cfg,
            top_k: options.top_k,
            top_p: options.top_p,
            more_smooth: self.more_smooth,
            sweep: None,
            scales: None,
            // A picture that is one image already is the same image.
            scale: self.scale.filter(|_| self.alone),
            columns: 0,
            labels: false,
            alone: true,
        }
    }

    /// What a class of the call is called.
    pub fn name(&self, class: i32) -> Option<&str> {
        let place = self.classes.iter().position(|&c| c == class)?;
        Some(self.names.as_ref()?.get(place)?.as_str())
    }

    /// Images a row of a grid.
    pub fn grid_columns(&self) -> usize {
        if let Some(shares) = &self.interpolate {
            return shares.len();
        }
        if self.sweep.is_some() {
            return self.classes.len() * self.per_class;
        }
        match self.columns {
            0 if self.per_class > 1 => self.per_class,
            0 => 8,
            n => n,
        }
    }

    /// What processes that draw together must agree on.
    pub fn facts(&self, classes: Option<&str>, batch: usize) -> [(&'static str, String); 13] {
        [
            ("`classes`", format!("{classes:?}")),
            ("`classes`", format!("{:?}", self.classes)),
            ("`per_class`", self.per_class.to_string()),
            ("`cfg`", self.cfg.to_string()),
            ("`top_k`", self.top_k.to_string()),
            ("`top_p`", self.top_p.to_string()),
            ("`seed`", self.seed.to_string()),
            ("`more_smooth`", self.more_smooth.to_string()),
            ("`batch`", batch.to_string()),
            ("`scales`", format!("{:?}", (self.scales, self.scale))),
            ("`sweep`", format!("{:?}", self.sweep)),
            ("`interpolate`", format!("{:?}", self.interpolate)),
            ("`again`", format!("from image {}", self.first)),
        ]
    }

    /// The flags in words.
    pub fn in_words(&self) -> String {
        let swept = self.sweep.as_ref().map(|sweep| sweep.flag.name());
        let flags = [
            ("seed", self.seed.to_string()),
            ("cfg", self.cfg.to_string()),
            ("top_k", self.top_k.to_string()),
            ("top_p", self.top_p.to_string()),
        ];
        let flags = flags.iter().filter(|(name, _)| Some(*name) != swept);
        let mut words: Vec<String> = flags.map(|(n, v)| format!("--{n}={v}")).collect();
        if self.more_smooth {
            words.push("--more_smooth".into());
        }
        if let Some(sweep) = &self.sweep {
            words.push(format!("--sweep {sweep}"));
        }
        if let (Some(shares), [from, to]) = (&self.interpolate, &self.classes[..]) {
            let shown: Vec<String> = shares.iter().map(f32::to_string).collect();
            words.push(format!(
                "between classes {from} and {to} at {}",
                shown.join(", ")
            ));
        }
        match (self.scale, self.scales) {
            (Some(scale), _) => words.push(format!("after scale {scale}")),
            (None, Some(Scales::Strip)) => words.push("after every scale".into()),
            _ => {}
        }
        words.join(" ")
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn call() -> Call {
        Call {
            classes: vec![4, 2],
            names: Some(["four", "two"].map(str::to_owned).into()),
            interpolate: None,
            per_class: 2,
            seed: 3,
            first: 0,
            cfg: 1.1,
            top_k: 900,
            top_p: 0.96,
            more_smooth: false,
            sweep: None,
            scales: None,
            scale: None,
            columns: 0,
            labels: true,
            alone: false,
        }
    }

    #[test]
    fn images_of_a_call_can_be_drawn_alone() {
        let swept = Call {
            sweep: Some(Sweep::parse("cfg=0,2.5").unwrap()),
            ..call()
        };
        let between = Call {
            interpolate: Some(vec![0.0, 0.3, 1.0]),
            ..call()
        };
        for call in [call(), swept, between] {
            let tiles = call.tiles();
            for tile in &tiles {
                let alone = call.of_tile(tile);
                alone.check().unwrap();
                let [own] = &alone.tiles()[..] else {
                    panic!("one image is drawn alone")
                };
                assert_eq!((own.condition, own.number), (tile.condition, tile.number));
                let (a, b) = (alone.options(0), call.options(tile.value));
                assert_eq!((a.cfg, a.top_k, a.top_p), (b.cfg, b.top_k, b.top_p));
                assert_eq!(alone.of_tile(own), alone);
                let class = tile.condition.from;
                assert!(alone.name(class).is_some() && alone.name(class) == call.name(class));
            }
            let text = serde_json::to_string(&call).unwrap();
            assert_eq!(serde_json::from_str::<Call>(&text).unwrap(), call);
        }
    }

    #[test]
    fn rows_of_a_sweep_have_the_same_numbers() {
        let swept = Call {
            sweep: Some(Sweep::parse("top_k=1:3:1").unwrap()),
            ..call()
        };
        let tiles = swept.tiles();
        assert_eq!((tiles.len(), swept.grid_columns()), (12, 4));
        for row in tiles.chunks(4) {
            let numbers: Vec<u64> = row.iter().map(|t| t.number).collect();
            let labels: Vec<i32> = row.iter().filter_map(Tile::class).collect();
            assert_eq!((numbers, labels), (vec![0, 1, 2, 3], vec![4, 4, 2, 2]));
        }
        assert_eq!(swept.options(2).top_k, 3);
    }

    #[test]
    fn what_a_file_may_say_is_checked() {
        let bad: [fn(&mut Call); 8] = [
            |c| c.cfg = 1001.0,
            |c| c.top_p = -0.1,
            |c| c.per_class = 0,
            |c| c.per_class = usize::MAX,
            |c| c.first = u64::MAX,
            |c| c.interpolate = Some(vec![2.0]),
            |c| c.interpolate = Some(Vec::new()),
            |c| {
                c.interpolate = Some(vec![0.5]);
                c.classes = vec![1];
            },
        ];
        call().check().unwrap();
        for spoil in bad {
            let mut spoilt = call();
            spoil(&mut spoilt);
            assert!(spoilt.check().is_err(), "{spoilt:?}");
        }
    }
}
