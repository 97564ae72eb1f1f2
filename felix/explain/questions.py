"""`policy-explain`: a question as somebody asks it, names and all, and its answer as JSON.

    {"from": "default/a", "to": "10.65.0.2", "protocol": "tcp", "port": 80}

`from` and `to` are NAMESPACE/POD of this node, an address, or `host`. Optional: `sourcePort`, `icmpType`, `icmpCode`,
`ipVersion` (where names leave it open; 4 if both have it), `inInterface`, `outInterface`, `sentTo` (ADDRESS or
ADDRESS:PORT: what the sender wrote where this node translates), `conntrack`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, cast, get_args

from felix.desired import WorkloadEndpoint
from felix.explain.explain import explain
from felix.explain.flow import (
    ICMP,
    ICMPV6,
    WITH_PORTS,
    Conntrack,
    ExplainSettings,
    Flow,
    Surroundings,
    protocol_name,
    protocol_number,
)
from felix.explain.state import Address, DesiredState
from felix.explain.view import View, explanation_view

FIELDS = frozenset({
    "from", "to", "protocol", "port", "sourcePort", "icmpType", "icmpCode", "ipVersion", "inInterface", "outInterface",
    "sentTo", "conntrack",
})  # fmt: skip
HOST = "host"
SHOWN_NAMES = 10


class QuestionError(ValueError):
    """The question cannot be answered; `hint` says what would help."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint


def answer(
    state: DesiredState, settings: ExplainSettings, surroundings: Surroundings, question: Mapping[str, Any]
) -> View:
    """`explanation_view` of the flow that is asked about. Raises QuestionError."""
    try:
        flow = flow_asked_about(state, surroundings, question)
        view = explanation_view(explain(state, flow, settings, surroundings))
    except QuestionError:
        raise
    except ValueError as error:
        raise QuestionError(str(error)) from None
    if not state.is_in_sync:
        view["notes"].append("the datastore has not been read to its end yet: what is missing may decide otherwise")
    return view


def flow_asked_about(state: DesiredState, surroundings: Surroundings, question: Mapping[str, Any]) -> Flow:
    """Raises QuestionError, or ValueError where a value is not what it should be."""
    if unknown := sorted(set(question) - FIELDS):
        raise QuestionError(f"unknown field {unknown[0]!r}", f"known: {', '.join(sorted(FIELDS))}")
    sides = [_addresses(state, surroundings, question, side) for side in ("from", "to")]
    version = _version(question, *sides)
    source, destination = (next((one for one in side if one.version == version), None) for side in sides)
    if source is None or destination is None:
        who = question["from"] if source is None else question["to"]
        raise QuestionError(f"{who} has no IPv{version} address", "the other side's address decides the IP version")
    icmp = _icmp(question)
    protocol = _protocol(question, version, is_icmp=icmp is not None)
    port = _number(question, "port", 65535)
    if port is not None and protocol not in WITH_PORTS:
        raise QuestionError(f"{protocol_name(protocol)} has no ports")
    return Flow(
        source,
        destination,
        protocol,
        _number(question, "sourcePort", 65535),
        port,
        icmp,
        _text(question, "inInterface"),
        _text(question, "outInterface"),
        _sent_to(question, port),
        _conntrack(question),
    )


def _addresses(
    state: DesiredState, surroundings: Surroundings, question: Mapping[str, Any], side: str
) -> list[Address]:
    text = _text(question, side)
    if not text:
        raise QuestionError(f"{side!r} is missing", "NAMESPACE/POD, an address, or host")
    if text == HOST:
        found = [one for name, its in surroundings.interfaces.items() if name != "lo" for one in sorted(its)]
        addresses = [ipaddress.ip_address(one) for one in found]
        return [one for one in addresses if not one.is_link_local]
    if "/" in text:
        endpoint = state.workload_called(text)
        if endpoint is None:
            raise QuestionError(f"no workload {text} on this node", _known(state))
        return addresses_of(endpoint)
    try:
        return [ipaddress.ip_address(text)]
    except ValueError:
        raise QuestionError(f"{side}: {text!r} is neither an address nor NAMESPACE/POD nor host") from None


def addresses_of(endpoint: WorkloadEndpoint) -> list[Address]:
    return [ipaddress.ip_interface(net).ip for net in endpoint.ipv4_nets + endpoint.ipv6_nets]


def _known(state: DesiredState) -> str:
    names = sorted({id.workload for id in state.workloads})
    shown = ", ".join(names[:SHOWN_NAMES]) + (
        f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    )
    return f"here: {shown}; for one of another node give its address" if names else "there are none here"


def _version(question: Mapping[str, Any], source: list[Address], destination: list[Address]) -> int:
    """Asked for, or the one that both have; 4 rather than 6."""
    asked = _number(question, "ipVersion", 6)
    if asked is not None:
        if asked not in (4, 6):
            raise QuestionError(f"ipVersion is 4 or 6, not {asked}")
        return asked
    both = {one.version for one in source} & {one.version for one in destination}
    if not both:
        raise QuestionError(f"{question['from']} and {question['to']} have no IP version in common")
    return min(both)


def _protocol(question: Mapping[str, Any], version: int, *, is_icmp: bool) -> int:
    of_icmp = ICMP if version == 4 else ICMPV6
    text = str(question.get("protocol") or ("icmp" if is_icmp else "tcp"))
    number = of_icmp if text.lower() == "icmp" else protocol_number(text)
    if is_icmp and number != of_icmp:
        raise QuestionError(f"an ICMP type in {protocol_name(number)}")
    return number


def _icmp(question: Mapping[str, Any]) -> tuple[int, int] | None:
    kind = _number(question, "icmpType", 255)
    return None if kind is None else (kind, _number(question, "icmpCode", 255) or 0)


def _sent_to(question: Mapping[str, Any], port: int | None) -> tuple[Address, int | None] | None:
    text = _text(question, "sentTo")
    if not text:
        return None
    try:
        return ipaddress.ip_address(text.strip("[]")), port
    except ValueError:
        host, _, its_port = text.rpartition(":")
    if not its_port.isdigit() or int(its_port) > 65535:
        raise QuestionError(f"sentTo: {text!r} is neither ADDRESS nor ADDRESS:PORT")
    return ipaddress.ip_address(host.strip("[]")), int(its_port)


def _conntrack(question: Mapping[str, Any]) -> Conntrack:
    text = _text(question, "conntrack") or "new"
    if text not in get_args(Conntrack):
        raise QuestionError(f"unknown conntrack state {text!r}", f"known: {', '.join(get_args(Conntrack))}")
    return cast("Conntrack", text)


def _number(question: Mapping[str, Any], name: str, most: int) -> int | None:
    value = question.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise QuestionError(f"{name} is not a number from 0 to {most}: {value!r}")
    return value


def _text(question: Mapping[str, Any], name: str) -> str:
    value = question.get(name, "")
    if not isinstance(value, str):
        raise QuestionError(f"{name} is not a text: {value!r}")
    return value
