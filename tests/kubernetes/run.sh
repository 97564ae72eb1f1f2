#!/bin/bash
# run.sh COMMAND…: runs it where a Kubernetes cluster may be started: with network, processes, mounts and a /run of its own.
# When the command has ended, or this script was killed, all of that is gone with every process in it.
# CATBIRD_KUBERNETES_DIR: where Kubernetes' programs are built and kept. CATBIRD_CLUSTER_LOGS: a folder for all logs.
# Needs root, and cgroups of version 1.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
kept=${CATBIRD_KUBERNETES_DIR:-$here/../../.tox/kubernetes-server}
cgroups=/sys/fs/cgroup
group=catbird-cluster

[ "$(id -u)" = 0 ] || { echo "a cluster needs root" >&2; exit 1; }
missing=""
for each in containerd:/usr/bin/containerd runc:/usr/sbin/runc busybox-static:/bin/busybox etcd-server:/usr/bin/etcd \
    containernetworking-plugins:/usr/lib/cni/loopback iproute2:/usr/sbin/ip iptables:/usr/sbin/iptables \
    conntrack:/usr/sbin/conntrack iputils-ping:/usr/bin/ping openssl:/usr/bin/openssl; do
    [ -e "${each#*:}" ] || missing="$missing ${each%%:*}"
done
if [ -n "$missing" ]; then
    export DEBIAN_FRONTEND=noninteractive
    # The packages must not start their daemons on this machine.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
    fi
    apt-get -o DPkg::Lock::Timeout=300 -q update >/dev/null
    # shellcheck disable=SC2086
    apt-get -o DPkg::Lock::Timeout=300 -q -y install --no-install-recommends $missing >/dev/null
    [ -z "$(trap -p EXIT)" ] || { rm -f "$policy"; trap - EXIT; }
fi
"$here/../build_kube_apiserver.sh" "$kept" kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl

exec 9>/var/lock/catbird-cluster.lock
flock 9  # cgroups are the one thing that two clusters would share
remove_cgroups() { find "$cgroups"/*/"$group" -depth -type d -exec rmdir {} + 2>/dev/null || true; }
remove_cgroups
work=$(mktemp -d)
finish() {
    [ -z "${CATBIRD_CLUSTER_LOGS:-}" ] || (cd "$work" && mkdir -p "$CATBIRD_CLUSTER_LOGS" &&
        find . -name '*.log' -exec cp --parents {} "$CATBIRD_CLUSTER_LOGS" \;)
    remove_cgroups
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

export CATBIRD_CLUSTER=$work CATBIRD_CLUSTER_CGROUP=$group CATBIRD_CLUSTER_PROGRAMS=$(cd "$kept/bin" && pwd)
# The first process of the namespace is this script's child and ends with it; with the first process all others end.
setpriv --pdeathsig KILL -- unshare --net --uts --mount --propagation private --pid --fork --kill-child --mount-proc \
    bash "$here/inside.sh" "$@" 9>&-
