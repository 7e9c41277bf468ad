//! Loads the experts that a map gives a rank: those that it holds already stay, the others come from the checkpoint.

use std::sync::Arc;

use kernels::Backend;
use plan::ids::{ExpertId, LayerId, RankId};
use plan::map::ExpertMap;
use rayon::prelude::*;
use thiserror::Error;

use super::mover::{LoadPage, Unreadable};
use super::pages::HeldPages;
use crate::cancel::Cancel;

/// Why a rank's experts are not loaded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoadError {
    /// The checkpoint cannot be read.
    #[error("{layer}, {expert}")]
    Unreadable {
        /// Where.
        layer: LayerId,
        /// Which.
        expert: ExpertId,
        /// Why.
        source: Unreadable,
    },
    /// They are not wanted any more.
    #[error("loading was cancelled")]
    Cancelled,
}

impl LoadError {
    /// Whether trying again is of no use until somebody changes the checkpoint.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        match self {
            Self::Unreadable { source, .. } => source.is_permanent,
            Self::Cancelled => false,
        }
    }
}

/// What `rank`'s slots hold, `[layers, slots_per_rank]`.
#[must_use]
pub fn slots_of(map: &ExpertMap, rank: RankId) -> Vec<(LayerId, ExpertId)> {
    map.layers().flat_map(|layer| map.rank(layer, rank).iter().map(move |&expert| (layer, expert))).collect()
}

/// The pages of slots, in their order, read by all cores where `held` lacks them.
///
/// # Errors
/// If an expert cannot be read, or `cancel` ends it.
pub fn load_experts<B: Backend>(
    slots: &[(LayerId, ExpertId)],
    held: &HeldPages<B>,
    load_page: &LoadPage<B>,
    cancel: &Cancel,
) -> Result<Vec<Arc<B::Page>>, LoadError> {
    let load = |&(layer, expert): &(LayerId, ExpertId)| {
        if let Some(page) = held.get(&(layer, expert)) {
            return Ok(Arc::clone(page));
        }
        if cancel.is_cancelled() {
            return Err(LoadError::Cancelled);
        }
        let page = load_page(layer, expert).map_err(|source| LoadError::Unreadable { layer, expert, source })?;
        Ok(Arc::new(page))
    };
    slots.par_iter().map(load).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use kernels::cpu::Cpu;

    use super::*;
    use crate::experts::pages::tests::{held, map, page};

    type Loaded = Result<Vec<Arc<<Cpu as Backend>::Page>>, LoadError>;

    /// What a rank that holds `held` loads, and how many experts it reads for it.
    fn load(held: &HeldPages<Cpu>, rank: u32) -> (Loaded, u32) {
        let read = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&read);
        let backend = Cpu::new(1).unwrap();
        let load_page: LoadPage<Cpu> = Arc::new(move |layer, expert| {
            counted.fetch_add(1, Ordering::Relaxed);
            let hole = Unreadable { reason: "a hole in the file".to_owned(), is_permanent: true };
            if expert == ExpertId(3) { Err(hole) } else { Ok(page(&backend, layer, expert)) }
        });
        let loaded = load_experts::<Cpu>(&slots_of(&map(), RankId(rank)), held, &load_page, &Cancel::default());
        (loaded, read.load(Ordering::Relaxed))
    }

    #[test]
    fn a_rank_reads_only_what_it_does_not_hold() {
        let (loaded, read) = load(&HeldPages::<Cpu>::new(), 0);
        assert_eq!((loaded.unwrap().len(), read), (4, 4));
        let backend = Cpu::new(1).unwrap();
        let mut held = held(&backend, 0);
        held.remove(&(LayerId(1), ExpertId(0)));
        let (loaded, read) = load(&held, 0);
        assert!(Arc::ptr_eq(&loaded.unwrap()[1], &held[&(LayerId(0), ExpertId(1))]));
        assert_eq!(read, 1);
    }

    #[test]
    fn an_expert_that_cannot_be_read_is_named() {
        let (loaded, _) = load(&HeldPages::<Cpu>::new(), 1);
        let error = loaded.unwrap_err();
        assert!(error.to_string().ends_with("expert 3"), "{error}");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "a hole in the file");
    }
}
