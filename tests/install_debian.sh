#!/bin/sh
# Installs what the system tests and benchmarks talk to and look with, if something is missing (Debian 12).
set -eu

missing=""
need() { # PACKAGE FILE
    # A library's folder is named after the machine.
    for file in $2; do
        [ ! -e "$file" ] || return 0
    done
    missing="$missing $1"
}
need bird2 /usr/sbin/bird
need frr /usr/lib/frr/bgpd
need gobgpd /usr/bin/gobgpd
need openbgpd /usr/sbin/bgpd
need iproute2 /usr/sbin/ip
need nftables /usr/sbin/nft
need iptables /usr/sbin/iptables-nft
need ipset /usr/sbin/ipset
need conntrack /usr/sbin/conntrack
need iperf3 /usr/bin/iperf3
need podman /usr/bin/podman
need runc /usr/sbin/runc
need containernetworking-plugins /usr/lib/cni/host-local
need busybox-static /bin/busybox
need etcd-server /usr/bin/etcd
need etcd-client /usr/bin/etcdctl
need openssl /usr/bin/openssl
need procps /usr/sbin/sysctl
need iputils-ping /usr/bin/ping
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "the system tests need root, and these packages: apt-get install$missing" >&2
    exit 1
fi

# The tests start the daemons themselves, each in a namespace: the packages must not start theirs on this machine.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=300 -q update
# shellcheck disable=SC2086
apt-get -o DPkg::Lock::Timeout=300 -y -q install --no-install-recommends $missing
