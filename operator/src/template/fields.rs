//! Which fields of a pod, and of the operator's own container, are for templates. A test compares both lists with the pods that
//! this operator knows, so a field that a later Kubernetes adds is decided on here.

/// Whether a field is for templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// It is, as far as its values go.
    Free,
    /// It is not: why, or what to do instead.
    Owned(&'static str),
}

use Field::{Free, Owned};

const NAMES: &str = "members reach each other by the names and addresses that the operator gives";
const COMMAND: &str =
    "the command line follows from the specification: use the settings of the coordinator, ranks and eplb";
const PROBES: &str = "the operator probes what it knows of the process: set startupSeconds if it is slow to start";
const RESTART: &str = "containers are started again whenever they end";
const LAST_WORD: &str = "the operator reads the container's last word there";
const ACCOUNT: &str = "set runtime.serviceAccountName";

/// Fields of a `PodSpec`.
pub(super) const POD: &[(&str, Field)] = &[
    ("activeDeadlineSeconds", Owned("a deployment serves until it is deleted")),
    ("affinity", Free),
    ("automountServiceAccountToken", Free),
    ("containers", Free),
    ("dnsConfig", Free),
    ("dnsPolicy", Free),
    ("enableServiceLinks", Free),
    ("ephemeralContainers", Owned("use kubectl debug on a pod that runs")),
    ("evictionResponders", Owned("the disruption budgets of the operator say when a replica may be evicted")),
    ("hostAliases", Free),
    ("hostIPC", Owned("pods of a deployment are unprivileged; for more shared memory set ranks.sharedMemory")),
    ("hostNetwork", Free),
    ("hostPID", Owned("pods of a deployment are unprivileged")),
    ("hostUsers", Free),
    ("hostname", Owned(NAMES)),
    ("hostnameOverride", Owned(NAMES)),
    ("imagePullSecrets", Free),
    ("initContainers", Free),
    ("nodeName", Owned("a pod that is bound by hand does not come back elsewhere: use nodeSelector or affinity")),
    ("nodeSelector", Free),
    ("os", Owned("the runtime is for Linux")),
    ("overhead", Owned("it is that of the runtime class")),
    ("preemptionPolicy", Free),
    ("priority", Owned("it is that of priorityClassName")),
    ("priorityClassName", Free),
    ("readinessGates", Free),
    ("resourceClaims", Free),
    ("resources", Free),
    ("restartPolicy", Owned(RESTART)),
    ("runtimeClassName", Free),
    ("schedulerName", Free),
    ("schedulingGates", Free),
    ("schedulingGroup", Free),
    ("securityContext", Free),
    ("serviceAccount", Owned(ACCOUNT)),
    ("serviceAccountName", Owned(ACCOUNT)),
    ("setHostnameAsFQDN", Owned(NAMES)),
    ("shareProcessNamespace", Free),
    ("subdomain", Owned(NAMES)),
    (
        "terminationGracePeriodSeconds",
        Owned("it follows from coordinator.shutdownDelaySeconds and coordinator.shutdownGraceSeconds"),
    ),
    ("tolerations", Free),
    ("topologySpreadConstraints", Free),
    ("volumes", Free),
];

/// Fields of the operator's own container.
pub(super) const CONTAINER: &[(&str, Field)] = &[
    ("args", Owned(COMMAND)),
    ("command", Owned(COMMAND)),
    ("env", Free),
    ("envFrom", Free),
    ("image", Owned("set runtime.image, which all pods of a deployment have")),
    ("imagePullPolicy", Owned("set runtime.imagePullPolicy")),
    ("lifecycle", Owned("the process itself serves on and lets requests end when it is told to stop")),
    ("livenessProbe", Owned(PROBES)),
    ("name", Free),
    ("ports", Owned("Services, probes and the other members use the ports that it has")),
    ("readinessProbe", Owned(PROBES)),
    ("resizePolicy", Free),
    ("resources", Free),
    ("restartPolicy", Owned(RESTART)),
    ("restartPolicyRules", Owned(RESTART)),
    ("securityContext", Free),
    ("startupProbe", Owned(PROBES)),
    ("stdin", Free),
    ("stdinOnce", Free),
    ("terminationMessagePath", Owned(LAST_WORD)),
    ("terminationMessagePolicy", Owned(LAST_WORD)),
    ("tty", Free),
    ("volumeDevices", Free),
    ("volumeMounts", Free),
    ("workingDir", Free),
];

/// What a list says of a field.
pub(super) fn find(list: &[(&str, Field)], name: &str) -> Option<Field> {
    list.iter().find(|(field, _)| *field == name).map(|(_, found)| *found)
}
