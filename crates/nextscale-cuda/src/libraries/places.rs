//! Folders that libraries are looked for in.

use std::path::{Path, PathBuf};

pub(super) fn folders_of(variable: &str) -> Vec<PathBuf> {
    std::env::var_os(variable)
        .map(|v| std::env::split_paths(&v).collect())
        .unwrap_or_default()
}

/// Where toolkits and Python packages put their libraries: packages of CUDA 13 in one folder, `nvidia/cu13/lib`, those of CUDA 12
/// each in its own, such as `nvidia/cuda_nvrtc/lib`.
pub(super) fn usual() -> Vec<PathBuf> {
    let mut out = Vec::new();
    for variable in ["CUDA_HOME", "CUDA_PATH"] {
        out.extend(folders_of(variable).iter().map(|d| d.join("lib64")));
    }
    out.push("/usr/local/nvidia/lib64".into());
    out.push("/usr/local/cuda/lib64".into());
    let mut toolkits = entries("/usr/local".as_ref(), "cuda-");
    toolkits.reverse();
    out.extend(toolkits.iter().map(|d| d.join("lib64")));
    for packages in python_packages() {
        for part in entries(&packages.join("nvidia"), "") {
            out.push(part.join("lib"));
        }
    }
    out
}

/// Folders that hold Python packages: of the active environment, of the `python3` on the path, of the user, of the system.
fn python_packages() -> Vec<PathBuf> {
    let mut roots = Vec::new();
    for variable in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        roots.extend(folders_of(variable).iter().map(|d| d.join("lib")));
    }
    for bin in folders_of("PATH") {
        let python = bin.join("python3");
        if python.exists() {
            roots.extend(bin.parent().map(|d| d.join("lib")));
        }
    }
    if let Some(home) = std::env::var_os("HOME") {
        roots.push(Path::new(&home).join(".local/lib"));
    }
    roots.extend(["/usr/local/lib".into(), "/usr/lib".into()]);
    let mut out = Vec::new();
    for root in roots {
        for python in entries(&root, "python3") {
            out.push(python.join("site-packages"));
            out.push(python.join("dist-packages"));
        }
    }
    out
}

/// Entries of a folder whose names start with `start`, sorted.
fn entries(folder: &Path, start: &str) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(start))
        .map(|e| e.path())
        .collect();
    out.sort();
    out
}
