//! A line on a terminal that tells what takes longer than a second, and for how long. It vanishes before anything else is
//! written.

use std::io::{Write, stderr};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kubectl_moe::Progress;

/// What is shorter than this is not told.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the line is written anew.
const PERIOD: Duration = Duration::from_millis(500);

/// What is told, and whether it stands there.
struct Line<W> {
    output: W,
    began: Option<(String, Duration)>,
    is_shown: bool,
}

impl<W: Write> Line<W> {
    const fn new(output: W) -> Self {
        Self { output, began: None, is_shown: false }
    }

    fn begin(&mut self, what: &str, now: Duration) {
        // What follows without a pause goes on in the same line, with its own time.
        self.began = Some((what.to_owned(), now));
        if self.is_shown {
            self.show(now);
        }
    }

    fn end(&mut self) {
        self.began = None;
        if std::mem::take(&mut self.is_shown) {
            // A terminal that is gone needs no clean line.
            let _ = write!(self.output, "\r\x1b[K").and_then(|()| self.output.flush());
        }
    }

    fn tick(&mut self, now: Duration) {
        let is_late = self.began.as_ref().is_some_and(|(_, began)| now.saturating_sub(*began) >= PATIENCE);
        if is_late || self.is_shown {
            self.show(now);
        }
    }

    fn show(&mut self, now: Duration) {
        let Some((what, began)) = &self.began else { return };
        let seconds = now.saturating_sub(*began).as_secs();
        self.is_shown = true;
        let _ = write!(self.output, "\r\x1b[K{what}, {seconds} s").and_then(|()| self.output.flush());
    }
}

/// The line on standard error, written by a thread.
pub struct Watcher {
    line: Arc<Mutex<Line<Box<dyn Write + Send>>>>,
    began: Instant,
    ticking: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Watcher {
    pub fn on_standard_error() -> Self {
        let line = Arc::new(Mutex::new(Line::new(Box::new(stderr()) as Box<dyn Write + Send>)));
        let began = Instant::now();
        let (stop, stopped) = channel::<()>();
        let ticked = Arc::clone(&line);
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(move || {
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                locked(&ticked).tick(began.elapsed());
            }
        });
        // A machine without room for a thread can do without the line.
        Self { line, began, ticking: thread.ok().map(|thread| (stop, thread)) }
    }
}

impl Progress for Watcher {
    fn doing(&self, what: &str) {
        locked(&self.line).begin(what, self.began.elapsed());
    }

    fn done(&self) {
        locked(&self.line).end();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.ticking.take() {
            drop(stop);
            let _ = thread.join();
        }
        locked(&self.line).end();
    }
}

/// A line is whole after every call, so one whose thread panicked is too.
fn locked<W>(line: &Mutex<Line<W>>) -> MutexGuard<'_, Line<W>> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn what_takes_less_than_a_second_is_not_told() {
        let mut line = Line::new(Vec::new());
        line.begin("planning", seconds(5));
        line.tick(Duration::from_millis(5999));
        line.end();
        line.tick(seconds(60));
        assert_eq!(line.output, b"");
    }

    #[test]
    fn what_takes_longer_is_told_with_its_time_and_the_line_is_gone_at_the_end() {
        let mut line = Line::new(Vec::new());
        line.begin("planning", seconds(5));
        line.tick(seconds(7));
        line.begin("writing", seconds(8));
        line.tick(seconds(9));
        line.end();
        line.end();
        let told = "\r\x1b[Kplanning, 2 s\r\x1b[Kwriting, 0 s\r\x1b[Kwriting, 1 s\r\x1b[K";
        assert_eq!(String::from_utf8(line.output).unwrap(), told);
    }
}
