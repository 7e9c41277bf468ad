//! What happened, as it is handed over and as documents tell it. Pure.

use plan::moves::SlotChange;
use plan::wire::{Happening, MovedExpert};

use crate::experts::rebalance::{Notice, decision_report};

/// What happened.
pub(super) enum What {
    /// The ranks form a group.
    Formed { generation: u64 },
    /// The group was lost.
    Lost { reason: String },
    /// A window has closed. Its load is not kept for it.
    Window { number: u64, steps: u64, ratio: f64 },
    /// What else the rebalancer makes known.
    Notice(Notice),
}

impl What {
    /// What the rebalancer makes known.
    pub fn of(notice: Notice) -> Self {
        match &notice {
            Notice::WindowClosed(closed) => {
                let window = &closed.report;
                Self::Window { number: window.number, steps: window.steps, ratio: window.ratio }
            }
            _ => Self::Notice(notice),
        }
    }

    pub fn happening(&self) -> Happening {
        match self {
            &Self::Formed { generation } => Happening::Formed { generation },
            Self::Lost { reason } => Happening::Lost { reason: reason.clone() },
            &Self::Window { number, steps, ratio } => Happening::Window { number, steps, ratio },
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
