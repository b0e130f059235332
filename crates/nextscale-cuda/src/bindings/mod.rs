//! Every function of NVIDIA's libraries that is called, each with the version that brought it: nothing of them is called by
//! another way, and none is younger than CUDA 12.0, cuDNN 9.0 and NCCL 2.14, so that drivers from 525 on do.
//!
//! A function is looked up at its first call, in the very file that [`Library::find`] chose. Codes come back as plain numbers,
//! since a library newer than these declarations may have codes that they do not know.

macro_rules! functions {
    ($library:expr; $($since:literal fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $result:ty;)*) => {
        /// The functions, each with the version of CUDA (or of cuDNN or NCCL) that brought it.
        #[cfg(test)]
        pub(crate) const SINCE: &[(&str, &str)] = &[$((stringify!($name), $since)),*];
        $(
            #[allow(non_snake_case, clippy::too_many_arguments)]
            pub(crate) unsafe fn $name($($arg: $type),*) -> $result {
                type Function = unsafe extern "C" fn($($type),*) -> $result;
                static FOUND: std::sync::OnceLock<Option<Function>> = std::sync::OnceLock::new();
                // SAFETY: the function has this type in NVIDIA's headers.
                let found = FOUND.get_or_init(|| unsafe { $library.function(stringify!($name)) });
                match found {
                    // SAFETY: the caller keeps to what the library's documentation asks.
                    Some(f) => unsafe { f($($arg),*) },
                    None => super::Answer::MISSING,
                }
            }
        )*
    };
}

pub(crate) mod cublas;
pub(crate) mod cudnn;
pub(crate) mod driver;
pub(crate) mod nccl;
pub(crate) mod nvrtc;

/// What a function gives back where it is not there.
trait Answer {
    const MISSING: Self;
}

impl Answer for u32 {
    const MISSING: Self = MISSING;
}

impl Answer for *const std::ffi::c_char {
    const MISSING: Self = std::ptr::null();
}

impl Answer for () {
    const MISSING: Self = ();
}

/// The code of a function that the library found does not have.
pub(crate) const MISSING: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libraries::VERSIONS;
    use crate::{Library, tests::room};

    fn all() -> [(Library, &'static [(&'static str, &'static str)]); 5] {
        [
            (Library::Driver, driver::SINCE),
            (Library::Nvrtc, nvrtc::SINCE),
            (Library::CublasLt, cublas::SINCE),
            (Library::Cudnn, cudnn::SINCE),
            (Library::Nccl, nccl::SINCE),
        ]
    }

    #[test]
    fn no_function_is_younger_than_cuda_12_0_cudnn_9_0_and_nccl_2_14() {
        let told = [(Library::Driver, VERSIONS)];
        for (library, functions) in all().into_iter().chain(told) {
            let most = match library {
                Library::Cudnn => (9, 0),
                Library::Nccl => (2, 14),
                _ => (12, 0),
            };
            for (name, since) in functions {
                let (major, minor) = since.split_once('.').unwrap();
                let since: (u32, u32) = (major.parse().unwrap(), minor.parse().unwrap());
                assert!(
                    since <= most,
                    "{name} of {} is of {since:?}",
                    library.name()
                );
            }
        }
    }

    /// A call past the declarations would not be held to their versions.
    #[test]
    fn every_function_that_the_room_names_is_declared() {
        let declared: Vec<_> = all()
            .iter()
            .flat_map(|(_, f)| f.iter())
            .chain(VERSIONS)
            .map(|(name, _)| *name)
            .collect();
        let (sources, mut named) = (room(), 0);
        if sources.is_empty() {
            println!("skipped: no sources here");
            return;
        }
        for (file, text) in sources {
            assert!(
                !text.contains(&["driver::", "result"].concat()),
                "{file} calls the driver past the declarations"
            );
            for name in functions_in(&text) {
                named += 1;
                assert!(
                    declared.contains(&name),
                    "{file} calls {name}, which is not declared"
                );
            }
        }
        assert!(named > 2 * declared.len(), "{named} names found");
    }

    /// Names of functions of NVIDIA's libraries that are called, declared or written out in `text`.
    fn functions_in(text: &str) -> Vec<&str> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut out = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(is_name) {
            let before = rest[..at].chars().next_back();
            let word = &rest[at..];
            let end = word.find(|c| !is_name(c)).unwrap_or(word.len());
            let (word, after) = word.split_at(end);
            let called = after.starts_with('(')
                || before == Some('"') && after.starts_with('"') && !word.ends_with('_');
            let theirs = ["cu", "nvrtc", "cublasLt", "cudnn", "nccl"]
                .iter()
                .any(|p| {
                    word.strip_prefix(p)
                        .is_some_and(|tail| tail.starts_with(|c: char| c.is_ascii_uppercase()))
                });
            let is_library = Library::ALL.iter().any(|l| l.name() == word);
            if called && theirs && !is_library {
                out.push(word);
            }
            rest = after;
        }
        out
    }

    #[test]
    fn names_are_found_in_text() {
        let text = "unsafe { sys::cuInit(0) }; let cut = curl(1); (\"cudnnGetVersion\"); cuDeviceGet; Cublas(2)";
        assert_eq!(functions_in(text), ["cuInit", "cudnnGetVersion"]);
    }

    /// What libraries are here have all of it.
    #[test]
    fn libraries_that_are_here_have_every_function() {
        for (library, functions) in all() {
            if !library.is_there() {
                println!("skipped: no {}", library.name());
                continue;
            }
            for (name, _) in functions {
                // SAFETY: the function is not called.
                let found = unsafe { library.function::<unsafe extern "C" fn()>(name) };
                assert!(found.is_some(), "{} lacks {name}", library.name());
            }
        }
    }
}
