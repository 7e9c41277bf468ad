# shellcheck shell=bash disable=SC2154 # sourced by `cluster`, which sets the names used here
# One network namespace for the control plane and one for each node, joined by a bridge; pods of node N get
# addresses of a range of its own. There is no way out: the default route exists only because kube-proxy's rules apply after
# routing, and leads nowhere.

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
  give_address control-plane br0 "$control_plane"
  for node in $(seq "$nodes"); do
    ip netns add "node-$node"
    ip link add eth0 netns "node-$node" type veth peer name "node$node" netns control-plane
    in_namespace control-plane ip link set "node$node" master br0 up
    in_namespace "node-$node" ip link set lo up
    give_address "node-$node" eth0 "$(node_address "$node")"
  done
  for node in $(seq "$nodes"); do
    for other in control-plane $(seq --format=node-%g "$nodes"); do
      [ "node-$node" = "$other" ] || route_pods "$other" "$node"
    done
  done
}

# give_address NAMESPACE INTERFACE ADDRESS
give_address() {
  local nodad=()
  # Nobody else is there who could have it, and until that is found out an address cannot be used.
  [ "$family" = IPv4 ] || nodad=(nodad)
  in_namespace "$1" "${ip[@]}" addr add "$3/$length" dev "$2" "${nodad[@]}"
  in_namespace "$1" ip link set "$2" up
  in_namespace "$1" "${ip[@]}" route add default via "$nowhere" dev "$2"
  in_namespace "$1" sysctl -qw "$forwarding=1"
}

# route_pods NAMESPACE NODE
route_pods() { in_namespace "$1" "${ip[@]}" route add "$(pods_of "$2")" via "$(node_address "$2")"; }

# set_link NODE up|down, at the bridge's end of the cable
set_link() { in_namespace control-plane ip link set "node$1" "$2"; }
