//! One rank's step path: a thread that owns the device, the model with its KV cache, and while it is part of a group
//! the routing of its slots, the device memory of its steps and the connections. It waits for nothing but steps and the other ranks' rows.

mod membership;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendError, Sender, bounded};
use kernels::Backend;
use kernels::times::StepTimes;
use plan::words::with_causes;
use thiserror::Error;

use self::membership::Work;
pub use self::membership::{Membership, StepPath};
use crate::experts::routing::CommitError;
use crate::fabric::framing::{Closer, ConnectionError};
use crate::model::forward::{ForwardError, Model, StepInput, StepOutcome};
use crate::protocol::{FromRank, MOST_WORDS, NotKnown, StepDone, StepTiming, TransactionId};
use crate::quoted::shortened;
use crate::threads::VitalThreads;

/// Why a rank stopped running steps. Its group is lost; all help is to form another.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The coordinator ended the group or is gone.
    #[error(transparent)]
    Coordinator(#[from] ConnectionError),
    /// A step is not for this group.
    #[error("a step of generation {found} arrived in generation {expected}")]
    Generation {
        /// The step's.
        found: u64,
        /// This group's.
        expected: u64,
    },
    /// A step goes on from what is not so here: the coordinator has a mistake.
    #[error(transparent)]
    NotKnown(#[from] NotKnown),
    /// A commit names pages that are not here.
    #[error("transaction {} is committed and was never staged here", transaction.0)]
    NotStaged {
        /// The transaction.
        transaction: TransactionId,
    },
    /// A commit does not fit the map in force.
    #[error("a commit does not fit")]
    Commit(#[from] CommitError),
    /// The batch is wrong, a rank is lost, or the device failed.
    #[error("a step failed")]
    Forward(#[from] ForwardError),
}

/// What ended a rank's part in a group, as metrics count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::EnumIter)]
#[strum(serialize_all = "snake_case")]
pub enum Departure {
    /// The coordinator ended the group, as it does when any rank is lost, or is gone.
    Coordinator,
    /// Another rank gave no rows.
    OtherRank,
    /// This rank's device failed.
    Device,
    /// A step or a commit that cannot be.
    Mistake,
}

impl EngineError {
    /// What kind of end it is.
    #[must_use]
    pub const fn departure(&self) -> Departure {
        match self {
            Self::Coordinator(_) => Departure::Coordinator,
            Self::Forward(ForwardError::Fabric(_)) => Departure::OtherRank,
            Self::Forward(ForwardError::Device(_)) => Departure::Device,
            Self::Generation { .. }
            | Self::NotKnown(_)
            | Self::NotStaged { .. }
            | Self::Commit(_)
            | Self::Forward(ForwardError::Batch { .. }) => Departure::Mistake,
        }
    }

    /// Whether the device is of no more use to this process.
    const fn is_of_a_lost_device(&self) -> bool {
        matches!(self, Self::Forward(ForwardError::Device(error)) if !error.is_worth_a_retry())
    }
}

/// What the engine tells of each step.
pub trait StepObserver: Send + 'static {
    /// A step has been answered.
    fn step(&self, timing: &StepTiming, commits: usize);
}

/// The engine's thread, from elsewhere.
pub struct Engine<B: Backend> {
    backend: Arc<B>,
    groups: Sender<Job<B>>,
}

/// A rank's way out of a group, as far as its engine goes it.
pub struct Exit {
    /// Ends the session with the coordinator.
    pub closer: Closer,
    /// What is to be said in it before.
    pub reports: Sender<FromRank>,
}

struct Job<B: Backend> {
    membership: Membership<B>,
    exit: Exit,
    ended: Sender<EngineError>,
}

/// The model, made on the engine's own thread: a queue is used by the thread that made it.
pub type MakeModel<B, E> = Box<dyn FnOnce() -> Result<Model<B>, E> + Send>;

impl<B: Backend> Engine<B> {
    /// Starts the thread and waits until the model is loaded.
    ///
    /// # Errors
    /// What `make` says, or that the system gives no thread. One that panics while it loads has been told of by then.
    pub fn start<E: From<io::Error> + Send + 'static>(
        make: MakeModel<B, E>,
        observer: impl StepObserver,
        threads: &VitalThreads,
    ) -> Result<Self, E> {
        let (groups, jobs) = bounded(0);
        let (outcome, loading) = bounded(1);
        let run = move || match make() {
            Err(error) => {
                drop(outcome.send(Err(error)));
                Ok(())
            }
            Ok(mut model) => {
                drop(outcome.send(Ok(Arc::clone(model.backend()))));
                serve_groups(&mut model, &jobs, &observer)
            }
        };
        let thread = threads.spawn("engine", run)?;
        let Ok(loaded) = loading.recv() else {
            // It has told why when it has ended.
            drop(thread.join());
            return Err(io::Error::other("the engine ended while it loaded the model").into());
        };
        Ok(Self { backend: loaded?, groups })
    }

    /// The device.
    #[must_use]
    pub const fn backend(&self) -> &Arc<B> {
        &self.backend
    }

    /// Joins a group and runs its steps; when that ends it says why where it is its own fault, goes out by `exit`, and the reason arrives. Waits until the
    /// group before has ended. An engine whose thread has ended joins none: it goes out at once, and no reason arrives.
    #[must_use]
    pub fn join(&self, membership: Membership<B>, exit: Exit) -> Receiver<EngineError> {
        let (ended, reason) = bounded(1);
        if let Err(SendError(Job { exit, .. })) = self.groups.send(Job { membership, exit, ended }) {
            exit.closer.close();
        }
        reason
    }
}

/// Runs the steps of one group after the other; ends if the device is lost, and the process with it.
fn serve_groups<B: Backend>(
    model: &mut Model<B>,
    jobs: &Receiver<Job<B>>,
    observer: &impl StepObserver,
) -> Result<(), String> {
    for Job { mut membership, exit, ended } in jobs {
        let Err(reason) = run_steps(model, &mut membership, observer);
        if matches!(reason.departure(), Departure::Device | Departure::Mistake) {
            // Otherwise the coordinator would name whoever it notices first to be gone, which may be a rank that waits for this one.
            let reason = shortened(&with_causes(&reason), MOST_WORDS);
            if exit.reports.send(FromRank::Leaves { reason }).is_ok() {
                membership.wait_until_let_go();
            }
        }
        // The coordinator is told before memory is given back, which waits for whatever the device still does.
        exit.closer.close();
        drop(membership);
        let lost = reason.is_of_a_lost_device().then(|| with_causes(&reason));
        // Whoever asked may be gone.
        let _ = ended.send(reason);
        if let Some(reason) = lost {
            return Err(reason);
        }
    }
    Ok(())
}

fn run_steps<B: Backend>(
    model: &mut Model<B>,
    member: &mut Membership<B>,
    observer: &impl StepObserver,
) -> Result<Infallible, EngineError> {
    loop {
        let Work { number, commits, batch, extent } = member.next_step()?;
        let (started, committed) = (Instant::now(), commits.len());
        let changes = member.apply(commits)?;
        let commit = started.elapsed();
        let Membership { workspace, exchange, mark, .. } = &mut *member;
        let enqueued = |place| *mark = Some(place);
        let input = StepInput { batch: &batch, changes, extent };
        let (outcome, times) = model.step(input, workspace, &mut **exchange, enqueued)?;
        let StepOutcome { outputs, slot_pairs } = outcome;
        let timing = timing(started.elapsed(), commit, times);
        let generation = member.generation();
        member.answer(batch, &StepDone { generation, number, outputs, slot_pairs, timing })?;
        observer.step(&timing, committed);
    }
}

fn timing(total: Duration, commit: Duration, times: StepTimes) -> StepTiming {
    let micros = |duration: Duration| u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    StepTiming {
        total: micros(total),
        commit: micros(commit),
        exchange: micros(times.exchange),
        experts: micros(times.experts),
    }
}

#[cfg(test)]
mod tests {
    use kernels::cpu::Cpu;

    use super::*;

    struct Unobserved;

    impl StepObserver for Unobserved {
        fn step(&self, _: &StepTiming, _: usize) {}
    }

    #[test]
    fn an_engine_that_panics_while_it_loads_has_told_when_the_start_fails() {
        let (tell, told) = bounded(1);
        let threads = VitalThreads::new(move |thread| tell.send(thread).unwrap());
        let make: MakeModel<Cpu, io::Error> = Box::new(|| panic!("a hole"));
        let Err(error) = Engine::start(make, Unobserved, &threads) else { panic!("it started") };
        assert_eq!(error.to_string(), "the engine ended while it loaded the model");
        assert_eq!(told.try_recv().unwrap().to_string().split(": ").nth(1), Some("it panicked"));
    }
}
