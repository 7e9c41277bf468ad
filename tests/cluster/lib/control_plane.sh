# shellcheck shell=bash disable=SC2154 # sourced by `cluster`, which sets the names used here
# etcd, API server, controller manager, scheduler and CoreDNS, in the control plane's network namespace.

control_plane_kubectl() {
  KUBECONFIG=$pki/admin.kubeconfig in_namespace control-plane kubectl "$@"
}

start_control_plane() {
  # Every write, for the tests that count them, and all that service accounts do outside of kube-system, for those that
  # look for requests that were refused.
  cat > "$state/audit.yaml" << 'POLICY'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection]
- level: None
  userGroups: [system:serviceaccounts:kube-system]
- level: Metadata
  userGroups: [system:serviceaccounts]
- level: None
POLICY
  # The data ends with the cluster, so nothing is gained by forcing it to the disk.
  start etcd control-plane etcd --data-dir "$state/etcd" --unsafe-no-fsync
  start apiserver control-plane kube-apiserver \
    --etcd-servers=http://127.0.0.1:2379 \
    --bind-address="${anywhere%/0}" --advertise-address="$control_plane" \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --client-ca-file="$pki/ca.crt" --cert-dir="$state/certificates" \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$pki/service-account.pub" \
    --service-account-signing-key-file="$pki/service-account.key" \
    --service-cluster-ip-range="$services" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
    --kubelet-preferred-address-types=InternalIP \
    --kubelet-client-certificate="$pki/kubelet-client.crt" --kubelet-client-key="$pki/kubelet-client.key" \
    --audit-policy-file="$state/audit.yaml" --audit-log-path="$state/audit.log" --audit-log-mode=blocking
  until control_plane_kubectl get --raw /readyz > /dev/null 2>&1; do read -rt 0.1 <> <(:) || true; done
  # A node that is cut off is found out after 10 s instead of 50 s; the kubelets renew their leases accordingly.
  start controller-manager control-plane kube-controller-manager \
    --kubeconfig="$pki/controller-manager.kubeconfig" \
    --service-account-private-key-file="$pki/service-account.key" --root-ca-file="$pki/ca.crt" \
    --use-service-account-credentials=true --leader-elect=false --cert-dir="$state/certificates" \
    --flex-volume-plugin-dir="$state/volume-plugins" \
    --node-monitor-grace-period=10s --node-monitor-period=1s
  start scheduler control-plane kube-scheduler \
    --kubeconfig="$pki/scheduler.kubeconfig" --leader-elect=false --cert-dir="$state/certificates"
}

start_dns() {
  cat > "$state/Corefile" << COREFILE
.:53 {
  errors
  ready 127.0.0.1:8181
  kubernetes cluster.local $reverse { kubeconfig $pki/coredns.kubeconfig local
  }
  cache 5
}
COREFILE
  start coredns control-plane coredns -conf "$state/Corefile"
  control_plane_kubectl create clusterrolebinding local:proxy \
    --clusterrole=system:node-proxier --user=system:kube-proxy > /dev/null
  control_plane_kubectl apply -f - > /dev/null << SERVICE
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIP: "$dns_service"
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: $family
endpoints: [{addresses: ["$control_plane"]}]
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
SERVICE
}

wait_until_ready() {
  local node began=$SECONDS
  for node in $(seq "$nodes"); do
    until control_plane_kubectl wait --for=condition=Ready "node/node-$node" --timeout=10s > /dev/null 2>&1; do
      if [ $((SECONDS - began)) -gt 120 ]; then
        tail -5 "$log/node-$node.log" "$log/containerd-$node.log" "$log/kubelet-$node.log" >&2 || true
        echo "node $node is not ready after 120 s" >&2
        return 1
      fi
      read -rt 0.1 <> <(:) || true
    done
  done
  # Pods are refused until their namespace has it.
  until control_plane_kubectl get serviceaccount default > /dev/null 2>&1; do read -rt 0.1 <> <(:) || true; done
}
