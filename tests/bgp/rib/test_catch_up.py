"""What is told to a member while it is being sent a table: to one that comes, nothing twice; to one that refreshes, all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgp.config import ACCEPT_ALL, Policy
from bgp.families import IPV4, Nlri
from bgp.ports import Resolution
from bgp.rib import catch_up, update_group
from bgp.rib.batch import Buffer
from bgp.rib.catch_up import LATE_OCTETS
from bgp.rib.loc_rib import LocRib
from bgp.rib.path import HopState, Source
from bgp.rib.update_group import UpdateGroup
from bgp.wire.update import RouteChange, UpdateParser
from tests.bgp.rib.test_update_group import ONLY_EVEN, PREFIXES, Listener, expected, group_of, path_of, source


class Newcomer(Listener):
    """Counts how often it is told of each prefix."""

    def __init__(self, who: Source) -> None:
        super().__init__(who)
        self.tellings: Counter[Nlri] = Counter()
        self._reader = UpdateParser(families=(IPV4,), is_ebgp=True)

    def _hear(self, buffers: list[Buffer], count: int) -> int:
        data, at = b"".join(buffers), 0
        changes: list[RouteChange] = []
        while at < len(data):
            end = at + int.from_bytes(data[at + 16 : at + 18], "big")
            self._reader.parse(data, at + 19, end, changes)
            at = end
        self.tellings.update(nlri for _, _, nlris, _ in changes for nlri in nlris)
        return super()._hear(buffers, count)


class Scene:
    """Three sources, of which the third is the newcomer; pieces of one path each, and one piece a turn."""

    def __init__(self, policy: Policy = ACCEPT_ALL) -> None:
        self.rib, self.group = LocRib(IPV4), group_of(policy)
        self.sources = [source(number) for number in range(3)]
        self.hops = [HopState(s.address, Resolution(reachable=True)) for s in self.sources]
        self.newcomer = Newcomer(self.sources[2])

    def announce(self, number: int, length: int, nlris: list[Nlri]) -> None:
        self.rib.announce(path_of(self.sources[number], length, self.hops[number]), nlris)

    def withdraw(self, number: int, nlris: list[Nlri]) -> None:
        self.rib.withdraw(self.sources[number], nlris)

    def flush(self) -> Counter[Nlri]:
        """How often each prefix had changed."""
        log = self.rib.take_log()
        self.group.flush(IPV4, log, self.rib)
        return Counter(nlri for _, _, nlris in log for nlri in nlris)

    def comes(self) -> None:
        self.group.join(self.newcomer.member)
        self.sends_table(is_first=True)

    def sends_table(self, *, is_first: bool) -> None:
        member = self.newcomer.member
        self.group.send_later(member, self.group.table(IPV4, self.rib, member.source, is_first=is_first))

    def advance(self) -> bool:
        """As the speaker does: what is in the tables' logs has been flushed before."""
        return self.group.advance(self.newcomer.member, {IPV4: self.rib})

    def all_is_told(self, policy: Policy = ACCEPT_ALL) -> bool:
        while self.advance():
            pass
        assert not self.newcomer.member.is_late
        return self.newcomer.known == expected(self.rib, self.newcomer.member.source, policy)


@pytest.fixture(scope="module", autouse=True)
def _small_pieces() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(update_group, "_CHUNK_OCTETS", 1)
        patch.setattr(catch_up, "_PIECES_A_TURN", 1)
        patch.setattr(catch_up, "_PIECE_PREFIXES", 4)
        yield


changes = st.lists(
    st.one_of(
        st.tuples(
            st.just("announce"), st.integers(0, 2), st.integers(0, 3), st.lists(st.sampled_from(PREFIXES), min_size=1)
        ),
        st.tuples(st.just("withdraw"), st.integers(0, 2), st.just(0), st.lists(st.sampled_from(PREFIXES), min_size=1)),
        st.tuples(st.just("advance"), st.just(0), st.just(0), st.just([])),
        st.tuples(st.just("flush"), st.just(0), st.just(0), st.just([])),
    ),
    max_size=12,
)


def play(scene: Scene, some: list[tuple[str, int, int, list[Nlri]]], *, before_it_reads: bool) -> Counter[Nlri]:
    """How often each prefix changed. `before_it_reads`: the newcomer's turn does not come yet."""
    changed: Counter[Nlri] = Counter()
    for what, number, length, nlris in (*some, ("flush", 0, 0, [])):
        if what == "announce":
            scene.announce(number, length, nlris)
        elif what == "withdraw":
            scene.withdraw(number, nlris)
        elif what == "flush" or not before_it_reads:
            changed.update(scene.flush())
            if what == "advance":
                scene.advance()
    return changed


@settings(max_examples=300)
@given(changes, changes, changes, st.sampled_from([ACCEPT_ALL, ONLY_EVEN]))
def test_a_newcomer_is_told_each_prefix_once_and_again_only_what_changed_since(
    before: list[tuple[str, int, int, list[Nlri]]],
    meanwhile: list[tuple[str, int, int, list[Nlri]]],
    since: list[tuple[str, int, int, list[Nlri]]],
    policy: Policy,
) -> None:
    """`before` it comes; `meanwhile` it waits for its turn; `since` the table was read for it."""
    scene = Scene(policy)
    newcomer, rib = scene.newcomer, scene.rib
    play(scene, before, before_it_reads=True)
    scene.comes()
    play(scene, meanwhile, before_it_reads=True)
    at_first = expected(rib, newcomer.member.source, policy)
    newcomer.was_late = True  # a prefix may come and go between two of its turns
    scene.advance()
    changed = play(scene, since, before_it_reads=False)
    assert scene.all_is_told(policy)
    for nlri in PREFIXES:
        assert newcomer.tellings[nlri] <= (nlri in at_first) + changed[nlri]
        if not changed[nlri]:
            assert newcomer.tellings[nlri] == (nlri in at_first)


def test_what_changes_while_a_newcomer_waits_is_in_the_table_it_is_sent() -> None:
    scene = Scene()
    scene.announce(0, 1, PREFIXES[:3])
    scene.flush()
    scene.comes()
    scene.announce(1, 0, PREFIXES[2:5])
    scene.withdraw(0, PREFIXES[:1])
    scene.flush()
    assert scene.all_is_told()
    assert scene.newcomer.tellings == dict.fromkeys(PREFIXES[1:5], 1)


def test_what_changes_behind_the_table_is_told_once_more_as_it_stands_in_the_end() -> None:
    scene = Scene()
    for at, nlri in enumerate(PREFIXES):
        scene.announce(0, at % 3, [nlri])
    scene.flush()
    scene.comes()
    assert scene.advance(), "the first piece: the table has been read"
    for length in (0, 3, 1):
        scene.announce(1, length, PREFIXES[5:])
        scene.flush()
    assert scene.all_is_told()
    assert scene.newcomer.tellings == {nlri: 1 + (nlri == PREFIXES[5]) for nlri in PREFIXES}


@pytest.mark.parametrize("is_read", [False, True], ids=["before its turn", "between two pieces"])
def test_a_member_that_refreshes_hears_what_is_withdrawn_meanwhile(is_read: bool) -> None:
    scene = Scene()
    for at, nlri in enumerate(PREFIXES):
        scene.announce(0, at % 3, [nlri])
    scene.flush()
    scene.comes()
    assert scene.all_is_told()
    scene.sends_table(is_first=False)
    if is_read:
        scene.advance()
    scene.withdraw(0, PREFIXES[2:4])
    scene.flush()
    assert scene.all_is_told()
    assert set(scene.newcomer.known) == {*PREFIXES[:2], *PREFIXES[4:]}


def test_a_newcomer_that_refreshes_before_it_has_the_table_hears_what_is_withdrawn_between_them() -> None:
    scene = Scene()
    for at, nlri in enumerate(PREFIXES):
        scene.announce(0, at % 3, [nlri])
    scene.flush()
    scene.comes()
    scene.advance()
    scene.sends_table(is_first=False)
    scene.withdraw(0, PREFIXES[:3])
    scene.flush()
    assert scene.all_is_told()


def test_a_newcomer_that_does_not_read_later_on_misses_nothing_for_having_been_new() -> None:
    """What the log said before the table was read is no news; what it says in another lateness is."""
    scene = Scene()
    newcomer, member = scene.newcomer, scene.newcomer.member
    stuck = Listener(scene.sources[1])  # never reads, so the log goes on and its positions too
    scene.group.join(stuck.member)
    stuck.waiting = LATE_OCTETS + 1
    scene.announce(0, 1, PREFIXES[:3])
    scene.flush()
    scene.comes()
    scene.announce(0, 2, PREFIXES[:2])
    scene.flush()
    assert scene.all_is_told()
    assert member.news_from == {}
    newcomer.waiting, newcomer.was_late = LATE_OCTETS + 1, True
    scene.announce(0, 3, PREFIXES[:1])
    scene.flush()
    assert member.is_late
    scene.withdraw(0, PREFIXES[:2])
    scene.flush()
    assert set(newcomer.known) == set(PREFIXES[:3]), "it is told nothing while it does not read"
    newcomer.waiting, member.is_blocked = 0, False
    assert scene.all_is_told()


def test_a_log_made_shorter_while_a_newcomer_waits_costs_it_nothing_but_repetition() -> None:
    scene = Scene()
    for at, nlri in enumerate(PREFIXES):
        scene.announce(0, at % 3, [nlri])
    scene.flush()
    scene.comes()
    scene.announce(0, 3, PREFIXES[:2])
    scene.flush()
    scene.advance()
    scene.withdraw(0, PREFIXES[4:])
    scene.flush()
    scene.group.catch_up.compact()
    scene.newcomer.was_late = True
    assert scene.all_is_told()
    assert max(scene.newcomer.tellings.values()) <= 2


def test_two_newcomers_that_come_one_after_the_other_are_each_told_all_once() -> None:
    scene = Scene()
    second = Newcomer(scene.sources[1])
    group: UpdateGroup = scene.group
    scene.announce(0, 1, PREFIXES[:4])
    scene.flush()
    scene.comes()
    group.join(second.member)
    group.send_later(second.member, group.table(IPV4, scene.rib, second.member.source, is_first=True))
    assert scene.all_is_told(), "the first has read all before the second begins"
    scene.announce(0, 2, PREFIXES[4:])
    scene.flush()
    while group.advance(second.member, {IPV4: scene.rib}):
        pass
    for each in (scene.newcomer, second):
        assert each.known == expected(scene.rib, each.member.source, ACCEPT_ALL)
        assert each.tellings == dict.fromkeys(PREFIXES, 1)
