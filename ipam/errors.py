"""What can go wrong with an allocation. Errors of the store itself (it is away, it lets us not in) pass through as they are."""

from __future__ import annotations


class IpamError(Exception):
    """Anything that IPAM refuses; the text says what is in the way and, where it can, what to do."""


class NoPool(IpamError):
    """No pool may give this node an address (Calico: "no configured Calico pools for node …")."""


class UnknownPool(IpamError):
    """The request names a pool that does not exist or is not enabled."""


class NoQualifiedPool(IpamError):
    """There are pools, but their blocks are too small or they are for other uses (Calico: ErrNoQualifiedPool)."""


class NoNode(IpamError):
    """The host has no Node: it may not hold blocks."""


class BlockLimit(IpamError):
    """The host holds as many blocks as it may (Calico: ErrBlockLimit)."""


class NoFreeBlock(IpamError):
    """Every block of the chosen pools is held by somebody, or full."""


class ClaimConflict(IpamError):
    """The block is another host's, or nobody's and not empty."""


class StaleAffinity(IpamError):
    """The affinity said that the block is this host's, the block says otherwise; the affinity has been removed."""


class NotEmpty(IpamError):
    """The block has addresses in use."""


class NotHeld(IpamError):
    """There is no such affinity."""


class AddressTaken(IpamError):
    """The address is assigned already, or cools down."""


class NotAssigned(IpamError):
    """Nobody holds the address, or nothing is known of the handle."""


class BadHandle(IpamError):
    """The address is held under another handle than the one it was to be released with."""


class BadSequence(IpamError):
    """The address was released and assigned again since it was looked at."""


class TooManyForHandle(IpamError):
    """The handle would hold more addresses of a family than it may."""


class BrokenBlock(IpamError):
    """What is stored is no block: nothing is assigned from it or released in it until it is repaired."""

    def __init__(self, cidr: str, why: str) -> None:
        self.cidr = cidr
        self.why = why
        super().__init__(f"block {cidr} is broken: {why}; see `catbird ipam check`")


class TooManyConflicts(IpamError):
    """Calico: "Max retries hit - excessive concurrent IPAM requests"."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: Max retries hit - excessive concurrent IPAM requests")
