//! By what means the ranks of a group exchange rows: what each rank can, and what they agree upon. Pure.

use clap::ValueEnum;
use plan::ids::RankId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::quoted::Quoted;

/// What `--exchange` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, strum::Display, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Asked {
    /// The fastest that all ranks of the group can
    #[default]
    Auto,
    /// GPUs store into each other's memory; all ranks are in one process
    Peer,
    /// Through the hosts, over TCP; for any device
    Tcp,
}

/// How rows get from rank to rank, the fastest first.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, strum::Display, strum::IntoStaticStr,
)]
#[strum(serialize_all = "lowercase")]
pub enum Means {
    /// Devices store into each other's memory.
    Peer,
    /// Through the hosts, over TCP.
    Tcp,
}

impl Means {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Peer, Self::Tcp];
}

/// What a rank sees of its group before it reads an expert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Whether devices of this kind exchange rows by themselves at all.
    pub has_links: bool,
    /// A rank that is in another process.
    pub elsewhere: Option<RankId>,
    /// Why this rank's device cannot use the memory of another's.
    pub unreached: Option<String>,
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
        asked: Asked,
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
}

/// The means that a rank has of those that it is asked for, the fastest first.
///
/// # Errors
/// If it is asked for one alone, and does not have it.
pub fn possible(asked: Asked, view: &View) -> Result<Vec<Means>, Refusal> {
    let peer = || match view {
        View { has_links: false, .. } => Err(Refusal::NoLinks { asked }),
        View { elsewhere: Some(rank), .. } => Err(Refusal::Elsewhere { rank: *rank }),
        View { unreached: Some(reason), .. } => Err(Refusal::Unreached { reason: reason.as_str().into() }),
        View { .. } => Ok(Means::Peer),
    };
    match asked {
        Asked::Auto => Ok(peer().into_iter().chain([Means::Tcp]).collect()),
        Asked::Peer => Ok(vec![peer()?]),
        Asked::Tcp => Ok(vec![Means::Tcp]),
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
        View { has_links: true, elsewhere: None, unreached: None }
    }

    #[test]
    fn what_is_asked_for_is_what_is_used_or_it_is_refused_with_what_to_do() {
        assert_eq!(possible(Asked::Auto, &linked()), Ok(vec![Means::Peer, Means::Tcp]));
        assert_eq!(possible(Asked::Peer, &linked()), Ok(vec![Means::Peer]));
        for (view, said) in [
            (
                View::default(),
                "--exchange peer is between GPUs, and this rank computes on none; use --backend cuda, or --exchange tcp",
            ),
            (
                View { elsewhere: Some(RankId(2)), ..linked() },
                "--exchange peer is between ranks of one process, and rank 2 is in another; start all ranks in one, or use \
                 --exchange auto",
            ),
            (
                View { unreached: Some("GPU 0 cannot use the memory of GPU 1".to_owned()), ..linked() },
                "--exchange peer needs each GPU to use the memory of the others, and GPU 0 cannot use the memory of GPU 1; \
                 use --exchange auto",
            ),
        ] {
            assert_eq!(possible(Asked::Peer, &view).unwrap_err().to_string(), said);
            assert_eq!(possible(Asked::Auto, &view), Ok(vec![Means::Tcp]), "{said}");
            assert_eq!(possible(Asked::Tcp, &view), Ok(vec![Means::Tcp]), "{said}");
            assert!(said.chars().count() <= 300);
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
