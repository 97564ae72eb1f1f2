#!/bin/bash
# inside.sh COMMAND…: the first process in the namespaces that run.sh makes. It stays, to take in orphans, while COMMAND runs.
set -euo pipefail
mount -t tmpfs cluster /run
mkdir /run/netns /run/lock
# What kubelet would otherwise set on the whole machine: it finds it set.
tunables=$CATBIRD_CLUSTER/tunables
mkdir "$tunables"
for each in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1; do
    file=$tunables/$(basename "${each%=*}")
    echo "${each#*=}" >"$file"
    mount --bind "$file" "/proc/sys/${each%=*}"
done
ip link set lo up
code=0
"$@" || code=$?
exit "$code"
