"""BIRD 2.0."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from tests.interop.router import Announcement, FamilyName, PeerSpec, Router, SeenRoute, SeenSession

_HEAD = """log "{log}" all;
router id {router_id};
debug protocols {{ states, routes, events, packets }};
protocol device {{ scan time 1; }}
protocol kernel k4 {{ ipv4 {{ export where source = RTS_BGP; import none; }}; }}
protocol kernel k6 {{ ipv6 {{ export where source = RTS_BGP; import none; }}; }}
protocol direct {{ ipv4; ipv6; interface "eth0"; }}
"""

_PEER = """protocol bgp {name} {{
  local as {local_asn}; neighbor {address} as {asn};
  hold time {hold_time_s};
  connect delay time 1; connect retry time 1; error wait time 1, 2; startup hold time 5;
  graceful restart {graceful}; graceful restart time {restart_time_s};
  {options}
{channels}}}
"""

_CHANNEL = """  {family} {{ import all; {options}
    export filter {{ if source != RTS_STATIC && source != RTS_BGP then reject; {meds}accept; }}; }};
"""


@dataclass(slots=True, eq=False)
class Bird(Router):
    forced_router_id: str = ""
    kind: ClassVar[str] = "bird"

    def configuration(self) -> str:
        text = _HEAD.format(log=self.log_path, router_id=self.forced_router_id or self.router_id)
        for family in ("ipv4", "ipv6"):
            routes = [route for route in self.announcements.values() if route.family == family]
            lines = "".join(f"  route {route.prefix} blackhole{_attributes(route)};\n" for route in routes)
            text += f"protocol static s_{family} {{\n  {family};\n{lines}}}\n"
        return text + "".join(self._peer(peer) for peer in self.peers.values())

    def _peer(self, peer: PeerSpec) -> str:
        options = []
        if peer.password:
            options.append(f'password "{peer.password}";')
        if peer.source:
            options.append(f"source address {peer.source};")
        options += peer.more
        if peer.client:
            options.append("rr client;")
            if self.cluster_id:
                options.append(f"rr cluster id {self.cluster_id};")
        if peer.passive:
            options.append("passive yes;")
        if peer.ttl_security:
            options.append("ttl security on;")
        if peer.multihop:
            options.append(f"multihop {peer.multihop};")
        if not peer.four_octet_asn:
            options.append("enable as4 no;")
        if peer.extended_messages:
            options.append("enable extended messages yes;")
        if peer.shutdown:
            options.append("disabled;")
        channel = ["next hop self;"] if peer.next_hop_self else []
        if peer.max_prefixes is not None:
            channel.append(f"import limit {peer.max_prefixes} action restart;")
        if peer.extended_next_hop:
            channel.append("extended next hop yes;")
        return _PEER.format(
            name=peer.name,
            local_asn=peer.local_asn or self.asn,
            address=f"{peer.address}%{peer.interface}" if peer.interface else peer.address,
            asn=peer.asn,
            hold_time_s=peer.hold_time_s,
            graceful="on" if peer.graceful_restart else "aware",
            restart_time_s=peer.restart_time_s,
            options=" ".join(options),
            channels="".join(
                _CHANNEL.format(family=name, options=" ".join(channel), meds=self._meds(name)) for name in peer.families
            ),
        )

    def _meds(self, family: str) -> str:
        # BIRD sends a MED to another AS only if the export filter itself set it.
        routes = [route for route in self.announcements.values() if route.family == family and route.med is not None]
        return "".join(f"if net = {route.prefix} then bgp_med = {route.med}; " for route in routes)

    def launch(self, *, recovering: bool) -> None:
        path = self.folder / "bird.conf"
        path.write_text(self.configuration())
        recover = ["-R"] if recovering else []
        self.spawn(
            "bird", "-f", *recover, "-c", str(path), "-s", str(self.folder / "ctl"), "-P", str(self.folder / "pid")
        )

    def birdc(self, *words: str) -> str:
        return self.node.run("birdc", "-s", str(self.folder / "ctl"), *words, check=False)

    def is_ready(self) -> bool:
        return "up and running" in self.birdc("show", "status").lower() or "Recovery" in self.birdc("show", "status")

    def reload(self) -> None:
        (self.folder / "bird.conf").write_text(self.configuration())
        answer = self.birdc("configure")
        assert "econfigur" in answer, answer

    def shut_down(self, address: str, reason: str) -> None:
        self.birdc("disable", self.peers[address].name, f'"{reason}"')

    def refresh(self, address: str) -> None:
        self.birdc("reload", "in", self.peers[address].name)

    def session(self, address: str) -> SeenSession:
        name = self.peers[address].name
        text = self.birdc("show", "protocols", "all", name)
        # BIRD keeps no counter of ROUTE-REFRESH messages, but its debug log has a line for each.
        refreshes = sum(1 for line in self.log_text().splitlines() if f"{name}: Got ROUTE-REFRESH" in line)
        return SeenSession(
            address=address,
            is_established=bool(re.search(r"BGP state:\s+Established", text)),
            text=text + self.log_text(),
            refreshes_received=refreshes or None,
        )

    def routes(self, family: FamilyName) -> dict[str, SeenRoute]:
        return parse_routes(self.birdc("show", "route", "table", "master4" if family == "ipv4" else "master6", "all"))


def _attributes(route: Announcement) -> str:
    words = [f"bgp_path.prepend({asn});" for asn in reversed(route.prepend)]
    words += [f"bgp_community.add(({text.replace(':', ',')}));" for text in route.communities]
    words += [f"bgp_large_community.add(({text.replace(':', ',')}));" for text in route.large_communities]
    words += [f"bgp_ext_community.add(({text.replace(':', ',')}));" for text in route.extended_communities]
    if route.local_pref is not None:
        words.append(f"bgp_local_pref = {route.local_pref};")
    return " { " + " ".join(words) + " }" if words else ""


_ROUTE = re.compile(r"^(?P<prefix>\S+/\d+)?\s+(?:unicast|blackhole|unreachable)\s+\[(?P<rest>.*)$")
_ATTRIBUTE = re.compile(r"^\s+BGP\.(\w+):\s*(.*)$")


def parse_routes(text: str) -> dict[str, SeenRoute]:
    """`birdc show route all` → the BGP routes that are best (marked `*`) by prefix."""
    found: dict[str, SeenRoute] = {}
    prefix, is_best, stale, attributes = "", False, False, dict[str, str]()

    def finish() -> None:
        if is_best and "as_path" in attributes and attributes.get("type") == "BGP":
            found[prefix] = _seen(prefix, attributes, is_stale=stale)

    for line in text.splitlines():
        if start := _ROUTE.match(line):
            finish()
            prefix = start["prefix"] or prefix
            is_best, stale, attributes = " * " in start["rest"], bool(re.search(r"\(\d+s?(/.*)?s\)", start["rest"])), {}
        elif line.strip().startswith("Type: "):
            attributes["type"] = line.split()[1]
        elif attribute := _ATTRIBUTE.match(line):
            attributes[attribute[1]] = attribute[2]
    finish()
    return found


def _seen(prefix: str, attributes: dict[str, str], *, is_stale: bool) -> SeenRoute:
    def tuples(name: str) -> frozenset[str]:
        return frozenset(
            re.sub(r"[\s]", "", part).replace(",", ":") for part in re.findall(r"\(([^)]*)\)", attributes.get(name, ""))
        )

    def number(name: str) -> int | None:
        return int(attributes[name]) if name in attributes else None

    return SeenRoute(
        prefix=prefix,
        as_path=tuple(int(word) for word in attributes["as_path"].split() if word.isdigit()),
        next_hop=attributes.get("next_hop", "").split(" ")[0],
        origin=attributes.get("origin", "").lower(),
        communities=tuples("community"),
        large_communities=tuples("large_community"),
        extended_communities=tuples("ext_community"),
        med=number("med"),
        local_pref=number("local_pref"),
        originator_id=attributes.get("originator_id", ""),
        cluster_list=tuple(attributes.get("cluster_list", "").split()),
        is_stale=is_stale,
    )
