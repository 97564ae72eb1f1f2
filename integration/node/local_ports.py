"""The control socket and the metrics port as things that open, move when the configuration says so, and close."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from integration.node.http_server import Application, HttpServer
from integration.node.sockets import bind_metrics, claim_unix_socket, release_unix_socket


@dataclass(slots=True)
class Port:
    """One bound place. `where` is the path or host:port of the configuration."""

    where: str
    bound: socket.socket
    inode: int = 0  # of a Unix socket
    server: HttpServer | None = None

    @property
    def is_in_place(self) -> bool:
        """False when somebody has removed or replaced the socket's file: a reload brings it back."""
        try:
            return not self.inode or os.lstat(self.where).st_ino == self.inode
        except OSError:
            return False

    async def serve(self, application: Application, failed: Callable[[str], None]) -> None:
        self.server = HttpServer(application, failed=failed)
        await self.server.serve(self.bound)

    def stop_listening(self) -> None:
        """What is being answered goes on: it may be the very request that moves us."""
        if self.server is not None:
            self.server.stop_listening()
        self.bound.close()
        if self.inode:
            release_unix_socket(self.where, self.inode)

    async def close(self) -> None:
        self.stop_listening()
        if self.server is not None:
            await self.server.close()


def open_control(path: str) -> Port:
    """Raises CannotListen."""
    bound = claim_unix_socket(path)
    return Port(path, bound, os.lstat(path).st_ino)


def open_metrics(host_port: str) -> Port:
    """Raises CannotListen."""
    return Port(host_port, bind_metrics(host_port))


@dataclass(frozen=True, slots=True)
class Places:
    """Always a control socket, perhaps a metrics port."""

    control: Port
    metrics: Port | None

    @property
    def ports(self) -> list[Port]:
        return [self.control] if self.metrics is None else [self.control, self.metrics]


class LocalPorts:
    """What stands open now."""

    def __init__(self, control: str, metrics: str | None) -> None:
        """Binds, serves nothing yet. Raises CannotListen and leaves nothing behind."""
        self._now = _open(control, metrics, None)

    async def serve(self, control: Application, monitor: Application, failed: Callable[[str], None]) -> None:
        self._applications = (control, monitor, failed)
        await self._serve(self._now, None)

    async def _serve(self, places: Places, beside: Places | None) -> None:
        control, monitor, failed = self._applications
        served = beside.ports if beside is not None else []
        if places.control not in served:
            await places.control.serve(control, failed)
        if places.metrics is not None and places.metrics not in served:
            await places.metrics.serve(monitor, failed)

    def prepare(self, control: str, metrics: str | None) -> Places:
        """Bind where a new configuration wants us; then `move` or `give_up`. Raises CannotListen: nothing is bound."""
        return _open(control, metrics, self._now)

    def give_up(self, places: Places) -> None:
        _leave(places, self._now)

    async def move(self, places: Places) -> None:
        before, self._now = self._now, places
        await self._serve(places, before)
        _leave(before, places)

    async def close(self) -> None:
        for port in self._now.ports:
            await port.close()


def _open(control: str, metrics: str | None, beside: Places | None) -> Places:
    """Ports that stand already where they are wanted are taken over."""
    has_control = beside is not None and beside.control.where == control and beside.control.is_in_place
    control_port = beside.control if beside is not None and has_control else open_control(control)
    if metrics is None:
        return Places(control_port, None)
    if beside is not None and beside.metrics is not None and beside.metrics.where == metrics:
        return Places(control_port, beside.metrics)
    try:
        return Places(control_port, open_metrics(metrics))
    except BaseException:
        if not has_control:
            control_port.stop_listening()
        raise


def _leave(places: Places, but_for: Places) -> None:
    for port in places.ports:
        if port not in but_for.ports:
            port.stop_listening()
