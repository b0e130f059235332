//! Declarations of kernels held against their sources.

use crate::kernel::Module;
use crate::{Error, Result};

impl Module {
    /// Looks whether every kernel that is declared is in the source, with arguments of the kinds declared: for tests of whoever
    /// writes kernels. It reads the source as text, with macros of one line a call.
    ///
    /// # Errors
    /// Names the first kernel that is not as it is declared.
    pub fn check(&self) -> Result<()> {
        let source = expanded(&self.text());
        for kernel in self.kernels {
            let name = kernel.name;
            let found = kinds(&source, name)
                .ok_or_else(|| Error::Device(format!("kernel {name} is not in {}", self.name)))?;
            if found != kernel.signature {
                let text = format!("kernel {name} takes {found}, not {}", kernel.signature);
                return Err(Error::Device(text));
            }
        }
        Ok(())
    }
}

/// The kinds of a kernel's arguments; `?` for those that no launch has.
fn kinds(source: &str, name: &str) -> Option<String> {
    let start = format!(" {name}(");
    let mut places = source.match_indices(&start);
    let (at, _) = places.find(|(at, _)| before(source, *at).contains("__global__"))?;
    let (args, _) = source[at + start.len()..].split_once(')')?;
    let kind = |arg: &str| match arg.trim().trim_start_matches("const ") {
        a if a.contains('*') => 'p',
        a if a.starts_with("int ") => 'i',
        a if a.starts_with("u64 ") => 'u',
        a if a.starts_with("float ") => 'f',
        a if a.starts_with("__grid_constant__ TensorMap ") => 'm',
        _ => '?',
    };
    Some(args.split(',').map(kind).collect())
}

/// A source with the lines that call its one-line-a-call macros replaced by what they stand for.
fn expanded(source: &str) -> String {
    let source = source.replace("\\\n", " ");
    let mut out = String::new();
    let mut macros: Vec<(&str, Vec<&str>, &str)> = Vec::new();
    for line in source.lines() {
        let call = |text: &str| {
            let (name, rest) = text.split_once('(')?;
            let (args, _) = rest.split_once(')')?;
            Some((name.len(), args.len()))
        };
        if let Some(definition) = line.strip_prefix("#define ") {
            if let Some((name, args)) = call(definition) {
                let params = &definition[name + 1..name + 1 + args];
                let body = &definition[name + args + 2..];
                let params = params.split(',').map(str::trim).collect();
                macros.push((&definition[..name], params, body));
            }
            continue;
        }
        let used = macros.iter().find(|m| {
            line.strip_prefix(m.0)
                .is_some_and(|rest| rest.starts_with('('))
        });
        let Some((name, params, body)) = used else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let args = line[name.len() + 1..]
            .trim_end()
            .trim_end_matches(';')
            .trim_end_matches(')');
        let args: Vec<&str> = args.split(',').map(str::trim).collect();
        // Words one by one, so that a parameter's name inside a longer word stays.
        let mut word = String::new();
        let mut text = String::new();
        for c in body.chars().chain([' ']) {
            if c.is_alphanumeric() || c == '_' {
                word.push(c);
                continue;
            }
            let at = params.iter().position(|p| *p == word);
            text.push_str(at.and_then(|i| args.get(i)).map_or(word.as_str(), |a| *a));
            word.clear();
            text.push(c);
        }
        out.push_str(&text.replace(" ## ", "").replace("##", ""));
        out.push('\n');
    }
    out
}

/// What stands before a place, back to the end of the statement before.
fn before(source: &str, at: usize) -> &str {
    let from = source[..at].rfind(['}', ';', '\n']).map_or(0, |i| i + 1);
    &source[from..at]
}
