"""FRR 8.4: zebra and bgpd, with sockets and files in a folder of their own."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import Any, ClassVar

from tests.interop.router import Announcement, FamilyName, PeerSpec, Router, SeenRoute, SeenSession, until

_PROGRAMS = "/usr/lib/frr"


@dataclass(slots=True, eq=False)
class Frr(Router):
    generation: int = 0
    kind: ClassVar[str] = "frr"

    def configuration(self) -> str:
        # Route-maps come first: a `network` whose map is not there yet is announced only five seconds later.
        lines = [line for route in self.announcements.values() for line in self._route_map(route)]
        lines += [
            "hostname frr",
            f"log file {self.folder / 'bgpd.log'} debugging",
            "debug bgp neighbor-events",
            f"router bgp {self.asn}",
            f" bgp router-id {self.router_id}",
            " no bgp ebgp-requires-policy",
            " no bgp default ipv4-unicast",
            " no bgp network import-check",
            " bgp log-neighbor-changes",
        ]
        if self.cluster_id:
            lines.append(f" bgp cluster-id {self.cluster_id}")
        if any(peer.graceful_restart for peer in self.peers.values()):
            longest = max(peer.restart_time_s for peer in self.peers.values())
            lines += [" bgp graceful-restart", " bgp graceful-restart preserve-fw-state"]
            lines += [f" bgp graceful-restart restart-time {longest}"]
        else:
            lines.append(" bgp graceful-restart-disable")  # otherwise it always offers to help
        for peer in self.peers.values():
            lines += [f" {line}" for line in _peer_lines(peer)]
        for family in ("ipv4", "ipv6"):
            lines.append(f" address-family {family} unicast")
            lines += self._family_lines(family)
            lines.append(" exit-address-family")
        lines.append("exit")
        return "\n".join(lines) + "\n"

    def _family_lines(self, family: str) -> list[str]:
        lines = []
        for peer in self.peers.values():
            if family not in peer.families:
                continue
            lines.append(f"  neighbor {peer.address} activate")
            if peer.client:
                lines.append(f"  neighbor {peer.address} route-reflector-client")
            if peer.next_hop_self:
                lines.append(f"  neighbor {peer.address} next-hop-self")
            if peer.max_prefixes is not None:
                lines.append(f"  neighbor {peer.address} maximum-prefix {peer.max_prefixes}")
        for route in self.announcements.values():
            if route.family == family:
                lines.append(f"  network {route.prefix} route-map {self._map_name(route)}")
        return lines

    def _map_name(self, route: Announcement) -> str:
        return f"m{self.generation}_{route.prefix.replace('/', '_').replace(':', '_').replace('.', '_')}"

    def _route_map(self, route: Announcement) -> list[str]:
        lines = [f"route-map {self._map_name(route)} permit 10"]
        if route.communities:
            lines.append(f" set community {' '.join(route.communities)}")
        if route.large_communities:
            lines.append(f" set large-community {' '.join(route.large_communities)}")
        for text in route.extended_communities:
            kind, value = text.split(":", 1)
            lines.append(f" set extcommunity {kind} {value}")
        if route.med is not None:
            lines.append(f" set metric {route.med}")
        if route.local_pref is not None:
            lines.append(f" set local-preference {route.local_pref}")
        if route.prepend:
            lines.append(f" set as-path prepend {' '.join(str(asn) for asn in route.prepend)}")
        return [*lines, "exit"]

    def launch(self, *, recovering: bool) -> None:
        del recovering  # bgpd says that it restarted whenever graceful restart is configured
        (self.folder / "bgpd.conf").write_text(self.configuration())
        (self.folder / "zebra.conf").write_text(f"log file {self.folder / 'zebra.log'}\n")
        shutil.chown(self.folder, "frr", "frr")  # both daemons drop root for it
        if not any(process.poll() is None for process in self.processes):
            self.processes.clear()
            # zebra takes back what it left in the kernel when bgpd restarts only if it is told to keep it (-r).
            self._daemon("zebra", "-r", "-s", "8388608")
            until((self.folder / "zserv.api").exists, "zebra listens", 10)
        self._daemon("bgpd")

    def _daemon(self, name: str, *more: str) -> None:
        self.spawn(
            f"{_PROGRAMS}/{name}",
            *("-f", str(self.folder / f"{name}.conf")),
            *("-z", str(self.folder / "zserv.api")),
            *("-i", str(self.folder / f"{name}.pid")),
            *("--vty_socket", str(self.folder)),
            *("-P", "0"),
            *more,
        )

    def log_text(self) -> str:
        paths = [self.log_path, self.folder / "zebra.log", self.folder / "bgpd.log"]
        return "".join(path.read_text(errors="replace") for path in paths if path.exists())

    def vtysh(self, *commands: str) -> str:
        words = [word for command in commands for word in ("-c", command)]
        return self.node.run("vtysh", "--vty_socket", str(self.folder), *words, check=False)

    def show(self, command: str) -> Any:
        """A `show … json`, empty when bgpd does not answer (yet)."""
        text = self.vtysh(command)
        try:
            return json.loads(text)
        except ValueError:
            return {}

    def is_ready(self) -> bool:
        return "BGP" in self.vtysh("show bgp summary") or "No BGP neighbors" in self.vtysh("show bgp summary")

    def kill_bgpd(self) -> None:
        """kill -9 of bgpd alone: zebra and the kernel's routes stay, as in a crash with graceful restart."""
        bgpd = self.processes.pop()
        bgpd.kill()
        bgpd.wait(10)

    def reload(self) -> None:
        """Say every peer's lines again: FRR has no reload of its own, and announcements are changed one by one."""
        for peer in self.peers.values():
            self.vtysh(*_configure(self.asn, *_peer_lines(peer)))

    def announce(self, *routes: Announcement) -> None:
        # A route-map under a new name each time: to remove and make one again in one go crashes bgpd 8.4.4 (libyang).
        self.generation += 1
        for route in routes:
            self.announcements[route.prefix] = route
            network = f"network {route.prefix} route-map {self._map_name(route)}"
            family = f"address-family {route.family} unicast"
            self.vtysh("configure terminal", *self._route_map(route), f"router bgp {self.asn}", family, network)

    def withdraw(self, *prefixes: str) -> None:
        for prefix in prefixes:
            family = self.announcements.pop(prefix).family
            self.vtysh(*_configure(self.asn, f"address-family {family} unicast", f"no network {prefix}"))

    def set_password(self, address: str, password: str | None) -> None:
        line = f"neighbor {address} password {password}" if password else f"no neighbor {address} password"
        self.vtysh(*_configure(self.asn, line))

    def shut_down(self, address: str, reason: str) -> None:
        self.vtysh(*_configure(self.asn, f"neighbor {address} shutdown message {reason}"))

    def refresh(self, address: str) -> None:
        for family in self.peers[address].families:
            self.vtysh(f"clear bgp {family} unicast {address} in")

    def session(self, address: str) -> SeenSession:
        answer = self.show(f"show bgp neighbors {address} json").get(address, {})
        return SeenSession(
            address=address,
            is_established=answer.get("bgpState") == "Established",
            text=json.dumps(answer, indent=1) + self.log_text(),
            refreshes_received=answer.get("messageStats", {}).get("routeRefreshRecv"),
        )

    def routes(self, family: FamilyName) -> dict[str, SeenRoute]:
        found = {}
        for prefix, paths in self.show(f"show bgp {family} unicast json detail").get("routes", {}).items():
            best = next((p for p in _paths(paths) if p.get("bestpath", {}).get("overall")), None)
            if best and best.get("peer", {}).get("peerId") not in {None, "0.0.0.0", "::"}:
                found[prefix] = _seen(prefix, best)
        return found


def _paths(answer: Any) -> list[dict[str, Any]]:
    paths: list[dict[str, Any]] = answer.get("paths", []) if isinstance(answer, dict) else answer
    return paths


def _seen(prefix: str, path: dict[str, Any]) -> SeenRoute:
    segments = path.get("aspath", {}).get("segments", [])
    hops = path.get("nexthops", [])
    # Of an IPv6 next hop's two addresses it prints both and uses the link-local one; the global one is what was sent.
    used = next((hop for hop in hops if hop.get("scope") == "global"), hops[0] if hops else {})
    return SeenRoute(
        prefix=prefix,
        as_path=tuple(int(asn) for segment in segments for asn in segment["list"]),
        next_hop=str(used.get("ip", "")),
        origin=str(path.get("origin", "")).lower(),
        communities=frozenset(path.get("community", {}).get("list", [])),
        large_communities=frozenset(path.get("largeCommunity", {}).get("list", [])),
        extended_communities=frozenset(path.get("extendedCommunity", {}).get("string", "").lower().split()),
        med=path.get("metric"),
        local_pref=path.get("locPrf"),
        originator_id=path.get("originatorId", ""),
        cluster_list=tuple(path.get("clusterList", {}).get("list", [])),
        is_stale=bool(path.get("stale")),
    )


def _peer_lines(peer: PeerSpec) -> list[str]:
    words = [f"remote-as {peer.asn}", f"timers {max(1, peer.hold_time_s // 3)} {peer.hold_time_s}", "timers connect 1"]
    words.append("advertisement-interval 0")
    if peer.local_asn:
        words.append(f"local-as {peer.local_asn} no-prepend replace-as")
    if peer.password:
        words.append(f"password {peer.password}")
    if peer.passive:
        words.append("passive")
    if peer.ttl_security:
        words.append("ttl-security hops 1")
    if peer.multihop:
        words.append(f"ebgp-multihop {peer.multihop}")
    if peer.source:
        words.append(f"update-source {peer.source}")
    if peer.interface:
        words.append(f"interface {peer.interface}")
    if peer.extended_next_hop:
        words.append("capability extended-nexthop")
    if not peer.four_octet_asn:
        words.append("dont-capability-negotiate")
    if peer.shutdown:
        words.append(f"shutdown message {peer.shutdown}")
    return [f"neighbor {peer.address} {word}" for word in words] + list(peer.more)


def _configure(asn: int, *lines: str) -> list[str]:
    return ["configure terminal", f"router bgp {asn}", *lines]
