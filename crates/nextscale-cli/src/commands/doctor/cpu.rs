//! What the machine has beside GPUs: cores, vectors, memory; and whether it has a GPU of NVIDIA that only lacks its driver.

use nextscale::memory::Room;
use nextscale::{Result, say};
use nextscale_tensor::Device;
use nextscale_tensor::cpu::simd::{arch_name, lanes};
use nextscale_tensor::cuda::{self, Library};
use std::fs::read_to_string;
use std::path::Path;

/// What a machine without a GPU is good for.
const FINE: &str = "a CPU is fine to train on images of 32 to 64 pixels and to draw with any model; training at 256 pixels and more is for GPUs";

/// Prints the processor and the memory.
pub(super) fn print() -> Result<()> {
    let threads = nextscale::compute_threads();
    let cores = cores(&read_to_string("/proc/cpuinfo").unwrap_or_default());
    let of = match cores.filter(|all| *all > threads) {
        Some(all) => format!(" of the machine's {all}"),
        None => String::new(),
    };
    say!(
        "cpu          {threads} {}{of}: {}, {} at once",
        if threads == 1 { "core" } else { "cores" },
        arch_name(),
        match lanes() {
            1 => "one number".to_owned(),
            n => format!("{n} float32 numbers"),
        }
    )?;
    match Room::of(Device::Cpu)? {
        Some(room) => say!("memory       {room}"),
        None => say!("memory       this system does not say how much there is"),
    }
}

/// Whether this machine has or could have use for NVIDIA's libraries: a GPU, its driver, or a card without one.
pub(super) fn wants_libraries() -> bool {
    cuda::count() > 0 || Library::Driver.is_there() || has_card(Path::new("/"))
}

/// What is said where there is no GPU that works.
pub(super) fn without_gpu() -> Result<()> {
    if wants_libraries() {
        return say!("gpu          none that can be used");
    }
    say!("gpu          none, and nothing is missing: {FINE}")
}

/// Cores of the machine, as Linux lists them.
fn cores(cpuinfo: &str) -> Option<usize> {
    let named = cpuinfo.lines().filter(|l| l.starts_with("processor"));
    Some(named.count()).filter(|n| *n > 0)
}

/// Whether a card of NVIDIA is in the machine whose files lie under `root`, with a driver or without one.
fn has_card(root: &Path) -> bool {
    let there = ["proc/driver/nvidia", "dev/nvidiactl", "dev/dxg"];
    if there.iter().any(|name| root.join(name).exists()) {
        return true;
    }
    let devices = root.join("sys/bus/pci/devices").read_dir();
    devices.into_iter().flatten().flatten().any(|device| {
        let says = |name: &str| read_to_string(device.path().join(name)).unwrap_or_default();
        // NVIDIA's number, and the class of displays and of computing without one.
        says("vendor").trim() == "0x10de" && says("class").starts_with("0x03")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with these files.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_card_is_found_with_its_driver_and_without() {
        let pci = |vendor: &str, class: &str| {
            let at = "sys/bus/pci/devices/0000:01:00.0";
            machine(&[
                (&format!("{at}/vendor"), vendor),
                (&format!("{at}/class"), class),
            ])
        };
        assert!(has_card(pci("0x10de\n", "0x030000\n").path()));
        assert!(has_card(pci("0x10de\n", "0x030200\n").path()));
        // Its sound, and a display of another maker.
        assert!(!has_card(pci("0x10de\n", "0x040300\n").path()));
        assert!(!has_card(pci("0x1234\n", "0x030000\n").path()));
        assert!(!has_card(machine(&[]).path()));
        assert!(has_card(machine(&[("dev/nvidiactl", "")]).path()));
        assert!(has_card(
            machine(&[("proc/driver/nvidia/version", "")]).path()
        ));
    }

    #[test]
    fn cores_are_counted() {
        let two = "processor\t: 0\nmodel name\t: a processor\n\nprocessor\t: 1\n";
        assert_eq!(cores(two), Some(2));
        assert_eq!(cores(""), None);
    }
}
