//! When to try again what failed: later each time, and not all at once. Pure; the caller keeps the time.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(5);

/// Wait after `failures` (from 1) in a row: 1 s, doubled up to 5 min, of which up to a quarter is taken off by `key`, so
/// that objects that failed together do not come back together.
#[must_use]
pub fn wait(failures: u32, key: &str) -> Duration {
    let whole = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST);
    // FNV-1a: any spread will do.
    let hash = key
        .bytes()
        .chain(failures.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    whole.mul_f64(1.0 - (hash >> 40) as f64 / f64::from(1 << 24) / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes() {
        let seconds: Vec<u64> = (1..=12).map(|failures| wait(failures, "a").as_secs_f64().ceil() as u64).collect();
        assert!(seconds.windows(2).all(|pair| pair[0] <= pair[1] || pair[1] > 225), "{seconds:?}");
        assert!(
            wait(1, "a") <= FIRST && wait(u32::MAX, "a") <= LONGEST && wait(u32::MAX, "a") >= LONGEST.mul_f64(0.75)
        );
    }

    #[test]
    fn objects_that_fail_together_do_not_come_back_together() {
        assert_ne!(wait(5, "a"), wait(5, "b"));
        assert_eq!(wait(5, "a"), wait(5, "a"));
    }
}
