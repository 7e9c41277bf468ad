//! NCCL, which is looked for when it is asked for: a group's communicator, and the watchdog that ends it when a rank is lost. What is put
//! on a stream by it waits there for the other ranks, and for nobody else.

mod library;

use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{ptr, thread};

use cudarc::nccl::sys::{ncclComm_t, ncclConfig_t, ncclDataType_t, ncclResult_t, ncclUniqueId};

use self::library::{Nccl, nccl};
use super::parameters::Address;
use super::stream::Stream;
use crate::error::DeviceError;
use crate::link::LinkName;

/// What `NCCL_CONFIG_INITIALIZER` says.
const MAGIC: u32 = 0xcafe_beef;
const CONFIG_VERSION: u32 = 22_800;
const UNDEFINED: i32 = i32::MIN;

/// How often a call is asked for that goes on by itself.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

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

fn said(what: &str, code: ncclResult_t) -> Result<(), DeviceError> {
    match code {
        ncclResult_t::ncclSuccess | ncclResult_t::ncclInProgress => Ok(()),
        code => Err(DeviceError::Failed { reason: format!("could not {what}: {code:?}"), usable: true }),
    }
}

/// A rank's end of a group. It is ended, and whatever waits for other ranks with it, when a step's exchanges take longer than is
/// waited for, when it is told to, and when this is dropped.
#[derive(Debug)]
pub(super) struct Communicator {
    shared: Arc<Shared>,
    watchdog: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    nccl: &'static Nccl,
    state: Mutex<State>,
    changed: Condvar,
    patience: Duration,
}

#[derive(Debug)]
struct State {
    /// There until it is ended.
    handle: Option<Handle>,
    /// Since when a step waits for other ranks.
    since: Option<Instant>,
}

#[derive(Debug)]
struct Handle(ncclComm_t);

// SAFETY: NCCL's functions on a communicator may be called by any thread, one at a time, which its lock sees to.
unsafe impl Send for Handle {}

/// Words of every rank to every rank: the `r`-th part of `from` to rank `r`, that of rank `r` to the `r`-th part of `to`.
#[derive(Clone, Copy, Debug)]
pub(super) struct AllToAll {
    pub from: Address,
    pub to: Address,
    /// Words of each part.
    pub words: usize,
}

impl Communicator {
    /// Joins a group that others join by the same name.
    ///
    /// # Errors
    /// If they do not within `patience`, or NCCL says that it cannot.
    pub fn join(
        LinkName(name): LinkName,
        (ranks, rank): (usize, usize),
        patience: Duration,
    ) -> Result<Self, DeviceError> {
        let nccl = nccl()?;
        let id = ncclUniqueId { internal: name.map(u8::cast_signed) };
        let mut config = config();
        let mut handle = ptr::null_mut();
        // SAFETY: both pointers are to local variables; the context of the rank's device is current, as the caller says.
        let joined =
            unsafe { (nccl.join)(&raw mut handle, ranks as i32, id, rank as i32, &raw mut config) };
        said("join a group of NCCL", joined)?;
        let state = State { handle: Some(Handle(handle)), since: None };
        let shared = Arc::new(Shared { nccl, state: Mutex::new(state), changed: Condvar::new(), patience });
        let watched = Arc::clone(&shared);
        let watchdog = thread::Builder::new().name("nccl-watch".to_owned()).spawn(move || watched.watch());
        let watchdog = watchdog.map_err(|error| DeviceError::Threads { threads: 1, reason: error.to_string() })?;
        let joined = Self { shared, watchdog: Some(watchdog) };
        joined.begin();
        joined.shared.settle("join a group of NCCL")?;
        if joined.end_step() {
            let reason = format!("NCCL did not connect the ranks within {} s", patience.as_secs());
            return Err(DeviceError::Failed { reason, usable: true });
        }
        Ok(joined)
    }

    /// A step begins: all that it exchanges is done within the patience, or the group is ended.
    pub fn begin(&self) {
        self.shared.lock().since = Some(Instant::now());
        self.shared.changed.notify_all();
    }

    /// A step has been collected; whether the group was ended meanwhile.
    pub fn end_step(&self) -> bool {
        let mut state = self.shared.lock();
        state.since = None;
        state.handle.is_none()
    }

    /// Puts exchanges on a stream, as one; nothing where the group is ended.
    pub fn exchange(&self, stream: &Stream, parts: &[AllToAll]) -> Result<(), DeviceError> {
        let (nccl, state) = (self.shared.nccl, self.shared.lock());
        let Some(Handle(handle)) = state.handle else { return Ok(()) };
        // SAFETY: it takes no pointers.
        said("begin an exchange", unsafe { (nccl.group_start)() })?;
        let mut put = Ok(());
        for &AllToAll { from, to, words } in parts {
            let (from, to) = (from as *const c_void, to as *mut c_void);
            let (kind, stream) = (ncclDataType_t::ncclUint32, stream.handle().cast());
            // SAFETY: both are memory of this device with as many words for each rank, by construction of the link, which lives until
            // its stream has done this; the communicator is there while its lock is held.
            let code = unsafe { (nccl.all_to_all)(from, to, words, kind, handle, stream) };
            put = put.and(said("exchange rows", code));
        }
        // SAFETY: it takes no pointers, and ends what was begun above.
        let ended = said("exchange rows", unsafe { (nccl.group_end)() });
        drop(state);
        put.and(ended)?;
        self.shared.settle("exchange rows")
    }

    /// What ends it from another thread.
    pub fn closer(&self) -> impl Fn() + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.end()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until what was called goes on by itself no more, or the group is ended.
    fn settle(&self, what: &str) -> Result<(), DeviceError> {
        let mut state = self.lock();
        loop {
            let Some(Handle(handle)) = state.handle else { return Ok(()) };
            let mut code = ncclResult_t::ncclSuccess;
            // SAFETY: the pointer is to a local variable; the communicator is there while its lock is held.
            said(what, unsafe { (self.nccl.async_error)(handle, &raw mut code) })?;
            if code != ncclResult_t::ncclInProgress {
                // A rank that is lost shows here before its time is over.
                return if code == ncclResult_t::ncclRemoteError { Ok(()) } else { said(what, code) };
            }
            state = self.changed.wait_timeout(state, LOOK_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the group when a step takes too long.
    fn watch(&self) {
        let mut state = self.lock();
        while state.handle.is_some() {
            let left = state.since.map(|since| self.patience.saturating_sub(since.elapsed()));
            if left == Some(Duration::ZERO) {
                drop(state);
                return self.end();
            }
            // Without a step there is nothing to wait for.
            let wait = left.unwrap_or(Duration::MAX);
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the group here: what waits on streams for other ranks goes on.
    fn end(&self) {
        let taken = self.lock().handle.take();
        if let Some(Handle(handle)) = taken {
            // SAFETY: the communicator was made by NCCL, and nobody else has it any more.
            let _ = unsafe { (self.nccl.abort)(handle) };
        }
        self.changed.notify_all();
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        self.shared.end();
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
