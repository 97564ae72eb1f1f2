"""The command line, run in this process as the console script runs it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from integration.catbird import main


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Commands:
    """`catbird ARGUMENTS --datastore …` in a directory of its own."""

    def __init__(self, directory: Path, store: str, capture: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch):
        self.directory, self.store, self._capture, self._patch = directory, store, capture, patch
        patch.chdir(directory)
        for name in ("DATASTORE_TYPE", "ETCD_ENDPOINTS", "KUBECONFIG", "NAMESPACE", "NODENAME"):
            patch.delenv(name, raising=False)
            patch.delenv(f"CALICO_{name}", raising=False)

    def __call__(self, *arguments: str, stdin: str | bytes = "") -> Done:
        octets = stdin if isinstance(stdin, bytes) else stdin.encode()
        self._patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(octets)))
        self._capture.readouterr()
        code = main([*arguments, "--datastore", self.store])
        out, err = self._capture.readouterr()
        return Done(code, out, err)

    def file(self, name: str, text: str) -> str:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name

    def applied(self, text: str) -> None:
        done = self("apply", "-f", "-", stdin=text)
        assert done.code == 0, done.err


def document(kind: str, name: str, spec: Any = None, **metadata: Any) -> str:
    """One document, in JSON, which is YAML."""
    value = {"kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": {"name": name, **metadata}}
    return f"---\n{json.dumps(value | ({'spec': spec} if spec is not None else {}))}\n"


def peer(name: str, address: str = "192.0.2.1", **spec: Any) -> str:
    return document("BGPPeer", name, {"peerIP": address, "asNumber": 65001, **spec})
