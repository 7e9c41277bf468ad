//! A rank's end of its group's exchange, by the means that all ranks agree upon over the connections that they have already.

use std::time::Duration;

use kernels::Backend;
use kernels::link::{LinkName, LinkShape, Linking, Window};
use plan::ids::RankId;
use thiserror::Error;

use super::device::DeviceExchange;
use super::host::HostExchange;
use super::means::{Means, agreed};
use super::{Exchange, ExchangeCloser};
use crate::fabric::neighbours::{Key, Neighbours};
use crate::fabric::purpose::GroupId;
use crate::fabric::{Fabric, FabricError, Frame};

/// Numbers that a rank says at most at once when an exchange is formed: the name of a link, or the means that it has.
pub const INDICES: usize = size_of::<LinkName>() / size_of::<u32>();

const _: () = assert!(Means::ALL.len() <= INDICES, "the means that there are fit");

/// What a rank's end is made of.
pub struct Forming<'a, B> {
    /// Its device.
    pub device: &'a B,
    /// The ranks of its process.
    pub neighbours: &'a Neighbours,
    /// The group.
    pub group: GroupId,
    /// What is exchanged.
    pub shape: LinkShape,
    /// What this rank has, see [`means`](super::means).
    pub possible: &'a [Means],
    /// How long a device waits for another rank's.
    pub patience: Duration,
}

/// A rank's end.
pub struct Formed<B: Backend> {
    /// What steps use.
    pub exchange: Box<dyn Exchange<B>>,
    /// By which means; none of a rank that is alone.
    pub means: Option<Means>,
    /// What ends waits on the device, if there are any.
    pub closer: Option<ExchangeCloser>,
}

/// Why there is no exchange.
#[derive(Debug, Error)]
pub enum FormError {
    /// A rank is lost, or says what cannot be.
    #[error(transparent)]
    Fabric(#[from] FabricError),
    /// The device gives no memory for it.
    #[error(transparent)]
    Device(#[from] kernels::DeviceError),
    /// No means is that of all ranks.
    #[error(
        "this rank can exchange rows by {}, and {rank} by {}; give all ranks the same --exchange",
        named(ours),
        named(theirs)
    )]
    Disagree {
        /// What this rank has.
        ours: Vec<Means>,
        /// A rank that has none of it.
        rank: RankId,
        /// What that has.
        theirs: Vec<Means>,
    },
}

fn named(means: &[Means]) -> String {
    means.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

impl<B: Backend> Forming<'_, B> {
    /// Agrees with the other ranks, which do the same.
    ///
    /// # Errors
    /// If a rank is lost meanwhile, or they have nothing in common.
    pub fn form<F: Fabric + 'static>(&self, mut fabric: F) -> Result<Formed<B>, FormError> {
        let LinkShape { group, page } = self.shape;
        let host = |fabric| HostExchange::new(fabric, group, page.hidden);
        if group.ranks == 1 {
            return Ok(Formed { exchange: Box::new(host(fabric)), means: None, closer: None });
        }
        let linking = self.device.linking();
        let means = self.agree(&mut fabric)?;
        let link = match (means, linking) {
            (Means::Peer, Some(linking)) => {
                let window = linking.window(self.shape)?;
                let windows = self.exchange_windows(&window, &mut fabric)?;
                linking.link(&windows, self.shape, self.patience)?
            }
            (Means::Nccl, Some(linking)) => {
                linking.join(self.name(linking, &mut fabric)?, self.shape, self.patience)?
            }
            (Means::Tcp, _) | (_, None) => {
                return Ok(Formed { exchange: Box::new(host(fabric)), means: Some(Means::Tcp), closer: None });
            }
        };
        let exchange = DeviceExchange::new(link, fabric, self.patience);
        let closer = Some(exchange.closer());
        Ok(Formed { exchange: Box::new(exchange), means: Some(means), closer })
    }

    /// The means that all ranks have.
    fn agree(&self, fabric: &mut impl Fabric) -> Result<Means, FormError> {
        let own = self.shape.group.rank;
        let words: Vec<u32> = self.possible.iter().map(|&means| means as u32).collect();
        let mut all = Vec::new();
        for (rank, said) in self.all_say(fabric, &words)?.iter().enumerate() {
            all.push(if rank == own { self.possible.to_vec() } else { heard(rank.into(), said)? });
        }
        agreed(&all).ok_or_else(|| {
            let ours = self.possible.to_vec();
            let differs = |theirs: &Vec<Means>| agreed(&[ours.clone(), theirs.clone()]).is_none();
            let rank = all.iter().position(differs).unwrap_or(own);
            FormError::Disagree { ours: ours.clone(), rank: rank.into(), theirs: all[rank].clone() }
        })
    }

    /// The name that the first rank gives the link.
    fn name(&self, linking: &dyn Linking<B>, fabric: &mut impl Fabric) -> Result<LinkName, FormError> {
        if self.shape.group.rank == 0 {
            let name = linking.name()?;
            self.all_say(fabric, &bytemuck::pod_collect_to_vec::<u8, u32>(&name.0))?;
            return Ok(name);
        }
        let said = self.all_say(fabric, &[])?.swap_remove(0);
        let name = <[u8; size_of::<LinkName>()]>::try_from(bytemuck::cast_slice::<u32, u8>(&said));
        Ok(LinkName(name.map_err(|_| wrong(RankId(0), &said))?))
    }

    /// Every rank's numbers.
    fn all_say(&self, fabric: &mut impl Fabric, indices: &[u32]) -> Result<Vec<Vec<u32>>, FabricError> {
        let ranks = self.shape.group.ranks;
        let outgoing = vec![Frame { indices: indices.to_vec(), values: Vec::new() }; ranks];
        let mut incoming = vec![Frame::default(); ranks];
        fabric.all_to_all(&outgoing, &mut incoming)?;
        Ok(incoming.into_iter().map(|frame| frame.indices).collect())
    }

    /// The windows of all ranks, which are all shared once all have said something.
    fn exchange_windows(&self, own: &Window, fabric: &mut impl Fabric) -> Result<Vec<Window>, FabricError> {
        let (ranks, rank) = (self.shape.group.ranks, self.shape.group.rank);
        self.neighbours.share(Key::Window(self.group, rank.into()), own);
        self.all_say(fabric, &[])?;
        let of = |rank: usize| {
            let missing = || FabricError::Protocol {
                rank: rank.into(),
                reason: "it says that it is in this process, and is not".to_owned(),
            };
            self.neighbours.find(&Key::Window(self.group, rank.into())).ok_or_else(missing)
        };
        let windows = (0..ranks).map(of).collect::<Result<_, _>>()?;
        // Nobody ends before all have found what they need.
        self.all_say(fabric, &[])?;
        Ok(windows)
    }
}

/// What a rank says that it has.
fn heard(rank: RankId, numbers: &[u32]) -> Result<Vec<Means>, FabricError> {
    let named = |number: &u32| Means::ALL.into_iter().find(|means| *means as u32 == *number);
    numbers.iter().map(named).collect::<Option<_>>().ok_or_else(|| wrong(rank, numbers))
}

fn wrong(rank: RankId, numbers: &[u32]) -> FabricError {
    let first = &numbers[..numbers.len().min(4)];
    FabricError::Protocol { rank, reason: format!("it exchanges rows by {first:?}, which is unknown") }
}
