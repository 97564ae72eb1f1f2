from __future__ import annotations

import dataclasses
import ipaddress
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgp.config import (
    ACCEPT_ALL,
    KernelConfig,
    OriginateConfig,
    PeerConfig,
    Policy,
    PolicyRule,
    PrefixLimit,
    SpeakerConfig,
)
from bgp.families import IPV4
from bgp.reconfigure import (
    EFFECTS,
    KERNEL_EFFECTS,
    PEER_EFFECTS,
    SPEAKER_EFFECTS,
    Change,
    Effect,
    differences,
    pair_peers,
)
from bgp.session.settings import SessionSettings, settings_of


def peer(name: str = "tor1", address: str | None = "192.0.2.1", **fields: Any) -> PeerConfig:
    return PeerConfig(
        name=name, address=None if address is None else ipaddress.ip_address(address), **{"asn": 65000, **fields}
    )


def speaker(*peers: PeerConfig, **fields: Any) -> SpeakerConfig:
    return SpeakerConfig(
        **{"asn": 64512, "router_id": ipaddress.ip_address("10.0.0.1"), "listen": (), "peers": peers, **fields}
    )


@pytest.mark.parametrize(
    ("table", "kind"),
    [(SPEAKER_EFFECTS, SpeakerConfig), (PEER_EFFECTS, PeerConfig), (KERNEL_EFFECTS, KernelConfig)],
)
def test_every_field_has_a_declared_effect(table: dict[str, object], kind: type) -> None:
    assert set(table) == {field.name for field in dataclasses.fields(kind)}


def test_every_effect_has_words() -> None:
    assert tuple(EFFECTS) == typing.get_args(Effect)


def test_the_same_configuration_changes_nothing() -> None:
    config = speaker(peer(), kernel=KernelConfig())
    assert differences(config, speaker(peer(), kernel=KernelConfig())) == []


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"asn": 65001}, "peer tor1: asn 65000 → 65001: sessions are reset"),
        ({"hold_time_s": 30}, "peer tor1: hold_time_s 90 → 30: sessions are reset"),
        ({"families": (IPV4,)}, "peer tor1: families ipv4, ipv6 → ipv4: sessions are reset"),
        ({"multihop": 2}, "peer tor1: multihop none → 2: sessions are reset"),
        ({"description": "x"}, "peer tor1: description '' → 'x': in force at once or from its next use on"),
        ({"connect_retry_s": 1.5}, "peer tor1: connect_retry_s 10.0 → 1.5: in force at once or from its next use on"),
        ({"shutdown": ""}, "peer tor1: shutdown none → '': in force at once or from its next use on"),
        ({"import_policy": ACCEPT_ALL}, "peer tor1: import_policy none → accept: what was received is evaluated again"),
        ({"next_hop": "self"}, "peer tor1: next_hop 'auto' → 'self': what is sent is evaluated again"),
        ({"graceful_shutdown": True}, "peer tor1: graceful_shutdown false → true: what is sent is evaluated again"),
        (
            {"max_prefixes": ((IPV4, PrefixLimit(maximum=5)),)},
            "peer tor1: max_prefixes none → 1 entry: in force at once or from its next use on",
        ),
        (
            {"source": ipaddress.ip_address("10.0.0.1")},
            "peer tor1: source none → 10.0.0.1: sessions are reset",
        ),
    ],
)
def test_a_changed_field_of_a_peer(fields: dict[str, Any], text: str) -> None:
    other = peer("other", "192.0.2.2")
    changes = differences(speaker(peer(), other), speaker(peer(**fields), other))
    assert [str(change) for change in changes] == [text]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"asn": 64513}, "speaker: asn 64512 → 64513: sessions are reset"),
        ({"port": 1179}, "speaker: port 179 → 1179: sockets are opened again"),
        ({"metrics": "[::1]:1"}, "speaker: metrics none → '[::1]:1': sockets are opened again"),
        (
            {"ebgp_requires_policy": False},
            "speaker: ebgp_requires_policy true → false: what was received is evaluated again and "
            "what is sent is evaluated again",
        ),
        ({"multipath_ebgp": 8}, "speaker: multipath_ebgp 1 → 8: best paths are chosen again"),
        (
            {"originate": (OriginateConfig(network=ipaddress.ip_network("10.0.0.0/8")),)},
            "speaker: originate none → 1 entry: in force at once or from its next use on",
        ),
        ({"kernel": KernelConfig()}, "speaker: kernel off → on: the kernel adapter takes it over"),
    ],
)
def test_a_changed_field_of_the_speaker(fields: dict[str, Any], text: str) -> None:
    assert [str(change) for change in differences(speaker(), speaker(**fields))] == [text]


def test_a_changed_field_of_the_kernel() -> None:
    changes = differences(speaker(kernel=KernelConfig()), speaker(kernel=KernelConfig(metric=64, learn=())))
    assert [(change.field, change.effects) for change in changes] == [
        ("kernel.learn", ("kernel",)),
        ("kernel.metric", ("kernel",)),
    ]
    assert str(changes[0]) == "speaker: kernel.learn 4 entries → none: the kernel adapter takes it over"


def test_a_policy_never_resets_a_session() -> None:
    rule = PolicyRule(action="accept", local_pref=1)
    old = peer(import_policy=Policy(rules=(rule,), label="a"), export_policy=None)
    new = peer(
        import_policy=Policy(rules=(dataclasses.replace(rule, local_pref=2),), label="a"), export_policy=ACCEPT_ALL
    )
    changes = differences(speaker(old), speaker(new))
    assert [change.effects for change in changes] == [("import",), ("export",)]
    assert (changes[0].old, changes[0].new) == ("a (1 rule, then reject)", "a (1 rule, then reject) (changed)")


def test_a_policy_that_thousands_share_is_compared_once() -> None:
    class Watched(tuple[PolicyRule, ...]):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Watched.compared += 1
            return tuple.__eq__(self, other)

        __hash__ = tuple.__hash__

    old, new = (Policy(rules=Watched([PolicyRule(action="accept")])) for _ in range(2))
    peers = [peer(f"p{number}", f"192.0.2.{number}") for number in range(200)]
    changes = differences(
        speaker(*(dataclasses.replace(each, import_policy=old) for each in peers)),
        speaker(*(dataclasses.replace(each, import_policy=new) for each in peers)),
    )
    assert changes == []
    assert Watched.compared <= 2


def test_a_policy_under_another_name_is_the_same_policy() -> None:
    rule = PolicyRule(action="accept", label="rule 1 of a")
    old = peer(import_policy=Policy(rules=(rule,), label="a"))
    new = peer(import_policy=Policy(rules=(dataclasses.replace(rule, label="rule 1 of b"),), label="b"))
    assert differences(speaker(old), speaker(new)) == []


@pytest.mark.parametrize(
    ("old", "new", "texts"),
    [
        (None, "s3cret-1", ("none", "***")),
        ("s3cret-1", None, ("***", "none")),
        ("s3cret-1", "s3cret-2", ("***", "*** (another)")),
    ],
)
def test_a_password_changes_live_and_is_never_shown(old: str | None, new: str | None, texts: tuple[str, str]) -> None:
    (change,) = differences(speaker(peer(password=old)), speaker(peer(password=new)))
    assert change == Change("tor1", "password", *texts, ("live",))
    assert "s3cret" not in repr(change)


def test_peers_come_and_go() -> None:
    stays = peer("stays", "192.0.2.9")
    changes = differences(speaker(peer("a"), stays), speaker(stays, peer("b", "192.0.2.2")))
    assert [str(change) for change in changes] == ["peer a: the peer is stopped", "peer b: the peer is started"]
    assert [(change.peer, change.field, change.effects) for change in changes] == [
        ("a", "peer", ("removed",)),
        ("b", "peer", ("added",)),
    ]


def test_a_renamed_peer_keeps_its_session() -> None:
    (change,) = differences(speaker(peer("old")), speaker(peer("new")))
    assert change == Change("new", "name", "'old'", "'new'", ("live",))


def test_two_peers_that_swap_their_names_are_still_themselves() -> None:
    old = (peer("a", "192.0.2.1"), peer("b", "192.0.2.2"))
    new = (peer("b", "192.0.2.1"), peer("a", "192.0.2.2"))
    assert [change.effects for change in differences(speaker(*old), speaker(*new))] == [("live",), ("live",)]


def test_another_address_or_interface_is_another_peer() -> None:
    for other in (peer(address="192.0.2.2"), peer(address=None, range=ipaddress.ip_network("192.0.2.0/24"))):
        changes = differences(speaker(peer()), speaker(other))
        assert [change.effects for change in changes] == [("removed",), ("added",)]
    scoped = [peer(address="fe80::1", interface=name) for name in ("eth0", "eth1")]
    assert [change.effects for change in differences(speaker(scoped[0]), speaker(scoped[1]))] == [
        ("removed",),
        ("added",),
    ]


def test_a_range_is_the_same_while_its_prefix_is() -> None:
    network = ipaddress.ip_network("10.0.0.0/8")
    (change,) = differences(
        speaker(peer(address=None, range=network)), speaker(peer(address=None, range=network, client=True))
    )
    assert (change.field, change.effects) == ("client", ("reset",))


def test_the_order_of_peers_means_nothing() -> None:
    peers = (peer("a", "192.0.2.1"), peer("b", "192.0.2.2"))
    assert differences(speaker(*peers), speaker(*reversed(peers))) == []


def test_two_peers_on_one_address_are_told_apart_by_their_ports() -> None:
    first, second = peer("first", port=179), peer("second", port=1179)
    changed = dataclasses.replace(second, description="x", name="renamed")
    pairs = pair_peers((first, second), (changed, first))
    assert pairs.kept == ((second, changed), (first, first))
    pairs = pair_peers((first, second), (second,))
    assert (pairs.kept, pairs.removed) == (((second, second),), (first,))


ADDRESSES = st.sampled_from(["192.0.2.1", "192.0.2.2", "fe80::1"])
PEERS = st.lists(
    st.builds(
        peer, st.sampled_from("abc"), ADDRESSES, port=st.sampled_from([179, 1179]), hold_time_s=st.sampled_from([9, 90])
    ),
    max_size=5,
)


@given(PEERS, PEERS)
def test_every_peer_is_kept_added_or_removed_exactly_once(old: list[PeerConfig], new: list[PeerConfig]) -> None:
    pairs = pair_peers(old, new)
    assert sorted([*pairs.removed, *(before for before, _ in pairs.kept)], key=repr) == sorted(old, key=repr)
    assert sorted([*pairs.added, *(after for _, after in pairs.kept)], key=repr) == sorted(new, key=repr)
    assert all(before.address == after.address for before, after in pairs.kept)
    left = {item.address for item in pairs.removed}
    assert not left & {item.address for item in pairs.added}, "what could be kept was not"


def test_what_the_session_calls_a_reset_is_declared_as_one() -> None:
    """The table here and SessionSettings.needs_reset say the same of every field both know."""
    base = SessionSettings(local_asn=1, router_id=bytes(4), peer_asn=2)
    values: dict[str, Any] = {
        "local_asn": 9,
        "hold_time_s": 30,
        "keepalive_s": 5.0,
        "min_hold_time_s": 9,
        "connect_retry_s": 1.0,
        "idle_hold_s": 9.0,
        "families": (IPV4,),
        "graceful_restart": False,
        "restart_time_s": 1,
        "extended_next_hop": False,
        "extended_messages": False,
        "four_octet_asn": False,
        "route_refresh": False,
        "shutdown": "x",
    }
    shared = {field.name for field in dataclasses.fields(SessionSettings)} & set(PEER_EFFECTS)
    assert shared <= set(values)
    for name in shared:
        is_reset = base.needs_reset(dataclasses.replace(base, **{name: values[name]}))
        assert ("reset" in PEER_EFFECTS[name]) is is_reset, name
    assert settings_of(speaker(), peer()).needs_reset(settings_of(speaker(), peer(asn=9)))
