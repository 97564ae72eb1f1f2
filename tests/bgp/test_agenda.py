"""Nobody's timer is missed, however deadlines move, and who has nothing to do is not looked at."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgp.agenda import Agenda
from bgp.neighbour import Neighbour
from bgp.session.peer import Peer
from tests.bgp.world import Node, World, config_of, originate, peer


class Watched(Neighbour):
    """A neighbour that is nothing but its next deadline."""

    def __init__(self) -> None:
        self.at = math.inf
        self.noted_at = math.inf

    def next_at(self) -> float:
        return self.at


whose = st.integers(0, 3)
ahead = st.one_of(st.integers(0, 5), st.just(math.inf))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("starts"), whose, ahead),
        st.tuples(st.just("is put off"), whose, ahead),
        st.tuples(st.just("time"), st.integers(0, 3), ahead),
    ),
    max_size=40,
)


@settings(max_examples=300)
@given(steps)
def test_who_is_due_is_found_once_and_nobody_is_looked_at_twice_for_nothing(some: list[tuple[str, int, float]]) -> None:
    """Against a look at all of them. A deadline that moves away is not noted: its entry costs one look for nothing."""
    agenda, now = Agenda(), 0.0
    watched = [Watched() for _ in range(4)]
    put_off: set[Watched] = set()
    for what, number, after in some:
        one = watched[number]
        if what == "starts":
            one.at = now + after
            agenda.note(one)
        elif what == "is put off":
            one.at = max(one.at, now + after)
            put_off.add(one)
        else:
            now += number
            wanted = {each for each in watched if each.at <= now}
            found = agenda.due(now)
            assert len(found) == len(set(found))
            assert wanted <= set(found)
            for each in found:
                if each.next_at() <= now:
                    each.at = now + 1 + after  # type: ignore[attr-defined]
                agenda.note(each)
            assert agenda.due(now) == []
        assert all(each.noted_at <= each.at for each in watched)


def test_an_entry_that_a_nearer_deadline_replaced_is_nobodys() -> None:
    agenda, one, other = Agenda(), Watched(), Watched()
    one.at = other.at = 9.0
    agenda.note(one)
    agenda.note(other)
    one.at = 3.0
    agenda.note(one)
    assert agenda.due(2.9) == []
    assert agenda.due(3.0) == [one]
    one.at = 20.0
    agenda.note(one)
    assert agenda.due(9.0) == [other], "the first one's old entry says 9 as well"
    assert agenda.due(20.0) == [one]
    assert agenda.due(math.inf) == []


def test_a_deadline_that_comes_back_to_an_old_entry_is_found_once() -> None:
    agenda, one = Agenda(), Watched()
    for at in (9.0, 3.0):
        one.at = at
        agenda.note(one)
    assert agenda.due(3.0) == [one]
    one.at = 9.0
    agenda.note(one)
    assert agenda.due(9.0) == [one]
    assert agenda.due(9.0) == []


def test_deadlines_that_are_put_off_again_and_again_take_no_memory() -> None:
    agenda, one = Agenda(), Watched()
    for now in range(1000):
        one.at = now + 90.0
        agenda.note(one)
        agenda.note(one)
        for each in agenda.due(now):
            agenda.note(each)
            agenda.note(each)
    assert len(agenda._heap) == 1


def all_are_noted(world: World) -> None:
    for node in world.nodes.values():
        for neighbour in node.speaker.neighbours.values():
            assert neighbour.noted_at <= neighbour.next_at(), f"a timer of {neighbour.name} would be missed"


@pytest.mark.parametrize("seed", range(12))
def test_no_timer_of_a_speaker_is_missed_whatever_happens_to_its_peers(seed: int) -> None:
    rng, world = random.Random(seed), World()
    texts = {
        number: originate(f"10.1.{number}.0/24") + "".join(peer(other) for other in range(1, 5) if other != number)
        for number in range(1, 5)
    }
    nodes = {number: world.node(f"10.0.0.{number}", text) for number, text in texts.items()}
    world.start()
    for _ in range(40):
        number = rng.randrange(1, 5)
        node, what = nodes[number], rng.choice(["kill", "down", "up", "refresh", "file", "wait", "wait", "wait"])
        far = f"p{rng.choice([other for other in nodes if other != number])}"
        if what == "kill":
            node.kill()
            nodes[number] = world.node(f"10.0.0.{number}", texts[number])
            nodes[number].speaker.start(world.now)
        elif what == "down":
            node.speaker.shutdown_peer(far, "", world.now)
        elif what == "up":
            node.speaker.enable_peer(far, world.now)
        elif what == "refresh":
            node.speaker.refresh_peer(far, "both", world.now)
        elif what == "file":
            text = texts[number] + originate(f"10.2.{rng.randrange(9)}.0/24")
            node.speaker.reconfigure(config_of(f"10.0.0.{number}", text), world.now)
        else:
            world.run(rng.choice([0.25, 3.0, 45.0, 130.0]))
        all_are_noted(world)
        world.steps(rng.randrange(30))
        all_are_noted(world)


def test_a_tick_does_not_look_at_those_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    hub: Node = world.node("10.0.0.1", "".join(peer(number, passive=True) for number in range(2, 60)))
    world.start()
    looks: list[float] = []
    monkeypatch.setattr(Peer, "handle_timer", lambda _, now: looks.append(now))
    for tick in range(20):
        hub.speaker.handle_timer(world.now + tick / 10)
    assert looks == []
