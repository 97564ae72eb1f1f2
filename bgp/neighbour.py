"""All that the speaker keeps of one peer beside its sessions: its source of paths, its way in and its way out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from bgp.config import PeerConfig, SpeakerConfig
from bgp.families import Address, Family
from bgp.policy.compiled import CompiledPolicy, compile_policy
from bgp.rib.adj_rib_in import AdjRibIn
from bgp.rib.catch_up import Member
from bgp.rib.path import Source
from bgp.rib.update_group import UpdateGroup
from bgp.wire.update import UpdateParser

if TYPE_CHECKING:
    from bgp.session.peer import Peer


class Neighbour:
    """`range_name`: the configured range that a dynamic one came from. `is_gone`: it left, and is only remembered."""

    def __init__(self, speaker: SpeakerConfig, config: PeerConfig, name: str, *, range_name: str = "") -> None:
        self.peer: Peer
        self.key = b""  # the address it is found by
        self.name = name
        self.range_name = range_name
        self.is_gone = False
        self.adj_rib_in: AdjRibIn | None = None
        self.group: UpdateGroup | None = None
        self.member: Member | None = None
        self.awaited: set[Family] = set()  # End-of-RIB still to come from it
        self.awaited_until = math.inf
        self.stale_until = math.inf
        self.noted_at = math.inf  # its entry in bgp.agenda
        self.owes_end_of_rib: list[Family] = []
        self.warned: set[Family] = set()
        self.dropped_attributes = 0
        self.source = Source(name, "ibgp", config.address.packed if config.address else b"")
        self.configure(speaker, config)

    def configure(self, speaker: SpeakerConfig, config: PeerConfig) -> None:
        self.config = config
        self.is_ebgp = (speaker.asn if config.local_asn is None else config.local_asn) != config.asn
        self.source.default_local_pref = speaker.default_local_pref
        self.source.kind = "ebgp" if self.is_ebgp else "ibgp"
        self.source.is_client = config.client and not self.is_ebgp
        self.import_policy = self._compile(speaker, "import")
        self.export_policy = self._compile(speaker, "export")

    def _compile(self, speaker: SpeakerConfig, direction: Literal["import", "export"]) -> CompiledPolicy:
        policy = self.config.import_policy if direction == "import" else self.config.export_policy
        return compile_policy(
            policy, direction=direction, is_ebgp=self.is_ebgp, ebgp_requires_policy=speaker.ebgp_requires_policy
        )

    def next_at(self) -> float:
        """When to look at it (monotonic seconds)."""
        if self.peer.is_finished and self.stale_until == math.inf:
            return 0.0
        timer_at = self.peer.next_timer_at()
        return min(math.inf if timer_at is None else timer_at, self.stale_until, self.awaited_until)

    def scoped(self, next_hop: Address) -> Address:
        """A link-local next hop means something only on the session's interface."""
        is_link_local = len(next_hop) == 16 and next_hop[:2] == b"\xfe\x80"
        return next_hop + self.config.interface.encode() if is_link_local else next_hop

    def forget_imported(self) -> None:
        """What import made of the sets that the session has interned is out of date."""
        session = self.peer.established
        if session is not None and isinstance(session.parser, UpdateParser):
            session.parser.forget()

    @property
    def passes(self) -> Literal["all", "none"] | frozenset[int]:
        """Which unknown optional transitive attributes go on: by default poison stops at the border."""
        wanted = self.config.unknown_attributes
        if wanted is None:
            return "none" if self.is_ebgp else "all"
        if isinstance(wanted, tuple):
            return frozenset(wanted)
        return "all" if wanted == "pass" else "none"
