//! What a rank and the coordinator say to each other beside steps: who there is, what to load, which pages to receive.

use plan::ids::RankId;
use plan::moves::Transaction;
use plan::wire::{MapDocument, ModelIdentity};
use serde::{Deserialize, Serialize};

use super::{ProcessId, TransactionId};
use crate::fabric::exchange::means::Means;
use crate::fabric::secret::Drawn;

/// From a rank, on the control connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromRank {
    /// The first message.
    Register {
        /// Drawn by the rank's process when it starts and told to nobody but coordinators that have proved themselves: the same
        /// process that registers again replaces itself, and has its place kept for a while.
        process: ProcessId,
        /// The rank it wants to be.
        rank: RankId,
        /// The model it found on its disk.
        model: ModelIdentity,
        /// `host:port` where other ranks reach its step path.
        step_address: String,
        /// `host:port` where other ranks reach its move path.
        move_address: String,
        /// Tokens of a block of its KV cache.
        block_tokens: u32,
        /// Name of the node that it is on.
        node: String,
        /// What it computes on.
        device: Box<RankDevice>,
    },
    /// The first message of a rank that cannot serve, and could not if it tried again.
    Failed {
        /// As in [`Self::Register`].
        process: ProcessId,
        /// The rank it was to be.
        rank: RankId,
        /// The reason, in words for people.
        reason: String,
    },
    /// How far it is with what it was told to load; sent every second in the place of [`Self::Alive`] until it is loaded.
    Loading {
        /// Bytes that it has read.
        read: u64,
        /// Bytes that it has to read.
        of: u64,
    },
    /// All that it needs for its part of the group is in its memory.
    Loaded {
        /// The generation that it was told to form.
        generation: u64,
        /// Blocks of its KV cache.
        kv_blocks: u32,
        /// Fingerprints of the pages of its slots, `[layers, slots_per_rank]`.
        fingerprints: Vec<u128>,
    },
    /// The step path to every other rank is connected.
    Ready {
        /// The generation that it was told to connect.
        generation: u64,
        /// How it exchanges rows with the others, if there are others.
        exchange: Option<Means>,
    },
    /// What became of a transaction that this rank was told to stage.
    Moved(MoveReport),
    /// It answers no more steps of its group, through no fault of another rank. It registers again, if it can.
    Leaves {
        /// The reason, in words for people.
        reason: String,
    },
    /// The rank is alive; sent every second.
    Alive,
}

/// What a rank computes on, as it says when it registers. Those of a group are of one kind and keep experts in the same bytes: the
/// same tokens come out wherever an expert is, and pages go from any rank to any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankDevice {
    /// Devices of one kind give the same bits.
    pub kind: String,
    /// The product, for people.
    pub name: String,
    /// Which of its node's devices it is.
    pub unit: String,
    /// How the bytes of a page lie.
    pub page_layout: String,
    /// Bytes of an expert's page.
    pub page_bytes: u64,
    /// Bytes of memory that weights, pages and cache can have at most.
    pub memory: u64,
}

/// What became of a transaction that a rank was told to stage. It goes as it is from the rank to whoever decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveReport {
    /// The generation of the order.
    pub generation: u64,
    /// The transaction.
    pub transaction: TransactionId,
    /// Bytes received for it: every page that this rank receives has arrived and been checked. Or why it cannot be staged here;
    /// its staging pages are free again.
    pub staged: Result<u64, NotStaged>,
}

/// Why a transaction is not staged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotStaged {
    /// The kind of failure, as metrics count it.
    pub reason: MoveFailure,
    /// What failed, in words for people.
    pub message: String,
}

/// Why a page did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, strum::IntoStaticStr, strum::EnumIter)]
#[strum(serialize_all = "snake_case")]
pub enum MoveFailure {
    /// No staging page was free.
    NoStagingPage,
    /// No holder could be reached.
    SourceUnreachable,
    /// A page's fingerprint was wrong.
    Corrupt,
    /// The deadline passed.
    Deadline,
    /// The coordinator aborted it.
    Aborted,
    /// The rank's own fault.
    Internal,
    /// The rank's device did not take it, and may take it another time.
    Device,
    /// The rank's device did not take it, and never will in this process.
    DeviceLost,
}

impl MoveFailure {
    /// Whether the same may succeed when it is tried again.
    #[must_use]
    pub const fn is_worth_a_retry(self) -> bool {
        match self {
            Self::NoStagingPage
            | Self::SourceUnreachable
            | Self::Corrupt
            | Self::Deadline
            | Self::Aborted
            | Self::Internal
            | Self::Device => true,
            Self::DeviceLost => false,
        }
    }
}

/// To a rank, on the control connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToRank {
    /// Become part of a group: load the map's experts and answer `Loaded`, however long that takes. Drops all KV.
    Form {
        /// Number of the group; only rises.
        generation: u64,
        /// Drawn by the coordinator for each group: with the generation it names the group, also across coordinators.
        nonce: u64,
        /// Drawn by the coordinator for each group: with the deployment's secret it gives the group's, which its ranks prove
        /// themselves by to each other and on step connections ([`Secret::of_group`](crate::fabric::secret::Secret::of_group)).
        drawn: Drawn,
        /// Every rank of the group, in order.
        ranks: Vec<RankAddress>,
        /// The map in force, as JSON: fields of a document that are absent have no place in the encoding of messages.
        #[serde(with = "document")]
        map: Box<MapDocument>,
        /// Its epoch.
        epoch: u64,
        /// Staging pages to hold.
        staging_pages: u32,
        /// Tokens of all the sequences that a rank may have at a time; a KV cache for more is of no use.
        kv_tokens: u64,
        /// Bytes per second that moves to this rank may use; 0 is no limit, and none what suits its device.
        move_bytes_per_second: Option<u64>,
        /// Tokens that any rank computes in one step at most.
        step_tokens: u32,
    },
    /// Every rank is loaded, and what every holder of a page says of it is the same: connect the step path to every rank and
    /// answer `Ready`.
    Connect {
        /// The generation.
        generation: u64,
        /// The fingerprint of each expert's page, `[layers, experts]`; none of one that nobody holds.
        fingerprints: Vec<Option<u128>>,
    },
    /// Receive the pages of a transaction's changes that name this rank.
    Stage {
        /// The generation.
        generation: u64,
        /// Its number.
        transaction: TransactionId,
        /// The whole transaction.
        work: Transaction,
        /// Milliseconds from receipt until it has failed.
        deadline_ms: u64,
    },
    /// Forget a transaction and free its staging pages.
    Abort {
        /// The generation.
        generation: u64,
        /// The transaction.
        transaction: TransactionId,
    },
    /// The rank has no place here; it exits with this message.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

/// A map within a message.
mod document {
    use plan::wire::MapDocument;
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(map: &MapDocument, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::to_string(map).map_err(S::Error::custom)?.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<MapDocument>, D::Error> {
        MapDocument::from_json(String::deserialize(deserializer)?.as_bytes()).map(Box::new).map_err(D::Error::custom)
    }
}

/// How to reach a rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankAddress {
    /// The rank.
    pub rank: RankId,
    /// `host:port` of its step path.
    pub step: String,
    /// `host:port` of its move path.
    pub moves: String,
    /// Name of the node that it is on.
    pub node: String,
    /// Which of its node's devices it computes on: ranks of one node that say the same share its memory.
    pub unit: String,
}
