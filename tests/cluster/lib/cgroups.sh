# shellcheck shell=bash disable=SC2154 # sourced by `cluster`, which sets the names used here
# Cgroups of the nodes: $cgroup/node-N under every controller (version 1) or under the one root (version 2).

create_cgroups() {
  local node controller file
  if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    for controller in cpu cpuset memory pids; do
      echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control
    done
    mkdir -p "/sys/fs/cgroup/$cgroup"
    for controller in cpu cpuset memory pids; do
      echo "+$controller" > "/sys/fs/cgroup/$cgroup/cgroup.subtree_control"
    done
    for node in $(seq "$nodes"); do mkdir -p "/sys/fs/cgroup/$cgroup/node-$node"; done
    return
  fi
  for controller in cpu cpuacct cpuset memory devices freezer blkio pids systemd; do
    [ -d "/sys/fs/cgroup/$controller" ] || continue
    for node in $(seq "$nodes"); do mkdir -p "/sys/fs/cgroup/$controller/$cgroup/node-$node"; done
    [ "$controller" = cpuset ] || continue
    # A new cpuset is empty, and a process cannot enter an empty one.
    for file in cpuset.cpus cpuset.mems; do
      cat "/sys/fs/cgroup/cpuset/$file" > "/sys/fs/cgroup/cpuset/$cgroup/$file"
      for node in $(seq "$nodes"); do
        cat "/sys/fs/cgroup/cpuset/$file" > "/sys/fs/cgroup/cpuset/$cgroup/node-$node/$file"
      done
    done
  done
}

# A cgroup can be removed when its last process is gone, which takes the kernel a moment after the kill.
remove_cgroups() {
  local attempt folder
  for attempt in $(seq 100); do
    folder=""
    for folder in "/sys/fs/cgroup/$cgroup" /sys/fs/cgroup/*/"$cgroup"; do
      [ ! -d "$folder" ] || find "$folder" -depth -type d -exec rmdir {} + 2> /dev/null || true
    done
    compgen -G "/sys/fs/cgroup/$cgroup" > /dev/null || compgen -G "/sys/fs/cgroup/*/$cgroup" > /dev/null || return 0
    read -rt 0.1 <> <(:) || true
  done
  echo "cluster: cgroups named $cgroup are still in use after $attempt attempts" >&2
}
