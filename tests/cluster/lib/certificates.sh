# shellcheck shell=bash disable=SC2154 # sourced by `cluster`, which sets the names used here
# The cluster's own certificate authority, and a certificate and kubeconfig for each component.

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1" 2> /dev/null; }

# issue NAME SUBJECT EXTENSION
issue() {
  new_key "$1.key"
  openssl req -new -key "$1.key" -subj "$2" 2> /dev/null |
    openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -out "$1.crt" -extfile <(echo "$3") 2> /dev/null
}

# client NAME SUBJECT: certificate and kubeconfig of a client of the API server
client() {
  issue "$1" "$2" extendedKeyUsage=clientAuth
  cat > "$1.kubeconfig" << KUBECONFIG
apiVersion: v1
kind: Config
current-context: local
clusters: [{name: local, cluster: {server: "https://$(in_url "$control_plane"):6443", certificate-authority: $pki/ca.crt}}]
users: [{name: $1, user: {client-certificate: $pki/$1.crt, client-key: $pki/$1.key}}]
contexts: [{name: local, context: {cluster: local, user: $1}}]
KUBECONFIG
}

issue_certificates() {
  mkdir -p "$pki"
  cd "$pki" || return
  new_key ca.key
  openssl req -x509 -key ca.key -days 365 -out ca.crt -subj /CN=local-ca 2> /dev/null
  new_key service-account.key
  openssl ec -in service-account.key -pubout -out service-account.pub 2> /dev/null
  # 127.0.0.1: a test reaches the API server through a forwarded port of the loopback interface.
  issue apiserver /CN=kube-apiserver \
    "subjectAltName=IP:$control_plane,IP:$api_service,IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc"
  client admin /O=system:masters/CN=admin
  client kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
  client controller-manager /CN=system:kube-controller-manager
  client scheduler /CN=system:kube-scheduler
  client proxy /CN=system:kube-proxy
  client coredns /O=system:masters/CN=coredns
  local node
  for node in $(seq "$nodes"); do client "node-$node" "/O=system:nodes/CN=system:node:node-$node"; done
  cd / || return
}
