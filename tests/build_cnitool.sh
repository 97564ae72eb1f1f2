#!/bin/bash
# build_cnitool.sh DIR: cnitool (the reference client of the CNI specification, libcni) from Debian's source package into
# DIR/cnitool. A few seconds; done once.
set -euo pipefail
kept=$(mkdir -p "$1" && cd "$1" && pwd)
[ ! -x "$kept/cnitool" ] || exit 0
[ "$(id -u)" = 0 ] || { echo "building cnitool needs root, for Debian's packages" >&2; exit 1; }

export DEBIAN_FRONTEND=noninteractive
apt="apt-get -o DPkg::Lock::Timeout=300 -q -y"
[ -x /usr/lib/go-1.19/bin/go ] || $apt install --no-install-recommends golang-1.19-go >/dev/null
[ -x /usr/bin/dpkg-source ] || $apt install --no-install-recommends dpkg-dev >/dev/null

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Sources beside the packages, without touching the machine's lists.
mkdir -p "$work/lists/partial"
sed -n 's/^deb /deb-src /p' /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null >"$work/sources.list" || true
for file in /etc/apt/sources.list.d/*.sources; do
    [ ! -e "$file" ] || sed 's/^Types:.*/Types: deb-src/' "$file" >"$work/$(basename "$file")"
done
mkdir -p "$work/parts"
mv "$work"/*.sources "$work/parts/" 2>/dev/null || true
options=(-o "Dir::Etc::sourcelist=$work/sources.list" -o "Dir::Etc::sourceparts=$work/parts" -o "Dir::State::lists=$work/lists")
apt-get "${options[@]}" -q update >/dev/null
cd "$work"
apt-get "${options[@]}" -q source golang-github-appc-cni >/dev/null 2>&1
mkdir -p "$work/go/src/github.com/containernetworking"
ln -s "$work"/golang-github-appc-cni-*/ "$work/go/src/github.com/containernetworking/cni"
cd "$work/go/src/github.com/containernetworking/cni"
GOPATH="$work/go:/usr/share/gocode" GO111MODULE=off GOCACHE="$work/cache" /usr/lib/go-1.19/bin/go build -o "$kept/cnitool" ./cnitool
