//! Devices that this build can use, and candle's handles of them.

use downshift_worker::{Device, DeviceMemory};

use crate::error::Error;

/// candle's device, for the arm that runs on candle.
///
/// # Errors
/// [`Error::DeviceUnavailable`] where the build lacks the device's feature or the machine lacks the device.
pub(crate) fn candle_device(device: Device) -> Result<candle_core::Device, Error> {
    let unavailable = |reason: String| Error::DeviceUnavailable { device: device.to_string(), reason };
    match device {
        Device::Cpu | Device::CandleCpu => Ok(candle_core::Device::Cpu),
        Device::Cuda(index) => {
            if !cfg!(feature = "cuda") {
                return Err(unavailable("this build has no CUDA; build with `--features cuda`".into()));
            }
            candle_core::Device::new_cuda(index as usize).map_err(|error| unavailable(error.to_string()))
        }
        Device::Metal => {
            if !cfg!(feature = "metal") {
                return Err(unavailable("this build has no Metal; build with `--features metal`".into()));
            }
            candle_core::Device::new_metal(0).map_err(|error| unavailable(error.to_string()))
        }
    }
}

/// Devices that `auto` may choose, best first.
pub fn available() -> Vec<DeviceMemory> {
    let gpus = [Device::Cuda(0), Device::Metal].into_iter().filter(|&device| candle_device(device).is_ok());
    gpus.chain([Device::Cpu]).map(|device| DeviceMemory { device, own_bytes: None }).collect()
}
