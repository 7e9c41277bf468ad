//! Which device a rank computes on: the one place that names them. All else is generic over what is chosen here.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use kernels::cpu::Cpu;
#[cfg(feature = "cuda")]
use kernels::cuda::{self, Cuda};
use kernels::{Backend, DeviceError};
use plan::wire::process::backend;
use thiserror::Error;

use crate::quoted::Quoted;

/// A kind of device that this build can compute on, as `--backend` names it. The default is the best that the machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The processors of the machine.
    Cpu,
    /// A GPU of NVIDIA's.
    #[cfg(feature = "cuda")]
    Cuda,
}

/// How a device is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceOptions {
    /// Compute threads of each of its queues, where it has threads.
    pub threads: usize,
    /// Of the fingerprints that it takes.
    pub fingerprint_seed: u64,
    /// Who opens it, counted among all: where a machine has several devices they are taken in turn.
    pub rank: usize,
    /// Whether it is asked for every operation of every step, also where it could do steps that are alike at one word.
    pub is_eager: bool,
}

/// What is done on a device, whichever it is.
pub trait OnDevice {
    /// What comes of it.
    type Done;

    /// Does it with what `open` opens, each time that it is called.
    fn on<B: Backend>(self, open: impl Fn(DeviceOptions) -> Result<B, DeviceError> + Sync) -> Self::Done;
}

/// A name that this build has no device of.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "this build computes on {}, not on '{given}': leave --backend out, or start a build that has the other",
    names()
)]
pub struct UnknownDevice {
    /// The name.
    given: Quoted,
}

/// The devices of this build, for people.
fn names() -> String {
    Device::ALL.map(|device| device.to_string()).join(" or ")
}

impl Default for Device {
    fn default() -> Self {
        Self::ALL.into_iter().rev().find(|device| device.is_here()).unwrap_or(Self::Cpu)
    }
}

impl Device {
    /// Those of this build, the best last.
    #[cfg(not(feature = "cuda"))]
    pub const ALL: [Self; 1] = [Self::Cpu];
    /// Those of this build, the best last.
    #[cfg(feature = "cuda")]
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Cuda];

    /// Whether this machine has one. One that cannot be used is one nevertheless, and says why when it is opened.
    fn is_here(self) -> bool {
        match self {
            Self::Cpu => true,
            #[cfg(feature = "cuda")]
            Self::Cuda => cuda::devices().is_ok_and(|count| count > 0),
        }
    }

    /// Does something on a device of this kind.
    pub fn with<W: OnDevice>(self, work: W) -> W::Done {
        match self {
            Self::Cpu => work.on(|DeviceOptions { threads, fingerprint_seed, .. }| {
                Ok(Cpu::new(threads).with_fingerprint_seed(fingerprint_seed))
            }),
            #[cfg(feature = "cuda")]
            Self::Cuda => work.on(|DeviceOptions { threads: _, fingerprint_seed, rank, is_eager }| {
                let device = rank % cuda::devices()?.max(1);
                let device = Cuda::new(device)?.with_fingerprint_seed(fingerprint_seed);
                Ok(if is_eager { device.without_graphs() } else { device })
            }),
        }
    }
}

impl Display for Device {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Cpu => backend::CPU,
            #[cfg(feature = "cuda")]
            Self::Cuda => backend::CUDA,
        })
    }
}

impl FromStr for Device {
    type Err = UnknownDevice;

    fn from_str(name: &str) -> Result<Self, UnknownDevice> {
        Self::ALL
            .into_iter()
            .find(|device| device.to_string() == name)
            .ok_or_else(|| UnknownDevice { given: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Kind;

    impl OnDevice for Kind {
        type Done = String;

        fn on<B: Backend>(self, open: impl Fn(DeviceOptions) -> Result<B, DeviceError> + Sync) -> String {
            open(DeviceOptions { threads: 1, fingerprint_seed: 7, rank: 3, is_eager: false }).unwrap().identity().kind
        }
    }

    #[test]
    fn a_device_is_what_its_name_says_and_one_that_was_not_built_in_is_refused_with_what_there_is() {
        assert_eq!("cpu".parse::<Device>().unwrap().with(Kind), Device::Cpu.to_string());
        for device in Device::ALL {
            assert_eq!(device.to_string().parse::<Device>(), Ok(device));
        }
        let said = "tpu".parse::<Device>().unwrap_err().to_string();
        let end = "leave --backend out, or start a build that has the other";
        let built = if Device::ALL.len() == 1 { "cpu" } else { "cpu or cuda" };
        assert_eq!(said, format!("this build computes on {built}, not on 'tpu': {end}"));
        let long = "t".repeat(1000).parse::<Device>().unwrap_err().to_string();
        assert!(long.len() < 300, "{long}");
    }
}
