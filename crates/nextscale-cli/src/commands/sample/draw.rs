//! Drawing the images of a call, batch by batch.

use super::super::turns::Turns;
use super::call::{Call, Tile};
use super::sink::Drawn;
use nextscale::generate::{BatchSampler, Blend, Sampled, Sampler, Watch};
use nextscale::memory::{self, Workload, advise};
use nextscale::{Error, Result, World};
use nextscale_tensor::{Device, Math, Tensor, ops};
use std::ops::Range;

/// What is drawn, with what.
pub struct Drawing<'a> {
    pub sampler: Sampler<'a>,
    pub call: &'a Call,
    pub tiles: &'a [Tile],
    /// Images at once.
    pub batch: usize,
    pub device: Device,
    pub math: Math,
}

impl Drawing<'_> {
    /// Refuses what would not fit into memory.
    ///
    /// # Errors
    /// One line that says what does.
    pub fn check_memory(&self) -> Result<()> {
        let largest = batches(self.tiles, self.batch).map(|b| b.len()).max();
        let options = self.call.options(0);
        let workload = self.workload(&options);
        memory::check(self.device, "batch", largest.unwrap_or(0), workload)
    }

    fn workload<'b>(&'b self, options: &'b nextscale::generate::SampleOptions) -> Workload<'b> {
        Workload::Sample {
            var: &self.sampler.var.config,
            vqvae: &self.sampler.vqvae.config,
            math: self.math,
            options,
        }
    }

    /// Draws all images, in turn with other processes; the first of these gives them to `take`, in order.
    ///
    /// # Errors
    /// When drawing or `take` fails, or another process is gone.
    pub fn draw(
        &self,
        world: &World,
        (height, width): (usize, usize),
        take: &mut dyn FnMut(&Drawn<'_>) -> Result<()>,
    ) -> Result<()> {
        let each = width * height * 3;
        let all: Vec<Range<usize>> = batches(self.tiles, self.batch).collect();
        let mut turns = Turns::new(world, all.len());
        // Whole batches in turn: they are those of one process.
        let mut own = all.iter().skip(world.rank()).step_by(world.size());
        let mut samplers = None;
        while !turns.are_over() {
            let made = match own.next() {
                Some(range) => Some(self.batch_of(&self.tiles[range.clone()], &mut samplers)?),
                None => None,
            };
            turns.next(made, &mut |b, made| {
                let range = all[b].clone();
                // The pictures, and behind them those after every scale.
                let whole = each * range.len();
                if made.len() < whole || !made.len().is_multiple_of(whole) {
                    return Err(Error::failed(
                        "another process drew other pictures; give all of them the same files and flags",
                    ));
                }
                let (pixels, scales) = made.split_at(whole);
                for (i, index) in range.enumerate() {
                    let of = |batch| part(batch, i, each);
                    take(&Drawn {
                        tile: &self.tiles[index],
                        index,
                        pixels: part(pixels, i, each),
                        scales: scales.chunks_exact(whole).map(of).collect(),
                    })?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The pixels of a batch, and behind them those after every scale where these are asked for.
    fn batch_of<'s>(&'s self, tiles: &[Tile], samplers: &mut Samplers<'s>) -> Result<Vec<u8>> {
        let Some(first) = tiles.first() else {
            return Ok(Vec::new());
        };
        let options = self.call.options(first.value);
        let sampler = self.sampler;
        let mut steps = Vec::new();
        let mut watch = |_: usize, _: &Tensor, f_hat: &Tensor| {
            steps.extend(ops::to_pixels(&sampler.image(f_hat)?)?);
            Ok(())
        };
        let watched = self.call.scales.is_some() || self.call.scale.is_some();
        let watch: Option<&mut Watch<'_>> = if watched { Some(&mut watch) } else { None };
        let labels: Vec<i32> = tiles.iter().map(|tile| tile.condition.from).collect();
        let drawn: Result<Sampled> = if !first.is_of_label() {
            let blends: Vec<Blend> = tiles.iter().map(|tile| tile.condition).collect();
            sampler.draw_between(&blends, first.number, &options, watch)
        } else if watch.is_some() {
            sampler.draw(&labels, first.number, &options, None, watch)
        } else {
            // What is recorded holds for one value of every flag.
            let known = samplers.take().filter(|(value, _)| *value == first.value);
            let new = || {
                let own = BatchSampler::new(sampler, options.clone(), self.batch);
                (first.value, own)
            };
            let (_, batches) = samplers.insert(known.unwrap_or_else(new));
            batches.draw(&labels, first.number)
        };
        let drawn = drawn.map_err(|e| {
            let workload = self.workload(&options);
            advise(e, self.device, "batch", tiles.len(), workload)
        })?;
        let mut pixels = drawn.pixels()?;
        pixels.append(&mut steps);
        Ok(pixels)
    }
}

/// The sampler of batches of the swept value that is being drawn.
type Samplers<'a> = Option<(usize, BatchSampler<'a>)>;

/// Image number `i` of a batch.
fn part(batch: &[u8], i: usize, each: usize) -> &[u8] {
    &batch[i * each..(i + 1) * each]
}

/// Which images are drawn at once: neighbours of one value whose numbers follow one another, up to `most`. Blends come one by one, since
/// those of one number stand beside each other.
fn batches(tiles: &[Tile], most: usize) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut start = 0;
    std::iter::from_fn(move || {
        let first = tiles.get(start)?;
        let follows = |pair: &[Tile]| {
            let labels = pair.iter().all(Tile::is_of_label);
            labels && pair[0].value == pair[1].value && pair[0].number + 1 == pair[1].number
        };
        let more = match first.is_of_label() {
            true => tiles[start..]
                .windows(2)
                .take(most.saturating_sub(1))
                .take_while(|p| follows(p))
                .count(),
            false => 0,
        };
        let range = start..start + more + 1;
        start = range.end;
        Some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::super::call::tests::call;
    use super::*;
    use crate::commands::sweep::Sweep;

    #[test]
    fn batches_are_of_one_value_and_numbers_in_order() {
        let of = |call: &Call, most| batches(&call.tiles(), most).collect::<Vec<_>>();
        let plain = call();
        assert!(of(&plain, 16).into_iter().eq(std::iter::once(0..4)));
        assert_eq!(of(&plain, 3), [0..3, 3..4]);
        let sweep = Some(Sweep::parse("cfg=1,2").unwrap());
        let swept = Call { sweep, ..call() };
        assert_eq!(of(&swept, 16), [0..4, 4..8]);
        assert_eq!(of(&swept, 3), [0..3, 3..4, 4..7, 7..8]);
        let interpolate = Some(vec![0.0, 0.5, 1.0]);
        let between = Call {
            interpolate,
            ..call()
        };
        assert_eq!(of(&between, 16).len(), 6);
    }
}
