"""A container image without a registry: busybox, as `docker save` would write it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

BUSYBOX, PAUSE = "catbird.test/busybox:1", "catbird.test/pause:1"
APPLETS = ("sh", "sleep", "ip", "ping", "wget", "nc", "httpd", "cat", "ls", "ps", "hostname", "echo", "timeout")


def write_image(path: Path) -> None:
    """Both names are the same layer. A sandbox's first process only has to stay."""
    layer = _layer()
    digest = hashlib.sha256(layer).hexdigest()
    configs = {BUSYBOX: ["/bin/sh"], PAUSE: ["/bin/sleep", "2147483647"]}
    manifest = []
    with tarfile.open(path, "w") as archive:
        _add(archive, f"{digest}/layer.tar", layer)
        for name, command in configs.items():
            config = json.dumps(_config(digest, command)).encode()
            file = f"{hashlib.sha256(config).hexdigest()}.json"
            _add(archive, file, config)
            manifest.append({"Config": file, "RepoTags": [name], "Layers": [f"{digest}/layer.tar"]})
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _config(digest: str, command: list[str]) -> dict[str, object]:
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "tests"}],
    }


def _layer() -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for folder in ("bin", "proc", "dev", "sys", "etc", "tmp", "root", "var"):
            made = tarfile.TarInfo(folder)
            made.type, made.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(made)
        _add(archive, "bin/busybox", Path("/bin/busybox").read_bytes(), 0o755)
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return written.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    file = tarfile.TarInfo(name)
    file.size, file.mode = len(content), mode
    archive.addfile(file, io.BytesIO(content))
