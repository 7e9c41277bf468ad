//! Which device a rank computes on: the one place that names them. All else is generic over what is chosen here.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use kernels::cpu::Cpu;
use kernels::{Backend, DeviceError};
use thiserror::Error;

/// A kind of device that this build can compute on, as `--backend` names it. The default is the best that the machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processors of the machine.
    #[default]
    Cpu,
}

/// How a device is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceOptions {
    /// Compute threads of each of its queues, where it has threads.
    pub threads: usize,
    /// Of the fingerprints that it takes.
    pub fingerprint_seed: u64,
}

/// What is done on a device, whichever it is.
pub trait OnDevice {
    /// What comes of it.
    type Done;

    /// Does it with what `open` opens.
    fn on<B: Backend>(self, open: impl FnOnce(DeviceOptions) -> Result<B, DeviceError>) -> Self::Done;
}

/// A name that this build has no device of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("this build has the device {}: leave --backend out, or start a build that has the other", Device::Cpu)]
pub struct UnknownDevice;

impl Device {
    /// Does something on a device of this kind.
    pub fn with<W: OnDevice>(self, work: W) -> W::Done {
        match self {
            Self::Cpu => work.on(|DeviceOptions { threads, fingerprint_seed }| {
                Ok(Cpu::new(threads).with_fingerprint_seed(fingerprint_seed))
            }),
        }
    }
}

impl Display for Device {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Cpu => "cpu",
        })
    }
}

impl FromStr for Device {
    type Err = UnknownDevice;

    fn from_str(name: &str) -> Result<Self, UnknownDevice> {
        match name {
            "cpu" => Ok(Self::Cpu),
            _ => Err(UnknownDevice),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Kind;

    impl OnDevice for Kind {
        type Done = String;

        fn on<B: Backend>(self, open: impl FnOnce(DeviceOptions) -> Result<B, DeviceError>) -> String {
            open(DeviceOptions { threads: 1, fingerprint_seed: 7 }).unwrap().identity().kind
        }
    }

    #[test]
    fn a_device_is_what_its_name_says_and_one_that_was_not_built_in_is_refused_with_what_there_is() {
        assert_eq!("cpu".parse::<Device>().unwrap().with(Kind), Device::Cpu.to_string());
        let said = "cuda".parse::<Device>().unwrap_err().to_string();
        assert_eq!(said, "this build has the device cpu: leave --backend out, or start a build that has the other");
    }
}
