#!/bin/bash
# with_kube_apiserver.sh COMMAND…: runs it with CATBIRD_TEST_KUBECONFIG naming a real API server on loopback, started for it.
# If the variable is set already, that server is used. CATBIRD_KUBERNETES_DIR: where the server is built and kept.
set -euo pipefail
[ -z "${CATBIRD_TEST_KUBECONFIG:-}" ] || exec "$@"
here=$(cd "$(dirname "$0")" && pwd)
kept=${CATBIRD_KUBERNETES_DIR:-$here/../.tox/kubernetes-server}
if [ "$(id -u)" = 0 ]; then
    [ -x /usr/bin/etcd ] || apt-get -o DPkg::Lock::Timeout=300 -q -y install --no-install-recommends etcd-server >/dev/null
fi
"$here/build_kube_apiserver.sh" "$kept"

run=$(mktemp -d)
pids=()
stop() {
    [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$run"
}
trap stop EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

read -r api client peer < <(python3 - <<'P'
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(each.getsockname()[1] for each in sockets))
P
)
cd "$run"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=catbird-test -keyout ca.key -out ca.crt 2>/dev/null
openssl req -newkey rsa:2048 -nodes -subj /CN=kube-apiserver -keyout server.key -out server.csr 2>/dev/null
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out server.crt \
    -extfile <(echo "subjectAltName=IP:127.0.0.1,DNS:localhost") 2>/dev/null
openssl genrsa -out sa.key 2048 2>/dev/null
openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
echo 'test-admin,admin,1,"system:masters"' >tokens.csv
cat >kubeconfig <<K
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:$api", certificate-authority: $run/ca.crt}}]
users: [{name: a, user: {token: test-admin}}]
contexts: [{name: c, context: {cluster: c, user: a}}]
current-context: c
K
etcd --logger zap --log-level error --data-dir etcd --unsafe-no-fsync --initial-cluster "default=http://127.0.0.1:$peer" \
    --listen-client-urls "http://127.0.0.1:$client" --advertise-client-urls "http://127.0.0.1:$client" \
    --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" >etcd.log 2>&1 &
pids+=($!)
"$kept/bin/kube-apiserver" --etcd-servers "http://127.0.0.1:$client" --bind-address 127.0.0.1 --advertise-address 127.0.0.1 \
    --secure-port "$api" --insecure-port 0 --endpoint-reconciler-type none --service-cluster-ip-range 10.96.0.0/16 \
    --tls-cert-file server.crt --tls-private-key-file server.key --client-ca-file ca.crt --token-auth-file tokens.csv \
    --service-account-key-file sa.pub --service-account-signing-key-file sa.key --service-account-issuer https://kubernetes \
    --authorization-mode RBAC --profiling=false --cert-dir certs >apiserver.log 2>&1 &
pids+=($!)
for _ in $(seq 300); do
    if curl -s --cacert ca.crt -H 'Authorization: Bearer test-admin' "https://127.0.0.1:$api/readyz" | grep -q '^ok'; then
        cd "$here/.."
        CATBIRD_TEST_KUBECONFIG=$run/kubeconfig "$@"
        exit
    fi
    kill -0 "${pids[@]}" 2>/dev/null || break
    sleep 0.2
done
tail -n 20 etcd.log apiserver.log >&2
echo "the API server did not become ready" >&2
exit 1
