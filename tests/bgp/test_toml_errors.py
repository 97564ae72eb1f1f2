"""What is said about a file that cannot be used: every problem, each with its line, in words that scripts and people
may rely on. broken_files/ holds the files and, word for word, the answers."""

from __future__ import annotations

import pathlib
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgp.config import SpeakerConfig
from bgp.toml import ConfigError, Problem, load, loads
from bgp.toml.policies import POLICY_KEYS, PREFIX_KEYS, RULE_KEYS, SET_KEYS
from bgp.toml.sections import CONFIG_TYPES, PREFIX_LIMIT_KEYS, TOP_KEYS
from tests.bgp.toml_text import to_toml

BROKEN = sorted((pathlib.Path(__file__).parent / "broken_files").glob("*.toml"))


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: file.stem)
def test_a_broken_file_is_refused_with_exactly_these_words(file: pathlib.Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(file.read_text(), file.name)
    assert f"{caught.value}\n" == file.with_suffix(".txt").read_text()


def test_there_are_broken_files() -> None:
    assert len(BROKEN) >= 18


def test_problems_are_values_in_the_order_of_the_file() -> None:
    with pytest.raises(ConfigError) as caught:
        loads('[speaker]\nrouter_id = "10.0.0.1"\nport = 0\n', "speaker.toml")
    assert caught.value.problems == (
        Problem(1, "speaker", "asn is missing"),
        Problem(3, "speaker.port", "0 is not allowed; allowed: 1 to 65535"),
    )


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "latin1.toml"
    file.write_bytes(b"[speaker]\nasn = 1 # caf\xe9\n")
    with pytest.raises(ConfigError, match=r":2: not UTF-8 text, which TOML must be$"):
        load(file)


def test_a_directory_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = " + "[" * 100_000, "nested too deeply"),
        ("a = " + "9" * 10_000, "not valid TOML: Exceeds the limit"),
        ("a = " + "{ b = " * 10_000, "nested too deeply"),
        ("", "the table [speaker] is missing"),
        ("\0", "not valid TOML"),
    ],
)
def test_a_file_made_to_hurt_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(text)
    assert words in str(caught.value)


def test_a_password_in_a_file_that_is_no_toml_stays_out_of_the_message() -> None:
    for text in ('password = "s3cret', "password = s3cret", 'password = "s3cret\\q"', 'password = "s3cret" x'):
        with pytest.raises(ConfigError) as caught:
            loads(text)
        assert "s3cret" not in str(caught.value)


def test_a_mistake_in_the_defaults_is_said_once() -> None:
    peers = "".join(f'[[peer]]\naddress = "192.0.2.{number}"\n' for number in range(1, 50))
    with pytest.raises(ConfigError) as caught:
        loads(f'[speaker]\nasn = 1\nrouter_id = "10.0.0.1"\n[defaults]\nasn = 0\nhold_time_s = 1\n{peers}')
    assert [problem.field for problem in caught.value.problems] == ["defaults.asn", "defaults.hold_time_s"]


def test_five_thousand_peers_and_a_policy_of_ten_thousand_rules_are_read_in_seconds() -> None:
    rules = "".join(f'{{ prefix = "10.{at >> 8}.{at & 255}.0/24", action = "accept" }},\n' for at in range(10_000))
    prefixes = "".join(f'"10.{at >> 8}.{at & 255}.0/24",' for at in range(10_000))
    peers = "".join(
        f'[[peer]]\nname = "peer{at}"\naddress = "10.{at >> 8}.{at & 255}.9"\nasn = 65000\nimport = ["many", "long"]\n'
        for at in range(5000)
    )
    text = (
        f'[speaker]\nasn = 1\nrouter_id = "10.0.0.1"\n[policy.many]\nrules = [\n{rules}]\n'
        f'[policy.long]\nrules = [{{ prefix = [{prefixes}], action = "accept" }}]\n{peers}'
    )
    began = time.process_time()
    config = loads(text)
    assert len(config.peers) == 5000
    # About 3 s; what must not be is a square of these numbers, which is minutes.
    assert time.process_time() - began < 30


# --- anything at all -------------------------------------------------------------------------------------------------

_WORDS = st.sampled_from(
    [
        "",
        "accept",
        "ebgp",
        "10.0.0.0/8",
        "10.0.0.1",
        "fe80::1%eth0",
        "::/0",
        "65000:1",
        "a",
        "ipv4",
        "restart",
        "self",
        "\n",
    ]
)
_SCALARS = st.one_of(
    _WORDS,
    st.integers(-2, 70000),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(-1e6, 1e6),
    st.text("abc\"'[]{}#=\\\n\t é", max_size=8),
)
_KEYS = st.sampled_from(
    sorted(
        {*TOP_KEYS, *POLICY_KEYS, *PREFIX_KEYS, *RULE_KEYS, *SET_KEYS, *PREFIX_LIMIT_KEYS, "ipv4", "ipv6", "oops"}
        | {key for keys, _ in CONFIG_TYPES.values() for key in keys}
    )
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_KEYS, inner, max_size=4)),
    max_leaves=8,
)


def _table(keys: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(sorted(keys)), _VALUES, max_size=6)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A file that is right but for some keys, where anything may stand."""
    peer = {"address": "192.0.2.1", "asn": 65000}
    keys = {name: keys for name, (keys, _) in CONFIG_TYPES.items()}
    return {
        "speaker": {"asn": 64512, "router_id": "10.0.0.1", **draw(_table(keys["speaker"]))},
        "defaults": draw(_table(keys["peer"])),
        "kernel": draw(_table(keys["kernel"])),
        "policy": draw(st.dictionaries(st.sampled_from(["a", "b", "accept"]), _table(POLICY_KEYS), max_size=2)),
        "originate": draw(st.lists(_table(keys["originate"]), max_size=2)),
        "peer": [{**peer, **extra} for extra in draw(st.lists(_table(keys["peer"]), max_size=3))],
    }


def problems_of(text: str) -> tuple[Problem, ...]:
    """At least one, or none and a configuration."""
    try:
        config = loads(text)
    except ConfigError as error:
        return error.problems or (Problem(0, "", "refused without a reason"),)
    assert isinstance(config, SpeakerConfig)
    return ()


@settings(max_examples=300, deadline=None)
@given(documents())
def test_any_value_anywhere_is_a_configuration_or_a_list_of_problems(document: dict[str, Any]) -> None:
    text = to_toml(document)
    for problem in problems_of(text):
        assert 1 <= problem.line <= text.count("\n")
        assert f"{problem.field}{problem.text}".isprintable()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_a_configuration_or_a_list_of_problems(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(text)
    assert str(caught.value)
