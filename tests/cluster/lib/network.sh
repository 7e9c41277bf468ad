# shellcheck shell=bash disable=SC2154 # sourced by `cluster`, which sets the names used here
# One network namespace for the control plane and one for each node, joined by a bridge; pods of node N get
# addresses of 10.244.N.0/24. There is no way out: the default route exists only because kube-proxy's rules apply after
# routing, and leads nowhere.

node_address() { echo "172.30.0.$((10 + $1))"; }

in_namespace() {
  local namespace=$1
  shift
  nsenter --net=/run/netns/"$namespace" "$@"
}

lay_network() {
  local node other
  ip netns add control-plane
  in_namespace control-plane ip link set lo up
  in_namespace control-plane ip link add br0 type bridge
  in_namespace control-plane ip addr add "$control_plane/24" dev br0
  in_namespace control-plane ip link set br0 up
  in_namespace control-plane ip route add default via 172.30.0.254 dev br0
  in_namespace control-plane sysctl -qw net.ipv4.ip_forward=1
  for node in $(seq "$nodes"); do
    ip netns add "node-$node"
    ip link add eth0 netns "node-$node" type veth peer name "node$node" netns control-plane
    in_namespace control-plane ip link set "node$node" master br0 up
    in_namespace control-plane ip route add "10.244.$node.0/24" via "$(node_address "$node")"
    in_namespace "node-$node" ip link set lo up
    in_namespace "node-$node" ip addr add "$(node_address "$node")/24" dev eth0
    in_namespace "node-$node" ip link set eth0 up
    in_namespace "node-$node" ip route add default via 172.30.0.254 dev eth0
    in_namespace "node-$node" sysctl -qw net.ipv4.ip_forward=1
    for other in $(seq "$nodes"); do
      [ "$node" = "$other" ] || in_namespace "node-$node" ip route add "10.244.$other.0/24" via "$(node_address "$other")"
    done
  done
}

# set_link NODE up|down, at the bridge's end of the cable
set_link() { in_namespace control-plane ip link set "node$1" "$2"; }
