#!/bin/bash
# node.sh NAME FILE: makes its own mounts a node's: an empty /run, and folders of the machine that it may write to; then writes FILE, and stays.
set -euo pipefail
hostname "$1"
mount -t tmpfs node /run
mkdir /run/netns /run/lock /run/written
for each in etc opt var; do
    mkdir /run/written/$each /run/written/$each-work
    mount -t overlay -o "lowerdir=/$each,upperdir=/run/written/$each,workdir=/run/written/$each-work" node /$each
done
# An overlay cannot lie on an overlay.
for each in containerd kubelet; do
    mkdir -p /var/lib/$each
    mount -t tmpfs node /var/lib/$each
done
mkdir -p /opt/cni/bin /etc/cni/net.d /var/log/pods /var/log/containers
rm -rf /etc/cni/net.d/* /var/lib/calico /var/lib/cni
ln -sf /usr/lib/cni/loopback /usr/lib/cni/portmap /opt/cni/bin/
mount --make-rshared /
mkdir /var/lib/calico
touch "$2"
exec sleep infinity
