"""catbird itself, run as an operator runs it: `catbird speaker -c FILE.toml`, asked over its control socket."""

from __future__ import annotations

import http.client
import json
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from tests.interop.lan import run
from tests.interop.router import Announcement, FamilyName, PeerSpec, Router, SeenRoute, SeenSession

ROOT = Path(__file__).resolve().parents[2]


class _UnixConnection(http.client.HTTPConnection):
    """Far quicker than one `catbird show` for each poll: those start an interpreter."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass(slots=True, eq=False)
class Catbird(Router):
    """`kernel` is the text of the [kernel] table; empty: no table, and the kernel's routes are neither read nor written."""

    kernel: str = ""
    speaker_lines: str = ""  # more of [speaker]
    import_rules: str = ""  # inline rules of the import policy, which accepts the rest
    originate_lines: str = ""  # more of every [[originate]]
    has_policy: bool = True  # an import and an export policy for every peer (RFC 8212)
    graceful_shutdown: bool = False  # for every peer (RFC 8326)
    ranges: dict[str, int] = field(default_factory=dict)  # dynamic peers: prefix → AS number
    range_lines: str = ""  # more of each of these

    kind: ClassVar[str] = "catbird"

    @property
    def control(self) -> Path:
        return self.folder / "ctl"

    def configuration(self) -> str:
        text = f'[speaker]\nasn = {self.asn}\nrouter_id = "{self.router_id}"\ncontrol = "{self.control}"\n'
        if self.cluster_id:
            text += f'cluster_id = "{self.cluster_id}"\n'
        text += self.speaker_lines + "\n"
        if self.kernel:
            text += f"[kernel]\n{self.kernel}\n"
        rules = "".join(f"  {_export_rule(route)},\n" for route in self.announcements.values())
        text += f'[policy.in]\ndefault = "accept"\nrules = [{self.import_rules}]\n'
        text += f'[policy.out]\ndefault = "accept"\nrules = [\n{rules}]\n'
        for route in self.announcements.values():
            local_pref = "" if route.local_pref is None else f"local_pref = {route.local_pref}\n"
            text += f'[[originate]]\nprefix = "{route.prefix}"\n{local_pref}{self.originate_lines}'
        for prefix, asn in self.ranges.items():
            text += f'[[peer]]\nname = "range"\nrange = "{prefix}"\nasn = {asn}\nimport = "accept"\nexport = "out"\n'
            text += self.range_lines
        return text + "".join(self._peer(peer) for peer in self.peers.values())

    def _peer(self, peer: PeerSpec) -> str:
        keys: dict[str, Any] = {
            "name": peer.name,
            "address": peer.address,
            "asn": peer.asn,
            "families": list(peer.families),
            "hold_time_s": peer.hold_time_s,
            "connect_retry_s": 1.0,
            "graceful_restart": peer.graceful_restart,
            "restart_time_s": peer.restart_time_s,
            "extended_next_hop": peer.extended_next_hop,
            "extended_messages": peer.extended_messages,
            "four_octet_asn": peer.four_octet_asn,
            "passive": peer.passive,
        }
        if self.graceful_shutdown:
            keys["graceful_shutdown"] = True
        if self.has_policy:
            keys |= {"import": "in", "export": "out"}
        for name in ("local_asn", "password", "multihop", "shutdown", "source", "interface"):
            if (value := getattr(peer, name)) is not None:
                keys[name] = value
        if peer.client:
            keys["client"] = True
        if peer.ttl_security:
            keys["ttl_security"] = 1
        if peer.max_prefixes is not None:
            keys["max_prefixes"] = peer.max_prefixes
        if peer.next_hop_self:
            keys["next_hop"] = "self"
        lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        return "\n".join(["[[peer]]", *lines, *peer.more]) + "\n"

    def launch(self, *, recovering: bool) -> None:
        del recovering  # it finds its own routes in the kernel and says so (the F bit) by itself
        path = self.folder / "speaker.toml"
        path.write_text(self.configuration())
        self.spawn(sys.executable, "-m", "integration.catbird", "speaker", "-c", str(path), cwd=ROOT)

    def ask(self, path: str, *, post: dict[str, Any] | None = None) -> tuple[int, str]:
        """One request to the control API → (HTTP status, body)."""
        connection = _UnixConnection(self.control)
        try:
            body = None if post is None else json.dumps(post)
            connection.request("GET" if post is None else "POST", path, body=body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def show(self, path: str) -> Any:
        status, body = self.ask(path)
        assert status == 200, f"{path}: {status} {body}"
        return json.loads(body)

    def cli(self, *words: str, check: bool = True) -> str:
        """`catbird …` as a person types it."""
        command = (sys.executable, "-m", "integration.catbird", *words, "--socket", str(self.control))
        return run(*command, check=check, cwd=ROOT)

    def is_ready(self) -> bool:
        assert self.processes[0].poll() is None, f"catbird ended by itself:\n{self.log_text()}"
        try:
            return self.ask("/v1/status")[0] == 200
        except OSError:
            return False

    def reload(self) -> None:
        (self.folder / "speaker.toml").write_text(self.configuration())
        status, body = self.ask("/v1/reload", post={})
        assert status == 200, f"reload: {status} {body}"

    def act(self, address: str, action: str, **fields: Any) -> None:
        """reset, refresh, shutdown or enable."""
        name = self.peers[address].name
        status, body = self.ask(f"/v1/peers/{quote(name, safe='')}/{action}", post=fields)
        assert status == 200, f"{action} {name}: {status} {body}"

    def refresh(self, address: str) -> None:
        self.act(address, "refresh", direction="in")

    def shut_down(self, address: str, reason: str) -> None:
        self.act(address, "shutdown", reason=reason)

    def peer(self, address: str) -> dict[str, Any]:
        view: dict[str, Any] = self.show(f"/v1/peers/{quote(self.peers[address].name, safe='')}")
        return view

    def session(self, address: str) -> SeenSession:
        view = self.peer(address)
        return SeenSession(
            address=address,
            is_established=view["state"] == "Established",
            text=json.dumps(view, indent=1) + self.log_text(),
            refreshes_received=view["messages"]["received"]["refresh"],
        )

    def route_views(self, query: str) -> list[dict[str, Any]]:
        status, body = self.ask(f"/v1/routes?{query}")
        assert status == 200, f"routes: {status} {body}"
        return [json.loads(line) for line in body.splitlines() if line.strip()]

    def routes(self, family: FamilyName) -> dict[str, SeenRoute]:
        found = {}
        for view in self.route_views(f"which=best&family={family}"):
            best = next((path for path in view["paths"] if path["state"] == "best"), None)
            if best and best["source"] in ("ebgp", "ibgp"):
                found[view["prefix"]] = _seen(view["prefix"], best)
        return found


def _seen(prefix: str, path: dict[str, Any]) -> SeenRoute:
    return SeenRoute(
        prefix=prefix,
        as_path=tuple(int(word) for word in str(path["as_path"]).split() if word.isdigit()),
        next_hop=str(path["next_hop"]).split("%")[0],
        origin=str(path["origin"]).lower(),
        communities=frozenset(path["communities"]),
        large_communities=frozenset(path["large_communities"]),
        extended_communities=frozenset(path["extended_communities"]),
        med=path["med"],
        local_pref=path["local_pref"],
        originator_id=path["originator_id"] or "",
        cluster_list=tuple(path["cluster_list"]),
        is_stale=bool(path["stale"]),
    )


def _export_rule(route: Announcement) -> str:
    sets = []
    if route.communities or route.large_communities or route.extended_communities:
        sets.append(
            f"communities = {json.dumps([*route.communities, *route.large_communities, *route.extended_communities])}"
        )
    if route.med is not None:
        sets.append(f"med = {route.med}")
    if route.prepend:
        sets.append(f"prepend = {list(route.prepend)}")
    setting = f", set = {{ {', '.join(sets)} }}" if sets else ""
    return f'{{ prefix = "{route.prefix}", action = "accept"{setting} }}'
