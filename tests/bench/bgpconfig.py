"""How long from the resources of a large cluster to a node's configuration, and from one change to the next.

python -m tests.bench.bgpconfig [NODES [PEERS]]
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from bgp.families import Address, Family
from bgp.speaker import Speaker
from integration.bgpconfig import NodeState, Snapshot
from integration.resources.keys import Key

V3 = "projectcalico.org/v3"
ME = "node-0000"


def node(number: int, **bgp: Any) -> dict[str, Any]:
    labels = {"rack": f"r{number // 40}", "kubernetes.io/hostname": f"node-{number:04}"}
    address = f"10.{number // 250}.{number % 250}.1/24"
    return {
        "apiVersion": V3,
        "kind": "Node",
        "metadata": {"name": f"node-{number:04}", "labels": labels},
        "spec": {"bgp": {"ipv4Address": address} | bgp},
    }


def peer(number: int) -> dict[str, Any]:
    """By turns: one router for all, one for a rack, reflectors for all, two racks that peer."""
    kinds: list[dict[str, Any]] = [
        {"peerIP": f"192.0.2.{number + 1}", "asNumber": 65000, "filters": ["export-all"]},
        {"nodeSelector": f"rack == 'r{number}'", "peerIP": f"198.51.100.{number + 1}", "asNumber": 65000 + number},
        {"nodeSelector": "all()", "peerSelector": f"rack == 'r{number}' && has(rr)"},
        {"nodeSelector": f"rack == 'r{number}'", "peerSelector": f"rack in {{'r0', 'r{number + 1}'}}"},
    ]
    return {"apiVersion": V3, "kind": "BGPPeer", "metadata": {"name": f"peer-{number:02}"}, "spec": kinds[number % 4]}


def resources(nodes: int, peers: int) -> list[tuple[Key, dict[str, Any]]]:
    filter_spec = {"exportV4": [{"cidr": "10.0.0.0/8", "matchOperator": "In", "action": "Accept"}]}
    objects = [*map(node, range(nodes)), *map(peer, range(peers))]
    objects.append({"apiVersion": V3, "kind": "BGPFilter", "metadata": {"name": "export-all"}, "spec": filter_spec})
    objects += [
        {
            "apiVersion": V3,
            "kind": "IPPool",
            "metadata": {"name": f"pool-{n}"},
            "spec": {"cidr": f"10.{200 + n}.0.0/16"},
        }
        for n in range(4)
    ]
    return [(Key(one["kind"], one["metadata"]["name"]), one) for one in objects]


def timed(what: Callable[[], object]) -> float:
    began_at = time.perf_counter()
    what()
    return time.perf_counter() - began_at


def measure(nodes: int, peers: int) -> dict[str, Any]:
    """Seconds: reading JSON, the whole configuration, and for each kind of change the median of 21; and how long the engine takes to be another."""
    given = resources(nodes, peers)
    snapshot = Snapshot()

    def fill() -> None:
        for key, value in given:
            snapshot.apply_json(key, value)

    read_s = timed(fill)
    state = NodeState(ME, snapshot=snapshot)
    full_s = timed(state.config)
    changes: dict[str, Callable[[int], tuple[Key, dict[str, Any] | None]]] = {
        "another node's AS number": lambda n: (Key("Node", "node-0777"), node(777, asNumber=65100 + n % 2)),
        "a node comes or goes": lambda n: (Key("Node", "node-0778"), node(778) if n % 2 else None),
        "a router's BGPPeer": lambda n: (Key("BGPPeer", "peer-00"), peer(0) | {"spec": router(n)}),
        "a reflectors' BGPPeer": lambda n: (Key("BGPPeer", "peer-02"), peer(2) if n % 2 else None),
        "a pool": lambda n: (Key("IPPool", "pool-0"), {**given[-4][1], "spec": {"cidr": f"10.{210 + n % 2}.0.0/16"}}),
    }
    before = state.config().speaker
    speaker = Speaker(before, fib=None, next_hops=None, events=Silent(), rng=random.Random(1), now=0.0)
    speaker.transport = Silent()
    speaker.start(0.0)
    state.apply_json(Key("Node", "node-0777"), node(777, asNumber=65100))
    after = state.config().speaker
    engine_s = timed(lambda: speaker.reconfigure(after, 1.0))
    medians = {}
    for name, change in changes.items():
        taken = []
        for number in range(21):
            state.apply_json(*change(number))
            taken.append(timed(state.config))
        medians[name] = sorted(taken)[10]
    count = len(state.config().peers)
    return {
        "nodes": nodes,
        "peers": peers,
        "sessions": count,
        "read_s": read_s,
        "full_s": full_s,
        "change_s": medians,
        "engine_takes_over_s": engine_s,
    }


class Silent:
    """A transport and a log that do nothing."""

    def event(self, name: str, **fields: Any) -> None: ...

    def dial(self, session: Any, config: Any) -> None: ...

    def send(self, session: Any, buffers: list[bytes | memoryview]) -> int:
        return 0

    def close(self, session: Any, abort: bool) -> None: ...

    def flush_soon(self) -> None: ...

    def own_addresses(self, session: Any) -> dict[Family, Address]:
        return {}


def router(number: int) -> dict[str, Any]:
    return {"peerIP": "192.0.2.1", "asNumber": 65000 + number % 2}


if __name__ == "__main__":
    sizes = [int(text) for text in sys.argv[1:3]]
    print(json.dumps(measure(*(sizes + [5000, 50][len(sizes) :])), indent=2))
