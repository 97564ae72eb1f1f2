"""Certificates, tokens and kubeconfigs of a cluster, by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

ADDRESSES = "IP:127.0.0.1,IP:172.30.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default.svc"
ADMIN_TOKEN = "cluster-admin"
EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


class Credentials:
    """Files in `folder`: ca.crt, server.*, sa.*, tokens.csv, and one kubeconfig for each user."""

    def __init__(self, folder: Path, server: str) -> None:
        self.folder, self.server = folder, server
        _openssl(
            folder, "req", "-x509", *EC, "-days", "2", "-subj", "/CN=cluster", "-keyout", "ca.key", "-out", "ca.crt"
        )
        self.certificate("server", "/CN=kube-apiserver")
        self.certificate("apiserver-kubelet", "/O=system:masters/CN=kube-apiserver-kubelet-client")
        _openssl(folder, "genrsa", "-out", "sa.key", "2048")
        _openssl(folder, "rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")
        (folder / "tokens.csv").write_text(f'{ADMIN_TOKEN},admin,1,"system:masters"\n')
        self.admin = self.kubeconfig("admin", {"token": ADMIN_TOKEN})

    def certificate(self, name: str, subject: str) -> None:
        _openssl(self.folder, "req", *EC, "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (self.folder / "names").write_text(f"subjectAltName={ADDRESSES}\n")
        _openssl(
            self.folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-out", f"{name}.crt", "-extfile", "names",
        )  # fmt: skip

    def kubelet(self, node: str) -> Path:
        """A kubeconfig for what the API server lets a node do."""
        self.certificate(node, f"/O=system:nodes/CN=system:node:{node}")
        files = {"client-certificate": f"{self.folder}/{node}.crt", "client-key": f"{self.folder}/{node}.key"}
        return self.kubeconfig(node, files)

    def kubeconfig(self, name: str, user: dict[str, str]) -> Path:
        cluster = {"server": self.server, "certificate-authority": f"{self.folder}/ca.crt"}
        value = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": name}}],
            "current-context": "c",
        }
        path = self.folder / f"{name}.kubeconfig"
        path.write_text(yaml.safe_dump(value))
        path.chmod(0o600)
        return path


def _openssl(folder: Path, *words: str) -> None:
    done = subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
