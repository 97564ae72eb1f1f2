"""Members of a group end up knowing exactly the best paths that are not their own, whatever happened in which order."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bgp.config import ACCEPT_ALL, Policy, PolicyRule, PrefixMatch, RouteSetting
from bgp.families import FAMILIES, IPV4, Nlri, network_of, parse_prefix
from bgp.policy.compiled import compile_policy
from bgp.ports import Resolution
from bgp.rib import catch_up
from bgp.rib.batch import Buffer
from bgp.rib.catch_up import LATE_OCTETS, Member
from bgp.rib.decision import order
from bgp.rib.loc_rib import LocRib
from bgp.rib.path import HopState, Path, Source, best_of, paths_of
from bgp.rib.update_group import ExportRules, UpdateGroup
from bgp.wire import as_path
from bgp.wire.attributes import build
from bgp.wire.update import ANNOUNCE, RouteChange, UpdateParser

PREFIXES = [parse_prefix(f"10.0.{number}.0/24")[1] for number in range(6)]
OWN = b"\xc0\0\2\xfe"
ONLY_EVEN = Policy(
    default="reject",
    rules=tuple(
        PolicyRule(
            prefixes=(PrefixMatch(network=network_of(IPV4, nlri), minimum_bits=24, maximum_bits=24),),
            action="accept",
            setting=RouteSetting(med=number),
        )
        for number, nlri in enumerate(PREFIXES)
        if number % 2 == 0
    ),
)


class Listener:
    """A peer's side: what it has been told, as an UPDATE parser reads it."""

    def __init__(self, source: Source, *, is_ebgp: bool = True) -> None:
        self.known: dict[Nlri, tuple[str, int | None]] = {}
        self.waiting = 0  # octets that its connection says it has not sent
        self.was_late = False
        self._parser = UpdateParser(families=FAMILIES, is_ebgp=is_ebgp)
        self.member = Member(source, self._hear)

    def _hear(self, buffers: list[Buffer], count: int) -> int:
        data = b"".join(buffers)
        at = seen = 0
        changes: list[RouteChange] = []
        while at < len(data):
            end = at + int.from_bytes(data[at + 16 : at + 18], "big")
            self._parser.parse(data, at + 19, end, changes)
            at, seen = end, seen + 1
        assert seen == count
        for kind, _, nlris, attributes in changes:
            for nlri in nlris:
                if kind == ANNOUNCE and attributes is not None:
                    self.known[nlri] = (as_path.text(attributes.fields.as_path), attributes.fields.med)
                else:
                    assert nlri in self.known or self.was_late, "a withdrawal of what was never told"
                    self.known.pop(nlri, None)
        return self.waiting


def group_of(policy: Policy, *, is_ebgp: bool = True) -> UpdateGroup:
    rules = ExportRules(
        is_ebgp=is_ebgp,
        local_asn=64512,
        families=FAMILIES,
        four_octet_asn=True,
        max_octets=4096,
        extended_next_hop=frozenset(),
        next_hop="auto",
        own_addresses=((IPV4, OWN),),
        policy=compile_policy(policy, direction="export", is_ebgp=is_ebgp),
        graceful_shutdown=False,
        default_local_pref=100,
    )
    return UpdateGroup(rules, lambda path: None)


def source(number: int) -> Source:
    return Source(f"peer{number}", "ebgp", bytes([192, 0, 2, number + 1]), bytes([10, 0, 0, number + 1]))


def path_of(origin: Source, length: int, hop: HopState) -> Path:
    value = as_path.join([(2, (65000 + origin.address[3], *range(1, length + 1)))])
    return Path(origin, build(next_hop=hop.address, as_path=value), hop)


def sweep(rib: LocRib, who: Source) -> None:
    rib.remove_where(lambda path: path.source is who and path.is_stale)


def lose(rib: LocRib, who: Source) -> None:
    """Its session, not its paths (RFC 4724 §4.2)."""
    sweep(rib, who)
    who.epoch += 1
    rib.turned_stale({who})


def expected(rib: LocRib, member: Source, policy: Policy) -> dict[Nlri, tuple[str, int | None]]:
    told: dict[Nlri, tuple[str, int | None]] = {}
    for nlri, value in rib.table.items():
        best = best_of(value)
        if best is None or best.source is member:
            continue
        med = None
        if policy is ONLY_EVEN:
            if PREFIXES.index(nlri) % 2:
                continue
            med = PREFIXES.index(nlri)
        told[nlri] = ("64512 " + as_path.text(best.attributes.fields.as_path), med)
    return told


LOST_AND_BACK = [  # one as good as the other: what is fresh is used, as long as there is such a one
    ("announce", 0, 1, PREFIXES[:2]),
    ("announce", 1, 1, PREFIXES[:2]),
    ("flush", 0, 0, []),
    ("lost", 0, 0, []),
    ("flush", 0, 0, []),
    ("announce", 0, 1, PREFIXES[:1]),
    ("flush", 0, 0, []),
    ("lost", 1, 0, []),
    ("flush", 0, 0, []),
    ("swept", 0, 0, []),
]
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("announce"), st.integers(0, 2), st.integers(0, 3), st.lists(st.sampled_from(PREFIXES), min_size=1)
        ),
        st.tuples(st.just("withdraw"), st.integers(0, 2), st.just(0), st.lists(st.sampled_from(PREFIXES), min_size=1)),
        st.tuples(st.just("gone"), st.integers(0, 2), st.just(0), st.just([])),
        st.tuples(st.just("hop"), st.integers(0, 2), st.integers(0, 1), st.just([])),
        st.tuples(st.sampled_from(["lost", "swept"]), st.integers(0, 2), st.just(0), st.just([])),
        st.tuples(st.just("flush"), st.just(0), st.just(0), st.just([])),
    ),
    max_size=25,
)
slow_steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("announce"), st.integers(0, 2), st.integers(0, 3), st.lists(st.sampled_from(PREFIXES), min_size=1)
        ),
        st.tuples(st.just("withdraw"), st.integers(0, 2), st.just(0), st.lists(st.sampled_from(PREFIXES), min_size=1)),
        st.tuples(
            st.sampled_from(["stuck", "moving", "table", "lost", "swept"]), st.integers(0, 2), st.just(0), st.just([])
        ),
        st.tuples(st.just("flush"), st.just(0), st.just(0), st.just([])),
    ),
    max_size=30,
)


@settings(max_examples=300)
@given(steps, st.sampled_from([ACCEPT_ALL, ONLY_EVEN]), st.integers(1, 3))
@example(LOST_AND_BACK, ACCEPT_ALL, 3)
def test_members_know_the_best_paths_of_others(
    some: list[tuple[str, int, int, list[Nlri]]], policy: Policy, member_count: int
) -> None:
    rib, group = LocRib(IPV4), group_of(policy)
    sources = [source(number) for number in range(3)]
    hops = [HopState(s.address, Resolution(reachable=True)) for s in sources]
    listeners = [Listener(s) for s in sources[:member_count]]
    for listener in listeners:
        group.members[listener.member.source] = listener.member
    interned: dict[tuple[int, int], Path] = {}  # as a session does it: the same set again is the same path
    for what, number, argument, nlris in (*some, ("flush", 0, 0, [])):
        who = sources[number]
        if what == "announce":
            path = interned.get((number, argument)) or path_of(who, argument, hops[number])
            interned[number, argument] = path
            rib.announce(path, nlris)
        elif what == "withdraw":
            rib.withdraw(who, nlris)
        elif what == "gone":
            rib.remove_where(lambda path, who=who: path.source is who)  # type: ignore[misc]
        elif what == "lost":
            lose(rib, who)
            interned = {key: path for key, path in interned.items() if key[0] != number}
        elif what == "swept":
            sweep(rib, who)
        elif what == "hop":
            before = rib.using({hops[number]})
            hops[number].resolution = Resolution(reachable=bool(argument))
            rib.decide_again(before)
        else:
            group.flush(IPV4, rib.take_log(), rib)
            for listener in listeners:
                assert listener.known == expected(rib, listener.member.source, policy)
    for who in sources:
        held = [path for value in rib.table.values() for path in paths_of(value) if path.source is who]
        assert who.accepted[IPV4] == len(held)
    for value in rib.table.values():
        best = best_of(value)
        assert best is best_of(order(paths_of(value)))


@given(steps, st.sampled_from([ACCEPT_ALL, ONLY_EVEN]))
def test_who_joins_late_or_changes_group_knows_the_same(
    some: list[tuple[str, int, int, list[Nlri]]], policy: Policy
) -> None:
    rib, before, after = LocRib(IPV4), group_of(policy), group_of(ONLY_EVEN if policy is ACCEPT_ALL else ACCEPT_ALL)
    sources = [source(number) for number in range(3)]
    hops = [HopState(s.address, Resolution(reachable=True)) for s in sources]
    for what, number, argument, nlris in some:
        if what == "announce":
            rib.announce(path_of(sources[number], argument, hops[number]), nlris)
    rib.take_log()
    late = Listener(sources[0])
    before.join(late.member)
    before.send_later(late.member, before.table(IPV4, rib, sources[0]))
    while before.advance(late.member, {IPV4: rib}):
        pass
    assert late.known == expected(rib, sources[0], policy)
    before.leave(late.member)
    after.join(late.member)
    after.send_later(late.member, after.difference(before, IPV4, rib, sources[0]))
    while after.advance(late.member, {IPV4: rib}):
        pass
    assert late.known == expected(rib, sources[0], ONLY_EVEN if policy is ACCEPT_ALL else ACCEPT_ALL)


@settings(max_examples=300)
@given(slow_steps, st.sampled_from([ACCEPT_ALL, ONLY_EVEN]), st.booleans())
@example([("stuck", 2, 0, []), *LOST_AND_BACK], ACCEPT_ALL, False)
def test_members_that_stop_reading_hold_up_nobody_and_catch_up(
    some: list[tuple[str, int, int, list[Nlri]]], policy: Policy, is_compacted: bool
) -> None:
    rib, group = LocRib(IPV4), group_of(policy)
    sources = [source(number) for number in range(3)]
    hops = [HopState(s.address, Resolution(reachable=True)) for s in sources]
    listeners = [Listener(s) for s in sources]
    for listener in listeners:
        group.join(listener.member)
    ends: list[tuple[str, int, int, list[Nlri]]] = [("moving", number, 0, []) for number in range(3)]
    for what, number, argument, nlris in (*some, *ends, ("flush", 0, 0, [])):
        listener = listeners[number]
        if what == "announce":
            rib.announce(path_of(sources[number], argument, hops[number]), nlris)
        elif what == "withdraw":
            rib.withdraw(sources[number], nlris)
        elif what == "lost":
            lose(rib, sources[number])
        elif what == "swept":
            sweep(rib, sources[number])
        elif what == "stuck":
            listener.waiting, listener.was_late = LATE_OCTETS + 1, True
        elif what == "moving":
            listener.waiting, listener.member.is_blocked = 0, False
        elif what == "table":
            listener.was_late = True
            group.send_later(listener.member, group.table(IPV4, rib, sources[number]))
        else:
            group.flush(IPV4, rib.take_log(), rib)
            if is_compacted and group.catch_up.late:
                group.catch_up.compact()
            for each in listeners:
                while group.advance(each.member, {IPV4: rib}):
                    pass
                if not each.member.is_blocked:
                    assert not each.member.is_late
                    assert each.known == expected(rib, each.member.source, policy)


def test_what_one_member_does_not_read_costs_each_prefix_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catch_up, "_LOG_PREFIXES", 50)
    rib, group = LocRib(IPV4), group_of(ACCEPT_ALL)
    who, hop = source(0), HopState(source(0).address, Resolution(reachable=True))
    stuck, well = Listener(source(1)), Listener(source(2))
    group.join(stuck.member)
    group.join(well.member)
    stuck.waiting = LATE_OCTETS + 1
    for length in range(500):
        rib.announce(path_of(who, length % 5, hop), PREFIXES[:1])
        group.flush(IPV4, rib.take_log(), rib)
    assert list(group.catch_up.late) == [stuck.member.source]
    assert sum(len(nlris) for _, nlris in group.catch_up.missed(stuck.member)) <= 51
    assert well.known == expected(rib, well.member.source, ACCEPT_ALL)


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ("40010100 4002060201 0000fde9 400304c0000201", "as everybody sends it"),
        ("40010100 4002060201 0000fde9 400304c0000201 80040400000007 c00804fde80001", "more behind LOCAL_PREF's place"),
        ("4002060201 0000fde9 400304c0000201 40010100", "another order"),
        ("900e000d 000101 04 c0000201 00 180a0000 40010100 4002060201 0000fde9", "IPv4 in MP_REACH_NLRI: no NEXT_HOP"),
    ],
)
def test_an_external_set_goes_to_an_internal_peer_with_all_that_it_needs(attributes: str, why: str) -> None:
    parser, block = UpdateParser(families=FAMILIES, is_ebgp=True), bytes.fromhex(attributes)
    changes: list[RouteChange] = []
    tail = b"" if "MP_REACH" in why else PREFIXES[0]
    body = b"\0\0" + len(block).to_bytes(2, "big") + block + tail
    parser.parse(body, 0, len(body), changes)
    [(kind, _, nlris, made)] = changes
    assert kind == ANNOUNCE
    assert made is not None
    rib, group, listener = LocRib(IPV4), group_of(ACCEPT_ALL, is_ebgp=False), Listener(source(1), is_ebgp=False)
    group.members[listener.member.source] = listener.member
    rib.announce(Path(source(0), made, HopState(made.next_hop, Resolution(reachable=True))), nlris)
    group.flush(IPV4, rib.take_log(), rib)
    assert listener.known == {PREFIXES[0]: ("65001", made.fields.med)}, why
