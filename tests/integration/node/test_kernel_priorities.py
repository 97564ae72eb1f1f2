"""Metrics and LOCAL_PREF as one priority, and the policy of [kernel], in real routing tables. Needs root."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.integration.node.speakers import speaker, until
from tests.integration.node.test_kernel_reload import established_for_s, node, pair, programmed
from tests.netns import Namespace

pytestmark = pytest.mark.root

__all__ = ["pair"]

PRIORITY = 'learn = [{ protocol = "boot" }]\npriority_base = 2147483647\nmetric = 1024'
CLOSED = (
    '\npolicy = { default = "accept", rules = [{ prefix = { prefix = "10.2.0.0/16", ge = 16 }, action = "reject" }] }'
)


def test_a_metric_reaches_the_other_kernel_and_follows(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    one, two = pair
    one.ip("route add 10.1.0.0/26 dev eth0 proto boot metric 512")
    one.ip("route add 10.2.0.0/26 dev eth0 proto boot")
    a = node("a", tmp_path, "192.0.2.1", "192.0.2.2", PRIORITY)
    b = node("b", tmp_path, "192.0.2.2", "192.0.2.1", PRIORITY)
    with (
        speaker("a", tmp_path, a, inside=one.command()),
        speaker("b", tmp_path, b, inside=two.command()) as second,
    ):
        until(lambda: programmed(two, 512) == {"10.1.0.0/26"}, "the elevated route")
        until(lambda: programmed(two, 1024) == {"10.2.0.0/26"}, "the normal one")
        # A worse route of the node's own gives way as the kernel weighs them; a better one is used.
        one.ip("route add 10.1.0.0/26 dev eth0 proto boot metric 2000")
        one.ip("route del 10.1.0.0/26 dev eth0 proto boot metric 512")
        until(lambda: programmed(two, 2000) == {"10.1.0.0/26"} and not programmed(two, 512), "another metric")
        two.ip("route add 10.1.0.0/26 dev eth0 proto boot metric 1000")
        until(lambda: not programmed(two, 2000), "its own route is the better one")
        two.ip("route del 10.1.0.0/26 dev eth0 proto boot metric 1000")
        until(lambda: programmed(two, 2000) == {"10.1.0.0/26"}, "its own route is gone")
        second.config.write_text(b.replace(PRIORITY, PRIORITY + CLOSED))
        second.process.send_signal(signal.SIGHUP)
        until(lambda: not programmed(two, 1024), "the policy keeps it out")
        assert programmed(two, 2000) == {"10.1.0.0/26"}
        assert established_for_s(second) > 0
        assert second.get("peers")[0]["flaps"] == 0
