#!/bin/bash
# build_kube_apiserver.sh DIR [COMPONENT…]: DIR/bin/kube-apiserver (or what is named: kubelet, kube-scheduler …) of Kubernetes
# 1.20.2 from Debian 12's source package, as far as they are not there yet.
# Needs root for the compiler's packages, 2 GB of disk, and five minutes on two cores; ten for kubelet, controllers and all.
set -euo pipefail
dir=$(mkdir -p "$1" && cd "$1" && pwd)
shift
missing=()
for component in "${@:-kube-apiserver}"; do
    [ -x "$dir/bin/$component" ] || missing+=("$component")
done
[ ${#missing[@]} != 0 ] || exit 0

export DEBIAN_FRONTEND=noninteractive
apt="apt-get -o DPkg::Lock::Timeout=300 -q"
if ! grep -rqs 'deb-src' /etc/apt/sources.list /etc/apt/sources.list.d; then
    sed 's/^Types: deb$/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >/etc/apt/sources.list.d/catbird-source.sources
fi
$apt update >/dev/null
$apt install -y --no-install-recommends golang-1.19-go golang-github-modern-go-reflect2-dev gcc libc6-dev dpkg-dev >/dev/null

mkdir -p "$dir/bin" "$dir/gopath/src/k8s.io"
cd "$dir"
source=kubernetes-1.20.5+really1.20.2
[ -d "$source" ] || $apt source kubernetes >/dev/null
ln -sfn "$dir/$source" gopath/src/k8s.io/kubernetes
cd gopath/src/k8s.io/kubernetes
# The vendored reflect2 crashes with this compiler at the first custom resource; Debian's does not.
rm -rf vendor/github.com/modern-go/reflect2
cp -rL /usr/share/gocode/src/github.com/modern-go/reflect2 vendor/github.com/modern-go/

export PATH=/usr/lib/go-1.19/bin:$PATH GOROOT=/usr/lib/go-1.19 GOPATH=$dir/gopath GOCACHE=$dir/gocache
export GO111MODULE=off GOPROXY=off CGO_ENABLED=0
# One generated file is not in the source package.
generated=pkg/generated/openapi/zz_generated.openapi.go
if [ ! -f "$generated" ]; then
    go build -o "$dir/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
    inputs=$(find -L cmd pkg plugin vendor/k8s.io -name '*.go' ! -name 'zz_generated*' ! -name '*_test.go' \
        ! -path '*/testdata/*' ! -path '*/code-generator/*' ! -path '*/sample-apiserver/*' -print0 |
        xargs -0 grep -lE '^// ?\+k8s:openapi-gen=' | xargs -n1 dirname | sort -u | sed 's#^#k8s.io/kubernetes/#' | paste -sd,)
    "$dir/openapi-gen" -O zz_generated.openapi -i "$inputs" -p k8s.io/kubernetes/pkg/generated/openapi \
        -h hack/boilerplate/boilerplate.generatego.txt -r "$dir/violations" --output-base "$dir/gopath/src"
fi
flags="-s -w"
for package in component-base/version client-go/pkg/version; do
    package=k8s.io/kubernetes/vendor/k8s.io/$package
    flags="$flags -X $package.gitVersion=v1.20.2 -X $package.gitMajor=1 -X $package.gitMinor=20 -X $package.gitTreeState=clean"
done
for component in "${missing[@]}"; do
    # kubelet asks the C library for the machine's cgroups and users.
    [ "$component" = kubelet ] && export CGO_ENABLED=1 || export CGO_ENABLED=0
    go build -p 2 -trimpath -ldflags "$flags" -o "$dir/bin/.$component" "k8s.io/kubernetes/cmd/$component"
    mv "$dir/bin/.$component" "$dir/bin/$component"
done
