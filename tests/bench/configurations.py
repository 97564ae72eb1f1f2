"""A `Topology` as each daemon wants to read it, with its best known settings, and the command line to run it.

The settings are said again, for people, beside each daemon in `tests/bench/daemons.py`.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.bench.topology import DaemonError, Launch, Topology, write_json


def bird(topology: Topology, directory: Path) -> list[Launch]:
    lines = [
        f"router id {topology.router_id};",
        "log stderr { warning, error, fatal, bug, auth };",
        "protocol device { scan time 600; }",
    ]
    if topology.programs_kernel:
        lines.append("protocol kernel { ipv4 { export all; import none; }; scan time 600; }")
    for peer in topology.peers:
        is_ebgp = peer.asn != topology.asn
        # Loopback addresses are nobody's neighbours for BIRD: multihop there.
        reach = ("direct;" if topology.netns else "multihop;") if is_ebgp else ""
        if peer.is_client:
            reach += f" rr client; rr cluster id {topology.cluster_id}; error wait time 1, 1;"
        export = "all" if peer.receives else "none"
        channels = " ".join(f"{family} {{ import all; export {export}; }};" for family in topology.families)
        lines.append(
            f"protocol bgp {peer.name} {{ local {topology.listen} port {topology.port} as {topology.asn}; "
            f"neighbor {peer.address} as {peer.asn}; {reach} passive; strict bind; hold time {peer.hold_time_s}; "
            f"{channels} }}"
        )
    (directory / "bird.conf").write_text("\n".join(lines) + "\n")
    return [Launch([_found("bird"), "-f", "-c", "bird.conf", "-s", "bird.ctl", "-P", "bird.pid"])]


def catbird(topology: Topology, directory: Path) -> list[Launch]:
    lines = [
        "[speaker]",
        f"asn = {topology.asn}",
        f'router_id = "{topology.router_id}"',
        f'listen = ["{topology.listen}"]',
        f"port = {topology.port}",
        f'control = "{directory}/speaker.sock"',
    ]
    if topology.is_reflector:
        lines.append(f'cluster_id = "{topology.cluster_id}"')
    if topology.programs_kernel:
        lines += ["[kernel]", "learn = []", "program = true"]
    for peer in topology.peers:
        lines += [
            "[[peer]]",
            f'name = "{peer.name}"',
            f'address = "{peer.address}"',
            f"asn = {peer.asn}",
            "passive = true",
            f"hold_time_s = {peer.hold_time_s}",
            'import = "accept"',
            f'export = "{"accept" if peer.receives else "reject"}"',
        ]
        if peer.is_client:
            families = ", ".join(f'"{family}"' for family in topology.families)
            lines += ["client = true", f"families = [{families}]"]
    (directory / "speaker.toml").write_text("\n".join(lines) + "\n")
    program = "reflector" if topology.is_reflector else "speaker"
    return [Launch([sys.executable, "-m", "integration.catbird", program, "-c", f"{directory}/speaker.toml"])]


def frr(topology: Topology, directory: Path) -> list[Launch]:
    lines = [
        "frr defaults datacenter",
        f"router bgp {topology.asn}",
        f" bgp router-id {topology.router_id}",
        *([f" bgp cluster-id {topology.cluster_id}"] if topology.is_reflector else []),
        " no bgp ebgp-requires-policy",
        " no bgp network import-check",
        " bgp disable-ebgp-connected-route-check",
        " coalesce-time 0",
        " write-quanta 64",
        " read-quanta 10",
    ]
    for peer in topology.peers:
        lines += [
            f" neighbor {peer.address} remote-as {peer.asn}",
            f" neighbor {peer.address} passive",
            f" neighbor {peer.address} advertisement-interval 0",
            f" neighbor {peer.address} timers {max(1, peer.hold_time_s // 3)} {peer.hold_time_s}",
        ]
        if peer.asn != topology.asn:
            lines.append(f" neighbor {peer.address} ebgp-multihop 255")
    for family in topology.families:
        lines.append(f" address-family {family} unicast")
        for peer in topology.peers:
            lines.append(f"  neighbor {peer.address} activate")
            if peer.is_client:
                lines.append(f"  neighbor {peer.address} route-reflector-client")
            if not peer.receives:
                lines.append(f"  neighbor {peer.address} route-map NOTHING out")
        lines.append(" exit-address-family")
    if "ipv4" not in topology.families:
        lines.append(" address-family ipv4 unicast")
        lines += [f"  no neighbor {peer.address} activate" for peer in topology.peers]
        lines.append(" exit-address-family")
    lines += ["route-map NOTHING deny 10", ""]
    configuration = directory / "frr.conf"
    configuration.write_text("\n".join(lines))
    empty = directory / "empty.conf"
    empty.write_text("")
    directory.chmod(0o777)
    program = Path("/usr/lib/frr")
    common = ["-z", str(directory / "zserv"), "-i"]
    bgpd = Launch(
        [
            _found(str(program / "bgpd")), "-f", str(configuration), "-p", str(topology.port), "-l", topology.listen,
            *common, str(directory / "bgpd.pid"), "-P", "0", "--vty_socket", str(directory),
            *([] if topology.programs_kernel else ["-n"]), *(["-Z"] if topology.is_reflector else []),
        ]
    )  # fmt: skip
    zebra = Launch(
        [
            _found(str(program / "zebra")), "-f", str(empty), *common, str(directory / "zebra.pid"), "-P", "0",
            "-s", "90000000", "--vty_socket", str(directory),
        ]
    )  # fmt: skip
    return [zebra, bgpd] if topology.programs_kernel else [bgpd]


def gobgp(topology: Topology, directory: Path) -> list[Launch]:
    (directory / "api").unlink(missing_ok=True)  # it does not start again over the old socket
    lines = [
        "[global.config]",
        f"as = {topology.asn}",
        f'router-id = "{topology.router_id}"',
        f"port = {topology.port}",
        f'local-address-list = ["{topology.listen}"]',
    ]
    for peer in topology.peers:
        lines += [
            "[[neighbors]]",
            "[neighbors.config]",
            f'neighbor-address = "{peer.address}"',
            f"peer-as = {peer.asn}",
            "[neighbors.transport.config]",
            "passive-mode = true",
            "[neighbors.timers.config]",
            f"hold-time = {peer.hold_time_s}",
            f"keepalive-interval = {max(1, peer.hold_time_s // 3)}",
            "idle-hold-time-after-reset = 1",
        ]
        if peer.asn != topology.asn:
            lines += ["[neighbors.ebgp-multihop.config]", "enabled = true", "multihop-ttl = 255"]
        if peer.is_client:
            lines += [
                "[neighbors.route-reflector.config]",
                "route-reflector-client = true",
                f'route-reflector-cluster-id = "{topology.cluster_id}"',
            ]
        for family in topology.families:
            lines += ["[[neighbors.afi-safis]]", "[neighbors.afi-safis.config]", f'afi-safi-name = "{family}-unicast"']
    (directory / "gobgp.toml").write_text("\n".join(lines) + "\n")
    api = f"unix://{directory}/api"
    return [Launch([_found("gobgpd"), "-f", "gobgp.toml", "--api-hosts", api, "--pprof-disable", "-l", "warn"])]


def openbgpd(topology: Topology, directory: Path) -> list[Launch]:
    Path("/run/openbgpd").mkdir(exist_ok=True)  # its chroot
    lines = [
        f"AS {topology.asn}",
        f"router-id {topology.router_id}",
        "fib-update no",
        f"listen on {topology.listen} port {topology.port}",
        f'socket "{directory}/bgpd.sock"',
    ]
    families = "\n".join(f" announce {family.replace('ip', 'IP')} unicast" for family in topology.families)
    if "ipv4" not in topology.families:
        families += "\n announce IPv4 none"
    for peer in topology.peers:
        reach = "" if peer.asn == topology.asn else "multihop 64\n "
        if peer.is_client:
            reach += f"route-reflector {topology.cluster_id}\n "
        lines.append(
            f"neighbor {peer.address} {{\n remote-as {peer.asn}\n passive\n {reach}holdtime {peer.hold_time_s}\n"
            f"{families}\n}}"
        )
        if not topology.is_reflector:
            lines += [f"allow from {peer.address}", f"{'allow' if peer.receives else 'deny'} to {peer.address}"]
    if topology.is_reflector:
        lines += ["allow from any", "allow to any"]  # two rules for all, not two a peer
    configuration = directory / "bgpd.conf"
    configuration.write_text("\n".join(lines) + "\n")
    configuration.chmod(0o600)
    return [Launch([_found("bgpd"), "-d", "-f", str(configuration)])]


def forwarder(topology: Topology, directory: Path) -> list[Launch]:
    return [Launch([sys.executable, "-m", "tests.bench.forwarder", str(write_json(topology, directory))])]


def _found(program: str) -> str:
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise DaemonError(f"{program} is not installed")
    return path
