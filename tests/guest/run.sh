#!/bin/bash
# Runs a command under Debian's own kernel, which has what many a machine's has not (IPIP, WireGuard), on this machine's files.
#
#   tests/guest/run.sh COMMAND [ARGUMENT…]        exit code: the command's; 97 if the guest did not come to its end
#
# qemu emulates the machine (no KVM is needed), the root file system is this one, by 9p: what the command writes is written
# here. Kernel and initial RAM disk are kept in CATBIRD_GUEST (default /var/tmp/catbird-guest). Needs root, for apt and 9p.
set -euo pipefail
kept=${CATBIRD_GUEST:-/var/tmp/catbird-guest}
mkdir -p "$kept"

fetch() {  # programs, and the kernel with its modules, unpacked and not installed
    apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends qemu-system-x86 cpio kmod busybox-static >&2
    local image
    image=$(apt-cache depends linux-image-amd64 | awk '/Depends/ {print $2; exit}')
    (cd "$kept" && apt-get download -q "$image" >&2 && dpkg -x "$image"_*.deb kernel && rm "$image"_*.deb)
}

first_program() {  # /init: mounts the host's files, does what lies in $kept/command there, switches off
    cat <<INIT
#!/bin/sh
b=/bin/busybox
\$b mount -t proc proc /proc
\$b mount -t devtmpfs dev /dev
while read -r module; do \$b insmod /lib/\$module; done < /modules
\$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=loose host /host
\$b mount -t proc none /host/proc
\$b mount -t sysfs none /host/sys
\$b mount -t devtmpfs none /host/dev
\$b mount -t tmpfs none /host/run
\$b mount -t tmpfs none /host/lib/modules
\$b mkdir /host/lib/modules/$version
\$b mount --bind /host$kept/kernel/lib/modules/$version /host/lib/modules/$version
\$b chroot /host /bin/sh $kept/command
\$b sync
\$b poweroff -f
INIT
}

build() {
    local disk=$kept/disk module
    rm -rf "$disk" && mkdir -p "$disk"/{bin,sbin,proc,dev,lib,host} && mkdir -p /lib/modules
    cp "$(command -v busybox)" "$disk/bin/" && ln -s busybox "$disk/bin/sh"
    depmod -b "$kept/kernel" "$version"
    for module in virtio_pci 9pnet_virtio 9p; do
        modprobe -d "$kept/kernel" -S "$version" --show-depends $module | awk '$1 == "insmod" {print $2}'
    done | awk '!seen[$0]++' | while read -r path; do
        cp "$path" "$disk/lib/" && basename "$path" >> "$disk/modules"
    done
    first_program > "$disk/init"
    # The kernel loads modules by a program of its own root, not of the one that we change to.
    printf '#!/bin/sh\nexec /bin/busybox chroot /host /sbin/modprobe "$@"\n' > "$disk/sbin/modprobe"
    chmod +x "$disk/init" "$disk/sbin/modprobe"
    (cd "$disk" && find . | cpio -o -H newc --quiet | gzip -1) > "$kept/disk.gz.new" && mv "$kept/disk.gz.new" "$kept/disk.gz"
}

exec 9> "$kept/lock" && flock 9  # one guest at a time: they share the command's file
[ -d "$kept/kernel" ] || fetch
version=$(ls "$kept/kernel/lib/modules")
[ -f "$kept/disk.gz" ] || build

{
    # Unix sockets and SQLite want a real file system: /run is memory.
    printf 'export HOME=/root TMPDIR=/run PATH=%q\ncd %q\n' "$PATH:/usr/sbin:/sbin" "$PWD"
    printf '%q ' "$@"
    printf '; echo "guest: exit code $?"\n'
} > "$kept/command"

qemu-system-x86_64 -accel tcg -cpu max -m "${CATBIRD_GUEST_MIB:-1024}" -smp 1 -nographic -no-reboot -nic none \
    -kernel "$kept/kernel/boot/vmlinuz-$version" -initrd "$kept/disk.gz" -append "console=ttyS0 quiet panic=-1" \
    -virtfs local,path=/,mount_tag=host,security_model=none,multidevs=remap < /dev/null | tee "$kept/console"
code=$(tr -d '\r' < "$kept/console" | awk '/guest: exit code [0-9]+$/ {found = $NF} END {print found == "" ? 97 : found}')
exit "$code"
