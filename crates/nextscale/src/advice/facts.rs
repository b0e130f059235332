//! What a choice depends on.

use crate::Result;
use crate::data::{ImageSource, Look, SplitSurvey};
use crate::device::resolve_device;
use crate::options::FolderOptions;
use crate::options::values::DeviceChoice;
use crate::run::Dataset;
use crate::text::counted;
use nextscale_tensor::Device;
use nextscale_tensor::cuda::gib;
use serde::{Deserialize, Serialize};

/// A data folder and a machine, as far as a choice depends on them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Training images.
    pub images: usize,
    /// The middle one of their shorter sides in pixels.
    pub side: usize,
    /// Name and bytes of the GPU that computes, where one does.
    pub gpu: Option<(String, usize)>,
    /// Cores of the CPU.
    pub cores: usize,
}

impl Facts {
    /// Of some images, always the same ones, and of what `device` comes to on this machine.
    ///
    /// # Errors
    /// When the images or the device can't be used.
    pub fn of(train: &dyn ImageSource, device: DeviceChoice) -> Result<Self> {
        let survey = SplitSurvey::of(train, Look::SOME)?;
        Self::of_survey(&survey, device)
    }

    /// Of images that were looked at before.
    ///
    /// # Errors
    /// When the device can't be used.
    pub fn of_survey(train: &SplitSurvey, device: DeviceChoice) -> Result<Self> {
        let gpu = match resolve_device(device)? {
            Device::Cpu => None,
            device => device.gpu()?.map(|gpu| {
                let info = gpu.info();
                (info.name.clone(), info.memory)
            }),
        };
        Ok(Self {
            images: train.images,
            side: train.median_side().unwrap_or(0),
            gpu,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        })
    }

    /// Of a folder.
    ///
    /// # Errors
    /// When it or the device can't be used.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    pub(super) fn of_folder(
        data_path: &str,
        folder: &FolderOptions,
        device: DeviceChoice,
    ) -> Result<Self> {
        // The side is of what comes out; what goes in is looked at.
        let dataset = Dataset::open(data_path, folder, 64, 1.0, false)?;
        Self::of(&*dataset.train, device)
    }

    /// The machine in words.
    pub fn machine(&self) -> String {
        match &self.gpu {
            Some((name, bytes)) => format!("a GPU ({name}, {})", gib(*bytes)),
            None => format!("a CPU with {}", counted(self.cores, "core", "cores")),
        }
    }
}
