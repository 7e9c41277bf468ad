//! What the driver's management library says of a rank's GPU, asked every few seconds on a thread of its own: a library that hangs
//! keeps nobody else waiting. A rank serves without it.

use std::io;
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use plan::words::with_causes;

use super::Stop;
use super::metrics::GpuMetrics;

/// How often it is asked: the library's own figure is of the second before.
const EVERY: Duration = Duration::from_secs(2);

/// What a GPU does now; what it does not say is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    /// Part of the time in which any kernel ran, 0 to 1.
    pub utilization: Option<f64>,
    /// Bytes of its memory that are taken, by whoever has.
    pub memory_used: Option<u64>,
}

/// Shows what the GPU at this place of its machine's bus does, until the process is to end.
///
/// # Errors
/// If the system gives no thread.
pub(super) fn watch(unit: String, metrics: GpuMetrics, stop: &Arc<Stop>) -> io::Result<()> {
    let stop = Arc::clone(stop);
    Builder::new().name("gpu".to_owned()).spawn(move || {
        if let Err(error) = show(&unit, metrics, &stop) {
            let reason = with_causes(&error);
            tracing::warn!(
                gpu = unit,
                reason,
                "the metrics of this GPU's use are left out: its driver does not tell it"
            );
        }
    })?;
    Ok(())
}

fn show(unit: &str, mut metrics: GpuMetrics, stop: &Stop) -> Result<(), NvmlError> {
    let library = Nvml::init()?;
    let device = library.device_by_pci_bus_id(unit)?;
    loop {
        let utilization = device.utilization_rates();
        let memory = device.memory_info();
        let sample = Sample {
            utilization: utilization.as_ref().ok().map(|rates| f64::from(rates.gpu) / 100.0),
            memory_used: memory.as_ref().ok().map(|memory| memory.used),
        };
        metrics.show(sample);
        if let (Err(_), Err(error)) = (utilization, memory) {
            return Err(error);
        }
        if stop.cancel.wait(EVERY) {
            return Ok(());
        }
    }
}
