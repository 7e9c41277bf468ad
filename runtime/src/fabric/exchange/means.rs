//! By what means the ranks of a group exchange rows: what each rank can, and what they agree upon. Pure.

use clap::ValueEnum;
use plan::ids::RankId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::quoted::Quoted;

/// What `--exchange` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, strum::Display, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum ExchangeChoice {
    /// The fastest that all ranks of the group can
    #[default]
    Auto,
    /// GPUs store into each other's memory; all ranks are in one process
    Peer,
    /// GPUs through NCCL; ranks are anywhere, each on a GPU of its own
    Nccl,
    /// Through the hosts, over TCP; for any device
    Tcp,
}

impl ExchangeChoice {
    /// Whether it may come to this.
    #[must_use]
    pub const fn may_be(self, means: Means) -> bool {
        match self {
            Self::Auto => true,
            Self::Peer => matches!(means, Means::Peer),
            Self::Nccl => matches!(means, Means::Nccl),
            Self::Tcp => matches!(means, Means::Tcp),
        }
    }
}

/// How rows get from rank to rank, the fastest first.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, strum::Display, strum::IntoStaticStr,
)]
#[strum(serialize_all = "lowercase")]
pub enum Means {
    /// Devices store into each other's memory.
    Peer,
    /// Devices exchange frames of a constant size, by NCCL.
    Nccl,
    /// Through the hosts, over TCP.
    Tcp,
}

impl Means {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Peer, Self::Nccl, Self::Tcp];
}

/// What a rank sees of its group before it reads an expert, as far as it matters to what is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Whether devices of this kind exchange rows by themselves at all.
    pub has_links: bool,
    /// A rank that is in another process.
    pub elsewhere: Option<RankId>,
    /// Why this rank's device cannot use the memory of another's.
    pub unreached: Option<String>,
    /// Why there is no NCCL that can be used.
    pub no_nccl: Option<String>,
    /// Whether ranks share a device.
    pub shares: bool,
    /// Whether ranks are on several nodes.
    pub spans_nodes: bool,
}

/// What is asked for and cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The device has no links.
    #[error(
        "--exchange {asked} is between GPUs, and this rank computes on none; use --backend cuda, or --exchange tcp"
    )]
    NoLinks {
        /// What was asked for.
        asked: ExchangeChoice,
    },
    /// Ranks are of several processes.
    #[error(
        "--exchange peer is between ranks of one process, and {rank} is in another; start all ranks in one, or use --exchange auto"
    )]
    Elsewhere {
        /// Which is not in this one.
        rank: RankId,
    },
    /// There is no way from one GPU to another.
    #[error("--exchange peer needs each GPU to use the memory of the others, and {reason}; use --exchange auto")]
    Unreached {
        /// Which cannot.
        reason: Quoted<128>,
    },
    /// NCCL cannot be used.
    #[error("--exchange nccl needs NCCL 2.28 or later, and {reason}; install it, or use --exchange auto")]
    NoNccl {
        /// What is missing.
        reason: Quoted<128>,
    },
    /// NCCL takes each GPU once.
    #[error("--exchange nccl needs a GPU for each rank, and some share one; start fewer ranks, or use --exchange auto")]
    Shares,
    /// Rows would go through the hosts between nodes, which nobody asked for.
    #[error(
        "ranks are on several nodes, and {reason}; install NCCL 2.28 or later, or ask for --exchange tcp, which is slow"
    )]
    NodesWithoutNccl {
        /// What is missing.
        reason: Quoted<128>,
    },
    /// The same, where NCCL is there and cannot be used.
    #[error(
        "ranks are on several nodes, and some share a GPU, which NCCL does not take; give each rank a GPU of its own, or ask for \
         --exchange tcp, which is slow"
    )]
    NodesSharing,
}

/// The means that a rank has of those that it is asked for, the fastest first.
///
/// # Errors
/// If it is asked for one alone, and does not have it.
pub fn possible(asked: ExchangeChoice, view: &View) -> Result<Vec<Means>, Refusal> {
    let peer = || match view {
        View { has_links: false, .. } => Err(Refusal::NoLinks { asked }),
        View { elsewhere: Some(rank), .. } => Err(Refusal::Elsewhere { rank: *rank }),
        View { unreached: Some(reason), .. } => Err(Refusal::Unreached { reason: reason.as_str().into() }),
        View { .. } => Ok(Means::Peer),
    };
    let nccl = || match view {
        View { has_links: false, .. } => Err(Refusal::NoLinks { asked }),
        View { shares: true, .. } => Err(Refusal::Shares),
        View { no_nccl: Some(reason), .. } => Err(Refusal::NoNccl { reason: reason.as_str().into() }),
        View { .. } => Ok(Means::Nccl),
    };
    match asked {
        ExchangeChoice::Auto => match &view.no_nccl {
            Some(reason) if view.has_links && view.spans_nodes => {
                Err(Refusal::NodesWithoutNccl { reason: reason.as_str().into() })
            }
            None if view.has_links && view.spans_nodes && view.shares => Err(Refusal::NodesSharing),
            _ => Ok(peer().into_iter().chain(nccl()).chain([Means::Tcp]).collect()),
        },
        ExchangeChoice::Peer => Ok(vec![peer()?]),
        ExchangeChoice::Nccl => Ok(vec![nccl()?]),
        ExchangeChoice::Tcp => Ok(vec![Means::Tcp]),
    }
}

/// The fastest means that all ranks have.
#[must_use]
pub fn agreed(ranks: &[Vec<Means>]) -> Option<Means> {
    let (first, others) = ranks.split_first()?;
    first.iter().copied().filter(|means| others.iter().all(|other| other.contains(means))).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linked() -> View {
        View { has_links: true, ..View::default() }
    }

    /// What is asked for alone is refused with these words, and the rest is left.
    fn refused(asked: ExchangeChoice, view: &View, said: &str, left: &[Means]) {
        assert_eq!(possible(asked, view).unwrap_err().to_string(), said);
        assert_eq!(possible(ExchangeChoice::Auto, view).as_deref(), Ok(left), "{said}");
        assert_eq!(possible(ExchangeChoice::Tcp, view), Ok(vec![Means::Tcp]), "{said}");
        assert!(said.chars().count() <= 300);
    }

    #[test]
    fn what_is_asked_for_is_what_is_used_or_it_is_refused_with_what_to_do() {
        assert_eq!(possible(ExchangeChoice::Auto, &linked()), Ok(vec![Means::Peer, Means::Nccl, Means::Tcp]));
        assert_eq!(possible(ExchangeChoice::Peer, &linked()), Ok(vec![Means::Peer]));
        assert_eq!(possible(ExchangeChoice::Nccl, &linked()), Ok(vec![Means::Nccl]));
        refused(
            ExchangeChoice::Peer,
            &View::default(),
            "--exchange peer is between GPUs, and this rank computes on none; use --backend cuda, or --exchange tcp",
            &[Means::Tcp],
        );
        refused(
            ExchangeChoice::Peer,
            &View { elsewhere: Some(RankId(2)), ..linked() },
            "--exchange peer is between ranks of one process, and rank 2 is in another; start all ranks in one, or use \
             --exchange auto",
            &[Means::Nccl, Means::Tcp],
        );
        refused(
            ExchangeChoice::Peer,
            &View { unreached: Some("GPU 0 cannot use the memory of GPU 1".to_owned()), ..linked() },
            "--exchange peer needs each GPU to use the memory of the others, and GPU 0 cannot use the memory of GPU 1; \
             use --exchange auto",
            &[Means::Nccl, Means::Tcp],
        );
        refused(
            ExchangeChoice::Nccl,
            &View { no_nccl: Some("NCCL is 2.27, and 2.28 is needed".to_owned()), ..linked() },
            "--exchange nccl needs NCCL 2.28 or later, and NCCL is 2.27, and 2.28 is needed; install it, or use \
             --exchange auto",
            &[Means::Peer, Means::Tcp],
        );
        refused(
            ExchangeChoice::Nccl,
            &View { shares: true, ..linked() },
            "--exchange nccl needs a GPU for each rank, and some share one; start fewer ranks, or use --exchange auto",
            &[Means::Peer, Means::Tcp],
        );
    }

    #[test]
    fn rows_go_through_the_hosts_of_several_nodes_only_if_that_is_asked_for() {
        let (elsewhere, no_nccl) =
            (Some(RankId(1)), Some("NCCL (libnccl.so.2) is not in the system's folders".to_owned()));
        let view = View { spans_nodes: true, elsewhere, no_nccl, ..linked() };
        assert_eq!(
            possible(ExchangeChoice::Auto, &view).unwrap_err().to_string(),
            "ranks are on several nodes, and NCCL (libnccl.so.2) is not in the system's folders; install NCCL 2.28 or later, \
             or ask for --exchange tcp, which is slow"
        );
        assert_eq!(possible(ExchangeChoice::Tcp, &view), Ok(vec![Means::Tcp]));
        let sharing = View { no_nccl: None, shares: true, ..view.clone() };
        assert_eq!(
            possible(ExchangeChoice::Auto, &sharing).unwrap_err().to_string(),
            "ranks are on several nodes, and some share a GPU, which NCCL does not take; give each rank a GPU of its own, or ask for \
             --exchange tcp, which is slow"
        );
        assert_eq!(possible(ExchangeChoice::Tcp, &sharing), Ok(vec![Means::Tcp]));
        let cpus = View { has_links: false, ..view };
        assert_eq!(possible(ExchangeChoice::Auto, &cpus), Ok(vec![Means::Tcp]));
    }

    #[test]
    fn what_is_asked_for_may_come_to_what_can_be_of_it() {
        for asked in [ExchangeChoice::Auto, ExchangeChoice::Peer, ExchangeChoice::Nccl, ExchangeChoice::Tcp] {
            let can = possible(asked, &linked()).unwrap();
            for means in Means::ALL {
                assert_eq!(asked.may_be(means), can.contains(&means), "{asked} and {means}");
            }
        }
    }

    #[test]
    fn ranks_agree_on_the_fastest_that_all_have() {
        let (both, peer, tcp) = (vec![Means::Peer, Means::Tcp], vec![Means::Peer], vec![Means::Tcp]);
        assert_eq!(agreed(&[both.clone(), both.clone()]), Some(Means::Peer));
        assert_eq!(agreed(&[both.clone(), tcp.clone(), both.clone()]), Some(Means::Tcp));
        assert_eq!(agreed(&[peer.clone(), both]), Some(Means::Peer));
        assert_eq!(agreed(&[peer, tcp]), None);
        assert_eq!(agreed(&[]), None);
    }
}
