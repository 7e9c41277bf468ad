//! How often a coordinator is asked that lets the operator wait: seldom, since each such question takes a place from others.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A question without an answer that took this long has kept the operator waiting; one that is refused has not.
const SLOW: Duration = Duration::from_secs(1);
/// Longest pause between two questions.
const LONGEST: Duration = Duration::from_secs(32);

/// Pods that kept the operator waiting, by uid: how often in a row, and until when they are left alone.
#[derive(Debug, Default)]
pub(super) struct Patience(Mutex<BTreeMap<String, (u32, Instant)>>);

impl Patience {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (u32, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_due(&self, pod_uid: &str, now: Instant) -> bool {
        self.lock().get(pod_uid).is_none_or(|(_, until)| *until <= now)
    }

    /// Notes how a question ended that was asked at `began`.
    pub fn asked(&self, pod_uid: &str, began: Instant, now: Instant, answered: bool) {
        let mut waits = self.lock();
        if answered || now.duration_since(began) < SLOW {
            waits.remove(pod_uid);
            return;
        }
        let (times, until) = waits.entry(pod_uid.to_owned()).or_insert((0, now));
        *times = times.saturating_add(1);
        *until = now + SLOW.saturating_mul(1 << (*times).min(8)).min(LONGEST);
    }

    /// Forgets pods that are gone.
    pub fn keep(&self, exists: impl Fn(&str) -> bool) {
        self.lock().retain(|uid, _| exists(uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_lets_the_operator_wait_is_asked_ever_more_seldom_and_an_answer_ends_that() {
        let patience = Patience::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let began = now;
            now += Duration::from_secs(2);
            patience.asked("slow", began, now, false);
            let asked = now;
            while !patience.is_due("slow", now) {
                now += Duration::from_secs(1);
            }
            pauses.push(now.duration_since(asked).as_secs());
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 32, 32, 32]);
        patience.asked("slow", now, now + Duration::from_secs(2), true);
        assert!(patience.is_due("slow", now));
    }

    #[test]
    fn a_pod_that_refuses_at_once_is_asked_at_the_usual_pace() {
        let patience = Patience::default();
        let now = Instant::now();
        patience.asked("starting", now, now + Duration::from_millis(999), false);
        assert!(patience.is_due("starting", now));
    }
}
