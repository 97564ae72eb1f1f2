"""Scenarios as they stand in scenarios/*.yaml: resources, and a table of who may say what to whom.

    - name: a sentence
      felix: {DefaultEndpointToHostAction: RETURN}      parameters other than the defaults
      resources: [...]                                  whole resources beside those of the world, or in place of them
      workloads: {b: {ports: [...]}}                    fields of a workload's spec (and labels) that differ
      table: |
        a -> b tcp 80 allow
        a -> b tcp 80,443,8080 deny
        out -> b tcp 80 via host:30080 allow            sent to the host's port, which is translated (DNAT)
        out -> b tcp 80 via 203.0.113.2:80 allow        sent to an address that Felix itself translates
        a!10.65.0.9 -> out udp 53 deny                  with somebody else's source address
        a -> out tcp 80 allow as host                   the receiver sees the host's address
        a -> b icmp 8 allow                             type, or type/code
        a -> b tcp6 80 from 1234 allow                  over IPv6, from this port

`*` for a party stands for each of them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from tests.felix.truth.world import PARTIES, Resources, base_resources, host_address, with_changes

Verdict = Literal["allow", "deny"]
FOLDER = Path(__file__).parent / "scenarios"
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmp6": 58}


@dataclass(frozen=True, slots=True)
class Probe:
    source: str  # a party, or `host`
    destination: str
    protocol: int
    version: int
    port: int | None
    expected: Verdict
    source_port: int | None = None
    icmp: tuple[int, int] | None = None
    via: tuple[str, int] | None = None  # the address (or `host`) and port that are translated to the destination's
    spoofed: str = ""
    seen_as: str = ""  # a party, whose address the receiver must see

    @property
    def source_address(self) -> str:
        if self.spoofed:
            return self.spoofed
        if self.source == "host":
            return host_address(self.destination, self.version)
        return PARTIES[self.source].address(self.version)

    @property
    def sent_to(self) -> tuple[str, int]:
        """Address and port as the sender writes them."""
        if self.via is None:
            return self.destination_address, self.port or 0
        return host_address(self.source, self.version) if self.via[0] == "host" else self.via[0], self.via[1]

    @property
    def destination_address(self) -> str:
        if self.destination == "host":
            return host_address(self.source, self.version)
        return PARTIES[self.destination].address(self.version)

    def __str__(self) -> str:
        name = {number: name for name, number in PROTOCOLS.items()}[self.protocol]
        name += "6" * (self.version == 6 and self.protocol != 58)
        what = f"{self.icmp[0]}/{self.icmp[1]}" if self.icmp else str(self.port)
        source = self.source + (f"!{self.spoofed}" if self.spoofed else "")
        tail = f" from {self.source_port}" if self.source_port else ""
        tail += f" via {self.via[0]}:{self.via[1]}" if self.via else ""
        return f"{source} -> {self.destination} {name} {what}{tail}"


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    resources: Resources
    probes: tuple[Probe, ...]
    felix: Mapping[str, str] = field(default_factory=dict)
    only: str = ""  # a judge that alone can tell

    def __str__(self) -> str:
        return self.name


def probes_of(table: str) -> Iterator[Probe]:
    """Raises ValueError that names the line."""
    for line in table.splitlines():
        text = line.partition("#")[0].strip()
        if text:
            try:
                yield from _line(text.split())
            except (KeyError, ValueError, IndexError) as error:
                raise ValueError(f"{line.strip()!r}: {error!r}") from None


def _line(words: list[str]) -> Iterator[Probe]:
    source, arrow, destination, protocol, what, *rest = words
    if arrow != "->":
        raise ValueError("SOURCE -> DESTINATION PROTOCOL PORTS [from PORT] [via ADDRESS:PORT] allow|deny [as PARTY]")
    more: dict[str, Any] = {}
    if "from" in rest:
        more["source_port"] = int(_taken(rest, "from", 1)[0])
    if "via" in rest:
        via_address, _, via_port = _taken(rest, "via", 1)[0].rpartition(":")
        more["via"] = via_address, int(via_port)
    if "as" in rest:
        more["seen_as"] = _taken(rest, "as", 1)[0]
    verdict: Any = rest[0] if len(rest) == 1 else ""
    if verdict not in ("allow", "deny"):
        raise ValueError("allow or deny?")
    version = 6 if protocol.endswith("6") else 4
    number = PROTOCOLS[protocol if protocol == "icmp6" else protocol.removesuffix("6")]
    for one_source in _names(source):
        name, _, spoofed = one_source.partition("!")
        for one_destination in _names(destination):
            if one_destination != name:
                for item in what.split(","):
                    more |= _what(number, item)
                    yield Probe(_known(name), _known(one_destination), number, version, expected=verdict, spoofed=spoofed, **more)  # fmt: skip


def _what(number: int, item: str) -> dict[str, Any]:
    if number in (1, 58):
        kind, _, code = item.partition("/")
        return {"icmp": (int(kind), int(code or 0)), "port": None}
    return {"port": int(item)}


def _taken(words: list[str], word: str, count: int) -> list[str]:
    at = words.index(word)
    found = words[at + 1 : at + 1 + count]
    del words[at : at + 1 + count]
    return found


def _names(text: str) -> list[str]:
    return [*PARTIES, "host"] if text == "*" else text.split(",")


def _known(name: str) -> str:
    if name != "host" and name not in PARTIES:
        raise ValueError(f"who is {name}?")
    return name


@cache
def scenarios() -> tuple[Scenario, ...]:
    """All of them, in the files' order. Raises ValueError if one does not say what it should."""
    found: list[Scenario] = []
    for path in sorted(FOLDER.glob("*.yaml")):
        for value in yaml.safe_load(path.read_text()):
            try:
                found.append(_scenario(value))
            except (KeyError, ValueError) as error:
                raise ValueError(f"{path.name}: {value.get('name')}: {error}") from None
    return tuple(found)


def _scenario(value: dict[str, Any]) -> Scenario:
    if unknown := set(value) - {"name", "felix", "resources", "workloads", "table", "only"}:
        raise ValueError(f"unknown: {unknown}")
    resources = with_changes(
        base_resources(), map(_with_version, value.get("resources", ())), value.get("workloads", {})
    )
    felix = {name: str(text) for name, text in value.get("felix", {}).items()}
    return Scenario(value["name"], resources, tuple(probes_of(value["table"])), felix, value.get("only", ""))


def _with_version(value: dict[str, Any]) -> dict[str, Any]:
    versions = {"Service": "v1", "EndpointSlice": "discovery.k8s.io/v1"}
    return {"apiVersion": versions.get(value["kind"], "projectcalico.org/v3")} | value


def ports_of(all_scenarios: Sequence[Scenario], protocol: int) -> set[int]:
    """Ports that somebody must listen on."""
    return {probe.port for one in all_scenarios for probe in one.probes if probe.protocol == protocol and probe.port}


def address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(text)
