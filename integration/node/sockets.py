"""Binding what the daemon listens on beside BGP: the control socket and the metrics port."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CannotListen(Exception):
    """One line that says what is in the way and what to do about it."""


def claim_unix_socket(path: str) -> socket.socket:
    """A bound Unix socket, mode 0600; its directory is made (0755) if missing. Raises CannotListen.

    A socket file that nobody serves any more (a killed speaker) is replaced; one that is served is never touched.
    """
    try:
        Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with _alone_in(str(Path(path).parent)):
            _remove_stale(path)
            return _bind(path)
    except OSError as error:
        raise CannotListen(f"control socket {path}: {error.strerror or error}; set [speaker] control") from None


def release_unix_socket(path: str, inode: int) -> None:
    """Remove the file if it is still the one that we bound (`inode`): a successor may have replaced it."""
    try:
        if os.lstat(path).st_ino == inode:
            os.unlink(path)
    except OSError:
        pass


@contextmanager
def _alone_in(directory: str) -> Iterator[None]:
    """Two speakers that start at once would each take the other's fresh socket for a stale one."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise CannotListen(f"control socket {path}: a file that is no socket is in the way; remove it")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except (BlockingIOError, TimeoutError):  # a full backlog: stuck perhaps, but alive
            raise CannotListen(_in_use(path, 0)) from None
        else:
            raise CannotListen(_in_use(path, _process_behind(probe)))


def _in_use(path: str, pid: int) -> str:
    by = f"process {pid}" if pid else "a running process"
    return f"control socket {path} is served by {by}; stop that speaker first, or set another [speaker] control"


def _process_behind(connected: socket.socket) -> int:
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def _bind(path: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listening.bind(path)
    except OSError as error:
        listening.close()
        if len(path.encode()) > 107:  # sun_path
            raise CannotListen(f"control socket {path}: the path is longer than 107 octets") from None
        raise error
    finally:
        os.umask(before)
    return listening


def bind_metrics(host_port: str) -> socket.socket:
    """`127.0.0.1:9179`, `[::1]:9179`, `localhost:9179` or `:9179` (every address). Raises CannotListen."""
    return bind_tcp(host_port, "metrics", "[speaker] metrics")


def bind_tcp(host_port: str, what: str, setting: str) -> socket.socket:
    """The first address of HOST:PORT, bound. Raises CannotListen, which names `what` and the `setting` to change."""
    host, _, port = host_port.rpartition(":")
    host = host.strip("[]")
    try:
        if not 0 <= int(port) <= 65535:  # getaddrinfo would take it modulo 65536
            raise ValueError("the port is not between 0 and 65535")
        found = socket.getaddrinfo(host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, ValueError, OverflowError) as error:
        raise CannotListen(f"{what} {host_port}: {error}") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and host:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise CannotListen(f"{what} {host_port}: {_why_not_bound(error, int(port), setting)}") from None
    return listening


def why_not_bound(error: OSError, port: int, setting: str) -> str:
    """What an operator can do about it. `setting` is the key in [speaker]."""
    return _why_not_bound(error, port, f"[speaker] {setting}")


def _why_not_bound(error: OSError, port: int, setting: str) -> str:
    if error.errno == errno.EADDRINUSE:
        owner = process_listening_on(port)
        return f"port {port} is in use{f' by {owner}' if owner else ''}; stop that, or set another {setting}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} needs root (or CAP_NET_BIND_SERVICE); run as root, or set another {setting}"
    if error.errno == errno.EADDRNOTAVAIL:
        place = "[speaker] listen" if setting.startswith("[speaker]") else setting
        return f"the address is not on this machine; change {place} or add the address"
    return error.strerror or str(error)


def process_listening_on(port: int) -> str:
    """`bird (pid 812)`, or nothing: found through /proc, and only in our own network namespace."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            if columns[3] == "0A" and columns[1].endswith(f":{port:04X}"):  # 0A: LISTEN
                inodes.add(f"socket:[{columns[9]}]")
    if not inodes:
        return ""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _holds(entry, inodes):
            try:
                return f"{(entry / 'comm').read_text().strip()} (pid {entry.name})"
            except OSError:
                return f"pid {entry.name}"
    return ""


def _holds(process: Path, links: set[str]) -> bool:
    try:
        return any(os.readlink(descriptor) in links for descriptor in (process / "fd").iterdir())
    except OSError:
        return False
