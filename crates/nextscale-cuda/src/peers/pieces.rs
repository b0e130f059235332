//! How a collective is cut into pieces that fit into the room that GPUs have for each other's values.

use crate::nccl::Kind;
use std::ops::Range;

/// A part of a collective: a share of values for every member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// By member, in elements from the collective's first on.
    pub(super) shares: Vec<Range<usize>>,
}

/// Whether members add up what they have of their shares, and whether all get all shares then; `None` for what is not done here.
pub(super) fn phases(kind: Kind) -> Option<(bool, bool)> {
    match kind {
        Kind::AllReduce => Some((true, true)),
        Kind::ReduceScatter => Some((true, false)),
        Kind::AllGather => Some((false, true)),
        Kind::Broadcast { .. } => None,
    }
}

/// The pieces of a collective of `count` elements, or `count` a member, none with a share of more than `most`.
pub(super) fn pieces(kind: Kind, count: usize, members: usize, most: usize) -> Vec<Piece> {
    match kind {
        // Cut into shares here, of whole cache lines as far as they go.
        Kind::AllReduce => {
            const LINE: usize = 32;
            let whole = most / LINE * LINE * members;
            (0..count)
                .step_by(whole)
                .map(|from| {
                    let length = whole.min(count - from);
                    let each = length.div_ceil(members).next_multiple_of(LINE);
                    let at = |member: usize| from + (member * each).min(length);
                    let shares = (0..members).map(|m| at(m)..at(m + 1)).collect();
                    Piece { shares }
                })
                .collect()
        }
        _ => (0..count)
            .step_by(most)
            .map(|from| {
                let to = count.min(from + most);
                let share = |m: usize| m * count + from..m * count + to;
                let shares = (0..members).map(share).collect();
                Piece { shares }
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_are_all_elements_once(
            kind in 0..3, count in 0usize..5000, members in 2usize..9, most in 32usize..400,
        ) {
            let kind = [Kind::AllReduce, Kind::ReduceScatter, Kind::AllGather][kind as usize];
            let cut = pieces(kind, count, members, most);
            let all = if kind == Kind::AllReduce { count } else { count * members };
            let mut times = vec![0; all];
            for piece in &cut {
                prop_assert_eq!(piece.shares.len(), members);
                for (member, share) in piece.shares.iter().enumerate() {
                    prop_assert!(share.len() <= most);
                    times[share.clone()].iter_mut().for_each(|n| *n += 1);
                    if kind != Kind::AllReduce {
                        // Everybody has as much in each piece, in its own part.
                        prop_assert!(share.start >= member * count && share.end <= (member + 1) * count);
                        prop_assert_eq!(share.len(), piece.shares[0].len());
                    }
                }
            }
            prop_assert!(times.iter().all(|&n| n == 1));
        }
    }

    #[test]
    fn a_broadcast_is_left_to_others() {
        assert_eq!(phases(Kind::Broadcast { root: 0 }), None);
    }
}
