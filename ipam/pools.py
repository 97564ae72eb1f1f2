"""Pools, and which of them may give an address to a node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from integration.resources.fields import Address, Network, parse_network
from integration.resources.models.ipam import IPPool
from integration.resources.selector import Selector, SelectorError, parse
from integration.resources.validation.pools import block_size_of
from ipam.errors import NoPool, NoQualifiedPool, UnknownPool

DEFAULT_USES = frozenset({"Workload", "Tunnel"})


@dataclass(frozen=True, slots=True)
class Pool:
    """What IPAM needs of an IPPool. A selector of None matches nothing: it cannot be understood."""

    name: str
    cidr: Network
    block_size: int
    is_enabled: bool
    node_selector: Selector | None
    namespace_selector: Selector | None
    uses: frozenset[str]
    is_automatic: bool

    @property
    def version(self) -> int:
        return self.cidr.version

    @property
    def block_count(self) -> int:
        return 1 << max(0, self.block_size - self.cidr.prefixlen)

    def block(self, index: int) -> Network:
        """The index-th block, counted from 0."""
        first = int(self.cidr.network_address) + index * (1 << (self.cidr.max_prefixlen - self.block_size))
        made: Network = type(self.cidr)((first, self.block_size))
        return made

    def selects_node(self, labels: Mapping[str, str]) -> bool:
        return self.node_selector is not None and self.node_selector.matches(labels)

    def selects_namespace(self, labels: Mapping[str, str]) -> bool:
        return self.namespace_selector is not None and self.namespace_selector.matches(labels)


def read_pools(resources: Iterable[IPPool]) -> list[Pool]:
    """By name. A pool without a readable CIDR or with an impossible block size has no addresses, and is left out."""
    return sorted((pool for resource in resources for pool in read_pool(resource)), key=lambda pool: pool.name)


def read_pool(resource: IPPool) -> Iterator[Pool]:
    spec = resource.spec
    try:
        cidr, size = parse_network(spec.cidr), block_size_of(spec)
    except ValueError:
        return
    if not cidr.prefixlen <= size <= cidr.max_prefixlen:
        return
    conditions = resource.status.conditions if resource.status else []
    is_refused = any(each.type == "Allocatable" and each.status == "False" for each in conditions)
    yield Pool(
        name=resource.metadata.name,
        cidr=cidr,
        block_size=size,
        is_enabled=not (spec.disabled or is_refused or resource.metadata.deletion_timestamp),
        node_selector=selector_of(spec.node_selector),
        namespace_selector=selector_of(spec.namespace_selector),
        uses=frozenset(spec.allowed_uses) or DEFAULT_USES,
        is_automatic=spec.assignment_mode != "Manual",
    )


def selector_of(text: str) -> Selector | None:
    """Of an empty text: everything."""
    try:
        return parse(text or "all()")
    except SelectorError:
        return None


def pool_of(pools: Iterable[Pool], address: Address) -> Pool | None:
    """The pool that the address is in, enabled or not; pools do not overlap."""
    return next((pool for pool in pools if pool.version == address.version and address in pool.cidr), None)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request says of the pools it would have. `pools` are CIDRs; then selectors do not matter."""

    version: int
    use: str
    pools: tuple[str, ...] = ()
    namespace_labels: tuple[tuple[str, str], ...] = ()
    spare: int = 0  # addresses that each block sets aside for the host

    @property
    def longest_block(self) -> int:
        """The prefix length of the smallest block that has an address left besides those set aside."""
        return (32 if self.version == 4 else 128) - self.spare.bit_length()


def choose_pools(pools: Sequence[Pool], wish: Wish, host: str, labels: Mapping[str, str]) -> list[Pool]:
    """In the order in which to try them (Calico: determinePools).

    Raises NoQualifiedPool, UnknownPool, NoPool.
    """
    enabled = [pool for pool in pools if pool.version == wish.version and pool.is_enabled]
    large = [pool for pool in enabled if pool.block_size <= wish.longest_block]
    if enabled and not large:
        raise NoQualifiedPool(
            f"no pool of IPv{wish.version} has blocks of /{wish.longest_block} or larger, which {wish.spare} reserved "
            "addresses in each need"
        )
    if wish.pools:
        chosen = [named(pool, large) for pool in wish.pools]
    else:
        namespace = dict(wish.namespace_labels)
        chosen = [
            pool
            for pool in large
            if pool.is_automatic and pool.selects_node(labels) and pool.selects_namespace(namespace)
        ]
    if not chosen:
        raise NoPool(f"no configured Calico pools for node {host}{why_none(enabled, wish.version)}")
    fitting = [pool for pool in chosen if wish.use in pool.uses]
    if not fitting:
        names = ", ".join(pool.name for pool in chosen)
        raise NoQualifiedPool(f"none of the pools {names} is for {wish.use} (allowedUses)")
    return fitting


def named(cidr: str, pools: Iterable[Pool]) -> Pool:
    try:
        network = parse_network(cidr, bare=False)
    except ValueError as error:
        raise UnknownPool(f"the given pool ({cidr}) {error}") from None
    found = next((pool for pool in pools if pool.cidr == network), None)
    if found is None:
        raise UnknownPool(f"the given pool ({cidr}) does not exist, or is not enabled")
    return found


def why_none(enabled: Sequence[Pool], version: int) -> str:
    if not enabled:
        return f": there is no enabled pool of IPv{version}"
    return ": no pool's nodeSelector, namespaceSelector and assignmentMode allow it"
