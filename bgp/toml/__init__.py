"""The stand-alone configuration file: TOML in, `SpeakerConfig` out, or everything that is wrong with it.

`docs/speaker.toml` shows every key. The forms are an interface others script against: a key is added, never changed.
"""

from __future__ import annotations

import os
import pathlib
import re
import tomllib
from typing import Any

from bgp.config import SpeakerConfig
from bgp.toml import sections
from bgp.toml.checks import check_originated, check_peer, check_peers
from bgp.toml.dump import config_to_dict, policy_to_dict
from bgp.toml.policies import read_policies
from bgp.toml.positions import lines_of
from bgp.toml.problems import ConfigError, Document, Node, Problem, attempt, did_you_mean

__all__ = ["ConfigError", "Problem", "config_to_dict", "load", "loads", "policy_to_dict"]


def load(path: str | os.PathLike[str]) -> SpeakerConfig:
    """Read a configuration file. Raises ConfigError, also if there is no such file."""
    filename = os.fspath(path)
    try:
        text = pathlib.Path(filename).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(filename, [Problem(0, "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(filename, [Problem(line, "", "not UTF-8 text, which TOML must be")]) from None
    return loads(text, filename)


def loads(text: str, filename: str = "<string>") -> SpeakerConfig:
    """Read a configuration from text. Raises ConfigError with all problems, each with its line.

    `filename` is for messages, and a relative `password_file` starts in its directory.
    """
    document = Document(filename, pathlib.Path(filename).parent, _parse(text, filename), lines_of(text))
    config = _read(Node(document.content, (), document))
    if document.problems or config is None:
        raise ConfigError(filename, document.problems)
    return config


def _parse(text: str, filename: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        problem = Problem(0, "", "arrays or tables are nested too deeply")
    except ValueError as error:  # TOMLDecodeError, or a number with more digits than int() takes
        message = str(error)
        found = re.search(r" \(at line (\d+), column (\d+)\)$", message)
        line = int(found[1]) if found else text.count("\n") + 1 if message.endswith("(at end of document)") else 0
        words = (
            message[: found.start()] + f" (column {found[2]}){_hint(text, line, int(found[2]))}" if found else message
        )
        problem = Problem(line, "", f"not valid TOML: {words}")
    raise ConfigError(filename, [problem])


def _hint(text: str, line: int, column: int) -> str:
    """tomllib's message for the commonest mistake, a line end inside { }, does not say what it is."""
    rest = text.split("\n")[line - 1]
    if "{" in rest and not rest[column - 1 :].partition("#")[0].strip():
        return "; a table in { } must stand on one line, a longer one gets a header of its own, [name] or [[name]]"
    return ""


def _read(root: Node) -> SpeakerConfig | None:
    """None only where a problem has been noted."""
    for key in root.value:
        if key not in sections.TOP_KEYS:
            root.note(f"unknown table; {did_you_mean(key, sections.TOP_KEYS)}", key)
    if "speaker" not in root.value:
        root.note("the table [speaker] is missing")
    speaker = attempt(sections.speaker, root.child("speaker")) if "speaker" in root.value else None
    if "policy" in root.value:
        attempt(read_policies, root.child("policy"))
    given = attempt(sections.defaults, root.child("defaults")) if "defaults" in root.value else None
    kernel = attempt(sections.kernel, root.child("kernel")) if "kernel" in root.value else None

    peers = [
        peer
        for node in _tables(root, "peer")
        if (peer := attempt(lambda node: sections.peer(node, given or {}), node)) is not None
    ]
    for peer in peers:
        check_peer(peer, speaker or {})
    check_peers(peers)
    originated = [(node, made) for node in _tables(root, "originate") if (made := attempt(sections.originate, node))]
    check_originated([(node, made.network) for node, made in originated])

    if root.document.problems or speaker is None:
        return None
    return SpeakerConfig(
        **speaker,
        kernel=kernel,
        peers=tuple(peer.build() for peer in peers),
        originate=tuple(made for _, made in originated),
    )


def _tables(root: Node, key: str) -> list[Node]:
    """The nodes of [[key]]; none if it is not there or no array, which is noted."""
    items = root.value.get(key, [])
    if not isinstance(items, list):
        root.note(f"one table does not fit here; allowed: [[{key}]], in double brackets, any number of times", key)
        return []
    node = root.child(key) if key in root.value else root
    return [node.child(at) for at in range(len(items))]
