//! NCCL, which is looked for when it is asked for: a group's communicator, and the watchdog that ends it when a rank is lost. What is put
//! on a stream by it waits there for the other ranks, and for nobody else.

mod library;
mod patience;

use std::ffi::{c_int, c_void};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{ptr, thread};

use cudarc::nccl::sys::{ncclComm_t, ncclConfig_t, ncclDataType_t, ncclResult_t, ncclUniqueId};

use self::library::{Nccl, nccl};
use self::patience::Waited;
use super::context::Context;
use super::memory::Mapped;
use super::parameters::Address;
use super::stream::Stream;
use crate::error::DeviceError;
use crate::link::{LinkName, Lost};

/// What `NCCL_CONFIG_INITIALIZER` says.
const MAGIC: u32 = 0xcafe_beef;
const CONFIG_VERSION: u32 = 22_800;
const UNDEFINED: i32 = i32::MIN;

/// What NCCL takes of a GPU's memory for a communicator whose ranks send and receive: its buffers for a network, which all peers
/// share, are 512 MiB each way on the largest machines (NVIDIA/nccl issue 2363 and pull request 2366, measured with 2.28.9); those
/// between GPUs of a node are less.
pub(super) const BYTES: u64 = 1 << 30;

/// How often a rank that joins is asked for; an exchange is asked for without a pause, since a step has two for each layer.
const JOIN_INTERVAL: Duration = Duration::from_millis(1);

/// How often a group is asked whether it goes on, while a step may wait for another rank.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long a step may go on after NCCL has said that the group does not: a rank that leaves after a step's last exchange has given all
/// that the others need to end it.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// Whether NCCL is there, and new enough.
///
/// # Errors
/// If not; what is missing, in words.
pub(super) fn check() -> Result<(), DeviceError> {
    nccl().map(drop)
}

/// A name for a new group, which its ranks find each other by.
pub(super) fn name() -> Result<LinkName, DeviceError> {
    let nccl = nccl()?;
    let mut id = ncclUniqueId { internal: [0; 128] };
    // SAFETY: the pointer is to a local variable.
    said("name a group of NCCL", unsafe { (nccl.unique_id)(&raw mut id) })?;
    Ok(LinkName(id.internal.map(i8::cast_unsigned)))
}

/// Why a group that says this goes on no more, where another rank or the network is to blame.
const fn lost(code: ncclResult_t) -> Option<&'static str> {
    match code {
        ncclResult_t::ncclRemoteError | ncclResult_t::ncclSystemError => {
            Some("NCCL has lost a rank, or the network to it")
        }
        _ => None,
    }
}

/// Why a group that says this goes on no more, whoever is to blame.
const fn ended(code: ncclResult_t) -> Option<&'static str> {
    match code {
        ncclResult_t::ncclSuccess | ncclResult_t::ncclInProgress => None,
        code if lost(code).is_some() => lost(code),
        _ => Some("NCCL failed"),
    }
}

fn said(what: &str, code: ncclResult_t) -> Result<(), DeviceError> {
    match code {
        ncclResult_t::ncclSuccess | ncclResult_t::ncclInProgress => Ok(()),
        code => Err(DeviceError::Failed { reason: format!("could not {what}: {code:?}"), usable: true }),
    }
}

/// A rank's end of a group. It is ended, and whatever waits for other ranks with it, when a layer of a step takes longer than is
/// waited for, when NCCL says that it goes on no more, when it is told to, and when this is dropped. NCCL gives it back when no
/// graph is left that was captured of its exchanges: those are dropped before this is.
#[derive(Debug)]
pub(super) struct Communicator {
    shared: Arc<Shared>,
    watchdog: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    nccl: &'static Nccl,
    /// Of the rank's GPU, which NCCL wants to be that of whoever calls it.
    context: Arc<Context>,
    state: Mutex<State>,
    changed: Condvar,
    patience: Duration,
    /// Where the device leaves how many layers have passed.
    passed: Arc<Mapped>,
    /// Ranks, and this one.
    group: (usize, usize),
}

#[derive(Debug)]
struct State {
    /// There until it is ended.
    handle: Option<Handle>,
    /// The same from then on, until the watchdog has ended it: that takes as long as there are graphs.
    ending: Option<Handle>,
    /// Why it was ended, if not because it took too long or was told to.
    reason: Option<&'static str>,
    waited: Waited,
}

impl State {
    /// Has the watchdog end it, if nobody did before; nobody else uses it from now on.
    const fn end(&mut self, reason: Option<&'static str>) {
        if let Some(handle) = self.handle.take() {
            (self.ending, self.reason) = (Some(handle), reason);
        }
    }
}

#[derive(Debug)]
struct Handle(ncclComm_t);

// SAFETY: NCCL's functions on a communicator may be called by any thread, one at a time, which its lock sees to.
unsafe impl Send for Handle {}

/// Words of every rank to every other: the first of the `r`-th part of `from` to rank `r`, those of rank `r` to the `r`-th part of `to`.
#[derive(Clone, Copy, Debug)]
pub(super) struct AllToAll {
    pub from: Address,
    pub to: Address,
    /// Bytes from each part to the next.
    pub stride: usize,
    /// Words of each that are sent.
    pub words: usize,
}

impl Communicator {
    /// Joins a group that others join by the same name, whose steps leave at the beginning of `passed` how many layers they have exchanged.
    ///
    /// # Errors
    /// If they do not within `patience`, or NCCL says that it cannot.
    pub fn join(
        context: &Arc<Context>,
        LinkName(name): LinkName,
        (ranks, rank): (usize, usize),
        (passed, patience): (Arc<Mapped>, Duration),
    ) -> Result<Self, DeviceError> {
        let nccl = nccl()?;
        let id = ncclUniqueId { internal: name.map(u8::cast_signed) };
        let mut config = config();
        let mut handle = ptr::null_mut();
        context.bind()?;
        // SAFETY: both pointers are to local variables; the context of the rank's device is current.
        let joined = unsafe { (nccl.join)(&raw mut handle, ranks as i32, id, rank as i32, &raw mut config) };
        said("join a group of NCCL", joined)?;
        let state = State { handle: Some(Handle(handle)), ending: None, reason: None, waited: Waited::default() };
        let shared = Arc::new(Shared {
            nccl,
            context: Arc::clone(context),
            state: Mutex::new(state),
            changed: Condvar::new(),
            patience,
            passed,
            group: (ranks, rank),
        });
        let watched = Arc::clone(&shared);
        let watchdog = thread::Builder::new().name("nccl-watch".to_owned()).spawn(move || watched.watch());
        let watchdog = watchdog.map_err(|error| DeviceError::Threads { threads: 1, reason: error.to_string() })?;
        let joined = Self { shared, watchdog: Some(watchdog) };
        joined.begin();
        let code = loop {
            match joined.shared.settled() {
                Some(code) => break code,
                None => joined.shared.pause(),
            }
        };
        said("join a group of NCCL", code)?;
        let reason = match joined.end_step() {
            Ok(()) => return Ok(joined),
            Err(Lost::Ended { reason }) => format!("NCCL did not connect the ranks: {reason}"),
            Err(Lost::Late { .. }) => format!("NCCL did not connect the ranks within {} s", patience.as_secs()),
        };
        Err(DeviceError::Failed { reason, usable: true })
    }

    /// A step begins: each of its layers is exchanged within the patience, or the group is ended.
    pub fn begin(&self) {
        self.shared.lock().waited.begin(Instant::now());
        self.shared.changed.notify_all();
    }

    /// A step has been collected.
    ///
    /// # Errors
    /// If the group was ended meanwhile.
    pub fn end_step(&self) -> Result<(), Lost> {
        let mut state = self.shared.lock();
        state.waited.end();
        match (&state.handle, state.reason) {
            (Some(_), _) => Ok(()),
            (None, Some(reason)) => Err(Lost::Ended { reason }),
            (None, None) => Err(Lost::Late { rank: None }),
        }
    }

    /// Puts exchanges on a stream, as one; nothing where the group is ended, as it is here where NCCL says that it goes on no more. The
    /// context of the rank's device is the caller's.
    pub fn exchange(&self, stream: &Stream, parts: &[AllToAll]) -> Result<(), DeviceError> {
        let (nccl, state) = (self.shared.nccl, self.shared.lock());
        let Some(Handle(handle)) = state.handle else { return Ok(()) };
        // SAFETY: it takes no pointers.
        said("begin an exchange", unsafe { (nccl.group_start)() })?;
        let mut put = ncclResult_t::ncclSuccess;
        let mut told = |code| {
            if ended(put).is_none() {
                put = code;
            }
        };
        let (ranks, own) = self.shared.group;
        for &AllToAll { from, to, stride, words } in parts {
            for peer in (0..ranks).filter(|&peer| peer != own) {
                let at = |list: Address| list + (peer * stride) as u64;
                let (from, to, peer) = (at(from) as *const c_void, at(to) as *mut c_void, peer as c_int);
                let (kind, stream) = (ncclDataType_t::ncclUint32, stream.handle().cast());
                // SAFETY: there are as many words of this device, by construction of the link, which lives until its stream has done this, and
                // whatever was captured of it is gone; the communicator is there while its lock is held.
                told(unsafe { (nccl.send)(from, words, kind, peer, handle, stream) });
                // SAFETY: as above.
                told(unsafe { (nccl.receive)(to, words, kind, peer, handle, stream) });
            }
        }
        // SAFETY: it takes no pointers, and ends what was begun above.
        told(unsafe { (nccl.group_end)() });
        drop(state);
        match lost(put) {
            Some(reason) => self.shared.end(Some(reason)),
            None => said("exchange rows", put)?,
        }
        let code = loop {
            match self.shared.settled() {
                Some(code) => break code,
                None => thread::yield_now(),
            }
        };
        // Of a rank that is lost the watchdog hears too.
        if lost(code).is_some() { Ok(()) } else { said("exchange rows", code) }
    }

    /// What ends it from another thread.
    pub fn closer(&self) -> impl Fn() + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.end(None)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of what was called, once it goes on by itself no more; nothing bad of a group that is ended.
    fn settled(&self) -> Option<ncclResult_t> {
        let state = self.lock();
        let Some(Handle(handle)) = &state.handle else { return Some(ncclResult_t::ncclSuccess) };
        Some(self.ask(handle)).filter(|&code| code != ncclResult_t::ncclInProgress)
    }

    /// What became of what was called, as the communicator says while its lock is held.
    fn ask(&self, handle: &ncclComm_t) -> ncclResult_t {
        let mut code = ncclResult_t::ncclSuccess;
        // SAFETY: the pointer is to a local variable; the communicator is there, as its handle is.
        match unsafe { (self.nccl.async_error)(*handle, &raw mut code) } {
            ncclResult_t::ncclSuccess => code,
            refused => refused,
        }
    }

    /// Waits a moment, or until the group is ended.
    fn pause(&self) {
        let state = self.lock();
        if state.handle.is_some() {
            drop(self.changed.wait_timeout(state, JOIN_INTERVAL));
        }
    }

    /// Ends the group when a layer takes too long, or NCCL says that it goes on no more; or when it is told to.
    fn watch(&self) {
        let (mut state, mut broken) = (self.lock(), None);
        loop {
            let State { handle, ending, waited, .. } = &mut *state;
            if let Some(Handle(handle)) = ending.take() {
                drop(state);
                return self.abort(handle);
            }
            let Some(Handle(handle)) = handle else { return };
            let left = waited.left(self.patience, self.passed.heard(0), Instant::now());
            if let Some(reason) = left.and_then(|_| ended(self.ask(handle))) {
                broken.get_or_insert((Instant::now(), reason));
            }
            let is_over = broken.is_some_and(|(since, _)| since.elapsed() >= ENDS_WITHIN);
            if left.is_some_and(|left| left.is_zero() || is_over) {
                state.end(broken.map(|(_, reason)| reason));
                continue;
            }
            let wait = left.map_or(Duration::MAX, |left| left.min(LOOK_INTERVAL));
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Has the group ended here: what waits on streams for other ranks goes on. Waits for nothing.
    fn end(&self, reason: Option<&'static str>) {
        self.lock().end(reason);
        self.changed.notify_all();
    }

    /// What waits on streams goes on at once; returns when no graph is left.
    fn abort(&self, handle: ncclComm_t) {
        // If that fails the device is lost, and nothing waits on it.
        let _ = self.context.bind();
        // SAFETY: the communicator was made by NCCL, and nobody else has it any more.
        let _ = unsafe { (self.nccl.abort)(handle) };
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        self.shared.end(None);
        if let Some(watchdog) = self.watchdog.take() {
            // One that panicked watches no more either.
            let _ = watchdog.join();
        }
    }
}

/// Calls return before they are done, so that a rank that is lost keeps no thread.
fn config() -> ncclConfig_t {
    // SAFETY: all of it is numbers and pointers that may be null.
    let nothing: ncclConfig_t = unsafe { std::mem::zeroed() };
    ncclConfig_t {
        size: size_of::<ncclConfig_t>(),
        magic: MAGIC,
        version: CONFIG_VERSION,
        blocking: 0,
        cgaClusterSize: UNDEFINED,
        minCTAs: UNDEFINED,
        maxCTAs: UNDEFINED,
        splitShare: UNDEFINED,
        trafficClass: UNDEFINED,
        collnetEnable: UNDEFINED,
        CTAPolicy: UNDEFINED,
        shrinkShare: UNDEFINED,
        nvlsCTAs: UNDEFINED,
        nChannelsPerNetPeer: UNDEFINED,
        nvlinkCentricSched: UNDEFINED,
        ..nothing
    }
}
