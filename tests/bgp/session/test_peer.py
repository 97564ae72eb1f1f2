"""A peer: which connection wins, what a lost session means for its routes, and when to try again."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgp.families import IPV4, IPV6
from bgp.session.fsm import State
from bgp.session.outputs import CloseConnection, OpenConnection, PeerDown, PeerUp, SendBytes, Told
from bgp.session.peer import Peer
from bgp.session.session import Session
from bgp.session.settings import SessionSettings
from bgp.wire.framing import KEEPALIVE_MESSAGE, NOTIFICATION, OPEN, UPDATE, message
from bgp.wire.notification import CONFIGURATION_CHANGE, encode_notification
from bgp.wire.open import parse_open
from tests.bgp.session.test_session import Probe
from tests.bgp.session.world import LEFT, LEFT_ADDRESS, RIGHT, RIGHT_ADDRESS, World, make_peer

NO_RESTART = dataclasses.replace(RIGHT, graceful_restart=False)


def two(left: SessionSettings = LEFT, right: SessionSettings = RIGHT, seed: int = 1) -> World:
    return World(make_peer(left, name="left", seed=seed), make_peer(right, name="right", seed=seed + 1000))


def up(left: SessionSettings = LEFT, right: SessionSettings = RIGHT) -> World:
    world = two(left, right)
    world.start()
    assert [peer.state for peer in world.peers] == [State.ESTABLISHED] * 2
    for seen in world.seen:
        seen.clear()
    return world


def downs(world: World, side: int) -> list[tuple[str, bool]]:
    return [(output.reason, output.retain) for output in world.outputs(side, PeerDown)]


class Alone:
    """One peer and a test that plays the other side."""

    def __init__(self, ours: SessionSettings = LEFT, theirs: SessionSettings = RIGHT, *, seed: int = 1) -> None:
        self.peer = make_peer(ours, seed=seed)
        self.theirs = Probe(theirs=theirs).their_open()
        self.seen: list[Any] = []

    def outputs(self, kind: type[Any]) -> list[Any]:
        self.seen += self.peer.take_outputs()
        return [output for output in self.seen if isinstance(output, kind)]

    def forget(self) -> None:
        self.outputs(object)
        self.seen.clear()

    def dial(self, now: float) -> Session:
        """The peer's own attempt comes through."""
        session = self.outputs(OpenConnection)[-1].session
        assert isinstance(session, Session)
        self.peer.connection_made(session, now, LEFT_ADDRESS, RIGHT_ADDRESS)
        return session

    def incoming(self, now: float) -> Session:
        return self.peer.incoming(now, LEFT_ADDRESS, RIGHT_ADDRESS)

    def establish(self, now: float = 0.0) -> Session:
        self.peer.start(now)
        session = self.incoming(now)
        self.peer.receive_data(session, self.theirs + KEEPALIVE_MESSAGE, now)
        assert self.peer.established is session
        self.forget()
        return session

    def notifications(self, session: Session | None = None) -> list[str]:
        return [
            f"{output.data[19]}/{output.data[20]} {output.data[21:].hex()}".rstrip()
            for output in self.outputs(SendBytes)
            if output.data[18] == NOTIFICATION and session in (None, output.session)
        ]

    def opens(self) -> list[Any]:
        return [parse_open(output.data[19:]) for output in self.outputs(SendBytes) if output.data[18] == OPEN]


# --- coming up, collisions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("swap", [False, True])
def test_both_dial_at_once_and_one_session_stands(seed: int, swap: bool) -> None:
    world = two(seed=seed)
    if swap:
        world.peers.reverse()
    world.start()
    assert [peer.state for peer in world.peers] == [State.ESTABLISHED] * 2
    assert [len(peer.sessions) for peer in world.peers] == [1, 1]
    assert [len(world.outputs(side, PeerUp)) for side in (0, 1)] == [1, 1]
    assert [world.outputs(side, PeerDown) for side in (0, 1)] == [[], []]
    assert len([connection for connection in world.connections if not connection.is_closed]) == 1
    # The connection of the speaker with the higher identifier, 10.0.0.2.
    kept = {peer.settings.local_asn: peer.established for peer in world.peers}
    assert kept[65001] is not None
    assert kept[65001].is_incoming
    assert kept[65002] is not None
    assert not kept[65002].is_incoming


def test_identifiers_that_are_equal_leave_it_to_the_as_number() -> None:
    """RFC 6286 §2.3."""
    world = two(right=dataclasses.replace(RIGHT, router_id=LEFT.router_id))
    world.start()
    session = world.peers[1].established
    assert session is not None
    assert not session.is_incoming, "65002 is the higher AS and made it"


def collision(alone: Alone, first: str) -> tuple[Session, Session]:
    """An own connection and one of the peer's; the peer's OPEN has come on `first`, not yet on the other."""
    alone.peer.start(0.0)
    ours = alone.dial(0.0)
    theirs = alone.incoming(0.0)
    alone.forget()
    alone.peer.receive_data(ours if first == "ours" else theirs, alone.theirs, 1.0)
    return ours, theirs


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_the_lower_identifier_gives_its_own_connection_up(first: str) -> None:
    alone = Alone()
    ours, theirs = collision(alone, first)
    assert alone.notifications() == ["6/7"]
    assert alone.notifications(ours) == ["6/7"]
    assert alone.peer.sessions == (theirs,)


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_the_higher_identifier_gives_the_peers_connection_up(first: str) -> None:
    alone = Alone(dataclasses.replace(LEFT, router_id=bytes([10, 0, 0, 9])))
    ours, theirs = collision(alone, first)
    assert alone.notifications(theirs) == ["6/7"]
    assert alone.peer.sessions == (ours,)


def test_a_connection_that_has_long_been_silent_wins_no_collision() -> None:
    """The peer dominates, but the connection that it made before has been silent for a minute: it may be dead."""
    alone = Alone(dataclasses.replace(LEFT, router_id=bytes([10, 0, 0, 9])))
    alone.peer.start(0.0)
    ours = alone.dial(0.0)
    theirs = alone.incoming(60.0)
    alone.peer.receive_data(theirs, alone.theirs, 60.0)
    assert alone.peer.sessions == (theirs,)
    assert alone.notifications(ours) == ["6/7"]


def test_an_attempt_under_way_is_given_up_for_an_open() -> None:
    alone = Alone()
    alone.peer.start(0.0)
    dialling = alone.outputs(OpenConnection)[0].session
    theirs = alone.incoming(0.0)
    alone.peer.receive_data(theirs, alone.theirs, 0.0)
    assert alone.peer.sessions == (theirs,)
    assert CloseConnection(dialling) in alone.outputs(CloseConnection)


def test_who_connects_twice_has_given_up_the_first() -> None:
    alone = Alone()
    alone.peer.start(0.0)
    first = alone.incoming(0.0)
    second = alone.incoming(1.0)
    assert alone.notifications(first) == ["6/7"]
    alone.peer.receive_data(second, alone.theirs + KEEPALIVE_MESSAGE, 1.0)
    assert alone.peer.established is second


def test_at_most_two_sessions_whatever_connects() -> None:
    alone = Alone()
    alone.peer.start(0.0)
    for now in range(50):
        alone.incoming(float(now))
        assert len(alone.peer.sessions) <= 2


def test_a_new_connection_loses_against_an_established_session_without_graceful_restart() -> None:
    alone = Alone(theirs=NO_RESTART)
    session = alone.establish()
    late = alone.incoming(5.0)
    assert [output.data for output in alone.outputs(SendBytes) if output.session is session] == [KEEPALIVE_MESSAGE]
    alone.peer.receive_data(late, alone.theirs, 5.0)
    assert alone.notifications(late) == ["6/7"]
    assert alone.peer.sessions == (session,)
    assert alone.outputs(PeerDown) == []


def test_a_new_open_with_graceful_restart_means_that_the_old_session_is_lost() -> None:
    """RFC 4724 §5."""
    alone = Alone()
    session = alone.establish()
    late = alone.incoming(5.0)
    assert alone.outputs(PeerDown) == [], "not before its OPEN: anybody can open a connection"
    alone.peer.receive_data(late, alone.theirs, 5.0)
    assert alone.outputs(PeerDown) == [PeerDown(session, "the peer opened a new connection", True)]
    alone.peer.receive_data(late, KEEPALIVE_MESSAGE, 5.0)
    assert alone.peer.established is late
    assert alone.notifications(session) == []


def test_a_bad_open_on_a_second_connection_leaves_the_session_alone() -> None:
    alone = Alone()
    session = alone.establish()
    late = alone.incoming(5.0)
    wrong = Probe(theirs=dataclasses.replace(RIGHT, local_asn=65099)).their_open()
    alone.peer.receive_data(late, wrong, 5.0)
    assert alone.notifications(late) == ["2/2"]
    assert alone.peer.sessions == (session,)
    assert alone.outputs(PeerDown) == []


# --- are the routes kept? --------------------------------------------------------------------------------------------

N = RIGHT
NO_N = "no N bit"


def lose(alone: Alone, session: Session, how: str) -> None:
    peer = alone.peer
    if how == "connection":
        peer.connection_lost(session, 10.0, "reset by peer")
    elif how == "hold timer":
        peer.handle_timer(90.0)
    elif how.startswith("received"):
        code, subcode = map(int, how.split()[1].split("/"))
        data = b"\x06\x02" if subcode == 9 else b""
        peer.receive_data(session, encode_notification(code, subcode, data), 10.0)
    elif how == "bad message":
        peer.receive_data(session, b"\0" * 19, 10.0)
    elif how == "send hold":
        session.send_blocked(10.0)
        for now in range(10, 500, 10):
            if peer.established:
                peer.receive_data(session, KEEPALIVE_MESSAGE, float(now))
                peer.handle_timer(float(now))
    elif how == "shutdown":
        peer.shutdown(10.0, "by hand")
    elif how == "reset":
        peer.reset(10.0)
    elif how == "configuration":
        peer.reset(10.0, subcode=CONFIGURATION_CHANGE)
    elif how == "prefix limit":
        peer.prefix_limit_exceeded(10.0, IPV4, 10, 60.0)
    elif how == "exit":
        peer.stop(10.0, 6, 2, b"", "exit", hard=False)


@pytest.mark.parametrize(
    ("how", "with_n", "without_n"),
    [
        ("connection", True, True),
        ("hold timer", True, False),
        ("send hold", True, False),
        ("bad message", True, False),
        ("received 6/2", True, False),
        ("received 6/4", True, False),
        ("received 4/0", True, False),
        ("received 6/9", False, False),
        ("configuration", True, False),
        ("exit", True, False),
        ("shutdown", False, False),
        ("reset", False, False),
        ("prefix limit", False, False),
    ],
)
def test_which_losses_keep_the_routes(how: str, with_n: bool, without_n: bool) -> None:
    """RFC 4724 §4.2: a lost connection does; RFC 8538 §4: the others only if both set the N bit."""
    for n_bit, expected in ((True, with_n), (False, without_n)):
        alone = Alone()
        if not n_bit:
            alone.theirs = alone.theirs.replace(b"\x40\x0a\x40\x78", b"\x40\x0a\x00\x78")
        session = alone.establish()
        lose(alone, session, how)
        assert [output.retain for output in alone.outputs(PeerDown)] == [expected], (how, n_bit)


@pytest.mark.parametrize("how", ["connection", "received 6/2"])
def test_nothing_is_kept_without_graceful_restart_on_both_sides(how: str) -> None:
    for ours, theirs in ((LEFT, NO_RESTART), (dataclasses.replace(LEFT, graceful_restart=False), RIGHT)):
        alone = Alone(ours, theirs)
        lose(alone, alone.establish(), how)
        assert [output.retain for output in alone.outputs(PeerDown)] == [False]


def test_a_peer_that_lists_no_family_has_nothing_kept() -> None:
    alone = Alone()
    said = bytes.fromhex("020c400a40780001018000020180")
    assert said in alone.theirs
    header, body = alone.theirs[:19], alone.theirs[19:].replace(said, bytes.fromhex("020440024078"))
    body = body[:9] + bytes([len(body) - 10]) + body[10:]
    alone.theirs = message(OPEN, body)
    assert header[18] == OPEN
    lose(alone, alone.establish(), "connection")
    assert [output.retain for output in alone.outputs(PeerDown)] == [False]


def test_our_restart_bit_is_set_until_it_is_taken_back() -> None:
    peer = make_peer(LEFT, is_restarting=True)
    alone = Alone()
    alone.peer = peer
    peer.start(0.0)
    alone.incoming(0.0)
    peer.is_restarting = False
    alone.incoming(1.0)
    bits = [opened.capabilities.graceful_restart.restarting for opened in alone.opens()]
    assert bits == [True, False]


# --- the administrator -----------------------------------------------------------------------------------------------


def test_a_shutdown_is_told_and_lasts() -> None:
    world = up(right=NO_RESTART)
    world.peers[0].shutdown(world.now, "TCK-10 maintenance")
    world.run()
    assert world.peers[0].state is State.IDLE
    assert world.peers[0].next_timer_at() is None
    assert world.peers[1].last_error == (
        "received 6/2 Cease, Administrative Shutdown: TCK-10 maintenance",
        world.now,
    )
    world.advance(600)
    assert [peer.established for peer in world.peers] == [None, None]
    assert world.peers[1].last_error[0].endswith("Administrative Shutdown: TCK-10 maintenance"), "each attempt is told"
    world.peers[0].enable(world.now)
    world.advance(120)
    assert [peer.state for peer in world.peers] == [State.ESTABLISHED] * 2


def test_a_shutdown_from_the_configuration_holds_from_the_start() -> None:
    world = two(dataclasses.replace(LEFT, shutdown="not yet"))
    world.start()
    world.advance(300)
    assert world.peers[0].state.value == "Idle"
    assert world.outputs(0, OpenConnection) == []
    world.peers[0].enable(world.now)
    world.advance(120)
    assert world.peers[0].state is State.ESTABLISHED


def test_with_graceful_restart_a_shutdown_is_a_hard_reset() -> None:
    world = up()
    world.peers[0].shutdown(world.now, "bye")
    world.run()
    assert downs(world, 1) == [("received 6/9 Cease, Hard Reset: 6/2 Cease, Administrative Shutdown: bye", False)]


def test_a_reset_comes_back_soon() -> None:
    world = up()
    world.peers[0].reset(world.now, "because")
    world.run()
    assert downs(world, 0) == [("administrative reset: because", False)]
    world.advance(5)
    assert [peer.state for peer in world.peers] == [State.ESTABLISHED] * 2
    assert [peer.flaps for peer in world.peers] == [1, 1]


def test_resetting_what_is_down_brings_nothing_up() -> None:
    alone = Alone()
    alone.peer.reset(0.0)
    alone.peer.start(0.0)
    alone.peer.shutdown(1.0)
    alone.peer.reset(2.0)
    assert alone.peer.next_timer_at() is None


def test_a_prefix_limit_is_told_with_its_numbers_and_waits() -> None:
    alone = Alone(theirs=NO_RESTART)
    alone.establish()
    alone.peer.prefix_limit_exceeded(10.0, IPV6, 1000, 60.0)
    assert alone.notifications() == ["6/1 000201000003e8"]
    assert alone.peer.next_timer_at() == 70.0
    rejected = alone.incoming(20.0)
    assert alone.notifications(rejected) == ["6/5"]
    alone.peer.handle_timer(70.0)
    assert alone.peer.state is State.CONNECT


def test_a_prefix_limit_without_restart_stays_down_until_enabled() -> None:
    alone = Alone(theirs=NO_RESTART)
    alone.establish()
    alone.peer.prefix_limit_exceeded(10.0, IPV4, 5, None)
    assert alone.peer.next_timer_at() is None
    assert alone.peer.shutdown_reason == "more than 5 ipv4 prefixes"
    alone.incoming(20.0)
    assert alone.peer.sessions == ()
    alone.peer.enable(30.0)
    assert alone.peer.state is State.CONNECT


def test_a_deconfigured_peer_is_told_so() -> None:
    alone = Alone(theirs=NO_RESTART)
    alone.establish()
    alone.peer.stop(10.0, 6, 3, b"", "deconfigured")
    assert alone.notifications() == ["6/3"]
    assert alone.peer.sessions == ()


def test_a_changed_configuration_says_whether_it_needs_a_reset() -> None:
    alone = Alone()
    session = alone.establish()
    assert not alone.peer.reconfigure(dataclasses.replace(LEFT, connect_retry_s=3.0))
    assert alone.peer.reconfigure(dataclasses.replace(LEFT, hold_time_s=30))
    assert alone.peer.established is session
    alone.peer.reset(1.0, subcode=CONFIGURATION_CHANGE)
    assert alone.notifications() == ["6/6"]
    late = alone.peer
    late.handle_timer(10.0)
    alone.dial(10.0)
    assert alone.opens()[-1].hold_time_s == 30


def test_a_peer_that_becomes_passive_needs_a_reset_only_while_it_waits() -> None:
    passive = dataclasses.replace(LEFT, is_passive=True)
    alone = Alone(passive)
    alone.peer.start(0.0)
    assert alone.peer.reconfigure(LEFT)
    alone.peer.reset(0.0, subcode=CONFIGURATION_CHANGE)
    alone.peer.handle_timer(10.0)
    assert alone.outputs(OpenConnection)
    standing = Alone(LEFT)
    standing.establish()
    assert not standing.peer.reconfigure(passive)


# --- trying again ----------------------------------------------------------------------------------------------------


def test_nobody_there_is_tried_again_after_the_connect_retry_time() -> None:
    world = two()
    world.reachable = False
    world.peers[0].start(0.0)
    world.run()
    assert world.peers[0].state.value == "Active"
    assert world.peers[0].last_error == ("connect: connection refused", 0.0)
    world.advance(600)
    dials = len(world.outputs(0, OpenConnection))
    assert 60 <= dials <= 82, "every 7.5 to 10 s, without any lengthening"
    world.reachable = True
    world.peers[1].start(world.now)
    world.advance(11)
    assert world.peers[0].state is State.ESTABLISHED


def test_an_attempt_that_hangs_is_given_up_and_made_again() -> None:
    alone = Alone()
    alone.peer.start(0.0)
    session = alone.outputs(OpenConnection)[0].session
    at = alone.peer.next_timer_at()
    assert at is not None
    alone.forget()
    alone.peer.handle_timer(at)
    assert alone.outputs(object)[:2] == [CloseConnection(session, abort=True), OpenConnection(session)]


def test_why_the_last_session_ended_is_kept_when_new_attempts_fail() -> None:
    world = up(right=NO_RESTART)
    peer = world.peers[1]
    world.peers[0].shutdown(world.now, "rack 7 moves")
    world.run()
    ended_at = world.now
    session = peer.incoming(world.now + 1.0, b"\x0a\x00\x00\x02", b"\x0a\x00\x00\x01")
    peer.connection_lost(session, world.now + 2.0, "closed by the peer")
    assert peer.last_error == ("connection lost: closed by the peer", ended_at + 2.0)
    assert peer.last_down == ("received 6/2 Cease, Administrative Shutdown: rack 7 moves", ended_at)


def test_a_connection_closed_before_the_open_is_tried_again_and_shown() -> None:
    alone = Alone()
    alone.peer.start(0.0)
    session = alone.dial(0.0)
    alone.peer.connection_lost(session, 1.0, "closed by peer")
    assert alone.peer.state.value == "Active"
    assert alone.peer.last_error == ("connection lost: closed by peer", 1.0)
    alone.forget()
    alone.peer.handle_timer(11.0)
    assert alone.outputs(OpenConnection) == [OpenConnection(session)]
    alone.dial(11.0)
    alone.peer.receive_data(session, alone.theirs + KEEPALIVE_MESSAGE, 11.0)
    assert alone.peer.established is session


def test_a_lost_session_is_dialled_again_after_the_idle_hold_time_and_the_peer_is_let_in_meanwhile() -> None:
    alone = Alone()
    session = alone.establish()
    alone.peer.connection_lost(session, 10.0, "reset")
    assert alone.peer.state is State.ACTIVE
    at = alone.peer.next_timer_at()
    assert at is not None
    assert 10.75 <= at <= 11.0
    again = alone.incoming(10.1)
    alone.peer.receive_data(again, alone.theirs + KEEPALIVE_MESSAGE, 10.2)
    assert alone.peer.established is again


def bad_open(alone: Alone, now: float) -> bool:
    """The peer connects and says a wrong AS. Was it let in?"""
    session = alone.incoming(now)
    wrong = Probe(theirs=dataclasses.replace(RIGHT, local_asn=65099)).their_open()
    alone.peer.receive_data(session, wrong, now)
    return alone.notifications(session) == ["2/2"]


def test_an_oscillating_peer_is_damped() -> None:
    passive = dataclasses.replace(LEFT, is_passive=True)
    alone = Alone(passive)
    alone.peer.start(0.0)
    let_in = 0
    for tick in range(6000):
        alone.peer.handle_timer(tick / 10)
        let_in += bad_open(alone, tick / 10)
    assert let_in < 22, "600 s: 1, 2, 4, … 60 s pauses"
    assert alone.peer.state in (State.IDLE, State.ACTIVE)


def test_a_session_that_stood_for_a_while_makes_up_for_earlier_failures() -> None:
    alone = Alone()
    now = 0.0
    session = alone.establish(now)
    for _ in range(10):
        now += 1.0
        alone.peer.connection_lost(session, now, "reset")
        alone.peer.handle_timer(now + 61)
        now += 61
        session = alone.incoming(now)
        alone.peer.receive_data(session, alone.theirs + KEEPALIVE_MESSAGE, now)
    assert alone.peer.established is session
    alone.peer.connection_lost(session, now + 3600, "reset")
    at = alone.peer.next_timer_at()
    assert at is not None
    assert at <= now + 3601.0


def test_the_peers_own_reset_is_not_held_against_it() -> None:
    alone = Alone()
    session = alone.establish()
    for now in range(1, 20):
        alone.peer.receive_data(session, encode_notification(6, 4), float(now))
        assert alone.peer.state is State.ACTIVE
        session = alone.incoming(float(now))
        alone.peer.receive_data(session, alone.theirs + KEEPALIVE_MESSAGE, float(now))
    assert alone.peer.established is session


def test_a_stopped_or_unstarted_peer_lets_nobody_in() -> None:
    alone = Alone()
    assert alone.notifications(alone.incoming(0.0)) == ["6/5"]
    alone.peer.start(0.0)
    alone.peer.stop(1.0)
    assert alone.notifications(alone.incoming(1.0)) == ["6/5"]


def test_rejections_do_not_fill_the_log() -> None:
    alone = Alone()
    for tick in range(1000):
        alone.incoming(tick / 1000)
    assert len(alone.outputs(Told)) == 1


# --- refused capabilities --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notification", "left", "why"),
    [
        (encode_notification(2, 4), set(), "no capabilities known at all"),
        (encode_notification(2, 7, bytes.fromhex("0600")), {"families", "refresh", "restart", "asn"}, "just this one"),
        (encode_notification(2, 7), set(), "no data: all"),
    ],
)
def test_a_refused_capability_is_left_out_of_the_next_open(notification: bytes, left: set[str], why: str) -> None:
    alone = Alone()
    alone.peer.start(0.0)
    session = alone.dial(0.0)
    alone.peer.receive_data(session, notification, 0.0)
    alone.forget()
    alone.peer.handle_timer(1.0)
    again = alone.dial(1.0)
    said = alone.opens()[-1].capabilities
    there = {
        "families": said.families,
        "refresh": said.route_refresh,
        "long": said.extended_message,
        "restart": said.graceful_restart,
        "asn": said.four_octet_asn,
    }
    assert {name for name, value in there.items() if value} == left, why
    alone.peer.receive_data(again, alone.theirs + KEEPALIVE_MESSAGE, 1.0)
    assert alone.peer.negotiated is not None
    assert alone.peer.negotiated.families == ((IPV4, IPV6) if "families" in left else (IPV4,))


def test_a_peer_that_refuses_even_the_bare_open_is_not_hammered() -> None:
    alone = Alone()
    alone.peer.start(0.0)
    opens = 0
    now = 0.0
    while now < 300:
        if alone.outputs(OpenConnection):
            session = alone.dial(now)
            alone.peer.receive_data(session, encode_notification(2, 4), now)
            opens += 1
            alone.forget()
        at = alone.peer.next_timer_at()
        assert at is not None
        now = at
        alone.peer.handle_timer(now)
    assert opens < 16


def test_capabilities_are_offered_again_once_a_session_stood() -> None:
    alone = Alone()
    alone.peer.start(0.0)
    alone.peer.receive_data(alone.dial(0.0), encode_notification(2, 4), 0.0)
    session = alone.incoming(0.5)
    alone.peer.receive_data(session, alone.theirs + KEEPALIVE_MESSAGE, 0.5)
    assert alone.opens()[-1].capabilities.families is None
    alone.peer.connection_lost(session, 10.0, "reset")
    alone.incoming(10.5)
    assert alone.opens()[-1].capabilities.families is not None


# --- passive and dynamic ---------------------------------------------------------------------------------------------


def test_a_passive_peer_waits_and_never_dials() -> None:
    world = two(dataclasses.replace(LEFT, is_passive=True))
    world.peers[0].start(0.0)
    world.advance(600)
    assert world.peers[0].state.value == "Active"
    assert world.outputs(0, OpenConnection) == []
    world.peers[1].start(world.now)
    world.run()
    assert world.peers[0].state is State.ESTABLISHED


def test_a_dynamic_peer_lives_as_long_as_its_session() -> None:
    dynamic = dataclasses.replace(LEFT, is_passive=True, is_dynamic=True)
    alone = Alone(dynamic)
    session = alone.incoming(0.0)
    alone.peer.receive_data(session, alone.theirs + KEEPALIVE_MESSAGE, 0.0)
    assert not alone.peer.is_finished
    alone.peer.connection_lost(session, 10.0, "reset")
    assert alone.peer.is_finished
    assert alone.peer.next_timer_at() is None
    again = alone.incoming(11.0)
    alone.peer.receive_data(again, alone.theirs + KEEPALIVE_MESSAGE, 11.0)
    assert alone.peer.established is again


def test_an_oscillating_dynamic_peer_is_damped_too() -> None:
    dynamic = dataclasses.replace(LEFT, is_passive=True, is_dynamic=True)
    alone = Alone(dynamic)
    let_in = 0
    for tick in range(1000):
        alone.peer.handle_timer(tick / 10)
        let_in += bad_open(alone, tick / 10)
    assert let_in < 12
    alone.peer.handle_timer(1000.0)
    assert alone.peer.is_finished


# --- what can be seen ------------------------------------------------------------------------------------------------


def test_state_changes_are_told_with_their_reason() -> None:
    alone = Alone()
    session = alone.establish()
    alone.peer.receive_data(session, encode_notification(6, 2, b"\x03bye"), 10.0)
    changes = [output.fields for output in alone.outputs(Told) if output.name == "peer_state"]
    assert changes == [
        {
            "peer": "peer",
            "old": "Established",
            "new": "Active",
            "why": "received 6/2 Cease, Administrative Shutdown: bye",
        }
    ]
    assert alone.peer.state_since == 10.0


def test_malformed_messages_are_kept_bounded_and_reported_seldom() -> None:
    alone = Alone()
    alone.establish()
    long = message(UPDATE, b"\0" * 60000)
    for tick in range(100):
        alone.peer.malformed(long, f"fault {tick}", "treat-as-withdraw", tick / 10)
    kept = alone.peer.malformed_messages
    assert [item.text for item in kept] == [f"fault {tick}" for tick in range(92, 100)]
    assert {(len(item.message), item.octets) for item in kept} == {(4096, 60019)}
    assert alone.peer.malformed_count == 100
    assert [output.fields["more"] for output in alone.outputs(Told)] == [0]


def test_uptime_counters_and_timers_can_be_read() -> None:
    world = up()
    peer = world.peers[0]
    assert peer.uptime_s(world.now + 5) == 5.0
    assert set(peer.timers()) == {"hold", "keepalive"}
    assert peer.messages_received["open"] >= 1
    world.advance(90)
    assert peer.messages_sent["keepalive"] >= 3
    assert peer.uptime_s(world.now) == 90.0


# --- anything may happen ---------------------------------------------------------------------------------------------

steps = st.lists(
    st.sampled_from(
        [
            "advance",
            "advance",
            "advance",
            "lose_all",
            "unreachable",
            "reachable",
            "shutdown0",
            "enable0",
            "reset1",
            "blackout",
            "limit0",
        ]
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(steps, st.integers(0, 1000), st.booleans())
def test_two_peers_find_each_other_again_whatever_has_happened(what: list[str], seed: int, is_passive: bool) -> None:
    world = two(dataclasses.replace(LEFT, is_passive=is_passive), seed=seed)
    world.start()
    for step in what:
        if step == "advance":
            world.advance(7.3)
        elif step == "lose_all":
            for connection in [c for c in world.connections if not c.is_closed]:
                connection.is_closed = True
                for side in (0, 1):
                    session = connection.ends[side]
                    if session is not None:
                        world.peers[side].connection_lost(session, world.now, "reset")
        elif step == "blackout":
            world.connections = [c for c in world.connections if c.is_closed]
        elif step in ("unreachable", "reachable"):
            world.reachable = step == "reachable"
        elif step == "shutdown0":
            world.peers[0].shutdown(world.now, "x")
        elif step == "enable0":
            world.peers[0].enable(world.now)
        elif step == "reset1":
            world.peers[1].reset(world.now)
        elif step == "limit0":
            world.peers[0].prefix_limit_exceeded(world.now, IPV4, 1, 30.0)
        world.run()
        assert all(len(peer.sessions) <= 2 for peer in world.peers)
    world.reachable = True
    world.peers[0].enable(world.now)
    world.advance(400)
    assert [peer.state for peer in world.peers] == [State.ESTABLISHED] * 2
    assert [len(peer.sessions) for peer in world.peers] == [1, 1]
    for side in (0, 1):
        ups, lost = len(world.outputs(side, PeerUp)), len(world.outputs(side, PeerDown))
        assert ups == lost + 1


def test_a_peer_object_is_a_session_owner() -> None:
    assert isinstance(make_peer(LEFT), Peer)


events = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "incoming",
                "dialled",
                "failed",
                "lost",
                "data",
                "data",
                "data",
                "timer",
                "timer",
                "blocked",
                "shutdown",
                "enable",
                "reset",
                "limit",
                "stop",
                "start",
                "reconfigure",
            ]
        ),
        st.integers(0, 5),
    ),
    max_size=40,
)


@settings(max_examples=400, deadline=None)
@given(events, st.sampled_from(["active", "passive", "dynamic"]), st.booleans())
def test_whatever_happens_in_whatever_order_the_outputs_make_sense(
    what: list[tuple[str, int]], kind: str, restarts: bool
) -> None:
    ours = dataclasses.replace(LEFT, is_passive=kind != "active", is_dynamic=kind == "dynamic", delay_open_s=0.0)
    alone = Alone(ours, RIGHT if restarts else NO_RESTART)
    peer, known, dialling, closed = alone.peer, list[Session](), list[Session](), set[Session]()
    octets = [alone.theirs, KEEPALIVE_MESSAGE, message(UPDATE, b"\0\0\0\0"), encode_notification(6, 2), b"\0" * 19]
    octets.append(alone.theirs + KEEPALIVE_MESSAGE)
    now, is_up = 0.0, False
    peer.start(now)
    for name, number in what:
        session = known[-1 - number % len(known)] if known else None
        if name == "incoming":
            known.append(alone.incoming(now))
        elif name == "dialled" and dialling:
            known.append(dialling[-1])
            peer.connection_made(dialling.pop(), now, LEFT_ADDRESS, RIGHT_ADDRESS)
        elif name == "failed" and dialling:
            peer.connection_failed(dialling.pop(), now, "refused")
        elif name == "lost" and session:
            peer.connection_lost(session, now, "reset")
        elif name == "data" and session:
            peer.receive_data(session, octets[number], now)
        elif name == "timer":
            now = max(now + number, (peer.next_timer_at() or now) if number == 5 else now)
            peer.handle_timer(now)
            assert (peer.next_timer_at() or math.inf) > now
        elif name == "blocked" and session:
            session.send_blocked(now)
        elif name == "shutdown":
            peer.shutdown(now, "x")
        elif name == "enable":
            peer.enable(now)
        elif name == "reset":
            peer.reset(now)
        elif name == "limit":
            peer.prefix_limit_exceeded(now, IPV4, 1, 10.0 * number or None)
        elif name == "stop":
            peer.stop(now)
        elif name == "start":
            peer.start(now)
        elif name == "reconfigure":
            peer.reconfigure(dataclasses.replace(ours, hold_time_s=30 * number))
        for output in peer.take_outputs():
            if isinstance(output, OpenConnection):
                assert kind == "active"
                closed.discard(output.session)
                dialling.append(output.session)
            elif isinstance(output, CloseConnection):
                assert output.session not in closed, "closed twice"
                closed.add(output.session)
                dialling = [one for one in dialling if one is not output.session]
            elif isinstance(output, SendBytes):
                assert output.session not in closed, "sent into a closed connection"
            elif isinstance(output, PeerUp | PeerDown):
                assert is_up is isinstance(output, PeerDown)
                is_up = not is_up
        assert len(peer.sessions) <= 2
        assert is_up is (peer.established is not None)
        assert len([one for one in peer.sessions if one.state is State.ESTABLISHED]) <= 1
        assert peer.shutdown_reason is None or not peer.sessions
    assert len(dialling) <= 1
