//! Which queries go together and what they see.

use std::ops::Range;

/// Most queries in a tile: a multiple of the register tiles' heights, small enough that a tile's scores stay in the
/// second-level cache.
const MOST_ROWS: usize = 96;
/// Heights of the tiles a long scale is cut into are multiples of this.
const STEP: usize = 12;

/// Consecutive queries and how many keys (from the first) the furthest-seeing of them sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub rows: Range<usize>,
    pub keys: usize,
}

/// The tiles of all queries, in order.
pub(super) struct TilePlan {
    pub tiles: Vec<Tile>,
    /// How many keys each query sees.
    pub visible: Vec<usize>,
}

impl TilePlan {
    /// Queries and keys of the scales that end at `ends`. Short scales share a tile.
    pub fn levels(ends: &[usize]) -> Self {
        let (mut tiles, mut visible) = (vec![], vec![]);
        let mut start = 0;
        for (i, &end) in ends.iter().enumerate() {
            visible.resize(end, end);
            let joins = ends.get(i + 1).is_some_and(|e| e - start <= MOST_ROWS);
            if !joins {
                cut(start..end, end, &mut tiles);
                start = end;
            }
        }
        Self { tiles, visible }
    }

    /// `rows` queries that all see `keys` keys.
    pub fn all(rows: usize, keys: usize) -> Self {
        let mut tiles = vec![];
        cut(0..rows, keys, &mut tiles);
        Self {
            tiles,
            visible: vec![keys; rows],
        }
    }

    /// How many queries there are.
    pub fn rows(&self) -> usize {
        self.visible.len()
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.tiles.last().map_or(0, |t| t.keys)
    }

    /// Scores in the largest tile.
    pub fn most_scores(&self) -> usize {
        let scores = |t: &Tile| t.rows.len() * t.keys;
        self.tiles.iter().map(scores).max().unwrap_or(0)
    }

    /// Rows in the tallest tile.
    pub fn most_rows(&self) -> usize {
        self.tiles.iter().map(|t| t.rows.len()).max().unwrap_or(0)
    }
}

fn cut(rows: Range<usize>, keys: usize, tiles: &mut Vec<Tile>) {
    let count = rows.len().div_ceil(MOST_ROWS).max(1);
    let height = rows.len().div_ceil(count).next_multiple_of(STEP);
    for first in rows.clone().step_by(height.max(1)) {
        tiles.push(Tile {
            rows: first..(first + height).min(rows.end),
            keys,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_query_once_with_all_it_sees() {
        for ends in [
            vec![1],
            vec![97],
            vec![1, 5, 14, 30],
            vec![1, 5, 14, 30, 55, 91, 155, 255, 424, 680],
            vec![96, 97, 300],
        ] {
            let plan = TilePlan::levels(&ends);
            let mut next = 0;
            for t in &plan.tiles {
                assert_eq!(t.rows.start, next);
                assert!(!t.rows.is_empty() && t.rows.len() <= MOST_ROWS);
                let furthest = plan.visible[t.rows.clone()].iter().max();
                assert_eq!(furthest, Some(&t.keys));
                next = t.rows.end;
            }
            assert_eq!((next, plan.rows()), (plan.keys(), plan.keys()));
            assert_eq!(Some(&next), ends.last());
            for (i, v) in plan.visible.iter().enumerate() {
                assert_eq!(Some(v), ends.iter().find(|e| **e > i));
            }
        }
        let plan = TilePlan::all(100, 255);
        assert_eq!((plan.rows(), plan.keys(), plan.tiles.len()), (100, 255, 2));
    }
}
