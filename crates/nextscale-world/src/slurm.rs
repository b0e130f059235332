//! Slurm's short forms: lists of nodes as `gpu[01-03,7],login`, tasks a node as `2(x3),1`.

/// The most hosts that a list may stand for.
const MOST: usize = 1 << 16;

/// The names in a list of nodes; nothing when it can't be read.
pub(crate) fn expand_nodes(list: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for part in split_outside(list)? {
        expand_one(part, String::new(), &mut names)?;
    }
    (!names.is_empty()).then_some(names)
}

/// Parts between commas that stand in no brackets.
fn split_outside(list: &str) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, c) in list.char_indices() {
        match c {
            '[' if !inside => inside = true,
            ']' if inside => inside = false,
            '[' | ']' => return None,
            ',' if !inside => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    (!inside).then_some(parts)
}

/// A name with any number of brackets.
fn expand_one(part: &str, before: String, names: &mut Vec<String>) -> Option<()> {
    let Some((head, tail)) = part.split_once('[') else {
        let name = before + part;
        let good = !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control());
        if !good || names.len() >= MOST {
            return None;
        }
        names.push(name);
        return Some(());
    };
    let (numbers, tail) = tail.split_once(']')?;
    for range in numbers.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let width = first.len();
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(first) || !digits(last) {
            return None;
        }
        let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
        if last < first || last - first >= MOST as u64 {
            return None;
        }
        for number in first..=last {
            expand_one(tail, format!("{before}{head}{number:0width$}"), names)?;
        }
    }
    Some(())
}

/// How many tasks each node has.
pub(crate) fn expand_tasks(list: &str) -> Option<Vec<usize>> {
    let mut tasks = Vec::new();
    for part in list.split(',') {
        let (count, times) = match part.split_once("(x") {
            Some((count, times)) => (count, times.strip_suffix(')')?.parse::<usize>().ok()?),
            None => (part, 1),
        };
        let count: usize = count.parse().ok()?;
        if times > MOST || tasks.len() + times > MOST {
            return None;
        }
        tasks.extend(std::iter::repeat_n(count, times));
    }
    Some(tasks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nodes(list: &str) -> String {
        expand_nodes(list).map_or("none".into(), |names| names.join(" "))
    }

    #[test]
    fn lists_of_nodes() {
        assert_eq!(nodes("login"), "login");
        assert_eq!(nodes("a,b"), "a b");
        assert_eq!(nodes("gpu[1-3]"), "gpu1 gpu2 gpu3");
        assert_eq!(nodes("gpu[08-10,2],login"), "gpu08 gpu09 gpu10 gpu2 login");
        assert_eq!(nodes("r[1-2]n[0-1]"), "r1n0 r1n1 r2n0 r2n1");
        assert_eq!(nodes("n[1-2].x.org,m3"), "n1.x.org n2.x.org m3");
        for bad in [
            "",
            ",",
            "a[",
            "a]",
            "a[]",
            "a[1",
            "a[2-1]",
            "a[x]",
            "a[[1]]",
            "a[1-99999999]",
            "a b",
            "a[0-65535]b[0-65535]",
        ] {
            assert_eq!(nodes(bad), "none", "{bad}");
        }
    }

    #[test]
    fn tasks_of_nodes() {
        assert_eq!(expand_tasks("2(x3),1"), Some(vec![2, 2, 2, 1]));
        assert_eq!(expand_tasks("4"), Some(vec![4]));
        for bad in ["", "x", "2(x", "2(x3", "1(x99999999)"] {
            assert_eq!(expand_tasks(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(list in "[a-c0-9,\\[\\]()x-]{0,24}") {
            let _ = expand_tasks(&list);
            if let Some(names) = expand_nodes(&list) {
                prop_assert!(names.iter().all(|name| !name.contains(['[', ']', ','])));
            }
        }

        #[test]
        fn a_range_is_all_of_its_numbers(first in 0u64..200, more in 0u64..50, width in 1usize..5) {
            let list = format!("n[{first:0width$}-{}]", first + more);
            let all: Vec<_> = (first..=first + more).map(|i| format!("n{i:0width$}")).collect();
            prop_assert_eq!(expand_nodes(&list), Some(all));
        }
    }
}
