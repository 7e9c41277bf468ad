//! Threads that a process cannot do without. One that ends without having been told to is a reason for the process to end
//! with it: whoever supervises the process starts it again, whole.

use std::any::Any;
use std::cell::Cell;
use std::fmt::Display;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use std::thread::{Builder, JoinHandle};

use thiserror::Error;

use crate::quoted::shortened;

/// Characters of a panic's words that are told.
const WORDS: usize = 160;

/// A thread that the process cannot do without has ended without having been told to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the thread '{name}' ended, which this process cannot do without: {reason}")]
pub struct ThreadEnded {
    /// Its name.
    pub name: String,
    /// What it said, or the words with which it panicked.
    pub reason: String,
}

/// How a thread's work comes to its end.
pub trait Ending {
    /// Why it ended though nobody told it to; `None` if it was told to.
    fn untold(self) -> Option<String>;
}

impl Ending for () {
    fn untold(self) -> Option<String> {
        None
    }
}

impl<E: Display> Ending for Result<(), E> {
    fn untold(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

/// The threads that a process cannot do without. Clones are the same threads.
#[derive(Clone)]
pub struct VitalThreads(Arc<Told>);

struct Told {
    once: Once,
    tell: Box<dyn Fn(ThreadEnded) + Send + Sync>,
}

impl VitalThreads {
    /// Tells of the first thread that ends, on that thread, and of no other: what follows is often its consequence.
    pub fn new(tell: impl Fn(ThreadEnded) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Told { once: Once::new(), tell: Box::new(tell) }))
    }

    /// Starts a thread. An error that it returns and a panic are told; otherwise it returns when it was told to end.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn spawn<E: Ending>(&self, name: &str, run: impl FnOnce() -> E + Send + 'static) -> io::Result<JoinHandle<()>> {
        let (told, thread) = (self.clone(), name.to_owned());
        Builder::new().name(name.to_owned()).spawn(move || {
            // What a panic may have left half done is not looked at again: the process ends.
            let ended = catch_unwind(AssertUnwindSafe(run));
            if let Some(reason) = ended.map_or_else(|panic| Some(panic_words(&*panic)), Ending::untold) {
                told.ended(ThreadEnded { name: thread, reason });
            }
        })
    }

    fn ended(&self, thread: ThreadEnded) {
        self.0.once.call_once(|| {
            tracing::error!("{thread}");
            (self.0.tell)(thread);
        });
    }
}

/// Does one piece of work whose panic costs that piece alone; gives the words of the panic. What the work has changed must
/// not be used after that.
///
/// # Errors
/// If it panics.
pub fn survive<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panic_words(&*panic))
}

thread_local! {
    static ATTEMPTS: Cell<bool> = const { Cell::new(false) };
}

/// Does work that may panic at what it is given, where the words of the panic are the answer: they are returned, and
/// nothing is logged. What the work has changed must not be used after that.
///
/// # Errors
/// If it panics.
pub fn attempt<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let outer = ATTEMPTS.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    ATTEMPTS.set(outer);
    done.map_err(|panic| words_of(&*panic))
}

/// Whether this thread makes an [`attempt`], so that a panic is nothing to log.
#[must_use]
pub fn is_attempting() -> bool {
    ATTEMPTS.get()
}

/// With what words a thread panicked, shortened.
#[must_use]
pub fn panic_words(panic: &(dyn Any + Send)) -> String {
    format!("it panicked: {}", words_of(panic))
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no words");
    shortened(text, WORDS)
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, unbounded};

    use super::*;

    #[test]
    fn an_attempt_gives_the_words_of_its_panic_and_ends_with_it() {
        assert_eq!(attempt(|| 5), Ok(5));
        let inside = attempt(|| {
            let inner = attempt(|| -> u8 { panic!("a bad file") });
            assert!(is_attempting());
            inner
        });
        assert_eq!(inside, Ok(Err("a bad file".to_owned())));
        assert!(!is_attempting());
    }

    type Run = Box<dyn FnOnce() -> Result<(), String> + Send>;

    fn vital() -> (VitalThreads, Receiver<ThreadEnded>) {
        let (sender, ended) = unbounded();
        (VitalThreads::new(move |thread| sender.send(thread).unwrap()), ended)
    }

    #[test]
    fn a_thread_that_panics_or_fails_is_told_with_its_name_and_words() {
        let number: Option<u32> = None;
        let cases: [(Run, &str); 4] = [
            (Box::new(|| panic!("a hole")), "it panicked: a hole"),
            (Box::new(move || panic!("{number:?} is none")), "it panicked: None is none"),
            (Box::new(|| std::panic::panic_any(7_u8)), "it panicked: no words"),
            (Box::new(|| Err("the port is gone".to_owned())), "the port is gone"),
        ];
        for (run, reason) in cases {
            let (threads, ended) = vital();
            threads.spawn("driver", run).unwrap().join().unwrap();
            let told = ended.recv().unwrap();
            assert_eq!(told, ThreadEnded { name: "driver".to_owned(), reason: reason.to_owned() });
        }
    }

    #[test]
    fn a_thread_that_was_told_to_end_is_no_news() {
        let (threads, ended) = vital();
        threads.spawn("driver", || ()).unwrap().join().unwrap();
        threads.spawn("driver", || Ok::<_, String>(())).unwrap().join().unwrap();
        drop(threads);
        assert!(ended.recv().is_err());
    }

    #[test]
    fn only_the_first_is_told() {
        let (threads, ended) = vital();
        for number in 0..3 {
            let run = move || Err::<(), _>(format!("{number}"));
            threads.spawn("one", run).unwrap().join().unwrap();
        }
        drop(threads);
        assert_eq!(ended.iter().map(|thread| thread.reason).collect::<Vec<_>>(), ["0"]);
    }

    #[test]
    fn work_that_panics_gives_its_words_and_the_thread_goes_on() {
        assert_eq!(survive(|| 7), Ok(7));
        assert_eq!(survive(|| -> u8 { panic!("{}", "x".repeat(1000)) }).unwrap_err().len(), 13 + WORDS);
    }
}
