"""The stand-alone file: what a good one means. What is said about broken ones is in test_toml_errors.py."""

from __future__ import annotations

import dataclasses
import ipaddress
import pathlib
import re
from typing import Any

import pytest

from bgp.config import (
    ACCEPT_ALL,
    REJECT_ALL,
    KernelConfig,
    LearnRule,
    PeerConfig,
    Policy,
    PolicyRule,
    PrefixLimit,
    RouteSetting,
    SpeakerConfig,
)
from bgp.families import IPV4, IPV6
from bgp.policy.communities import parse_community
from bgp.toml import ConfigError, config_to_dict, load, loads
from bgp.toml.policies import POLICY_KEYS, PREFIX_KEYS, RULE_KEYS, SET_KEYS
from bgp.toml.sections import CONFIG_TYPES, FIELD_OF_KEY, PREFIX_LIMIT_KEYS, TOP_KEYS
from tests.bgp.policy.routes import exactly, inside
from tests.bgp.toml_text import to_toml

EXAMPLE = pathlib.Path(__file__).parents[2] / "docs" / "speaker.toml"
SPEAKER = '[speaker]\nasn = 64512\nrouter_id = "10.0.0.1"\n'


def speaker_with(text: str) -> SpeakerConfig:
    return loads(SPEAKER + text)


def peer_with(keys: str, before: str = "") -> PeerConfig:
    config = speaker_with(f'{before}\n[[peer]]\nname = "p"\naddress = "192.0.2.1"\nasn = 65000\n{keys}\n')
    return config.peers[0]


def test_the_smallest_file_is_two_lines() -> None:
    config = loads(SPEAKER)
    assert config == SpeakerConfig(
        asn=64512,
        router_id=ipaddress.ip_address("10.0.0.1"),
        listen=(ipaddress.ip_address("0.0.0.0"), ipaddress.ip_address("::")),
    )


def test_the_smallest_peer_has_the_defaults_of_the_configuration() -> None:
    config = speaker_with('[[peer]]\naddress = "192.0.2.1"\nasn = 65000\n')
    assert config.peers == (PeerConfig(name="192.0.2.1", address=ipaddress.ip_address("192.0.2.1"), asn=65000),)


def test_speaker_keys() -> None:
    config = loads(
        "[speaker]\n"
        'asn = "1.10"\nrouter_id = "10.0.0.1"\nlisten = "127.0.0.1"\nport = 1179\ncontrol = "/tmp/s"\n'
        'metrics = "[::1]:9179"\ndefault_local_pref = 5\nconvergence_timeout_s = 1.5\n'
        "ebgp_requires_policy = false\nmultipath = 8\nalways_compare_med = true\n"
    )
    assert (config.asn, config.port, config.control, config.metrics) == (65546, 1179, "/tmp/s", "[::1]:9179")
    assert config.listen == (ipaddress.ip_address("127.0.0.1"),)
    assert (config.multipath_ebgp, config.multipath_ibgp) == (8, 8)
    assert (config.default_local_pref, config.convergence_timeout_s) == (5, 1.5)
    assert (config.ebgp_requires_policy, config.always_compare_med) == (False, True)


def test_multipath_for_one_kind_leaves_the_other_at_one() -> None:
    config = loads(SPEAKER + "multipath = { ibgp = 4 }\n")
    assert (config.multipath_ebgp, config.multipath_ibgp) == (1, 4)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('import = "accept"', ACCEPT_ALL),
        ('import = "reject"', REJECT_ALL),
        ("", None),
        ('import = [{ action = "accept" }]', Policy(rules=(PolicyRule(action="accept"),))),
        ('import = { default = "accept" }', ACCEPT_ALL),
        (
            'import = { default = "accept", rules = [{ source = "kernel", action = "reject" }] }',
            Policy(rules=(PolicyRule(sources=("kernel",), action="reject"),), default="accept"),
        ),
        ('import = ["reject"]', REJECT_ALL),
    ],
)
def test_policy_in_place(written: str, meant: Policy | None) -> None:
    assert peer_with(written).import_policy == meant
    assert peer_with(written.replace("import", "export")).export_policy == meant


POLICIES = """
[policy.a]
default = "accept"
rules = [{ local_pref = 1, action = "reject" }]
[policy.b]
rules = [{ local_pref = 2, action = "accept" }, { local_pref = 3, action = "accept" }]
"""


@pytest.mark.parametrize(
    ("names", "local_prefs", "default", "label"),
    [
        ('"a"', [1], "accept", "a"),
        ('["a", "b"]', [1, 2, 3], "reject", "b"),
        ('["b", "a"]', [2, 3, 1], "accept", "a"),
        ('["b", "accept"]', [2, 3], "accept", "accept"),
    ],
)
def test_named_policies_fall_through_and_the_last_has_the_last_word(
    names: str, local_prefs: list[int], default: str, label: str
) -> None:
    policy = peer_with(f"import = {names}", before=POLICIES).import_policy
    assert policy is not None
    assert [rule.local_pref for rule in policy.rules] == local_prefs
    assert (policy.default, policy.label) == (default, label)


def test_peers_that_name_the_same_policies_share_one_object() -> None:
    peers = "".join(f'[[peer]]\naddress = "192.0.2.{n}"\nasn = 1\nimport = ["a", "b"]\nexport = "a"\n' for n in (1, 2))
    first, second = speaker_with(POLICIES + peers).peers
    assert first.import_policy is second.import_policy
    assert first.export_policy is second.export_policy


def test_rules_know_where_they_were_written() -> None:
    policy = peer_with('import = ["a", "b"]', before=POLICIES).import_policy
    assert policy is not None
    assert [rule.label for rule in policy.rules] == ["rule 1 of a", "rule 1 of b", "rule 2 of b"]
    inline = peer_with('export = [{ action = "accept" }]').export_policy
    assert inline is not None
    assert inline.rules[0].label == "rule 1 of the peer's export"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('"10.0.0.0/8"', (exactly("10.0.0.0/8"),)),
        ('["10.0.0.0/8", "2001:db8::/32"]', (exactly("10.0.0.0/8"), exactly("2001:db8::/32"))),
        ('{ prefix = "10.0.0.0/8" }', (exactly("10.0.0.0/8"),)),
        ('{ prefix = "10.0.0.0/8", ge = 8 }', (inside("10.0.0.0/8"),)),
        ('{ prefix = "10.0.0.0/8", le = 24 }', (inside("10.0.0.0/8", 8, 24),)),
        ('{ prefix = "10.0.0.0/8", ge = 16, le = 24 }', (inside("10.0.0.0/8", 16, 24),)),
        ('{ prefix = "::/0", ge = 48 }', (inside("::/0", 48, 128),)),
    ],
)
def test_a_prefix_is_itself_and_ge_and_le_make_it_a_range(written: str, meant: tuple[Any, ...]) -> None:
    policy = peer_with(f'import = [{{ prefix = {written}, action = "accept" }}]').import_policy
    assert policy is not None
    assert policy.rules[0].prefixes == meant
    policy = peer_with(f'import = [{{ not_prefix = {written}, action = "accept" }}]').import_policy
    assert policy is not None
    assert policy.rules[0].prefixes == tuple(dataclasses.replace(match, negate=True) for match in meant)


def test_a_rule_with_everything() -> None:
    policy = peer_with(
        'import = [{ as_path = [65000, "1.1"], community = "65000:1", source = ["ebgp", "ibgp"], '
        'next_hop = ["192.0.2.0/24", "2001:db8::1"], interface = "cali*", local_pref = 7, local_pref_above = 6, peer_type = "ebgp", '
        'action = "accept", set = { local_pref = 1, med = 2, communities = ["no-export", "1:2:3", "rt:1:2"], '
        'remove_communities = true, prepend = [1, 1], next_hop = "2001:db8::2" } }]'
    ).import_policy
    assert policy is not None
    assert policy.rules == (
        PolicyRule(
            as_path_prefix=(65000, 65537),
            communities=(parse_community("65000:1"),),
            sources=("ebgp", "ibgp"),
            next_hops=(ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::1/128")),
            interfaces=("cali*",),
            local_pref=7,
            local_pref_above=6,
            peer_type="ebgp",
            action="accept",
            setting=RouteSetting(
                local_pref=1,
                med=2,
                remove_communities=True,
                add_communities=(parse_community("no-export"),),
                add_large_communities=(parse_community("1:2:3"),),
                add_extended_communities=(parse_community("rt:1:2"),),
                prepend=(1, 1),
                next_hop=ipaddress.ip_address("2001:db8::2").packed,
            ),
        ),
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1000", ((IPV4, PrefixLimit(maximum=1000)), (IPV6, PrefixLimit(maximum=1000)))),
        ("{ ipv4 = 5 }", ((IPV4, PrefixLimit(maximum=5)),)),
        (
            '{ ipv6 = { maximum = 5, warn_percent = 50, action = "shutdown", restart_s = 1.5 } }',
            ((IPV6, PrefixLimit(maximum=5, warn_percent=50, action="shutdown", restart_s=1.5)),),
        ),
        (
            '{ maximum = 5, action = "warn" }',
            ((IPV4, PrefixLimit(maximum=5, action="warn")), (IPV6, PrefixLimit(maximum=5, action="warn"))),
        ),
        ("false", ()),
    ],
)
def test_prefix_limits(written: str, meant: object) -> None:
    assert peer_with(f"max_prefixes = {written}").max_prefixes == meant


def test_a_limit_for_all_means_the_families_that_are_spoken() -> None:
    peer = peer_with('families = ["ipv6"]\nmax_prefixes = 7')
    assert peer.max_prefixes == ((IPV6, PrefixLimit(maximum=7)),)


@pytest.mark.parametrize(
    ("written", "field", "meant"),
    [
        ('shutdown = "moving racks"', "shutdown", "moving racks"),
        ("shutdown = true", "shutdown", ""),
        ("shutdown = false", "shutdown", None),
        ('unknown_attributes = "pass"', "unknown_attributes", "pass"),
        ("unknown_attributes = [32, 35]", "unknown_attributes", (32, 35)),
        ("unknown_attributes = []", "unknown_attributes", ()),
        ('families = "ipv6"', "families", (IPV6,)),
        ("hold_time_s = 0", "hold_time_s", 0),
        ("keepalive_s = 0.5", "keepalive_s", 0.5),
        ("ttl_security = 254", "ttl_security", 254),
        ('local_asn = "2.1"', "local_asn", 131073),
        ('source = "192.0.2.9"', "source", ipaddress.ip_address("192.0.2.9")),
    ],
)
def test_peer_keys(written: str, field: str, meant: object) -> None:
    assert getattr(peer_with(written), field) == meant


def test_defaults_are_for_every_peer_that_does_not_say_otherwise() -> None:
    config = speaker_with(
        '[defaults]\nasn = 65000\nhold_time_s = 9\nttl_security = 1\npassword = "x"\nimport = "accept"\n'
        '[[peer]]\naddress = "192.0.2.1"\n'
        '[[peer]]\naddress = "192.0.2.2"\nasn = 65001\nhold_time_s = 30\nttl_security = false\nmultihop = 3\npassword = false\n'
    )
    first, second = config.peers
    assert (first.asn, first.hold_time_s, first.ttl_security, first.password) == (65000, 9, 1, "x")
    assert (second.asn, second.hold_time_s, second.ttl_security, second.multihop) == (65001, 30, None, 3)
    assert second.password is None
    assert first.import_policy == second.import_policy == ACCEPT_ALL


def test_a_link_local_peer_is_scoped_by_its_address_or_by_interface() -> None:
    config = speaker_with(
        '[[peer]]\naddress = "fe80::1%eth0"\nasn = 1\n[[peer]]\naddress = "fe80::1"\ninterface = "eth1"\nasn = 1\n'
    )
    address = ipaddress.ip_address("fe80::1")
    assert [(peer.name, peer.address, peer.interface) for peer in config.peers] == [
        ("fe80::1%eth0", address, "eth0"),
        ("fe80::1%eth1", address, "eth1"),
    ]


def test_a_range_may_have_a_password_and_hold_a_peer_of_its_own() -> None:
    config = speaker_with(
        '[[peer]]\nrange = "10.0.0.0/8"\nasn = 1\npassword = "x"\n[[peer]]\naddress = "10.0.0.9"\nasn = 2\n'
    )
    assert config.peers[0].range == ipaddress.ip_network("10.0.0.0/8")
    assert config.peers[1].name == "10.0.0.9"


def test_a_password_comes_from_the_first_line_of_a_file_beside_this_one(tmp_path: pathlib.Path) -> None:
    (tmp_path / "key").write_bytes("gehéim \r\nmore".encode())
    file = tmp_path / "speaker.toml"
    file.write_text(SPEAKER + '[[peer]]\naddress = "192.0.2.1"\nasn = 1\npassword_file = "key"\n')
    assert load(file).peers[0].password == "gehéim "


def test_kernel_names_are_numbers() -> None:
    config = speaker_with(
        '[kernel]\nroute_protocol = "bgp"\ntable = "local"\npreferred_source = "10.0.0.1"\npersist = false\n'
        'learn = [{ protocol = "static", table = 100 }, { protocol = 3 }, { prefix = "10.0.0.0/8", blackhole = false, '
        'interface = "tap?", action = "reject" }]\n'
    )
    assert config.kernel == KernelConfig(
        route_protocol=186,
        table=255,
        preferred_source=(ipaddress.ip_address("10.0.0.1"),),
        persist=False,
        learn=(
            LearnRule(protocol=4, table=100),
            LearnRule(protocol=3),
            LearnRule(network=ipaddress.ip_network("10.0.0.0/8"), blackhole=False, interface="tap?", action="reject"),
        ),
    )


def test_an_empty_kernel_table_is_what_felix_needs() -> None:
    assert speaker_with("[kernel]\n").kernel == KernelConfig()
    assert speaker_with("").kernel is None


def test_byte_order_mark_and_crlf_are_taken(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "windows.toml"
    file.write_bytes(b"\xef\xbb\xbf" + SPEAKER.replace("\n", "\r\n").encode())
    assert load(file).asn == 64512


# --- every key -------------------------------------------------------------------------------------------------------


def test_every_field_of_the_configuration_has_a_key() -> None:
    for name, (keys, kind) in CONFIG_TYPES.items():
        renamed = FIELD_OF_KEY.get(name, {})
        reachable = {renamed.get(key, key) for key in keys}
        reachable |= {"multipath_ibgp", "peers", "originate", "kernel"} if name == "speaker" else set()
        assert reachable == {field.name for field in dataclasses.fields(kind)}, name


def test_the_example_loads_and_shows_every_key() -> None:
    config = load(EXAMPLE)
    assert [peer.name for peer in config.peers] == ["tor1", "left-link", "rack"]
    text = EXAMPLE.read_text()
    keys = [*TOP_KEYS, *POLICY_KEYS, *PREFIX_KEYS, *RULE_KEYS, *SET_KEYS, *PREFIX_LIMIT_KEYS]
    keys += [key for keys_of_one, _ in CONFIG_TYPES.values() for key in keys_of_one]
    for key in keys:
        assert re.search(rf"^(#: |\[+)?([a-z.-]*\b)?{key}\b|[{{,] {key} = ", text, re.MULTILINE), key


@pytest.mark.parametrize(
    "text",
    [
        SPEAKER,
        EXAMPLE.read_text(),
        SPEAKER + "[kernel]\n",
        SPEAKER + '[[peer]]\naddress = "fe80::1%eth0"\nasn = 1\nshutdown = true\nunknown_attributes = [99]\n',
        SPEAKER
        + '[[peer]]\nrange = "fe80::/64"\nasn = 64512\nclient = true\nimport = [{ not_prefix = "10.0.0.0/8", '
        + 'action = "accept", set = { next_hop = "192.0.2.1", remove_med = true } }]\n',
    ],
)
def test_what_show_config_prints_is_a_file_that_means_the_same(text: str) -> None:
    config = loads(text)
    shown = to_toml(config_to_dict(config))
    again = loads(shown)
    hidden = tuple(
        dataclasses.replace(peer, password=None if peer.password is None else "***") for peer in config.peers
    )
    assert again == dataclasses.replace(config, peers=hidden)


def test_show_config_hides_passwords() -> None:
    config = speaker_with('[[peer]]\naddress = "192.0.2.1"\nasn = 1\npassword = "s3cret"\n')
    assert config_to_dict(config)["peer"][0]["password"] == "***"
    assert "s3cret" not in str(config_to_dict(config))
    assert "s3cret" not in repr(config)


def test_a_missing_file_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"^/nowhere/speaker\.toml: cannot be read: No such file or directory$"):
        load("/nowhere/speaker.toml")
