//! Everything that a specification alone decides, as rules of the Common Expression Language. The API server enforces
//! them at admission and the operator evaluates the same rules on what it reads, so each is written once.

use super::Rule;

/// Pods are named after the deployment: `NAME-63-coordinator` has to fit a DNS label.
pub const NAME: Rule = Rule {
    expression: "self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    message: "the name must have at most 40 characters, start with a letter, and contain only lower-case letters, \
              digits and '-': pods and Services are named after it",
};

/// A deployment that waits for itself never starts.
pub const NOT_ITSELF: Rule = Rule {
    expression: "!has(self.spec.eplb.expertMapRef) || !has(self.spec.eplb.expertMapRef.fromDeployment) || \
                 self.spec.eplb.expertMapRef.fromDeployment != self.metadata.name",
    message: "eplb.expertMapRef.fromDeployment names this deployment, which has recorded no map before it starts: name \
              another deployment, or a recorded ConfigMap in expertMapRef.name",
};

/// Physical experts are spread evenly.
pub const DIVISIBLE: Rule = Rule {
    expression: "(self.model.experts + self.eplb.initRedundancyExpert) % (self.parallelism.tensor * \
                 self.parallelism.data) == 0",
    message: "model.experts + eplb.initRedundancyExpert must divide by parallelism.tensor * parallelism.data: every \
              rank holds equally many experts; change initRedundancyExpert or data",
};

/// Memory for copies is bounded on purpose.
pub const REDUNDANCY: Rule = Rule {
    expression: "self.eplb.initRedundancyExpert <= self.parallelism.tensor * self.parallelism.data * \
                 self.eplb.maxRedundantExpertsPerGpu",
    message: "eplb.initRedundancyExpert is larger than the number of GPUs (CPU ranks count as GPUs) times \
              eplb.maxRedundantExpertsPerGpu: lower it, or raise maxRedundantExpertsPerGpu if each GPU has the memory",
};

/// A rank holds at most one copy of an expert.
pub const COPIES: Rule = Rule {
    expression: "self.model.experts + self.eplb.initRedundancyExpert <= self.model.experts * self.parallelism.tensor * \
                 self.parallelism.data",
    message: "eplb.initRedundancyExpert gives more copies than ranks can hold: a rank holds each expert at most once; \
              lower initRedundancyExpert or raise parallelism.data",
};

/// Every pod has equally many GPUs.
pub const GPUS: Rule = Rule {
    expression: "self.gpusPerPod == 0 || (self.parallelism.tensor * self.parallelism.data) % self.gpusPerPod == 0",
    message: "parallelism.tensor * parallelism.data must divide by gpusPerPod: every pod has equally many ranks; \
              change gpusPerPod or data",
};

/// A claim of GPUs is for ranks that compute on some.
pub const GPU_CLAIM: Rule = Rule {
    expression: "!has(self.gpuClaimTemplateName) || self.gpusPerPod > 0",
    message: "gpuClaimTemplateName is where ranks get their GPUs, and gpusPerPod is 0: set gpusPerPod to the GPUs of a claim, \
              or leave the name out",
};

/// CPUs have no way of their own between them.
pub const EXCHANGE_GPUS: Rule = Rule {
    expression: "!has(self.ranks.exchange) || self.gpusPerPod > 0 || self.ranks.exchange == 'auto' || \
                 self.ranks.exchange == 'tcp'",
    message: "ranks.exchange peer and nccl are between GPUs, and gpusPerPod is 0: leave ranks.exchange out, or set \
              gpusPerPod",
};

/// GPUs reach each other's memory within a pod.
pub const EXCHANGE_PEER: Rule = Rule {
    expression: "!has(self.ranks.exchange) || self.ranks.exchange != 'peer' || self.gpusPerPod == 0 || \
                 self.gpusPerPod == self.parallelism.tensor * self.parallelism.data",
    message: "ranks.exchange peer is between the GPUs of one pod: set gpusPerPod to parallelism.tensor * \
              parallelism.data, or ranks.exchange to auto or nccl",
};

/// Only what can be written to can be recorded to. Folders of nodes are not: a link that is written into an allowed folder
/// would lead out of it.
pub const RECORD_PATH_WRITABLE: Rule = Rule {
    expression: "!has(self.eplb.expertMapRecordPath) || self.model.source.type == 'PersistentVolumeClaim'",
    message: "eplb.expertMapRecordPath is a file in model.source, and an image or a folder of nodes is not written to: \
              leave it out (maps are recorded as ConfigMaps by eplb.record), or serve from a PersistentVolumeClaim",
};

/// A claim that is attached to be read is not written to.
pub const RECORD_PATH_READ_ONLY: Rule = Rule {
    expression: "!has(self.eplb.expertMapRecordPath) || !has(self.model.source.persistentVolumeClaim) || \
                 !has(self.model.source.persistentVolumeClaim.readOnly) || \
                 !self.model.source.persistentVolumeClaim.readOnly",
    message: "eplb.expertMapRecordPath is a file in model.source, whose claim is attached to be read alone: leave the path \
              out, or set model.source.persistentVolumeClaim.readOnly to false",
};

/// Two writers of one file would overwrite each other.
pub const RECORD_PATH_REPLICAS: Rule = Rule {
    expression: "!has(self.eplb.expertMapRecordPath) || self.replicas <= 1",
    message: "eplb.expertMapRecordPath is one file, which several replicas would overwrite: leave it out, or set \
              replicas to 1",
};

/// Tensor parallelism.
pub const TENSOR: Rule = Rule {
    expression: "self == 1",
    message: "tensor parallelism is not supported yet: set parallelism.tensor to 1 and raise parallelism.data",
};

/// The wait has a floor.
pub const WAIT: Rule = Rule {
    expression: "self >= 30",
    message: "eplb.numWaitWorkerIterations must be at least 30: fewer steps than that do not show the load",
};

/// One static map.
pub const ONE_STATIC_MAP: Rule = Rule {
    expression: "!(has(self.expertMapRef) && has(self.expertMapPath))",
    message: "eplb.expertMapRef and eplb.expertMapPath both name the map to start from: keep one",
};

/// Reading one file map and recording another.
pub const STATIC_OR_RECORDED: Rule = Rule {
    expression: "!((has(self.expertMapRef) || has(self.expertMapPath)) && has(self.expertMapRecordPath))",
    message: "eplb.expertMapRecordPath cannot be combined with a static map (expertMapRef or expertMapPath): remove one \
              of them; eplb.record keeps recording to ConfigMaps",
};

/// Without planning nothing is recorded.
pub const RECORD_PATH_DYNAMIC: Rule = Rule {
    expression: "!has(self.expertMapRecordPath) || self.dynamicEplb",
    message: "eplb.expertMapRecordPath records what dynamic balancing finds: set eplb.dynamicEplb to true, or leave the \
              path out",
};

/// A reference has one target.
pub const MAP_REF: Rule = Rule {
    expression: "has(self.name) != has(self.fromDeployment)",
    message: "eplb.expertMapRef needs exactly one of name (a ConfigMap) and fromDeployment (an MoEDeployment that has \
              recorded a map)",
};

/// The union has the member that its type names.
pub const SOURCE_CLAIM: Rule = Rule {
    expression: "(self.type == 'PersistentVolumeClaim') == has(self.persistentVolumeClaim)",
    message: "model.source.persistentVolumeClaim must be set if, and only if, type is PersistentVolumeClaim",
};

/// The union has the member that its type names.
pub const SOURCE_HOST_PATH: Rule = Rule {
    expression: "(self.type == 'HostPath') == has(self.hostPath)",
    message: "model.source.hostPath must be set if, and only if, type is HostPath",
};

/// The union has the member that its type names.
pub const SOURCE_IMAGE: Rule = Rule {
    expression: "(self.type == 'Image') == has(self.image)",
    message: "model.source.image must be set if, and only if, type is Image",
};

/// The union has the member that its type names.
pub const SOURCE_HUGGING_FACE: Rule = Rule {
    expression: "(self.type == 'HuggingFace') == has(self.huggingFace)",
    message: "model.source.huggingFace must be set if, and only if, type is HuggingFace",
};

/// The union has the member that its type names.
pub const SOURCE_S3: Rule = Rule {
    expression: "(self.type == 'S3') == has(self.s3)",
    message: "model.source.s3 must be set if, and only if, type is S3",
};

/// What a hub calls a repository.
pub const REPO: Rule = Rule {
    expression: "self.matches('^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?$') && !self.contains('--') && \
                 !self.contains('..')",
    message: "model.source.huggingFace.repo is OWNER/NAME, as in the address of its page: letters, digits, '-', '_' and '.'",
};

/// A revision is a name, not a way through folders.
pub const REVISION: Rule = Rule {
    expression: "!self.split('/').exists(part, part == '' || part == '.' || part == '..')",
    message: "model.source.huggingFace.revision is a branch, a tag or a commit: it must not contain '..' nor '//'",
};

/// Ways through folders name no objects.
pub const S3_URL: Rule = Rule {
    expression: "!self.split('/').exists(part, part == '.' || part == '..')",
    message: "model.source.s3.url is s3://BUCKET/PREFIX: it must not contain '..'",
};

/// One volume.
pub const DOWNLOAD_VOLUME: Rule = Rule {
    expression: "has(self.claimName) != has(self.ephemeral)",
    message: "the volume of a download needs exactly one of claimName (a claim that all pods share) and ephemeral (a volume of \
              each pod's own)",
};

/// Pods that each download for themselves have to read the same.
pub const EPHEMERAL_COMMIT: Rule = Rule {
    expression: "!has(self.volume.ephemeral) || self.revision.matches('^[0-9a-f]{40}$')",
    message: "with volume.ephemeral each pod downloads for itself, and a branch may move meanwhile: set \
              model.source.huggingFace.revision to a commit, 40 hexadecimal digits",
};

/// Paths stay inside the volume.
pub const RELATIVE_PATH: Rule = Rule {
    expression: "!self.startsWith('/') && !self.split('/').exists(part, part == '..')",
    message: "the path is relative to the root of model.source: it must not start with '/' nor contain '..'",
};

/// Host paths are absolute.
pub const HOST_PATH: Rule = Rule {
    expression: "self.startsWith('/') && !self.split('/').exists(part, part == '..')",
    message: "model.source.hostPath.path must be absolute and must not contain '..'",
};

/// A toleration that ends is one of `NoExecute`.
pub const TOLERATION_SECONDS: Rule = Rule {
    expression: "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
    message: "tolerationSeconds is how long a pod stays on a node with a taint of NoExecute: set effect to NoExecute, or \
              leave it out",
};

/// A port of the nodes is of a Service that has one.
pub const NODE_PORT: Rule = Rule {
    expression: "!has(self.nodePort) || (has(self.type) && self.type != 'ClusterIP')",
    message: "service.nodePort is a port of every node: set service.type to NodePort or LoadBalancer, or leave it out",
};

/// What is said of a load balancer needs one.
pub const LOAD_BALANCER: Rule = Rule {
    expression: "(has(self.type) && self.type == 'LoadBalancer') || \
                 !(has(self.loadBalancerClass) || has(self.loadBalancerSourceRanges))",
    message: "service.loadBalancerClass and service.loadBalancerSourceRanges are of a load balancer: set service.type to \
              LoadBalancer, or leave them out",
};

/// How traffic from outside is spread needs some.
pub const EXTERNAL_TRAFFIC: Rule = Rule {
    expression: "!has(self.externalTrafficPolicy) || (has(self.type) && self.type != 'ClusterIP')",
    message: "service.externalTrafficPolicy is about traffic from outside of the cluster: set service.type to NodePort or \
              LoadBalancer, or leave it out",
};

/// How long a client keeps its coordinator needs that it keeps one.
pub const AFFINITY_SECONDS: Rule = Rule {
    expression: "!has(self.sessionAffinitySeconds) || (has(self.sessionAffinity) && self.sessionAffinity == 'ClientIP')",
    message: "service.sessionAffinitySeconds is how long a client keeps its replica: set service.sessionAffinity to \
              ClientIP, or leave it out",
};
