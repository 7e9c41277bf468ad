//! Ranks that are threads of one process, connected by channels.

use std::io::{Error, ErrorKind};

use crossbeam_channel::{Receiver, Sender, bounded};
use plan::ids::RankId;

use super::{Fabric, FabricError, Frame};

/// Frames in flight between two ranks: a rank is at most one exchange ahead of another.
const IN_FLIGHT: usize = 2;

/// One rank's end of a group made by [`connect`].
#[derive(Debug)]
pub struct InProcess {
    rank: RankId,
    /// To each rank; `None` for this one.
    senders: Vec<Option<Sender<Frame>>>,
    /// From each rank; `None` for this one.
    receivers: Vec<Option<Receiver<Frame>>>,
}

/// A group of `ranks` ranks, each to be used by a thread of its own.
#[must_use]
pub fn connect(ranks: usize) -> Vec<InProcess> {
    let mut group: Vec<InProcess> = (0..ranks)
        .map(|rank| InProcess {
            rank: rank.into(),
            senders: (0..ranks).map(|_| None).collect(),
            receivers: (0..ranks).map(|_| None).collect(),
        })
        .collect();
    for from in 0..ranks {
        for to in (0..ranks).filter(|&to| to != from) {
            let (sender, receiver) = bounded(IN_FLIGHT);
            group[from].senders[to] = Some(sender);
            group[to].receivers[from] = Some(receiver);
        }
    }
    group
}

impl Fabric for InProcess {
    fn rank(&self) -> RankId {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.senders.len()
    }

    fn all_to_all(&mut self, outgoing: &[Frame], incoming: &mut [Frame]) -> Result<(), FabricError> {
        let lost = |rank: usize| FabricError::Lost { rank: rank.into(), source: Error::from(ErrorKind::BrokenPipe) };
        for (rank, sender) in self.senders.iter().enumerate() {
            if let Some(sender) = sender {
                sender.send(outgoing[rank].clone()).map_err(|_| lost(rank))?;
            }
        }
        for (rank, receiver) in self.receivers.iter().enumerate() {
            if let Some(receiver) = receiver {
                incoming[rank] = receiver.recv().map_err(|_| lost(rank))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_gets_what_each_other_rank_sent_it_in_order() {
        let threads: Vec<_> = connect(3)
            .into_iter()
            .map(|mut fabric| {
                std::thread::spawn(move || {
                    let rank = fabric.rank().0;
                    for round in 0..50 {
                        let outgoing: Vec<Frame> =
                            (0..3).map(|to| Frame { indices: vec![round, rank, to], values: vec![] }).collect();
                        let mut incoming = vec![Frame::default(); 3];
                        fabric.all_to_all(&outgoing, &mut incoming).unwrap();
                        for from in (0..3).filter(|&from| from != rank) {
                            assert_eq!(incoming[from as usize].indices, [round, from, rank]);
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_rank_that_is_lost_fails_the_exchange_and_is_named() {
        let mut group = connect(2);
        let mut first = group.remove(0);
        drop(group);
        let error = first.all_to_all(&[Frame::default(), Frame::default()], &mut [Frame::default(), Frame::default()]);
        assert_eq!(error.unwrap_err().to_string(), "rank 1 was lost during an exchange");
    }
}
