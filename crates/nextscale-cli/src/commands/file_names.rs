//! Names of classes as parts of file names, on any system.

use std::collections::HashMap;

/// Bytes of a name at most: file systems take 255, and more comes behind it.
const MOST_BYTES: usize = 120;
/// What Windows takes for devices, with a number behind the last two.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];
const NUMBERED_DEVICES: [&str; 2] = ["com", "lpt"];

/// The name in files of every class, in class order: what systems refuse is replaced, and where two would then be the same, for systems
/// that take capitals for small letters too, their numbers stand behind them.
pub fn file_names(classes: &[String]) -> Vec<String> {
    let mut names: Vec<String> = classes.iter().map(|name| allowed(name)).collect();
    // Each round parts at least those that are the same in it; a number behind a name may only rarely make that of another.
    for _ in 0..classes.len() {
        let mut seen: HashMap<String, usize> = HashMap::new();
        for name in &names {
            *seen.entry(name.to_lowercase()).or_default() += 1;
        }
        let mut parted = true;
        for (label, name) in names.iter_mut().enumerate() {
            if seen[&name.to_lowercase()] > 1 {
                parted = false;
                name.push_str(&format!("-class{label}"));
            }
        }
        if parted {
            break;
        }
    }
    names
}

/// A name that every file system takes as the beginning of a file's.
fn allowed(name: &str) -> String {
    let refused = |c: char| c.is_control() || "/\\:*?\"<>|".contains(c) || is_invisible(c);
    let kept: String = name
        .chars()
        .map(|c| if refused(c) { '_' } else { c })
        .collect();
    // Hidden files, flags, and ends that Windows takes off.
    let mut kept = kept.trim_matches([' ', '.']).to_owned();
    if kept.starts_with('-') {
        kept.replace_range(..1, "_");
    }
    while kept.len() > MOST_BYTES {
        kept.pop();
    }
    kept.truncate(kept.trim_end_matches([' ', '.']).len());
    let lower = kept.to_lowercase();
    let numbered = NUMBERED_DEVICES.iter().any(|device| {
        let rest = lower.strip_prefix(device);
        rest.is_some_and(|rest| rest.chars().count() == 1 && !rest.starts_with(char::is_alphabetic))
    });
    if kept.is_empty() || DEVICES.contains(&lower.as_str()) || numbered {
        kept.push('_');
    }
    kept
}

/// Characters that turn or join what stands around them, so that a name is not what it seems.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn names(list: &[&str]) -> Vec<String> {
        let list: Vec<String> = list.iter().map(|n| (*n).to_owned()).collect();
        file_names(&list)
    }

    #[test]
    fn names_stay_where_they_can() {
        assert_eq!(names(&["flags", "b, x", "é"]), ["flags", "b, x", "é"]);
        assert_eq!(
            names(&["a/b", "..", "-x", ""]),
            ["a_b", "_-class1", "_x", "_-class3"]
        );
        assert_eq!(
            names(&["CON", "com1", "common", "comb"]),
            ["CON_", "com1_", "common", "comb"]
        );
        assert_eq!(names(&["a\nb\u{202e}", " c. "]), ["a_b_", "c"]);
    }

    #[test]
    fn names_that_would_be_one_file_carry_their_numbers() {
        assert_eq!(
            names(&["Cat", "dog", "cat"]),
            ["Cat-class0", "dog", "cat-class2"]
        );
        assert_eq!(names(&["a:b", "a?b"]), ["a_b-class0", "a_b-class1"]);
        // A number makes the name of another class: both get one more.
        assert_eq!(
            names(&["x", "x-class0", "X"]),
            ["x-class0-class0", "x-class0-class1", "X-class2"]
        );
        let long = ["ß".repeat(100), "ß".repeat(99)].map(|n| n + "q");
        let made = file_names(&long);
        assert!(made[0] != made[1] && made.iter().all(|n| n.len() < 140));
    }

    proptest! {
        #[test]
        fn any_names_become_different_names_of_files(list in prop::collection::vec(".{0,6}|[aA./-]{0,3}|x(-class[0-3])?", 0..8)) {
            let made = file_names(&list);
            let lower: HashSet<String> = made.iter().map(|n| n.to_lowercase()).collect();
            prop_assert_eq!(lower.len(), list.len());
            for name in &made {
                prop_assert!(!name.is_empty() && !name.contains(['/', '\\', '\0', '\n', ':']));
                prop_assert!(!name.starts_with(['.', '-', ' ']) && !name.ends_with(['.', ' ']));
            }
        }
    }
}
