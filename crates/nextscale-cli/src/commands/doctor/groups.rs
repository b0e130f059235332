//! Which groups of processes are tried, and which of them at the same time.

/// Up to so many processes all pairs are tried.
const FEW: usize = 8;

/// Pairs of ranks to try: all of few; of many neighbours on the ring, and one pair for every two hosts.
pub fn pairs(hosts: &[&str]) -> Vec<[usize; 2]> {
    let n = hosts.len();
    // Two are the group of all.
    if n < 3 {
        return Vec::new();
    }
    if n <= FEW {
        return (0..n)
            .flat_map(|a| (a + 1..n).map(move |b| [a, b]))
            .collect();
    }
    let mut pairs: Vec<[usize; 2]> = (0..n).map(|a| [a, (a + 1) % n]).collect();
    let mut seen: Vec<[&str; 2]> = Vec::new();
    let between = |[a, b]: [usize; 2]| {
        let mut names = [hosts[a], hosts[b]];
        names.sort_unstable();
        names
    };
    seen.extend(pairs.iter().map(|&p| between(p)));
    let mut firsts: Vec<usize> = Vec::new();
    for rank in 0..n {
        if firsts.iter().all(|&f| hosts[f] != hosts[rank]) {
            firsts.push(rank);
        }
    }
    for (i, &a) in firsts.iter().enumerate() {
        for &b in &firsts[i + 1..] {
            if !seen.contains(&between([a, b])) {
                pairs.push([a, b]);
            }
        }
    }
    pairs
}

/// Puts pairs that do not disturb each other into rounds: no process is in two of a round, and no host in two that leave it.
pub fn rounds(pairs: &[[usize; 2]], hosts: &[&str]) -> Vec<Vec<[usize; 2]>> {
    let leaves = |[a, b]: [usize; 2]| hosts[a] != hosts[b];
    let disturbs = |p: [usize; 2], q: [usize; 2]| {
        let shares_host = p.iter().any(|&a| q.iter().any(|&b| hosts[a] == hosts[b]));
        p.iter().any(|a| q.contains(a)) || (leaves(p) && leaves(q) && shares_host)
    };
    let mut rounds: Vec<Vec<[usize; 2]>> = Vec::new();
    for &pair in pairs {
        let free = rounds
            .iter_mut()
            .find(|round| round.iter().all(|&other| !disturbs(pair, other)));
        match free {
            Some(round) => round.push(pair),
            None => rounds.push(vec![pair]),
        }
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_all_tried_and_many_are_neighbours_and_hosts() {
        assert!(pairs(&["a"]).is_empty() && pairs(&["a", "b"]).is_empty());
        assert_eq!(pairs(&["a", "a", "b"]), [[0, 1], [0, 2], [1, 2]]);
        assert_eq!(pairs(&["a"; 8]).len(), 28);
        // Three hosts of four: twelve neighbours, which reach every two hosts.
        let hosts: Vec<&str> = ["a", "b", "c"].iter().flat_map(|h| [*h; 4]).collect();
        assert_eq!(pairs(&hosts).len(), 12);
        // Four of three: neighbours reach all but a–c and b–d.
        let hosts: Vec<&str> = ["a", "b", "c", "d"].iter().flat_map(|h| [*h; 3]).collect();
        let found = pairs(&hosts);
        assert_eq!(found[..2], [[0, 1], [1, 2]]);
        assert_eq!(found[11..], [[11, 0], [0, 6], [3, 9]]);
    }

    #[test]
    fn a_round_has_nobody_twice_and_each_pair_is_in_one() {
        let hosts: Vec<&str> = ["a", "b", "c", "d"].iter().flat_map(|h| [*h; 4]).collect();
        let pairs = pairs(&hosts);
        let rounds = rounds(&pairs, &hosts);
        let mut all: Vec<_> = rounds.iter().flatten().copied().collect();
        all.sort_unstable();
        let mut wanted = pairs.clone();
        wanted.sort_unstable();
        assert_eq!(all, wanted);
        assert!(rounds.len() < pairs.len());
        for round in &rounds {
            let mut ranks: Vec<usize> = round.iter().flatten().copied().collect();
            ranks.sort_unstable();
            ranks.dedup();
            assert_eq!(ranks.len(), 2 * round.len());
            let out = |h: &str| {
                let leaving = round.iter().filter(|[a, b]| hosts[*a] != hosts[*b]);
                leaving.flatten().filter(|&&r| hosts[r] == h).count()
            };
            assert!(
                ["a", "b", "c", "d"].iter().all(|h| out(h) <= 1),
                "{round:?}"
            );
        }
    }
}
