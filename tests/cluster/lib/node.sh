# shellcheck shell=bash disable=SC2154 # sourced by `cluster`, which sets the names used here
# A node: containerd, kubelet and kube-proxy in one PID and mount namespace, in the node's network namespace. Its mounts,
# containers and pod networks end with its first process; images and pod records are on its disk and stay.

boot_node() {
  nsenter --net="/run/netns/node-$1" unshare --pid --mount --fork --kill-child=KILL --mount-proc --propagation private \
    bash "$self" boot "$1" > "$log/node-$1.log" 2>&1 < /dev/null &
  echo $! > "$state/pids/node-$1"
}

switch_off() {
  local pid
  pid=$(cat "$state/pids/node-$1")
  kill -KILL "$pid"
  while kill -0 "$pid" 2> /dev/null; do read -rt 0.05 <> <(:) || true; done
  rm -f "$state/node-$1/containerd.sock"
}

# The new node is not this process's child for long: it is left to the cluster's process 1.
switch_on() { boot_node "$1"; }

# Process 1 of a node.
run_node() {
  local node=$1 folder=$state/node-$1
  hide_host
  mkdir -p "$folder"
  # What a machine loses with its power.
  rm -rf "$folder/state" "$folder/addresses"
  ip link delete cni0 2> /dev/null || true
  configure_node "$node" "$folder"
  containerd -c "$folder/containerd.toml" > "$log/containerd-$node.log" 2>&1 &
  until ctr -a "$folder/containerd.sock" version > /dev/null 2>&1; do read -rt 0.1 <> <(:) || true; done
  load_images "$node" "$state"/images/*.tar
  kubelet --config="$folder/kubelet.yaml" --kubeconfig="$pki/node-$node.kubeconfig" --hostname-override="node-$node" \
    --node-ip="$(node_address "$node")" --root-dir="$folder/kubelet" --cert-dir="$folder/kubelet-certificates" \
    > "$log/kubelet-$node.log" 2>&1 &
  # Limits of connection tracking belong to the whole machine: 0 leaves them alone.
  kube-proxy --kubeconfig="$pki/proxy.kubeconfig" --proxy-mode=nftables --cluster-cidr="$pods" \
    --hostname-override="node-$node" --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 \
    --conntrack-tcp-timeout-close-wait=0 > "$log/proxy-$node.log" 2>&1 &
  while :; do
    wait -n || true
    read -rt 0.2 <> <(:) || true
  done
}

# The kubelet, containerd and the CNI plugins write to fixed places, and the kubelet sets kernel parameters of the whole
# machine. The node sees its own instead; /proc/sys/net is the network namespace's already.
hide_host() {
  local setting
  for setting in /run /var/lib /var/log; do mount -t tmpfs tmpfs "$setting"; done
  mkdir /run/netns
  for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    [ -f "/proc/sys/${setting%=*}" ] || continue
    mkdir -p "/run/parameters/$(dirname "$setting")"
    echo "${setting#*=}" > "/run/parameters/${setting%=*}"
    mount --bind "/run/parameters/${setting%=*}" "/proc/sys/${setting%=*}"
  done
}

configure_node() {
  local node=$1 folder=$2
  mkdir -p "$folder/cni"
  cat > "$folder/containerd.toml" << CONTAINERD
version = 3
root = "$folder/root"
state = "$folder/state"
[grpc]
  address = "$folder/containerd.sock"
[ttrpc]
  address = "$folder/containerd.sock.ttrpc"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "docker.io/swiftbalancer/test-pod:1"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true # lowering it needs CAP_SYS_RESOURCE, which root in a virtual machine may lack
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]
    conf_dir = "$folder/cni"
[plugins."io.containerd.internal.v1.opt"]
  path = "$folder/opt"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
CONTAINERD
  cat > "$folder/cni/10-pods.conflist" << CNI
{"cniVersion": "1.0.0", "name": "pods-$node", "plugins": [{
  "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "dataDir": "$folder/addresses", "ranges": [[{"subnet": "$(pods_of "$node")"}]],
    "routes": [{"dst": "$anywhere"}]}}]}
CNI
  echo "nameserver 127.0.0.1" > "$folder/resolv.conf"
  cat > "$folder/kubelet.yaml" << KUBELET
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup/node-$node
containerRuntimeEndpoint: unix://$folder/containerd.sock
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
clusterDomain: cluster.local
clusterDNS: ["$dns_service"]
address: "${anywhere%/0}"
failSwapOn: false
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
enforceNodeAllocatable: []
imageMinimumGCAge: 720h # nothing could pull a removed image again
resolvConf: $folder/resolv.conf
nodeLeaseDurationSeconds: 8
podLogsDir: $folder/pods
volumePluginDir: $folder/volume-plugins
KUBELET
}

# load_images NODE ARCHIVE...
load_images() {
  local node=$1 archive
  shift
  [ -S "$state/node-$node/containerd.sock" ] || return 0 # switched off: it imports them when it boots
  for archive in "$@"; do
    ctr -a "$state/node-$node/containerd.sock" -n k8s.io images import "$archive" > /dev/null
  done
}
