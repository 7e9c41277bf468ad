# shellcheck shell=bash disable=SC2154,SC2034 # sourced by `cluster`, which sets and uses the names here
# Who has which address: the control plane, with the API server and CoreDNS, node N, the pods of node N, services. All are of
# one family.

case $family in
  IPv4)
    ip=(ip -4) length=24 anywhere=0.0.0.0/0 forwarding=net.ipv4.ip_forward reverse=in-addr.arpa
    control_plane=172.30.0.1 nowhere=172.30.0.254
    services=10.96.0.0/16 api_service=10.96.0.1 dns_service=10.96.0.10 pods=10.244.0.0/16
    node_address() { echo "172.30.0.$((10 + $1))"; }
    pods_of() { echo "10.244.$1.0/24"; }
    ;;
  IPv6)
    ip=(ip -6) length=64 anywhere=::/0 forwarding=net.ipv6.conf.all.forwarding reverse=ip6.arpa
    control_plane=fd00:30::1 nowhere=fd00:30::fe
    services=fd00:96::/112 api_service=fd00:96::1 dns_service=fd00:96::a pods=fd00:244::/48
    node_address() { echo "fd00:30::$((10 + $1))"; }
    pods_of() { echo "fd00:244:0:$1::/64"; }
    ;;
  *) fail "CLUSTER_FAMILY is $family; it can be IPv4 or IPv6" ;;
esac

# in_url ADDRESS
in_url() { case $1 in *:*) echo "[$1]" ;; *) echo "$1" ;; esac; }
