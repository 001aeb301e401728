//! Which device computes.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use jointly_cuda::Device;
use jointly_kernels::Precision;

use crate::error::{Error, Result};
use crate::nn::device::format;

/// What a model computes on.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum DeviceChoice {
    /// This machine's processor.
    #[default]
    Cpu,
    /// The first NVIDIA device, if there is one with all that it needs and it computes in the precision asked for; else the
    /// processor. [`ModelInfo::device`](crate::ModelInfo::device) says which, and why.
    Auto,
    /// These NVIDIA devices.
    Cuda(CudaDevices),
    /// Devices that the program brings itself; their halves are those of the precision.
    Given(Vec<Arc<Device>>),
}

/// Some of the NVIDIA devices. Of several, each has a copy of the model and takes a share of the pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CudaDevices {
    /// All that there are.
    All,
    /// These, by the numbers that the driver gives them.
    These(Vec<usize>),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    /// `auto`, `cpu`, `cuda` (the first), `cuda:1`, `cuda:0,1`, `cuda:all`.
    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::InvalidOption {
            option: "device",
            problem: format!("{text:?} is none of auto, cpu, cuda, cuda:N, cuda:N,M and cuda:all"),
        };
        let (name, numbers) =
            text.split_once(':').map_or((text, None), |(name, numbers)| (name, Some(numbers)));
        match (name, numbers) {
            ("auto", None) => Ok(Self::Auto),
            ("cpu", None) => Ok(Self::Cpu),
            ("cuda", None) => Ok(Self::Cuda(CudaDevices::These(vec![0]))),
            ("cuda", Some("all")) => Ok(Self::Cuda(CudaDevices::All)),
            ("cuda", Some(numbers)) => {
                let mut found = Vec::new();
                for number in numbers.split(',') {
                    let number = number.parse().map_err(|_| unknown())?;
                    if found.contains(&number) {
                        return Err(unknown());
                    }
                    found.push(number);
                }
                Ok(Self::Cuda(CudaDevices::These(found)))
            }
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    /// As it is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Auto => f.write_str("auto"),
            Self::Cuda(CudaDevices::All) => f.write_str("cuda:all"),
            Self::Cuda(CudaDevices::These(numbers)) => {
                let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                write!(f, "cuda:{}", numbers.join(","))
            }
            Self::Given(devices) => f.write_str(&names(devices)),
        }
    }
}

/// What was chosen.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    /// None for the processor.
    pub devices: Vec<Arc<Device>>,
    /// For people.
    pub name: String,
}

impl Chosen {
    fn cpu(why: impl fmt::Display) -> Self {
        Self { devices: Vec::new(), name: format!("cpu{why}") }
    }
}

impl DeviceChoice {
    /// The devices, opened, for a precision. Compiled kernels are kept in `cache`.
    pub(crate) fn open(&self, precision: Precision, cache: Option<&Path>) -> Result<Chosen> {
        let refused =
            |problem: &str| Error::InvalidOption { option: "precision", problem: problem.to_string() };
        let chosen = match self {
            Self::Cpu => Chosen::cpu(""),
            Self::Auto if precision == Precision::Int8 => Chosen::cpu(" (int8 is computed there)"),
            Self::Auto => match cuda::open(&CudaDevices::These(vec![0]), precision, cache) {
                Ok(devices) => Chosen { name: names(&devices), devices },
                Err(error) => Chosen::cpu(format_args!(" ({error})")),
            },
            Self::Cuda(_) | Self::Given(_) if precision == Precision::Int8 => {
                return Err(refused("int8; devices multiply in f32, bf16 and f16"));
            }
            Self::Cuda(which) => {
                let devices = cuda::open(which, precision, cache)?;
                Chosen { name: names(&devices), devices }
            }
            Self::Given(devices) => {
                if let Some(device) = devices.iter().find(|device| device.half() != format(precision)) {
                    return Err(refused(&format!(
                        "{precision}; {} has halves of {:?}",
                        device.name(),
                        device.half()
                    )));
                }
                Chosen { name: names(devices), devices: devices.clone() }
            }
        };
        if chosen.devices.is_empty() && precision == Precision::F16 {
            return Err(refused(&format!(
                "f16 is for devices, and this is {}; f32, bf16 and int8 are for processors",
                chosen.name
            )));
        }
        Ok(chosen)
    }
}

fn names(devices: &[Arc<Device>]) -> String {
    devices.iter().map(|device| device.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::path::Path;
    use std::sync::Arc;

    use jointly_cuda::{Device, Gpu, Presence};
    use jointly_kernels::Precision;

    use super::CudaDevices;
    use crate::error::{Error, Result};
    use crate::nn::device::format;

    pub fn open(which: &CudaDevices, precision: Precision, cache: Option<&Path>) -> Result<Vec<Arc<Device>>> {
        let failed = |name: &str, failure| Error::of_device(name, failure);
        let count = Presence::find().map_err(|failure| failed("cuda", failure))?.devices;
        let numbers = match which {
            CudaDevices::All => (0..count).collect(),
            CudaDevices::These(numbers) => numbers.clone(),
        };
        let open = |number: usize| {
            let gpu = Gpu::open(number, format(precision), cache);
            let gpu = gpu.map_err(|failure| failed(&format!("cuda:{number}"), failure))?;
            Ok(Device::new(Box::new(gpu)))
        };
        numbers.into_iter().map(open).collect()
    }
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    use std::path::Path;
    use std::sync::Arc;

    use jointly_cuda::{Device, Failure, FailureKind};
    use jointly_kernels::Precision;

    use super::CudaDevices;
    use crate::error::{Error, Result};

    pub fn open(_: &CudaDevices, _: Precision, _: Option<&Path>) -> Result<Vec<Arc<Device>>> {
        let problem = "this program was built without the feature `cuda`".to_string();
        Err(Error::of_device("cuda", Failure { kind: FailureKind::Absent, problem }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read() {
        let read = |text: &str| text.parse::<DeviceChoice>().map(|choice| format!("{choice:?}")).ok();
        assert_eq!(read("auto").unwrap(), "Auto");
        assert_eq!(read("cpu").unwrap(), "Cpu");
        assert_eq!(read("cuda").unwrap(), "Cuda(These([0]))");
        assert_eq!(read("cuda:3").unwrap(), "Cuda(These([3]))");
        assert_eq!(read("cuda:1,0").unwrap(), "Cuda(These([1, 0]))");
        assert_eq!(read("cuda:all").unwrap(), "Cuda(All)");
        for text in ["auto", "cpu", "cuda:3", "cuda:1,0", "cuda:all"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cuda:0,0", "cuda:-1", "cpu:0", "auto:1", "CUDA"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_processor_has_no_f16_and_a_device_no_int8() {
        let open = |choice: DeviceChoice, precision| choice.open(precision, None).map(|chosen| chosen.name);
        assert_eq!(open(DeviceChoice::Cpu, Precision::Bf16).unwrap(), "cpu");
        assert!(
            open(DeviceChoice::Cpu, Precision::F16).unwrap_err().to_string().contains("f16 is for devices")
        );
        assert!(open(DeviceChoice::Given(Vec::new()), Precision::Int8).is_err());
        assert_eq!(open(DeviceChoice::Auto, Precision::Int8).unwrap(), "cpu (int8 is computed there)");
    }
}
