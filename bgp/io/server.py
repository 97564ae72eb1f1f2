"""SpeakerServer: asyncio around a Speaker. Listens, dials, keeps the clock, carries bytes. Implements ports.Transport."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import Any

from bgp.config import PeerConfig, SpeakerConfig
from bgp.families import Address, Family, IPAddress
from bgp.io.connection import Connection, packed_address
from bgp.io.tcp_options import IP_FREEBIND, addresses_beside, set_md5, set_ttl
from bgp.reconfigure import Change, pair_peers
from bgp.session.session import Session
from bgp.speaker import Speaker
from bgp.wire.open import prepare

_TICK_S = 0.1
_BACKLOG = 4096
_ACCEPTS_A_TURN = 64  # the others wait for no more than that
_WRITE_S = 10e-6  # what one write to one peer costs
_FLUSH_WAITS_S = 0.02  # at most, while more comes in


class SpeakerServer:
    """`start` raises OSError if a listening address cannot be had; nothing is left open then."""

    def __init__(self, speaker: Speaker, config: SpeakerConfig) -> None:
        self._speaker = speaker
        self._config = config
        self._listeners: dict[tuple[IPAddress, int], socket.socket] = {}
        self._connections: dict[Session, Connection] = {}
        self._dials: dict[Session, asyncio.Task[None]] = {}
        self._closing: set[Connection] = set()
        self._beside: dict[Address, dict[Family, Address]] = {}
        self._flush_pending = False
        self._flushes_asked = self._flushes_seen = 0
        self._flush_by = 0.0
        self._all_closed: asyncio.Event | None = None
        self._ticker: asyncio.Task[None] | None = None
        speaker.transport = self

    async def start(self) -> None:
        prepare()
        self._listen(self._config)
        self._ticker = asyncio.create_task(self._tick())
        self._speaker.start(time.monotonic())

    async def stop(self, reason: str) -> None:
        """CEASE to all, wait until it is sent, close. The caller bounds the time."""
        for listener in self._listeners.values():
            self._unlisten(listener)
        self._listeners.clear()
        if self._ticker is not None:
            self._ticker.cancel()
        self._speaker.stop(time.monotonic(), reason)
        for dial in list(self._dials.values()):
            dial.cancel()
        for connection in list(self._connections.values()):
            connection.close(abort=False)
        if self._closing:
            self._all_closed = asyncio.Event()
            try:
                await asyncio.wait_for(self._all_closed.wait(), 2.5)
            except TimeoutError:
                pass  # they do not read

    async def reconfigure(self, config: SpeakerConfig) -> list[Change]:
        """Listening addresses first: if one cannot be had, OSError, and everything stays as it was."""
        self._listen(config)
        old, self._config = self._config, config
        self._change_keys(old, config)
        return self._speaker.reconfigure(config, time.monotonic())

    # --- listening --------------------------------------------------------------------------------------------------

    def _listen(self, config: SpeakerConfig) -> None:
        wanted = {(address, config.port) for address in config.listen}
        opened: dict[tuple[IPAddress, int], socket.socket] = {}
        try:
            for where in wanted - self._listeners.keys():
                opened[where] = self._open(*where)
        except OSError:
            for listener in opened.values():
                listener.close()
            raise
        for where in self._listeners.keys() - wanted:
            self._unlisten(self._listeners.pop(where))
        loop = asyncio.get_running_loop()
        for where, listener in opened.items():
            self._listeners[where] = listener
            for peer in config.peers:
                self._set_listener_key(listener, peer, peer.password)
            loop.add_reader(listener, self._acceptable, listener)

    def _open(self, address: IPAddress, port: int) -> socket.socket:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if not address.is_unspecified:
                listener.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)  # the address may come later than we
            listener.setblocking(False)
            listener.bind((str(address), port))
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        return listener

    def _unlisten(self, listener: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(listener)
        listener.close()

    def _acceptable(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                sock, name = listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue  # the peer was quicker
            except OSError:
                # No descriptors left, say. The listener stays readable, so look away for a while.
                loop = asyncio.get_running_loop()
                loop.remove_reader(listener)
                loop.call_later(1.0, self._listen_again, listener)
                return
            self._take(sock, name)

    def _listen_again(self, listener: socket.socket) -> None:
        if listener in self._listeners.values():
            asyncio.get_running_loop().add_reader(listener, self._acceptable, listener)

    def _take(self, sock: socket.socket, name: tuple[Any, ...]) -> None:
        try:
            local, remote = packed_address(sock.getsockname()), packed_address(name)
            interface = socket.if_indextoname(name[3]) if len(name) > 3 and name[3] else ""
            session = self._speaker.accept(local, remote, time.monotonic(), interface=interface)
        except OSError:
            sock.close()
            return
        if session is None:
            sock.close()
            return
        connection = Connection(sock, session, self._speaker, self._gone)
        config = self._speaker.config_of(session)
        self._connections[session] = connection
        if config is not None:
            try:
                set_ttl(sock, config, is_ebgp=self._speaker.is_ebgp(session))
            except OSError:
                connection.close(abort=True)
        self._speaker.accepted(session)
        if connection.is_open:
            connection.begin()

    # --- keys -------------------------------------------------------------------------------------------------------

    def _set_listener_key(self, listener: socket.socket, peer: PeerConfig, password: str | None) -> None:
        where = peer.range or peer.address
        if where is None or (where.version == 4) != (listener.family == socket.AF_INET):
            return
        set_md5(listener, where, password)

    def _change_keys(self, old: SpeakerConfig, new: SpeakerConfig) -> None:
        """On listeners and on the sessions that stand: the next segment is signed with the new key."""
        pairs = pair_peers(old.peers, new.peers)
        changed = [peer for before, peer in pairs.kept if before.password != peer.password]
        for listener in self._listeners.values():
            for peer in pairs.removed:
                self._set_listener_key(listener, peer, None)
            for peer in (*changed, *pairs.added):
                if peer.password is not None or peer in changed:
                    self._set_listener_key(listener, peer, peer.password)
        for session, connection in self._connections.items():
            config = self._speaker.config_of(session)
            for before, peer in pairs.kept:
                if config is before and before.password != peer.password and connection.is_open:
                    remote = connection.sock.getpeername()[0].partition("%")[0]
                    set_md5(connection.sock, peer.address or _address(remote), peer.password)

    # --- Transport --------------------------------------------------------------------------------------------------

    def dial(self, session: Session, config: PeerConfig) -> None:
        task = asyncio.get_running_loop().create_task(self._dial(session, config))
        earlier = self._dials.pop(session, None)
        if earlier is not None:
            earlier.cancel()
        self._dials[session] = task

    async def _dial(self, session: Session, config: PeerConfig) -> None:
        loop = asyncio.get_running_loop()
        address = config.address
        assert address is not None
        sock = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            set_ttl(sock, config, is_ebgp=self._speaker.is_ebgp(session))
            if config.password is not None:
                set_md5(sock, address, config.password)
            if config.source is not None:
                sock.bind((str(config.source), 0))
            scope = socket.if_nametoindex(config.interface) if config.interface else 0
            name = (str(address), config.port) if address.version == 4 else (str(address), config.port, 0, scope)
            await loop.sock_connect(sock, name)
            connection = Connection(sock, session, self._speaker, self._gone)
            local, remote = connection.addresses
        except OSError as error:
            sock.close()
            self._dials.pop(session, None)
            # asyncio's own text, "Connect call failed", does not say whether it was refused or unreachable.
            why = os.strerror(error.errno) if error.errno else str(error)
            self._speaker.connection_failed(session, why, time.monotonic())
            return
        except asyncio.CancelledError:
            sock.close()
            raise
        self._dials.pop(session, None)
        if not self._speaker.is_wanted(session):
            sock.close()
            return
        self._connections[session] = connection
        self._speaker.connection_made(session, local, remote, time.monotonic())
        if connection.is_open:
            connection.begin()

    def send(self, session: Session, buffers: list[bytes | memoryview]) -> int:
        connection = self._connections.get(session)
        return 0 if connection is None else connection.send(buffers)

    def close(self, session: Session, abort: bool) -> None:
        dial = self._dials.pop(session, None)
        if dial is not None:
            dial.cancel()
        connection = self._connections.pop(session, None)
        if connection is not None and connection.is_open:
            self._closing.add(connection)
            connection.close(abort=abort)

    def _gone(self, connection: Connection) -> None:
        self._closing.discard(connection)
        if self._all_closed is not None and not self._closing:
            self._all_closed.set()
        if self._connections.get(connection.session) is connection:
            del self._connections[connection.session]

    def own_addresses(self, session: Session) -> dict[Family, Address]:
        local = session.local_address
        if local not in self._beside:  # the system is asked once for all that come up in one tick
            self._beside[local] = addresses_beside(local)
        return self._beside[local]

    def flush_soon(self) -> None:
        self._flushes_asked += 1
        if not self._flush_pending:
            self._flush_pending = True
            # After what is readable now: the loop's ready list is a queue.
            asyncio.get_running_loop().call_soon(self._begin_flush)

    def _begin_flush(self) -> None:
        """Writing to all costs the same however much there is, so wait while more comes in, but no longer than that takes.

        On a quiet line the second look finds nothing new: one empty poll.
        """
        self._flush_by = time.monotonic() + min(len(self._connections) * _WRITE_S, _FLUSH_WAITS_S)
        self._flushes_seen = self._flushes_asked
        asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        now = time.monotonic()
        if self._flushes_asked != self._flushes_seen and now < self._flush_by:
            self._flushes_seen = self._flushes_asked
            asyncio.get_running_loop().call_soon(self._flush)
            return
        self._flush_pending = False
        self._speaker.flush(now)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._beside.clear()
            self._speaker.handle_timer(time.monotonic())


def _address(text: str) -> IPAddress:
    import ipaddress

    return ipaddress.ip_address(text)
