//! Types and reasons of conditions. A machine reads both, so both are enums.

use strum::{IntoStaticStr, VariantArray};

/// Type of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, IntoStaticStr, VariantArray)]
pub enum Type {
    /// Every replica serves the current specification.
    Ready,
    /// At least one replica serves.
    Available,
    /// Pods are being created or replaced.
    Progressing,
    /// Something that should work does not.
    Degraded,
    /// The specification is consistent.
    SpecValid,
    /// The map to start from is there and fits.
    ExpertMapReady,
    /// The load is spread evenly over the ranks.
    Balanced,
}

/// Reason of a condition. Each is listed, with what to do, in docs/operations.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, IntoStaticStr, VariantArray)]
pub enum Reason {
    /// Every replica serves the current specification.
    AllReplicasReady,
    /// Some replica serves.
    ReplicaReady,
    /// No replica serves.
    NoReplicaReady,
    /// The deployment asks for no replicas.
    ScaledToZero,
    /// Pods are starting.
    WaitingForPods,
    /// The model is being downloaded.
    Downloading,
    /// Pods of an older specification are being replaced.
    RollingOut,
    /// Pods that are no longer asked for are ending.
    ScalingDown,
    /// Nothing has come further for `spec.progressDeadlineSeconds`.
    ProgressDeadlineExceeded,
    /// Everything is as specified.
    Complete,
    /// `spec.paused` is set.
    Paused,
    /// Pods are not created, for the reason that another condition gives.
    Blocked,
    /// Nothing is wrong.
    AsExpected,
    /// A pod is being replaced since its node is lost or it ended.
    RankLost,
    /// Pods of a replica ended for good as often as they may, and are no longer replaced.
    RestartBudgetExhausted,
    /// A rank cannot do its work, and no waiting will help: its checkpoint is damaged, say.
    RankFailed,
    /// A container ends again and again.
    PodFailing,
    /// A pod cannot be scheduled.
    Unschedulable,
    /// A pod is held back by a scheduling gate that somebody has set.
    SchedulingGated,
    /// The containers of a pod are not created, long after it has a node.
    ContainersNotCreated,
    /// A pod is still there long after it should have ended.
    PodNotEnding,
    /// Nodes are out of reach, and pods on them are left as they are.
    NodesOutOfReach,
    /// A coordinator answers what this operator cannot read.
    RuntimeAnswerUnreadable,
    /// The rebalancer of a replica cannot do its work.
    RebalancingDegraded,
    /// An object of a name that is needed belongs to somebody else.
    NameConflict,
    /// A recorded map is too large for a ConfigMap.
    ExpertMapTooLarge,
    /// A recorded map cannot be stored, kept or let go.
    ExpertMapNotStored,
    /// The API server refused or failed what the operator asked for.
    ReconcileFailed,
    /// The cluster has fewer GPUs than the deployment needs.
    InsufficientGPUs,
    /// No node has as many GPUs as a pod asks for.
    GPUsPerPodTooMany,
    /// The nodes that the deployment may use have GPUs of several kinds.
    GPUsNotAlike,
    /// The deployment asks for GPUs, and there is no image of a runtime that uses them.
    GPUsNotSupported,
    /// The specification is consistent.
    Valid,
    /// The specification breaks a rule.
    Invalid,
    /// The checkpoint is in a folder of the nodes that the operator does not allow.
    HostPathNotAllowed,
    /// No map is asked for: experts start evenly spread.
    NotRequested,
    /// The map is found and fits.
    Resolved,
    /// The map is a file in the model source, which the coordinator reads.
    InModelSource,
    /// The ConfigMap does not exist.
    ExpertMapMissing,
    /// The deployment to start from has not recorded a map.
    ExpertMapNotRecorded,
    /// The ConfigMap holds no valid map.
    ExpertMapInvalid,
    /// The map was made for another model, EP size or number of slots.
    ExpertMapIncompatible,
    /// No window has closed yet.
    NotMeasured,
    /// The ratio is high.
    LoadEven,
    /// The ratio is low.
    LoadUneven,
    /// Not looked at.
    NotChecked,
}
