"""One connection: what is read, what is answered, and when."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgp.families import IPV4, IPV6
from bgp.session.fsm import State
from bgp.session.negotiation import Negotiated, our_open
from bgp.session.outputs import CloseConnection, Output, RefreshReceived, RouteChanges, SendBytes, Told
from bgp.session.session import Ended, OnMalformed, Session, UpdateParserProtocol
from bgp.session.settings import SessionSettings
from bgp.wire.errors import NotificationError
from bgp.wire.framing import KEEPALIVE_MESSAGE, MARKER, NOTIFICATION, OPEN, ROUTE_REFRESH, UPDATE, message
from bgp.wire.notification import Notification, encode_notification
from bgp.wire.open import encode_open
from bgp.wire.refresh import encode_refresh
from tests.bgp.session.world import LEFT, LEFT_ADDRESS, RIGHT, RIGHT_ADDRESS, RecordingParser

GOOD, BROKEN, BUGGY = b"\0\0\0\0good", b"\0\0\0\0broken", b"\0\0\0\0buggy"
BROKEN_ANSWER = NotificationError(3, 10, b"\x21", "prefix length 33")


class Probe:
    """A session with what it put out. `sent` are (type, body) of messages, oldest first."""

    def __init__(self, ours: SessionSettings = LEFT, theirs: SessionSettings = RIGHT) -> None:
        self.outputs: list[Output] = []
        self.ended: Ended | None = None
        self.negotiated: Negotiated | None = None
        self.malformed_messages: list[tuple[bytes, str, str, float]] = []
        self.accepts = True
        self.parser = RecordingParser({BROKEN: BROKEN_ANSWER, BUGGY: ZeroDivisionError("a defect")})
        self.theirs = theirs
        self.counted_sent = dict.fromkeys(("open", "update", "notification", "keepalive", "refresh"), 0)
        self.counted_received = dict(self.counted_sent)
        self.session = Session(
            ours,
            owner=self,
            emit=self.outputs.append,
            rng=random.Random(1),
            make_parser=self.make_parser,
            opening=our_open(ours, restarting=False, forwarding_preserved=True, omitted=frozenset()),
            sent=self.counted_sent,
            received=self.counted_received,
            is_incoming=True,
        )

    def make_parser(self, _: Negotiated, on_malformed: OnMalformed) -> UpdateParserProtocol:
        self.parser.on_malformed = on_malformed
        return self.parser

    def open_received(self, session: Session, negotiated: Negotiated, now: float) -> bool:
        return self.accepts

    def session_established(self, session: Session, negotiated: Negotiated, now: float) -> None:
        self.negotiated = negotiated

    def session_ended(self, session: Session, ended: Ended, now: float) -> None:
        self.ended = ended

    def malformed(self, message: bytes, text: str, answer: str, now: float) -> None:
        self.malformed_messages.append((message, text, answer, now))

    def connect(self, now: float = 0.0) -> Probe:
        from bgp.session.fsm import Event

        self.session.start(Event.AUTOMATIC_START_PASSIVE, now)
        self.session.connection_made(now, LEFT_ADDRESS, RIGHT_ADDRESS)
        return self

    def their_open(self) -> bytes:
        return encode_open(our_open(self.theirs, restarting=False, forwarding_preserved=True, omitted=frozenset()))

    def establish(self, now: float = 0.0) -> Probe:
        self.connect(now)
        self.session.receive_data(self.their_open() + KEEPALIVE_MESSAGE, now)
        assert self.session.state is State.ESTABLISHED
        self.outputs.clear()
        return self

    def all(self, kind: type[Any]) -> list[Any]:
        return [output for output in self.outputs if isinstance(output, kind)]

    @property
    def sent(self) -> list[tuple[int, bytes]]:
        return [(output.data[18], output.data[19:]) for output in self.all(SendBytes)]

    @property
    def notification(self) -> str:
        """The NOTIFICATION sent, `code/subcode data`; there must be just one, and the connection closed after it."""
        [body] = [body for kind, body in self.sent if kind == NOTIFICATION]
        assert isinstance(self.outputs[-1], CloseConnection)
        assert self.session.state is State.IDLE
        return f"{body[0]}/{body[1]} {body[2:].hex()}".rstrip()


def update(body: bytes = GOOD) -> bytes:
    return message(UPDATE, body)


# --- coming up -------------------------------------------------------------------------------------------------------


def test_open_and_keepalive_bring_it_up() -> None:
    probe = Probe().connect()
    assert [kind for kind, _ in probe.sent] == [OPEN]
    probe.session.receive_data(probe.their_open(), 1.0)
    assert probe.session.state is State.OPEN_CONFIRM
    probe.session.receive_data(KEEPALIVE_MESSAGE, 2.0)
    assert probe.negotiated is not None
    assert probe.session.local_address == LEFT_ADDRESS


def test_it_comes_up_octet_by_octet() -> None:
    probe = Probe().connect()
    for octet in probe.their_open() + KEEPALIVE_MESSAGE + update():
        probe.session.receive_data(bytes([octet]), 1.0)
    assert probe.all(RouteChanges)[0].changes == [("update", GOOD)]


def test_everything_may_come_in_one_read() -> None:
    probe = Probe().connect()
    probe.session.receive_data(probe.their_open() + KEEPALIVE_MESSAGE + update() + update()[:20], 1.0)
    assert [output.changes for output in probe.all(RouteChanges)] == [[("update", GOOD)]]
    probe.session.receive_data(update()[20:], 1.0)
    assert len(probe.all(RouteChanges)) == 2


def test_an_owner_that_says_no_hears_no_more() -> None:
    probe = Probe().connect()
    probe.accepts = False
    probe.session.receive_data(probe.their_open(), 1.0)
    assert [kind for kind, _ in probe.sent] == [OPEN]


def test_a_refused_open_says_why() -> None:
    probe = Probe(theirs=dataclasses.replace(RIGHT, local_asn=65009)).connect()
    probe.session.receive_data(probe.their_open() + KEEPALIVE_MESSAGE, 1.0)
    assert probe.notification == "2/2"
    assert probe.ended is not None
    assert probe.ended.reason == "2/2 OPEN Message Error, Bad Peer AS: AS 65009, 65002 is configured"


def test_data_after_the_end_is_not_read() -> None:
    probe = Probe().establish()
    probe.session.receive_data(encode_notification(6, 4) + update(), 1.0)
    probe.session.receive_data(update(), 2.0)
    assert probe.all(RouteChanges) == []
    assert probe.all(SendBytes) == []


# --- what is unexpected ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "answer", "why"),
    [
        (KEEPALIVE_MESSAGE, "5/1", "KEEPALIVE before OPEN"),
        (update(), "5/1", "UPDATE before OPEN"),
        (encode_refresh(IPV4), "5/1", "ROUTE-REFRESH before OPEN"),
        (MARKER + b"\x00\x12\x04", "1/2 0012", "a length of 18"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", "1/1", "another protocol"),
        (MARKER + b"\x10\x01\x01", "1/2 1001", "an OPEN of 4097 octets"),
        (MARKER + b"\x00\x13\x09", "1/3 09", "type 9"),
    ],
)
def test_what_does_not_belong_before_the_open(octets: bytes, answer: str, why: str) -> None:
    probe = Probe().connect()
    probe.session.receive_data(octets, 1.0)
    assert probe.notification == answer, why


@pytest.mark.parametrize(("octets", "answer"), [(update(), "5/2"), (encode_refresh(IPV4), "5/2"), (None, "5/2")])
def test_what_does_not_belong_in_open_confirm(octets: bytes | None, answer: str) -> None:
    probe = Probe().connect()
    probe.session.receive_data(probe.their_open(), 1.0)
    probe.session.receive_data(octets or probe.their_open(), 1.0)
    assert probe.notification == answer


def test_an_open_in_established_is_unexpected() -> None:
    probe = Probe().establish()
    probe.session.receive_data(update() + probe.their_open() + update(), 1.0)
    assert probe.notification == "5/3"
    assert [output.changes for output in probe.all(RouteChanges)] == [[("update", GOOD)]]


@pytest.mark.parametrize("length", range(19, 30))
def test_a_refresh_of_a_wrong_length_is_returned_whole(length: int) -> None:
    probe = Probe().establish()
    octets = message(ROUTE_REFRESH, b"\0\1\0\1\0\0\0\0\0\0"[: length - 19])
    probe.session.receive_data(octets, 1.0)
    if length == 23:
        assert probe.all(RefreshReceived)
    else:
        assert probe.notification == f"7/1 {octets.hex()}"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("4004 00 47", "a family that nobody has"),
        ("0001 00 02", "IPv4 multicast"),
        ("0001 01 01", "BoRR, which was not negotiated"),
        ("0001 02 01", "EoRR"),
        ("0001 ff 01", "an unknown subtype"),
    ],
)
def test_a_refresh_that_means_nothing_to_us_is_ignored(body: str, why: str) -> None:
    probe = Probe().establish()
    probe.session.receive_data(message(ROUTE_REFRESH, bytes.fromhex(body)), 1.0)
    assert (probe.session.state, probe.outputs) == (State.ESTABLISHED, []), why


def test_a_refresh_is_honoured_although_we_did_not_offer_it() -> None:
    probe = Probe(dataclasses.replace(LEFT, route_refresh=False)).establish()
    probe.session.receive_data(encode_refresh(IPV6), 1.0)
    assert [output.family for output in probe.all(RefreshReceived)] == [IPV6]


# --- updates ---------------------------------------------------------------------------------------------------------


def test_a_read_is_one_output_whatever_is_between_the_updates() -> None:
    probe = Probe().establish()
    probe.session.receive_data(update() + KEEPALIVE_MESSAGE + update() + encode_refresh(IPV4) + update(), 1.0)
    assert [len(output.changes) for output in probe.all(RouteChanges)] == [3]
    assert probe.counted_received == {"open": 1, "update": 3, "notification": 0, "keepalive": 2, "refresh": 1}


def test_what_came_before_a_fatal_error_is_delivered_first() -> None:
    probe = Probe().establish()
    probe.session.receive_data(update() * 2 + update(BROKEN) + update(), 1.0)
    assert probe.notification == "3/10 21"
    kinds = [type(output) for output in probe.outputs if not isinstance(output, Told)]
    assert kinds == [RouteChanges, SendBytes, CloseConnection]
    assert len(probe.all(RouteChanges)[0].changes) == 2
    assert probe.malformed_messages == [
        (update(BROKEN), "3/10 UPDATE Message Error, Invalid Network Field: prefix length 33", "session reset", 1.0)
    ]


def test_what_came_before_a_bad_header_is_delivered_first() -> None:
    probe = Probe().establish()
    probe.session.receive_data(update() + b"\0" * 19, 1.0)
    assert probe.notification == "1/1"
    assert len(probe.all(RouteChanges)[0].changes) == 1


def test_what_came_before_a_notification_is_delivered_first() -> None:
    probe = Probe().establish()
    probe.session.receive_data(update() + encode_notification(6, 2) + update(), 1.0)
    assert [type(output) for output in probe.outputs] == [RouteChanges, Told, CloseConnection]


def test_a_defect_of_ours_costs_one_session_and_shows_the_message() -> None:
    probe = Probe().establish()
    probe.session.receive_data(update() + update(BUGGY), 1.0)
    assert probe.notification == "6/8"
    assert probe.ended is not None
    assert probe.ended.reason == "internal error, ZeroDivisionError: a defect"
    told = [output for output in probe.all(Told) if output.name == "defect"]
    assert told[0].fields["message"] == update(BUGGY).hex()


def test_what_rfc_7606_heals_is_kept_with_its_verdict() -> None:
    probe = Probe().establish()
    assert probe.parser.on_malformed is not None
    probe.session.receive_data(update(), 5.0)
    probe.parser.on_malformed(GOOD, "treat-as-withdraw", "ORIGIN of 2 octets")
    assert probe.malformed_messages == [(update(), "ORIGIN of 2 octets", "treat-as-withdraw", 5.0)]
    assert probe.session.state is State.ESTABLISHED


def test_long_updates_are_taken_once_we_offered_them_and_not_otherwise() -> None:
    long = update(b"\0" * 5000)
    probe = Probe().establish()
    probe.session.receive_data(long, 1.0)
    assert len(probe.all(RouteChanges)) == 1
    short = Probe(dataclasses.replace(LEFT, extended_messages=False)).establish()
    short.session.receive_data(long, 1.0)
    assert short.notification == f"1/2 {len(long):04x}"


# --- notifications ---------------------------------------------------------------------------------------------------


def test_a_notification_is_read_out_and_not_answered() -> None:
    probe = Probe().establish()
    probe.session.receive_data(encode_notification(6, 2, b"\x0bupgrade\x1b[2J"), 1.0)
    assert probe.all(SendBytes) == []
    assert probe.ended is not None
    assert probe.ended.reason == r"received 6/2 Cease, Administrative Shutdown: upgrade\x1b[2J"
    assert probe.ended.received == Notification(6, 2, b"\x0bupgrade\x1b[2J")


def test_a_version_error_is_not_counted_as_a_failure() -> None:
    probe = Probe().connect()
    probe.session.receive_data(encode_notification(2, 1, b"\0\4"), 1.0)
    assert probe.ended is not None
    assert not probe.ended.is_counted


def test_a_hard_stop_is_a_hard_reset_where_the_peer_would_keep_our_routes() -> None:
    for theirs, expected in (
        (RIGHT, "6/9 0602026279"),
        (dataclasses.replace(RIGHT, graceful_restart=False), "6/2 026279"),
    ):
        probe = Probe(theirs=theirs).establish()
        probe.session.stop(1.0, Notification(6, 2, b"\x02by"), "by", is_automatic=False, is_hard=True)
        assert probe.notification == expected


def test_a_soft_stop_leaves_the_peer_its_stale_routes() -> None:
    probe = Probe().establish()
    probe.session.stop(1.0, Notification(6, 2, b"\x02by"), "by", is_automatic=False, is_hard=False)
    assert probe.notification == "6/2 026279"


# --- time ------------------------------------------------------------------------------------------------------------


def test_the_open_is_awaited_for_four_minutes() -> None:
    probe = Probe().connect(now=100.0)
    assert probe.session.next_timer_at() == 340.0
    probe.session.handle_timer(339.9)
    assert probe.session.state is State.OPEN_SENT
    probe.session.handle_timer(340.0)
    assert probe.notification == "4/0"


@pytest.mark.parametrize("octets", [KEEPALIVE_MESSAGE, update()])
def test_keepalive_and_update_restart_the_hold_timer(octets: bytes) -> None:
    probe = Probe().establish(now=1000.0)
    probe.session.receive_data(octets, 1050.0)
    probe.session.handle_timer(1139.9)
    assert probe.session.state is State.ESTABLISHED
    probe.session.handle_timer(1140.0)
    assert probe.notification == "4/0"
    assert probe.ended is not None
    assert probe.ended.reason == "hold timer expired, nothing received for 90 s"


def test_half_a_message_does_not_restart_the_hold_timer() -> None:
    probe = Probe().establish(now=1000.0)
    probe.session.receive_data(update()[:-1], 1089.0)
    probe.session.handle_timer(1090.0)
    assert probe.notification == "4/0"


def test_keepalives_go_out_every_third_of_the_hold_time_or_somewhat_sooner() -> None:
    probe = Probe().establish(now=0.0)
    sent_at: list[float] = []
    now = 0.0
    while len(sent_at) < 50:
        due = probe.session.next_timer_at()
        assert due is not None
        now = due
        probe.session.handle_timer(now)
        probe.session.receive_data(KEEPALIVE_MESSAGE, now)
        sent_at.append(now)
    gaps = [after - before for before, after in zip([0.0, *sent_at], sent_at, strict=False)]
    assert all(22.5 <= gap <= 30.0 for gap in gaps)
    assert len(set(gaps)) > 40, "jittered"


def test_an_update_sent_stands_for_a_keepalive() -> None:
    probe = Probe().establish(now=0.0)
    probe.session.update_sent(7, 20.0)
    assert probe.counted_sent["update"] == 7
    probe.session.receive_data(KEEPALIVE_MESSAGE, 21.0)
    probe.session.handle_timer(30.0)  # the timer as it was started
    assert probe.counted_sent["keepalive"] == 1, "the one that answered the OPEN"
    due = probe.session.next_timer_at()
    assert due is not None
    assert 42.5 <= due <= 50.0
    probe.session.handle_timer(due)
    assert probe.counted_sent["keepalive"] == 2


def test_a_keepalive_is_never_sent_twice_within_a_second() -> None:
    probe = Probe(dataclasses.replace(LEFT, hold_time_s=3)).establish(now=0.0)
    assert probe.session.next_timer_at() == 1.0


def test_hold_time_zero_means_no_timers_at_all() -> None:
    probe = Probe(dataclasses.replace(LEFT, hold_time_s=0)).establish()
    probe.session.update_sent(1, 1.0)
    probe.session.receive_data(update(), 2.0)
    probe.session.send_blocked(3.0)
    assert probe.session.next_timer_at() is None


def test_a_peer_that_does_not_read_is_left_after_the_send_hold_time() -> None:
    probe = Probe().establish(now=0.0)
    probe.session.send_blocked(10.0)
    probe.session.send_blocked(100.0)
    for now in range(10, 490, 10):
        probe.session.receive_data(KEEPALIVE_MESSAGE, now)
        probe.session.handle_timer(now)
    assert probe.session.state is State.ESTABLISHED
    probe.session.handle_timer(490.0)
    assert probe.outputs[-1] == CloseConnection(probe.session, abort=True)
    assert probe.ended is not None
    assert probe.ended.sent == Notification(8, 0)


def test_any_progress_stops_the_send_hold_timer() -> None:
    probe = Probe().establish(now=0.0)
    probe.session.send_blocked(10.0)
    probe.session.bytes_flushed(400.0)
    probe.session.send_blocked(400.0)
    assert probe.session.timers.deadlines()["send_hold"] == 880.0


def test_the_send_hold_time_grows_with_the_hold_time() -> None:
    slow = Probe(dataclasses.replace(LEFT, hold_time_s=600), dataclasses.replace(RIGHT, hold_time_s=600)).establish()
    slow.session.send_blocked(0.0)
    assert slow.session.timers.deadlines()["send_hold"] == 1200.0
    set_by_hand = Probe(dataclasses.replace(LEFT, send_hold_time_s=20.0)).establish()
    set_by_hand.session.send_blocked(0.0)
    assert set_by_hand.session.timers.deadlines()["send_hold"] == 20.0


# --- asking for routes -----------------------------------------------------------------------------------------------


def test_a_refresh_is_asked_for_only_where_it_was_agreed() -> None:
    probe = Probe().establish()
    assert probe.session.send_refresh(IPV4, 1.0)
    assert probe.sent == [(ROUTE_REFRESH, b"\0\1\0\1")]
    assert not Probe(theirs=dataclasses.replace(RIGHT, route_refresh=False)).establish().session.send_refresh(IPV4, 1.0)
    assert not Probe(theirs=dataclasses.replace(RIGHT, families=(IPV6,))).establish().session.send_refresh(IPV4, 1.0)
    assert not Probe().connect().session.send_refresh(IPV4, 1.0)


def test_a_flood_of_refreshes_is_answered_once_a_second() -> None:
    probe = Probe().establish(now=0.0)
    for tick in range(50):
        probe.session.receive_data(encode_refresh(IPV4) * 1000 + encode_refresh(IPV6), tick / 10)
        probe.session.handle_timer(tick / 10)
    assert [output.family for output in probe.all(RefreshReceived)].count(IPV4) == 5
    probe.session.handle_timer(6.5)
    asked = [output.family for output in probe.all(RefreshReceived)]
    assert asked.count(IPV4) == asked.count(IPV6) == 6, "the last request is honoured too"
    probe.session.handle_timer(20.0)
    assert probe.all(RefreshReceived)[12:] == []


# --- anything at all -------------------------------------------------------------------------------------------------

octets = st.one_of(
    st.binary(max_size=60),
    st.builds(message, st.integers(0, 7), st.binary(max_size=60)),
    st.just(KEEPALIVE_MESSAGE),
    st.just(update()),
    st.just(update(BROKEN)),
    st.just(update(BUGGY)),
    st.just(Probe().their_open()),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(octets, max_size=8), st.booleans(), st.integers(1, 40))
def test_whatever_a_peer_sends_nothing_is_raised_and_one_notification_at_most(
    parts: list[bytes], is_established: bool, step: int
) -> None:
    probe = Probe()
    if is_established:
        probe.establish()
    else:
        probe.connect()
    stream = b"".join(parts)
    for at in range(0, len(stream), step):
        probe.session.receive_data(stream[at : at + step], 1.0 + at)
    notifications = [body for kind, body in probe.sent if kind == NOTIFICATION]
    assert len(notifications) <= 1
    assert len(probe.all(CloseConnection)) == (1 if probe.ended else 0)
    if probe.ended is not None:
        assert probe.session.next_timer_at() is None
        assert probe.ended.reason.isprintable()
