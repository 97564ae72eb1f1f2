"""Calico's resources → the configuration of one node's BGP speaker.

`build(snapshot, node)` once, or a `NodeState` that is told of changes. `integration/bgpconfig/DESIGN.md` says what each
setting becomes.
"""

from integration.bgpconfig.nodeconfig import Environment, NodeConfig, StaticRoute
from integration.bgpconfig.pools import owner_of
from integration.bgpconfig.problems import Problem
from integration.bgpconfig.sessions import PeerReport
from integration.bgpconfig.snapshot import WATCHED, Snapshot, key_of
from integration.bgpconfig.state import NodeState, build

__all__ = [
    "WATCHED",
    "Environment",
    "NodeConfig",
    "NodeState",
    "PeerReport",
    "Problem",
    "Snapshot",
    "StaticRoute",
    "build",
    "key_of",
    "owner_of",
]
