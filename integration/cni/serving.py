"""One plugin call from its raw form to its answer, for the agent and the stand-alone plugin alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from integration.cni.errors import GENERIC, UNDECODABLE, CNIError
from integration.cni.request import Request, read_json, read_request
from integration.cni.results import LATEST, VERSIONS
from integration.cni.worker import Answer, version_answer

GREETING = b"CATBIRD-CNI 1"


@dataclass(frozen=True, slots=True)
class RawCall:
    """CNI's variables and the configuration as they came, and which plugin was executed."""

    plugin: str
    environment: Mapping[str, str]
    config: str


class Performer(Protocol):
    async def perform(self, request: Request, environment: Mapping[str, str], namespace: int | None) -> Answer: ...


def parse_call(data: bytes) -> RawCall:
    """What plugin.py sends. Raises CNIError 6."""
    head, separator, config = data.partition(b"\n\n")
    greeting, *lines = head.split(b"\n")
    if greeting != GREETING or not separator:
        raise CNIError(UNDECODABLE, "this is not a request of the plugin's protocol", "run `catbird cni install` again")
    pairs = dict(line.decode("utf-8", "replace").partition("=")[::2] for line in lines)
    return RawCall(pairs.pop("PLUGIN", ""), pairs, config.decode("utf-8", "replace"))


async def answer_call(call: RawCall, performer: Performer, namespace: int | None) -> tuple[int, str]:
    """Exit code, and what is to be printed. Never raises because of the request."""
    version = LATEST
    try:
        if call.environment.get("CNI_COMMAND") == "VERSION":
            return 0, json.dumps(version_answer(read_json(call.config or "{}"))) + "\n"
        version = _version(call.config)
        request = read_request(call.environment, call.config, call.plugin)
        answer = await performer.perform(request, call.environment, namespace)
        return 0, "" if answer is None else json.dumps(answer) + "\n"
    except CNIError as error:
        return 1, json.dumps(error.to_json(version)) + "\n"
    except Exception as error:
        fault = CNIError(GENERIC, f"a fault of the plugin: {type(error).__name__}: {error}", "see the node agent's log")
        return 1, json.dumps(fault.to_json(version)) + "\n"


def _version(config: str) -> str:
    """What an error is to be written in, though the configuration may be what is wrong."""
    try:
        said = json.loads(config).get("cniVersion")
    except (ValueError, AttributeError, RecursionError):
        return LATEST
    return said if said in VERSIONS else LATEST
