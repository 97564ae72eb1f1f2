"""Route reflection (RFC 4456): who is told what, and what a reflected route carries. Pure; implements bgp.ports.Reflection."""

from __future__ import annotations

from dataclasses import dataclass

from bgp.config import SpeakerConfig
from bgp.wire.attributes import ATTRIBUTES, CLUSTER_LIST, EXTENDED, ORIGINATOR_ID, attribute, split_block

_ORIGINATOR_HEAD = bytes((ATTRIBUTES[ORIGINATOR_ID].flags, ORIGINATOR_ID, 4))
_CLUSTER_HEAD = bytes((ATTRIBUTES[CLUSTER_LIST].flags, CLUSTER_LIST, 4))
_ORIGINATOR_OCTETS = 7


@dataclass(frozen=True, slots=True)
class Reflector:
    """`cluster_id`: 4 octets. Without `client_to_client` the clients are fully meshed among themselves (RFC 4456 §6)."""

    cluster_id: bytes
    client_to_client: bool = True

    def passes(self, *, from_client: bool, to_client: bool) -> bool:
        """RFC 4456 §6: what a client says goes to everybody, what a non-client says to the clients."""
        if from_client and to_client:
            return self.client_to_client
        return from_client or to_client

    def reflected(self, block: bytes, originator: bytes) -> bytes:
        """RFC 4456 §8: ORIGINATOR_ID if there is none, our cluster in front of CLUSTER_LIST. All else stays, octet for octet."""
        at, end = 0, len(block)
        before = end  # where the first attribute behind CLUSTER_LIST begins
        has_originator, clusters = False, b""
        while at < end:
            code = block[at + 1]
            if block[at] & EXTENDED:
                start, after = at + 4, at + 4 + (block[at + 2] << 8 | block[at + 3])
            else:
                start, after = at + 3, at + 3 + block[at + 2]
            if code == ORIGINATOR_ID:
                has_originator = True
            elif code == CLUSTER_LIST:
                clusters = block[start:after]
            elif code > CLUSTER_LIST and before == end:
                before = at
            at = after
        if clusters:
            return _replaced(block, self.cluster_id + clusters, b"" if has_originator else originator)
        added = self.added(originator)
        return block[:before] + (added[_ORIGINATOR_OCTETS:] if has_originator else added) + block[before:]

    def added(self, originator: bytes) -> bytes:
        return _ORIGINATOR_HEAD + originator + _CLUSTER_HEAD + self.cluster_id


def _replaced(block: bytes, clusters: bytes, originator: bytes) -> bytes:
    """With this CLUSTER_LIST; a route that was reflected before but has no ORIGINATOR_ID gets one."""
    parts = []
    for flags, code, value in split_block(block):
        if code == CLUSTER_LIST and originator:
            parts.append(attribute(ATTRIBUTES[ORIGINATOR_ID].flags, ORIGINATOR_ID, originator))
        parts.append(attribute(flags, code, clusters if code == CLUSTER_LIST else value))
    return b"".join(parts)


def reflection_of(config: SpeakerConfig) -> Reflector | None:
    """None: no peer is a client, nothing is reflected. The cluster is named by our identifier unless the file says."""
    if not any(peer.client for peer in config.peers):
        return None
    return Reflector((config.cluster_id or config.router_id).packed, config.client_to_client)
