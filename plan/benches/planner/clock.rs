//! Processor time of this thread: what a plan costs, whatever else the machine does.

use rustix::time::{ClockId, clock_gettime};

/// What `work` gives, and the milliseconds of processor time that it takes.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = now();
    let result = work();
    (result, now() - start)
}

/// Milliseconds of several calls, after one that warms caches up: the median, and the least, which is what a machine that
/// others do not use would take.
pub fn repeated(repetitions: usize, mut work: impl FnMut()) -> (f64, f64) {
    work();
    let mut times: Vec<f64> = (0..repetitions).map(|_| timed(&mut work).1).collect();
    times.sort_by(f64::total_cmp);
    (times[repetitions / 2], times[0])
}

fn now() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}
