"""The world in a kernel: a namespace for everybody, veth pairs as a CNI plugin makes them, and probes that are really sent.

Felix' part is not in here: with no rules in node1's namespace everything reaches everybody.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from tests.felix.truth.sockets import SCTP, Namespace, family_of, icmp_message, sctp_init, udp_packet
from tests.felix.truth.tables import Probe
from tests.felix.truth.world import (
    GATEWAY_V4,
    GATEWAY_V6,
    HOST_INTERFACES,
    MAC,
    NEIGHBOURS,
    PARTIES,
    WORKLOADS,
    Party,
    host_address,
)

ALLOWED_WITHIN_S = 2.0
DENIED_AFTER_S = 0.15
TOKEN_OCTETS = 8
ICMPV6 = socket.IPPROTO_ICMPV6
_numbers = itertools.count(1)


class Bed:
    """`async with Bed(ports)`: namespaces made, everybody listening. Needs root."""

    def __init__(self, tcp_ports: Iterable[int], udp_ports: Iterable[int]) -> None:
        self._ports = sorted(set(tcp_ports)), sorted(set(udp_ports))
        self.namespaces: dict[str, Namespace] = {}
        self._sockets: list[socket.socket] = []
        self._seen: dict[bytes, asyncio.Future[str]] = {}

    @property
    def host(self) -> Namespace:
        return self.namespaces["host"]

    async def __aenter__(self) -> Bed:
        try:
            for name in ("host", *PARTIES):
                self.namespaces[name] = Namespace(name)
            self._wire()
            for name in self.namespaces:
                self._listen(name)
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._close()

    def _close(self) -> None:
        loop = asyncio.get_running_loop()
        for one in self._sockets:
            loop.remove_reader(one)
            one.close()
        for namespace in self.namespaces.values():
            namespace.close()

    # --- the network

    def _wire(self) -> None:
        for namespace in self.namespaces.values():
            for setting in ("ipv6/conf/all/accept_dad", "ipv6/conf/default/accept_dad", "ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"):  # fmt: skip
                namespace.write(setting, "0")
            # Many probes are refused on purpose; answers to them must not be counted out.
            namespace.write("ipv4/icmp_ratelimit", "0")
            namespace.command("ip", "link", "set", "lo", "up")
        for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            self.host.write(setting, "1")
        for party in NEIGHBOURS:
            self._wire_neighbour(party)
        self._batch(self.host, [f"route add default via {PARTIES['out'].ipv4}", f"-6 route add default via {PARTIES['out'].ipv6}"])  # fmt: skip
        for party in WORKLOADS:
            self._wire_workload(party)

    def _wire_neighbour(self, party: Party) -> None:
        theirs, (ours_v4, ours_v6) = self.namespaces[party.name], HOST_INTERFACES[party.host_side]
        mac, host_mac = "02:00:00:00:00:02", "02:00:00:00:00:01"
        self._veth(party.host_side, host_mac, theirs, mac)
        self._batch(
            self.host,
            [
                *self._addresses(party.host_side, f"{ours_v4}/24", f"{ours_v6}/64"),
                f"neigh add {party.ipv6} lladdr {mac} dev {party.host_side} nud permanent",
            ],
        )
        self._batch(
            theirs,
            [
                *self._addresses("eth0", f"{party.ipv4}/24", f"{party.ipv6}/64"),
                f"neigh add {ours_v6} lladdr {host_mac} dev eth0 nud permanent",
                f"route add default via {ours_v4}",
                f"-6 route add default via {ours_v6}",
            ],
        )

    def _wire_workload(self, party: Party) -> None:
        theirs = self.namespaces[party.name]
        mac = f"02:00:00:00:01:{party.ipv4.rsplit('.', 1)[1].zfill(2)}"
        self._veth(party.host_side, MAC, theirs, mac)
        for setting, value in (("proxy_arp", "1"), ("forwarding", "1")):
            self.host.write(f"ipv4/conf/{party.host_side}/{setting}", value)
        self.host.write(f"ipv4/neigh/{party.host_side}/proxy_delay", "0")
        self._batch(
            self.host,
            [
                f"link set {party.host_side} up",
                f"route add {party.ipv4}/32 dev {party.host_side} scope link",
                f"-6 route add {party.ipv6}/128 dev {party.host_side}",
                f"neigh add {party.ipv6} lladdr {mac} dev {party.host_side} nud permanent",
            ],
        )
        self._batch(
            theirs,
            [
                *self._addresses("eth0", f"{party.ipv4}/32", f"{party.ipv6}/128"),
                f"route add {GATEWAY_V4} dev eth0 scope link",
                f"route add default via {GATEWAY_V4} dev eth0",
                f"neigh add {GATEWAY_V6} lladdr {MAC} dev eth0 nud permanent",
                f"-6 route add default via {GATEWAY_V6} dev eth0 src {party.ipv6}",
            ],
        )

    def _veth(self, name: str, mac: str, theirs: Namespace, their_mac: str) -> None:
        peer = f"peer name eth0 address {their_mac} netns {theirs.path}"
        self.host.command("ip", "link", "add", name, "address", mac, "type", "veth", *peer.split())

    @staticmethod
    def _addresses(device: str, ipv4: str, ipv6: str) -> list[str]:
        return [f"link set {device} up", f"addr add {ipv4} dev {device}", f"-6 addr add {ipv6} dev {device} nodad"]

    @staticmethod
    def _batch(namespace: Namespace, lines: Sequence[str]) -> None:
        for is_v6 in (False, True):
            chosen = [line.removeprefix("-6 ") for line in lines if line.startswith("-6 ") is is_v6]
            if chosen:
                namespace.command("ip", *(["-6"] if is_v6 else []), "-batch", "-", text="\n".join(chosen) + "\n")

    def translate(self, probes: Iterable[Probe]) -> None:
        """node1's ports that stand for others (what kube-proxy would write)."""
        wanted = {
            f"ip daddr {probe.sent_to[0]} tcp dport {probe.sent_to[1]} dnat to {probe.destination_address}:{probe.port}"
            for probe in probes
            if probe.via is not None and probe.via[0] == "host"
        }
        rules = "\n".join(sorted(wanted))
        chain = f"chain prerouting {{\n type nat hook prerouting priority dstnat;\n{rules}\n}}\n"
        self.host.command("nft", "-f", "-", text=f"table ip bed\ndelete table ip bed\ntable ip bed {{\n{chain}}}\n")

    def forget_connections(self) -> None:
        self.host.command("conntrack", "-F")

    # --- who listens

    def _listen(self, name: str) -> None:
        namespace = self.namespaces[name]
        for version in (4, 6):
            family = family_of(version)
            for port in self._ports[0]:
                self._serve(namespace, family, socket.SOCK_STREAM, port, self._accept)
            for port in self._ports[1]:
                self._serve(namespace, family, socket.SOCK_DGRAM, port, self._answer)
        for family, protocol in ((socket.AF_INET, SCTP), (socket.AF_INET, socket.IPPROTO_ICMP), (socket.AF_INET6, SCTP), (socket.AF_INET6, ICMPV6)):  # fmt: skip
            self._read(namespace.socket(family, socket.SOCK_RAW, protocol), self._notice)

    def _serve(
        self, namespace: Namespace, family: int, kind: int, port: int, act: Callable[[socket.socket], None]
    ) -> None:
        made = namespace.socket(family, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(("", port))
        if kind == socket.SOCK_STREAM:
            made.listen(64)
        self._read(made, act)

    def _read(self, one: socket.socket, act: Callable[[socket.socket], None]) -> None:
        self._sockets.append(one)
        asyncio.get_running_loop().add_reader(one, act, one)

    def _accept(self, one: socket.socket) -> None:
        with suppress(OSError):
            accepted, (peer, *_) = one.accept()
            accepted.send(str(peer).encode())
            accepted.close()

    def _answer(self, one: socket.socket) -> None:
        with suppress(OSError):
            data, peer = one.recvfrom(256)
            self._see(data[:TOKEN_OCTETS], str(peer[0]))
            one.sendto(data, peer)

    def _notice(self, one: socket.socket) -> None:
        """Raw sockets see what was let in, whether or not anybody speaks the protocol."""
        with suppress(OSError):
            data, peer = one.recvfrom(4096)
            for token in [token for token in self._seen if token in data]:
                self._see(token, str(peer[0]))

    def _see(self, token: bytes, peer: str) -> None:
        waiting = self._seen.get(token)
        if waiting is not None and not waiting.done():
            waiting.set_result(peer)

    # --- who sends

    async def verdicts(self, probes: Sequence[Probe]) -> dict[Probe, str]:
        """All at once. `allow`, `deny`, or what else was seen: `allow as 192.0.2.1`, `allow, but no answer`, an error."""
        found = await asyncio.gather(*(self._try(probe) for probe in probes))
        return dict(zip(probes, found, strict=True))

    async def _try(self, probe: Probe) -> str:
        try:
            peer = await self._send(probe)
        except TimeoutError:
            return "deny"
        except OSError as error:
            # Refused by a rule (REJECT), or dropped in OUTPUT, which the sender is told of.
            # Without its workload an address has no route either.
            is_denied = isinstance(error, ConnectionError | PermissionError) or error.errno == errno.EHOSTUNREACH
            return "deny" if is_denied else f"error: {error}"
        expected = "" if not probe.seen_as else _address_of(probe.seen_as, probe)
        return "allow" if expected in ("", peer) else f"allow as {peer}, not {expected}"

    async def _send(self, probe: Probe) -> str:
        wait_s = ALLOWED_WITHIN_S if probe.expected == "allow" else DENIED_AFTER_S
        work = {socket.IPPROTO_TCP: self._tcp, socket.IPPROTO_UDP: self._udp}.get(probe.protocol, self._by_hand)
        return await asyncio.wait_for(work(probe), wait_s)

    async def _tcp(self, probe: Probe) -> str:
        loop = asyncio.get_running_loop()
        with self._sender(probe, socket.SOCK_STREAM) as one:
            await loop.sock_connect(one, probe.sent_to)
            return (await loop.sock_recv(one, 64)).decode()

    async def _udp(self, probe: Probe) -> str:
        loop = asyncio.get_running_loop()
        token = self._token()
        if probe.spoofed:
            with self.namespaces[probe.source].socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as one:
                packet = udp_packet(probe.spoofed, probe.destination_address, 40000, probe.port or 0, token)
                one.sendto(packet, (probe.destination_address, 0))
                return await self._seen[token]
        with self._sender(probe, socket.SOCK_DGRAM) as one:
            one.connect(probe.sent_to)
            one.send(token)
            peer = await self._seen[token]
            await loop.sock_recv(one, 64)
            return peer

    async def _by_hand(self, probe: Probe) -> str:
        """SCTP and ICMP: seen when a raw socket of the receiver has it."""
        token = self._token()
        namespace, family = self.namespaces[probe.source], family_of(probe.version)
        with namespace.socket(family, socket.SOCK_RAW, probe.protocol) as one:
            one.bind((probe.source_address, 0))
            if probe.protocol == SCTP:
                (tag,) = struct.unpack("!I", token[:4])
                self._seen[token[:4]] = self._seen[token]
                data = sctp_init(40000 + next(_numbers) % 20000, probe.port or 0, tag)
            else:
                kind, code = probe.icmp or (0, 0)
                data = icmp_message(kind, code, next(_numbers) & 0xFFFF, b"\0" * 12 + token, version=probe.version)
            one.sendto(data, (probe.destination_address, 0))
            return await self._seen[token]

    def _sender(self, probe: Probe, kind: int) -> socket.socket:
        made = self.namespaces[probe.source].socket(family_of(probe.version), kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((probe.source_address, probe.source_port or 0))
        return made

    def _token(self) -> bytes:
        token = os.urandom(TOKEN_OCTETS)
        self._seen[token] = asyncio.get_running_loop().create_future()
        return token


def _address_of(name: str, probe: Probe) -> str:
    return host_address(probe.destination, probe.version) if name == "host" else PARTIES[name].address(probe.version)
