//! Loads the experts that a map gives a rank: those that it holds already stay, the others come from the checkpoint.

use std::collections::BTreeSet;
use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, Mutex, PoisonError};

use kernels::{Arena, Backend, DeviceError, Page};
use plan::ids::{ExpertId, LayerId, RankId};
use plan::map::ExpertMap;
use rayon::prelude::*;
use thiserror::Error;

use super::mover::{LoadPage, NotRead};
use super::pages::HeldPages;
use crate::cancel::Cancel;

/// Why a rank's experts are not loaded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoadError {
    /// An expert was not read.
    #[error("{layer}, {expert}")]
    NotRead {
        /// The MoE layer that it is about.
        layer: LayerId,
        /// The expert that was to be loaded, as the checkpoint numbers it.
        expert: ExpertId,
        /// What is wrong with its tensors, their files or the device.
        source: NotRead,
    },
    /// The device has no memory for them.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// They are not wanted any more.
    #[error("loading was cancelled")]
    Cancelled,
}

impl LoadError {
    /// Whether the same may succeed when it is tried again by this process.
    #[must_use]
    pub const fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::NotRead { source: NotRead::Unreadable { is_permanent, .. }, .. } => !*is_permanent,
            Self::NotRead { source: NotRead::Device(error), .. } | Self::Device(error) => error.is_worth_a_retry(),
            Self::Cancelled => true,
        }
    }

    /// Whether starting again is of no use until somebody changes the checkpoint or the device.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        match self {
            Self::NotRead { source: NotRead::Unreadable { is_permanent, .. }, .. } => *is_permanent,
            Self::NotRead { source: NotRead::Device(error), .. } | Self::Device(error) => error.is_permanent(),
            Self::Cancelled => false,
        }
    }
}

/// What `rank`'s slots hold, `[layers, slots_per_rank]`.
#[must_use]
pub fn slots_of(map: &ExpertMap, rank: RankId) -> Vec<(LayerId, ExpertId)> {
    map.layers().flat_map(|layer| map.rank(layer, rank).iter().map(move |&expert| (layer, expert))).collect()
}

/// What happens before an expert is read from the checkpoint: nothing, but in tests of what is read when, and how slowly.
#[derive(Clone, Default)]
pub struct BeforeRead(Option<Arc<dyn Fn(LayerId, ExpertId) + Send + Sync>>);

impl BeforeRead {
    /// `happens`, on the thread that reads.
    pub fn new(happens: impl Fn(LayerId, ExpertId) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(happens)))
    }

    /// It happens.
    pub fn happen(&self, layer: LayerId, expert: ExpertId) {
        if let Some(happens) = &self.0 {
            happens(layer, expert);
        }
    }
}

impl Debug for BeforeRead {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() { "something" } else { "nothing" })
    }
}

/// The pages of slots, in their order, read by all cores where `held` lacks them. Then `held` has these and no others; where it
/// fails, those of them that were there or were read until then.
///
/// # Errors
/// If an expert cannot be read, the device does not take it, or `cancel` ends it.
pub fn load_experts<B: Backend>(
    slots: &[(LayerId, ExpertId)],
    held: &mut HeldPages<B>,
    (arena, load_page): (&Arc<Arena<B>>, &LoadPage<B>),
    cancel: &Cancel,
) -> Result<Vec<Arc<Page<B>>>, LoadError> {
    let wanted: BTreeSet<_> = slots.iter().copied().collect();
    held.retain(|slot, _| wanted.contains(slot));
    let missing: Vec<_> = slots.iter().filter(|slot| !held.contains_key(slot)).copied().collect();
    let kept = Mutex::new(&mut *held);
    let loaded = missing.into_par_iter().try_for_each(|(layer, expert)| {
        if cancel.is_cancelled() {
            return Err(LoadError::Cancelled);
        }
        let mut page = arena.take()?;
        load_page(layer, expert, &mut page).map_err(|source| LoadError::NotRead { layer, expert, source })?;
        // It is whole, whoever has panicked.
        kept.lock().unwrap_or_else(PoisonError::into_inner).insert((layer, expert), Arc::new(page));
        Ok(())
    });
    loaded?;
    Ok(slots.iter().map(|slot| Arc::clone(&held[slot])).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use kernels::cpu::Cpu;

    use super::*;
    use crate::experts::pages::tests::{arena, held, map, write};

    type Loaded = Result<Vec<Arc<Page<Cpu>>>, LoadError>;

    /// What a rank that holds `held` loads, and how many experts it reads for it.
    fn load(held: &mut HeldPages<Cpu>, rank: u32) -> (Loaded, u32) {
        let read = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&read);
        let load_page: LoadPage<Cpu> = Arc::new(move |layer, expert, page| {
            counted.fetch_add(1, Ordering::Relaxed);
            write(page, layer, expert);
            let hole = NotRead::Unreadable { reason: "a hole in the file".to_owned(), is_permanent: true };
            if expert == ExpertId(3) { Err(hole) } else { Ok(()) }
        });
        let slots = slots_of(&map(), RankId(rank));
        let loaded = load_experts::<Cpu>(&slots, held, (&arena(), &load_page), &Cancel::default());
        (loaded, read.load(Ordering::Relaxed))
    }

    #[test]
    fn a_rank_reads_only_what_it_does_not_hold() {
        let (loaded, read) = load(&mut HeldPages::<Cpu>::new(), 0);
        assert_eq!((loaded.unwrap().len(), read), (4, 4));
        let mut held = held(&arena(), 0);
        let first = Arc::clone(&held[&(LayerId(0), ExpertId(1))]);
        held.remove(&(LayerId(1), ExpertId(0)));
        let (loaded, read) = load(&mut held, 0);
        assert!(Arc::ptr_eq(&loaded.unwrap()[1], &first));
        assert_eq!(read, 1);
        assert_eq!(load(&mut held, 0).1, 0, "what was read is held");
    }

    #[test]
    fn what_was_read_before_loading_was_cancelled_is_kept() {
        let (arena, cancel) = (arena(), Arc::new(Cancel::default()));
        let (read, ends) = (Arc::new(AtomicU32::new(0)), Arc::clone(&cancel));
        let counted = Arc::clone(&read);
        let load_page: LoadPage<Cpu> = Arc::new(move |layer, expert, page| {
            if counted.fetch_add(1, Ordering::SeqCst) == 1 {
                ends.cancel();
            }
            write(page, layer, expert);
            Ok(())
        });
        let (slots, mut held) = (slots_of(&map(), RankId(0)), HeldPages::<Cpu>::new());
        let error = load_experts::<Cpu>(&slots, &mut held, (&arena, &load_page), &cancel).unwrap_err();
        assert_eq!(error, LoadError::Cancelled);
        assert_eq!(held.len() as u32, read.load(Ordering::SeqCst));
        load_experts::<Cpu>(&slots, &mut held, (&arena, &load_page), &Cancel::default()).unwrap();
        assert_eq!((held.len(), read.load(Ordering::SeqCst)), (slots.len(), slots.len() as u32), "nothing twice");
    }

    #[test]
    fn an_expert_that_cannot_be_read_is_named() {
        let (loaded, _) = load(&mut HeldPages::<Cpu>::new(), 1);
        let error = loaded.unwrap_err();
        assert!(error.to_string().ends_with("expert 3"), "{error}");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "a hole in the file");
    }

    #[test]
    fn what_is_tried_again_and_what_stays_so_is_what_the_checkpoint_and_the_device_say() {
        let not_read = |source| LoadError::NotRead { layer: LayerId(0), expert: ExpertId(3), source };
        let file = |is_permanent| not_read(NotRead::Unreadable { reason: "a hole".to_owned(), is_permanent });
        let failed = |usable| DeviceError::Failed { reason: "a hole".to_owned(), usable };
        let unusable = || DeviceError::Unusable { reason: "heads are too wide".to_owned() };
        for (error, retry, permanent) in [
            (file(true), false, true),
            (file(false), true, false),
            (LoadError::Device(DeviceError::Memory { bytes: 7 }), true, false),
            (not_read(failed(true).into()), true, false),
            // Another process may have it again.
            (not_read(failed(false).into()), false, false),
            (not_read(unusable().into()), false, true),
            (LoadError::Device(unusable()), false, true),
            (LoadError::Cancelled, true, false),
        ] {
            assert_eq!((error.is_worth_a_retry(), error.is_permanent()), (retry, permanent), "{error:?}");
        }
    }
}
