"""OpenBGPD 7.7, the portable one: it does not touch Linux's routing table."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tests.interop.router import Announcement, FamilyName, PeerSpec, Router, SeenRoute, SeenSession


@dataclass(slots=True, eq=False)
class OpenBgpd(Router):
    has_own_loopback: bool = False
    kind: ClassVar[str] = "openbgpd"
    programs_kernel: ClassVar[bool] = False

    def configuration(self) -> str:
        lines = [f"AS {self.asn}", f"router-id {self.router_id}", f'socket "{self.folder}/ctl"', "log updates"]
        lines += ["connect-retry 1"]
        lines += [f"network {route.prefix}{_attributes(self.asn, route)}" for route in self.announcements.values()]
        for peer in self.peers.values():
            lines += _peer_lines(peer, self.cluster_id)
        lines += ["allow from any", "allow to any"]
        return "\n".join(lines) + "\n"

    def launch(self, *, recovering: bool) -> None:
        del recovering  # it helps a peer that restarts, and cannot itself restart gracefully
        Path("/run/openbgpd").mkdir(exist_ok=True)  # its chroot
        # 7.7 on Linux takes the loopback interface's address, ::1, for the next hop of the routes that are not of the
        # session's own family. So the node's own addresses stand on the loopback as well, instead of ::1.
        if not self.has_own_loopback:
            self.has_own_loopback = True
            for old, new in (("127.0.0.1/8", f"{self.node.ipv4}/32"), ("::1/128", f"{self.node.ipv6}/128")):
                self.node.ip("address", "delete", old, "dev", "lo")
                self.node.ip("address", "add", new, "dev", "lo")
        self._write()
        (self.folder / "ctl").unlink(missing_ok=True)
        self.spawn("bgpd", "-d", "-v", "-f", str(self.folder / "bgpd.conf"))

    def _write(self) -> None:
        path = self.folder / "bgpd.conf"
        path.touch(mode=0o600)  # it refuses a file that others may read
        path.write_text(self.configuration())

    def bgpctl(self, *words: str, check: bool = True) -> str:
        return self.node.run("bgpctl", "-s", str(self.folder / "ctl"), *words, check=check)

    def show(self, *words: str) -> Any:
        text = self.bgpctl("-j", "show", *words, check=False)
        try:
            return json.loads(text)
        except ValueError:
            return {}

    def is_ready(self) -> bool:
        return "neighbors" in self.show("summary")

    def reload(self) -> None:
        self._write()
        answer = self.bgpctl("reload")
        assert "processed" in answer, answer

    def shut_down(self, address: str, reason: str) -> None:
        self.bgpctl("neighbor", address, "down", reason)

    def refresh(self, address: str) -> None:
        self.bgpctl("neighbor", address, "refresh")

    def session(self, address: str) -> SeenSession:
        neighbors = self.show("neighbor", address).get("neighbors", [])
        answer = neighbors[0] if neighbors else {}
        text = json.dumps(answer, indent=1)
        # bgpctl prints the reason that the peer gave for its shutdown only in the table for people.
        return SeenSession(
            address=address,
            is_established=answer.get("state") == "Established",
            text=text + self.bgpctl("show", "neighbor", address, check=False) + self.log_text(),
            refreshes_received=answer.get("stats", {}).get("message", {}).get("received", {}).get("route_refresh"),
        )

    def routes(self, family: FamilyName) -> dict[str, SeenRoute]:
        answer = self.show("rib", "detail", "inet" if family == "ipv4" else "inet6", "selected")
        best = [route for route in answer.get("rib", []) if not route.get("announced")]
        return {route["prefix"]: _seen(route) for route in best}


def _seen(route: dict[str, Any]) -> SeenRoute:
    def communities(kind: str) -> frozenset[str]:
        return frozenset(
            word
            for found in re.findall(rf'"{kind}": \[([^\]]*)\]', json.dumps(route))
            for word in re.findall(r'"([^"]+)"', found)
        )

    more = {name: value for attribute in route.get("attributes", []) for name, value in attribute.items()}
    return SeenRoute(
        prefix=route["prefix"],
        as_path=tuple(int(word) for word in str(route.get("aspath", "")).split() if word.isdigit()),
        next_hop=str(route.get("exit_nexthop", "")),
        origin=str(route.get("origin", "")).lower(),
        communities=communities("communities"),
        large_communities=communities("large_communities"),
        med=route.get("metric"),
        local_pref=route.get("localpref"),
        originator_id=more.get("originator", ""),
        cluster_list=tuple(more.get("cluster_list", ())),
        is_stale=bool(route.get("stale")),
    )


def _attributes(asn: int, route: Announcement) -> str:
    words = [f"community {text}" for text in route.communities]
    words += [f"large-community {text}" for text in route.large_communities]
    if route.med is not None:
        words.append(f"med {route.med}")
    if route.local_pref is not None:
        words.append(f"localpref {route.local_pref}")
    if route.prepend:
        assert set(route.prepend) == {asn}, "OpenBGPD can prepend only its own AS number"
        words.append(f"prepend-self {len(route.prepend)}")
    return " set { " + " ".join(words) + " }" if words else ""


def _peer_lines(peer: PeerSpec, cluster_id: str) -> list[str]:
    lines = [f"remote-as {peer.asn}", f"holdtime {peer.hold_time_s}", "announce refresh yes"]
    if peer.local_asn:
        lines.append(f"local-as {peer.local_asn}")
    if peer.password:
        lines.append(f'tcp md5sig password "{peer.password}"')
    if peer.passive:
        lines.append("passive")
    if peer.ttl_security:
        lines.append("ttl-security yes")
    if peer.multihop:
        lines.append(f"multihop {peer.multihop}")
    if not peer.four_octet_asn:
        lines.append("announce as-4byte no")
    if not peer.graceful_restart:
        lines.append("announce restart no")
    if peer.max_prefixes is not None:
        lines.append(f"max-prefix {peer.max_prefixes} restart 1")
    if peer.source:
        lines.append(f"local-address {peer.source}")
    if peer.client:
        lines.append(f"route-reflector {cluster_id}".rstrip())
    lines += peer.more
    if peer.shutdown:
        lines.append("down")
    if peer.next_hop_self:
        lines.append("set nexthop self")
    lines += [
        f"announce IPv{family[-1]} {'unicast' if family in peer.families else 'none'}" for family in ("ipv4", "ipv6")
    ]
    return [f"neighbor {peer.address} {{", *(f"\t{line}" for line in lines), "}"]
