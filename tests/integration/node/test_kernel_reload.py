"""[kernel] under a running session: learned, programmed, and its rules changed live. Needs root."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgp.families import address_text, parse_prefix
from felix.kernel.rtnetlink import RTM_DELROUTE, RTM_NEWROUTE, RouteDecoder
from felix.kernel.sockets import MonitorSocket
from tests.integration.node.speakers import RunningSpeaker, peer, speaker, toml, until
from tests.netns import Namespace, network_namespace, wire

pytestmark = pytest.mark.root

BOOT = 'learn = [{ protocol = "boot" }]'
STATIC = 'learn = [{ protocol = "static" }]'


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    """Two nodes on one wire: 192.0.2.1 and 192.0.2.2."""
    with network_namespace() as one, network_namespace() as two:
        wire(one, "eth0", two, "eth0")
        one.ip("addr add 192.0.2.1/24 dev eth0")
        two.ip("addr add 192.0.2.2/24 dev eth0")
        yield one, two


def node(name: str, directory: Path, address: str, other: str, kernel: str) -> str:
    return (
        toml(name, directory, listen=address, port=1790, more=f"\n[kernel]\n{kernel}")
        + peer("other", other, 64512, 1790, f'source = "{address}"')
    )  # fmt: skip


def programmed(inside: Namespace, metric: int = 32) -> set[str]:
    rows = inside.ip_json("route show proto bird")
    return {row["dst"] for row in rows if row.get("metric") == metric}


def established_for_s(running: RunningSpeaker) -> float:
    (view,) = running.get("peers") or [{"state": "not started"}]
    return float(view["since_s"]) if view["state"] == "Established" else 0.0


def test_learn_rules_and_metric_change_while_the_session_stands(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    one, two = pair
    one.ip("route add 10.1.0.0/26 dev eth0 proto boot")
    one.ip("route add 10.2.0.0/26 dev eth0 proto static")
    a = node("a", tmp_path, "192.0.2.1", "192.0.2.2", BOOT)
    b = node("b", tmp_path, "192.0.2.2", "192.0.2.1", BOOT)
    with (
        speaker("a", tmp_path, a, inside=one.command()) as first,
        speaker("b", tmp_path, b, inside=two.command()) as second,
    ):
        until(lambda: programmed(two) == {"10.1.0.0/26"}, "the boot route is learned, announced and programmed")
        first.config.write_text(a.replace(BOOT, STATIC))
        first.process.send_signal(signal.SIGHUP)
        until(lambda: programmed(two) == {"10.2.0.0/26"}, "the static one instead")
        second.config.write_text(b.replace(BOOT, BOOT + "\nmetric = 77"))
        second.process.send_signal(signal.SIGHUP)
        until(lambda: programmed(two, 77) == {"10.2.0.0/26"} and not programmed(two), "the metric has changed")
        assert second.get("status")["fib"]["routes"]["ipv4"] == 1
        since = established_for_s(second)
        assert since > 0
        assert second.get("peers")[0]["flaps"] == 0
        row = next(iter(second.client.rows("routes", prefix="10.2.0.9")))
        assert row["fib"]["state"] == "programmed"


Places = dict[tuple[int, int], tuple[int, str]]  # table and metric → protocol and preferred source


class Standing:
    """Follows one prefix in a namespace: where it stands, and whether it ever stood nowhere."""

    def __init__(self, inside: Namespace, prefix: str, places: Places) -> None:
        self._monitor = MonitorSocket(0, (), inside.netlink)
        self._prefix = parse_prefix(prefix)[1]
        self.places = places
        self.had_gap = False

    def follow(self) -> Places:
        for data, (kind, _, _, _, start, end) in self._monitor.read(10_000):
            if kind not in (RTM_NEWROUTE, RTM_DELROUTE):
                continue
            prefix, via = RouteDecoder().decode(data, start, end)
            if prefix != self._prefix:
                continue
            if kind == RTM_NEWROUTE:
                self.places[via.table, via.metric] = via.protocol, address_text(via.prefsrc) if via.prefsrc else ""
            else:
                self.places.pop((via.table, via.metric))
            self.had_gap = self.had_gap or not self.places
        return self.places

    def close(self) -> None:
        self._monitor.close()


def test_a_route_stands_somewhere_at_every_moment_of_a_change(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    one, two = pair
    one.ip("route add 10.1.0.0/26 dev eth0 proto boot")
    a = node("a", tmp_path, "192.0.2.1", "192.0.2.2", BOOT)
    b = node("b", tmp_path, "192.0.2.2", "192.0.2.1", BOOT)
    changes: list[tuple[str, Places]] = [
        ("route_protocol = 77", {(254, 32): (77, "")}),
        ("route_protocol = 77\ntable = 100", {(100, 32): (77, "")}),
        ("route_protocol = 77\ntable = 100\nmetric = 5", {(100, 5): (77, "")}),
        ("route_protocol = 78\nmetric = 6", {(254, 6): (78, "")}),
        ('metric = 6\npreferred_source = ["192.0.2.2"]', {(254, 6): (12, "192.0.2.2")}),
        ("metric = 6", {(254, 6): (12, "")}),
    ]
    with (
        speaker("a", tmp_path, a, inside=one.command()),
        speaker("b", tmp_path, b, inside=two.command()) as second,
        contextlib.closing(Standing(two, "10.1.0.0/26", {(254, 32): (12, "")})) as standing,
    ):
        until(lambda: programmed(two) == {"10.1.0.0/26"}, "programmed")
        for keys, places in changes:
            second.config.write_text(b.replace(BOOT, f"{BOOT}\n{keys}"))
            second.process.send_signal(signal.SIGHUP)
            until(lambda places=places: standing.follow() == places, keys)  # type: ignore[misc]
            assert not standing.had_gap, keys
        second.config.write_text(b.replace(BOOT, f"{BOOT}\nprogram = false"))
        second.process.send_signal(signal.SIGHUP)
        until(lambda: not standing.follow(), "programming is off")
        assert second.get("peers")[0]["flaps"] == 0


def test_routes_stand_after_the_end_and_a_kill_and_go_when_they_are_told_to(
    pair: tuple[Namespace, Namespace], tmp_path: Path
) -> None:
    one, two = pair
    one.ip("route add 10.1.0.0/26 dev eth0 proto boot")
    two.ip("route add 10.9.0.0/26 dev eth0 proto static metric 32")
    a = node("a", tmp_path, "192.0.2.1", "192.0.2.2", BOOT)
    b = node("b", tmp_path, "192.0.2.2", "192.0.2.1", "learn = []")
    with speaker("a", tmp_path, a, inside=one.command()):
        with speaker("b", tmp_path, b, inside=two.command()) as second:
            until(lambda: programmed(two) == {"10.1.0.0/26"}, "programmed")
            second.stop(signal.SIGKILL)
        assert programmed(two) == {"10.1.0.0/26"}
        with speaker("b", tmp_path, b, inside=two.command()) as second:
            second.wait_started()
            until(lambda: established_for_s(second), "the session is back")
            assert programmed(two) == {"10.1.0.0/26"}
            assert second.stop() == 0
        assert programmed(two) == {"10.1.0.0/26"}
        gone = b.replace("learn = []", "learn = []\npersist = false")
        with speaker("b", tmp_path, gone, inside=two.command()) as second:
            until(lambda: established_for_s(second), "the session is back")
            assert second.stop() == 0
        assert programmed(two) == set()
    assert [row["dst"] for row in two.ip_json("route show proto static")] == ["10.9.0.0/26"]


def test_adding_a_kernel_section_is_refused_with_the_reason(tmp_path: Path) -> None:
    with network_namespace() as inside:
        text = toml("a", tmp_path, port=1790)
        with speaker("a", tmp_path, text, inside=inside.command()) as running:
            running.wait_started()
            running.config.write_text(text + "\n[kernel]\n")
            os.kill(running.process.pid, signal.SIGHUP)
            refused = until(lambda: running.get("config")["refused"], "refused")
            assert "needs a restart" in refused["text"]
