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

    async def serve(self, application: Application, failed: Callable[[str], None]) -> None:
        self.server = HttpServer(application, failed=failed)
        await self.server.serve(self.bound)

    async def close(self) -> None:
        if self.server is not None:
            await self.server.close()
        self.bound.close()
        if self.inode:
            release_unix_socket(self.where, self.inode)


def open_control(path: str) -> Port:
    """Raises CannotListen."""
    bound = claim_unix_socket(path)
    return Port(path, bound, os.lstat(path).st_ino)


def open_metrics(host_port: str) -> Port:
    """Raises CannotListen."""
    return Port(host_port, bind_metrics(host_port))


class LocalPorts:
    """What stands open now: always a control socket, perhaps a metrics port."""

    def __init__(self, control: str, metrics: str | None) -> None:
        """Binds both, serves neither yet. Raises CannotListen and leaves nothing behind."""
        self._control = open_control(control)
        self._metrics: Port | None = None
        if metrics is not None:
            try:
                self._metrics = open_metrics(metrics)
            except BaseException:
                self._control.bound.close()
                release_unix_socket(control, self._control.inode)
                raise

    async def serve(self, control: Application, monitor: Application, failed: Callable[[str], None]) -> None:
        self._applications = (control, monitor, failed)
        await self._control.serve(control, failed)
        if self._metrics is not None:
            await self._metrics.serve(monitor, failed)

    async def move(self, control: str, metrics: str | None) -> None:
        """To where a new configuration wants them. Raises CannotListen: both stay where they were."""
        new_control = open_control(control) if control != self._control.where else self._control
        new_metrics = self._metrics
        try:
            if metrics != (self._metrics.where if self._metrics else None):
                new_metrics = open_metrics(metrics) if metrics is not None else None
        except BaseException:
            if new_control is not self._control:
                await new_control.close()
            raise
        application, monitor, failed = self._applications
        if new_control is not self._control:
            await new_control.serve(application, failed)
            self._control, old = new_control, self._control
            await old.close()
        if new_metrics is not self._metrics:
            if new_metrics is not None:
                await new_metrics.serve(monitor, failed)
            self._metrics, old_metrics = new_metrics, self._metrics
            if old_metrics is not None:
                await old_metrics.close()

    async def close(self) -> None:
        for port in (self._control, self._metrics):
            if port is not None:
                await port.close()
