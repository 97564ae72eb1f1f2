"""Configuration files for each kind of router. Pure: plan in, text out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bgp.families import IPAddress
from integration.demo.build import FELIX_PROTOCOL
from integration.demo.plan import Plan, Router

# Short, so that the demo is: a real network would leave them at their defaults.
CONNECT_RETRY_S = 1
HOLD_TIME_S = 9


V6 = "_v6"  # behind a router's name: the session for IPv6 with it


def sessions_of(plan: Plan, router: Router) -> Iterator[tuple[str, IPAddress, Router]]:
    """Name, the other side's address, the other side. A Calico node speaks to each over both IP versions."""
    for peer in plan.peers_of(router):
        yield peer.name, peer.ipv4, peer
        if peer.is_whole:
            yield peer.name + V6, peer.ipv6, peer


def catbird_config(plan: Plan, router: Router, folder: Path) -> str:
    lines = [
        "[speaker]",
        f"asn = {router.asn}",
        f'router_id = "{router.ipv4}"',
        f'listen = ["{router.ipv4}", "{router.ipv6}"]',
        f'control = "{folder / router.name}.sock"',
    ]
    if not router.is_reflector:
        lines += ["", "[kernel]", "program = true"]
    if router.is_tor:
        lines.append("learn = []")
        for prefix in router.aggregates:
            lines += ["", "[[originate]]", f'prefix = "{prefix}"']
    elif not router.is_reflector:
        lines += [
            "learn = [",
            f'  {{ interface = "cali*", protocol = {FELIX_PROTOCOL} }},  # workloads',
            f"  {{ blackhole = true, protocol = {FELIX_PROTOCOL} }},  # blocks",
            "]",
        ]
    lines += _policy(router)
    for name, address, peer in sessions_of(plan, router):
        lines += [
            "",
            "[[peer]]",
            f'name = "{name}"',
            f'address = "{address}"',
            f"asn = {peer.asn}",
            f"hold_time_s = {HOLD_TIME_S}",
            f"connect_retry_s = {CONNECT_RETRY_S}",
        ]
        if router.is_reflector and not peer.is_reflector:
            lines.append("client = true")
        if peer.asn != router.asn:  # eBGP gives and takes nothing without a policy (RFC 8212)
            lines += ['import = "accept"', f'export = "{"accept" if router.is_tor else "to_tor"}"']
    return "\n".join(lines) + "\n"


def _policy(router: Router) -> list[str]:
    """A node offers the ToR the others' routes too, as a second best: the path is one AS longer."""
    if router.role != "node":
        return []
    second_best = f'{{ source = ["ibgp"], action = "accept", set = {{ prepend = [{router.asn}] }} }}'
    return ["", "[policy.to_tor]", 'default = "accept"', f"rules = [{second_best}]"]


def bird_config(plan: Plan, router: Router, log: Path) -> str:
    learn = (
        f"learn; scan time 1; ipv4 {{ import where krt_source = {FELIX_PROTOCOL}; export where source = RTS_BGP; }};"
    )
    only_write = "ipv4 { import none; export where source = RTS_BGP; };"
    kernel = only_write if router.is_tor else learn
    text = f'log "{log}" all;\nrouter id {router.ipv4};\nprotocol device {{ scan time 1; }}\n'
    text += f"protocol kernel k4 {{ {kernel} }}\nprotocol kernel k6 {{ {kernel.replace('ipv4', 'ipv6')} }}\n"
    # BIRD takes a BGP route only if it can resolve its next hop: the fabric itself must be in its table.
    text += 'protocol direct { ipv4; ipv6; interface "eth0"; }\n'
    if router.is_tor:
        for prefix in router.aggregates:
            port = router.workloads[0].interface
            text += f'protocol static {{ ipv{prefix.version}; route {prefix} via "{port}"; }}\n'
    channel = "import all; export where source ~ [ RTS_BGP, RTS_STATIC, RTS_INHERIT ];"
    for name, address, peer in sessions_of(plan, router):
        own = router.ipv6 if address.version == 6 else router.ipv4
        versions = (address.version,) if peer.is_whole else (4, 6)
        text += (
            f"protocol bgp {name} {{\n  local {own} as {router.asn}; neighbor {address} as {peer.asn};\n"
            f"  hold time {HOLD_TIME_S}; connect delay time 1; connect retry time {CONNECT_RETRY_S};"
            " error wait time 1, 2; graceful restart;\n"
            + "".join(f"  ipv{version} {{ {channel} }};\n" for version in versions)
            + "}\n"
        )
    return text


def frr_config(plan: Plan, router: Router, log: Path) -> str:
    lines = [
        f"hostname {router.name}",
        f"log file {log}",
        f"router bgp {router.asn}",
        f" bgp router-id {router.ipv4}",
        " no bgp ebgp-requires-policy",
        " no bgp default ipv4-unicast",
        " no bgp network import-check",
    ]
    for _, address, peer in sessions_of(plan, router):
        lines += [
            f" neighbor {address} remote-as {peer.asn}",
            f" neighbor {address} timers {HOLD_TIME_S // 3} {HOLD_TIME_S}",
            f" neighbor {address} timers connect {CONNECT_RETRY_S}",
            f" neighbor {address} advertisement-interval 0",
        ]
    for version in (4, 6):
        lines.append(f" address-family ipv{version} unicast")
        lines += [f"  network {prefix}" for prefix in router.aggregates if prefix.version == version]
        lines += [
            f"  neighbor {address} activate"
            for _, address, peer in sessions_of(plan, router)
            if not peer.is_whole or address.version == version
        ]
        lines.append(" exit-address-family")
    return "\n".join(lines) + "\n"
