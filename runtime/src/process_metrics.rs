//! What every process of a deployment tells Prometheus of itself: its version, and what it uses of the machine.

use prometheus::process_collector::ProcessCollector;
use prometheus::{IntGauge, Opts, Registry};

/// Registers the metrics.
///
/// # Errors
/// If they are registered already.
pub fn register(registry: &Registry) -> prometheus::Result<()> {
    let info = Opts::new("swiftbalancer_build_info", "1, with the version.");
    let info = IntGauge::with_opts(info.const_label("version", env!("CARGO_PKG_VERSION")))?;
    info.set(1);
    registry.register(Box::new(info))?;
    registry.register(Box::new(ProcessCollector::for_self()))
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn a_process_tells_its_version_and_what_it_uses() {
        let registry = Registry::new();
        register(&registry).unwrap();
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let info = format!("swiftbalancer_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"));
        assert!(text.contains(&info), "{text}");
        for name in ["start_time_seconds", "resident_memory_bytes", "open_fds", "cpu_seconds_total"] {
            assert!(text.contains(&format!("\nprocess_{name} ")), "{name}: {text}");
        }
    }
}
