//! What happened, as it is handed over and as documents tell it. Pure.

use plan::moves::SlotChange;
use plan::wire::{Happening, MovedExpert};

use crate::experts::rebalance::{Notice, decision_report};

/// What happened.
pub(super) enum What {
    /// As documents tell it.
    Told(Happening),
    /// What the rebalancer makes known: who asks makes a document of it.
    Notice(Notice),
}

impl What {
    /// What the rebalancer makes known. The load of a window is not kept for it.
    pub fn of(notice: Notice) -> Self {
        match notice {
            Notice::WindowClosed(_) => Self::Told(of_notice(&notice)),
            _ => Self::Notice(notice),
        }
    }

    pub fn happening(&self) -> Happening {
        match self {
            Self::Told(happening) => happening.clone(),
            Self::Notice(notice) => of_notice(notice),
        }
    }
}

fn of_notice(notice: &Notice) -> Happening {
    match notice {
        Notice::WindowClosed(closed) => {
            let window = &closed.report;
            Happening::Window { number: window.number, steps: window.steps, ratio: window.ratio }
        }
        Notice::Decided(decision) => {
            let report = decision_report(decision);
            Happening::Decided {
                reason: report.reason,
                ratio_before: report.figures.ratio_before,
                ratio_after: report.figures.ratio_after,
                pages: report.figures.pages,
                bytes: report.figures.bytes,
            }
        }
        &Notice::Planned { transactions, pages } => Happening::Planned { transactions: transactions as u64, pages },
        Notice::Kept { reason } => Happening::Kept { reason: reason.clone() },
        Notice::Committed { layer, epoch, bytes, changes, .. } => {
            let moved = changes.iter().filter(|change| change.source != change.rank).map(moved).collect();
            Happening::Committed { layer: layer.0, epoch: *epoch, bytes: *bytes, moved }
        }
        Notice::Aborted { reason, message, .. } => {
            Happening::Aborted { reason: format!("{}: {message}", reason.as_str()) }
        }
        &Notice::Completed { epoch, pages, bytes, steps } => Happening::Completed { epoch, pages, bytes, steps },
        Notice::Dropped { reason } => Happening::Dropped { reason: reason.clone() },
    }
}

const fn moved(change: &SlotChange) -> MovedExpert {
    MovedExpert { expert: change.to.0, from: change.source.0, to: change.rank.0 }
}
