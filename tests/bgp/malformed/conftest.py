"""One live speaker for the whole directory; after every test its healthy session must stand as before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bgp.malformed.live import HEALTHY_ASN, KEEPALIVE, LiveSpeaker, attribute, message, update

HEALTHY_ROUTE = bytes([24, 10, 254, 0])
AS_PATH = b"\x02\x01" + HEALTHY_ASN.to_bytes(4, "big")
HEALTHY_ATTRIBUTES = (
    attribute(1, b"\0", 0x40) + attribute(2, AS_PATH, 0x40) + attribute(3, bytes([127, 30, 0, 1]), 0x40)
)


@pytest.fixture(scope="session")
def served() -> Iterator[LiveSpeaker]:
    live = LiveSpeaker()
    live.healthy.send(update(HEALTHY_ATTRIBUTES, HEALTHY_ROUTE))
    yield live
    live.stop()


@pytest.fixture
def live(served: LiveSpeaker) -> Iterator[LiveSpeaker]:
    yield served
    before = healthy_view(served)["messages"]["received"]["keepalive"]
    served.healthy.send(message(KEEPALIVE))
    deadline = time.monotonic() + 10
    while (view := healthy_view(served))["messages"]["received"]["keepalive"] == before:
        assert time.monotonic() < deadline, "the healthy session is not read any more"
        time.sleep(0.001)
    assert (view["state"], view["flaps"], view["malformed"]) == ("Established", 0, 0)
    assert view["prefixes"]["ipv4"]["accepted"] == 1, "its route is where it was"
    assert [event for event in served.events.told if event[0] == "defect"] == []


def healthy_view(served: LiveSpeaker) -> dict[str, Any]:
    views = served.call(lambda: served.speaker.peers_view(time.monotonic()))
    found: dict[str, Any] = next(view for view in views if view["name"] == "healthy")
    return found
