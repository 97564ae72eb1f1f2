"""GoBGP 3.10. It has routes in its own table only and never programs the kernel."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from typing import Any, ClassVar

from tests.interop.router import Announcement, FamilyName, PeerSpec, Router, SeenRoute, SeenSession

_PEER = """[[neighbors]]
  [neighbors.config]
    neighbor-address = "{address}"
    peer-as = {asn}
    local-as = {local_asn}
    auth-password = "{password}"
    admin-down = {admin_down}
  [neighbors.timers.config]
    hold-time = {hold_time_s}
    keepalive-interval = {keepalive_s}
    connect-retry = 1
    idle-hold-time-after-reset = 1
  [neighbors.transport.config]
    passive-mode = {passive}
    local-address = "{source}"
  [neighbors.ttl-security.config]
    enabled = {ttl_security}
  [neighbors.ebgp-multihop.config]
    enabled = {multihop}
    multihop-ttl = {multihop_ttl}
  [neighbors.graceful-restart.config]
    enabled = {graceful}
    restart-time = {restart_time_s}
    notification-enabled = {graceful}
"""

_CLIENT = """  [neighbors.route-reflector.config]
    route-reflector-client = true
    route-reflector-cluster-id = "{cluster_id}"
"""

_FAMILY = """  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = "{family}-unicast"
    [neighbors.afi-safis.mp-graceful-restart.config]
      enabled = {graceful}
"""

_LIMIT = """    [neighbors.afi-safis.prefix-limit.config]
      max-prefixes = {maximum}
"""

# GoBGP prints well-known communities and origins as numbers.
_ORIGINS = {0: "igp", 1: "egp", 2: "incomplete"}


@dataclass(slots=True, eq=False)
class GoBgp(Router):
    kind: ClassVar[str] = "gobgp"
    programs_kernel: ClassVar[bool] = False
    # Left alone, it sends IPv6 over an IPv4 session with an IPv4-mapped next hop, ::ffff:10.77.0.1.
    explicit_next_hop: bool = True

    def configuration(self) -> str:
        text = f'[global.config]\n  as = {self.asn}\n  router-id = "{self.router_id}"\n'
        cluster_id = self.cluster_id or self.router_id
        return text + "".join(_peer_text(self.asn, cluster_id, peer) for peer in self.peers.values())

    def launch(self, *, recovering: bool) -> None:
        path = self.folder / "gobgp.toml"
        path.write_text(self.configuration())
        recover = ["--graceful-restart"] if recovering else []
        self.spawn(
            "gobgpd", "-f", str(path), "-l", "debug", "--api-hosts", "127.0.0.1:50051", "--pprof-disable", *recover
        )

    def start(self, *peers: PeerSpec, announce: Any = (), recovering: bool = False) -> None:
        Router.start(self, *peers, announce=announce, recovering=recovering)
        for route in self.announcements.values():  # they are in no configuration file
            self._add(route)

    def gobgp(self, *words: str, check: bool = True) -> str:
        return self.node.run("gobgp", *words, check=check)

    def show(self, *words: str) -> Any:
        text = self.gobgp("-j", *words, check=False)
        try:
            return json.loads(text)
        except ValueError:
            return {}

    def is_ready(self) -> bool:
        return f"{self.asn}" in self.gobgp("global", check=False)

    def reload(self) -> None:
        (self.folder / "gobgp.toml").write_text(self.configuration())
        self.processes[0].send_signal(signal.SIGHUP)

    def _add(self, route: Announcement) -> None:
        words = ["global", "rib", "add", "-a", route.family, route.prefix, "origin", "igp"]
        if route.family == "ipv6" and self.explicit_next_hop:
            words += ["nexthop", self.node.ipv6]
        if route.communities:
            words += ["community", ",".join(route.communities)]
        if route.large_communities:
            words += ["large-community", ",".join(route.large_communities)]
        if route.med is not None:
            words += ["med", str(route.med)]
        if route.local_pref is not None:
            words += ["local-pref", str(route.local_pref)]
        if route.prepend:
            words += ["aspath", ",".join(str(asn) for asn in route.prepend)]
        self.gobgp(*words)

    def announce(self, *routes: Announcement) -> None:
        for route in routes:
            self.announcements[route.prefix] = route
            self._add(route)

    def withdraw(self, *prefixes: str) -> None:
        for prefix in prefixes:
            route = self.announcements.pop(prefix)
            self.gobgp("global", "rib", "del", "-a", route.family, prefix)

    def shut_down(self, address: str, reason: str) -> None:
        # `disable` alone drops the reason; `shutdown` alone comes back at once.
        self.gobgp("neighbor", address, "shutdown", "--reason", reason)
        self.gobgp("neighbor", address, "disable")

    def refresh(self, address: str) -> None:
        self.gobgp("neighbor", address, "softresetin")

    def session(self, address: str) -> SeenSession:
        answer = self.show("neighbor", address)
        state = answer.get("state", {})
        received = state.get("messages", {}).get("received", {})
        return SeenSession(
            address=address,
            is_established=state.get("session_state") == 6 or state.get("session_state") == "ESTABLISHED",
            text=json.dumps(answer, indent=1) + self.log_text(),
            refreshes_received=int(received.get("refresh", 0)),
        )

    def routes(self, family: FamilyName) -> dict[str, SeenRoute]:
        found = {}
        for prefix, paths in self.show("global", "rib", "-a", family).items():
            best = next((path for path in paths if path.get("best")), None)
            if best and best.get("neighbor-ip", best.get("source-id")) not in {None, "", "<nil>", "invalid IP"}:
                found[prefix] = _seen(prefix, best)
        return found


def _seen(prefix: str, path: dict[str, Any]) -> SeenRoute:
    attributes = {attribute["type"]: attribute for attribute in path["attrs"]}

    def value(code: int) -> Any:
        return attributes[code]["value"] if code in attributes else None

    segments = attributes.get(2, {}).get("as_paths", [])
    reach = attributes.get(14) or attributes.get(3) or {}
    return SeenRoute(
        prefix=prefix,
        as_path=tuple(int(asn) for segment in segments for asn in segment["asns"]),
        next_hop=str(reach.get("nexthop", "")),
        origin=_ORIGINS.get(value(1), ""),
        communities=frozenset(
            f"{number >> 16}:{number & 0xFFFF}" for number in attributes.get(8, {}).get("communities", [])
        ),
        large_communities=frozenset(
            f"{one['ASN']}:{one['LocalData1']}:{one['LocalData2']}" for one in attributes.get(32, {}).get("value", [])
        ),
        med=attributes.get(4, {}).get("metric"),
        local_pref=value(5),
        originator_id=value(9) or "",
        cluster_list=tuple(value(10) or ()),
        is_stale=bool(path.get("stale")),
    )


def _peer_text(asn: int, cluster_id: str, peer: PeerSpec) -> str:
    def flag(value: object) -> str:
        return "true" if value else "false"

    text = _PEER.format(
        address=peer.address,
        asn=peer.asn,
        local_asn=peer.local_asn or asn,
        password=peer.password or "",
        admin_down=flag(peer.shutdown),
        hold_time_s=peer.hold_time_s,
        keepalive_s=max(1, peer.hold_time_s // 3),
        passive=flag(peer.passive),
        source=peer.source or "",
        ttl_security=flag(peer.ttl_security),
        multihop=flag(peer.multihop),
        multihop_ttl=peer.multihop or 0,
        graceful=flag(peer.graceful_restart),
        restart_time_s=peer.restart_time_s,
    )
    if peer.ttl_security:
        text = text.replace(
            "    enabled = true\n  [neighbors.ebgp", "    enabled = true\n    ttl-min = 255\n  [neighbors.ebgp"
        )
    if peer.client:
        text += _CLIENT.format(cluster_id=cluster_id)
    text += "".join(f"{line}\n" for line in peer.more)
    for family in peer.families:
        text += _FAMILY.format(family=family, graceful=flag(peer.graceful_restart))
        if peer.max_prefixes is not None:
            text += _LIMIT.format(maximum=peer.max_prefixes)
    return text
