"""Peers as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from integration.cli.columns import Cell, Column, Row, duration, fields_of, lines_of

Paint = Callable[[str, str], str]
View = Mapping[str, Any]

COLUMNS = (
    Column("NAME"),
    Column("ADDRESS"),
    Column("AS", is_number=True),
    Column("STATE"),
    Column("UPTIME", is_number=True),
    Column("RECV", is_number=True),
    Column("ACC", is_number=True),
    Column("SENT", is_number=True),
    Column("LAST ERROR"),
)


def peers_table(peers: Iterable[View], paint: Paint) -> Iterator[str]:
    yield from lines_of(COLUMNS, map(_row, peers), paint)


def _row(peer: View) -> Row:
    is_up = peer["state"] == "Established"
    return (
        peer["name"],
        peer["address"] or "",
        str(peer["asn"]),
        state_cell(peer),
        duration(peer["since_s"]) if is_up else "",
        *(str(total(peer, which)) if is_up else "" for which in ("received", "accepted", "sent")),
        _trouble(peer),
    )


def state_cell(peer: View) -> Cell:
    if peer["state"] == "Established":
        return Cell("Established", "green")
    if peer["state"] == "Gone" and peer.get("shutdown") is None:
        return Cell("Gone", "dim")
    return Cell("Shutdown" if peer.get("shutdown") is not None else peer["state"], "red")


def total(peer: View, which: str) -> int:
    return sum(counts.get(which, 0) for counts in peer["prefixes"].values())


def _trouble(peer: View) -> str:
    if (reason := peer.get("shutdown")) is not None:
        return f"shut down here: {reason}" if reason else "shut down here"
    if peer["state"] == "Gone" and peer.get("last_down"):
        return _told(peer, "last_down")
    return _told(peer, "last_error") if peer.get("last_error") else ""


def _told(peer: View, name: str) -> str:
    text, ago = peer.get(name), peer.get(f"{name}_s_ago")
    return f"{text or ''}" if ago is None else f"{text} ({duration(ago)} ago)"


def peer_details(peer: View, paint: Paint, *, malformed: bool) -> Iterator[str]:
    """One peer, all that is known of it; with `malformed` its last broken messages instead."""
    if malformed:
        yield from _malformed(peer, paint)
        return
    yield from fields_of(_fields(peer), paint)
    yield ""
    yield from lines_of(PREFIX_COLUMNS, _prefix_rows(peer), paint)
    yield ""
    yield from lines_of(MESSAGE_COLUMNS, _message_rows(peer), paint)
    if peer.get("malformed"):
        yield ""
        yield f"{peer['malformed']} malformed messages; their bytes: catbird show peer {peer['name']} --malformed"


def _fields(peer: View) -> Iterator[tuple[str, str | Cell]]:
    yield "name", peer["name"]
    yield "description", peer.get("description") or ""
    yield "address", peer["address"] or ""
    yield "connection", _connection(peer)
    yield "AS", f"{peer['asn']} ({peer['type']}), ours {peer['local_asn']}"
    yield "state", state_cell(peer)
    yield "for", duration(peer["since_s"])
    yield "shut down", peer["shutdown"] or ("yes" if peer.get("shutdown") is not None else "")
    yield "next attempt", _if(peer.get("next_retry_s"), lambda value: f"in {duration(value)}")
    yield "router id", peer.get("router_id") or ""
    yield (
        "hold time",
        _if(
            peer.get("hold_time_s"), lambda value: f"{value} s, keepalive every {peer['keepalive_s'] or value / 3:g} s"
        ),
    )
    yield "families", ", ".join(peer["families"])
    yield "capabilities", ", ".join(peer.get("capabilities") or ())
    yield "mismatches", Cell("; ".join(map(str, peer.get("mismatches") or ())), "yellow")
    yield "timers", _pairs(peer.get("timers"))
    yield from _policy("policy in", peer.get("import_policy") or ())
    yield from _policy("policy out", peer.get("export_policy") or ())
    yield "flaps", str(peer["flaps"])
    yield "last down", Cell(_told(peer, "last_down"), "red")
    if peer.get("last_error") != peer.get("last_down"):
        yield "last error", Cell(_told(peer, "last_error"), "red")
    yield "dropped", _if(peer.get("dropped_attributes"), lambda value: f"{value} unknown attributes, by the allow-list")


def _policy(name: str, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines):
        yield name if number == 0 else "", line


def _if(value: Any, text: Callable[[Any], str]) -> str:
    return text(value) if value else ""


def _connection(peer: View) -> str:
    local, remote = peer.get("local_address"), peer.get("remote_address")
    return f"{local} → {remote}" if local and remote else ""


def _pairs(values: Any) -> str:
    if isinstance(values, Mapping):
        return ", ".join(
            f"{name.removesuffix('_s')} {duration(value) if isinstance(value, int | float) else value}"
            for name, value in values.items()
            if value is not None
        )
    return ", ".join(map(str, values or ()))


PREFIX_COLUMNS = (
    Column("FAMILY"),
    *(Column(title, is_number=True) for title in ("RECEIVED", "ACCEPTED", "REJECTED", "STALE", "SENT")),
)
MESSAGE_COLUMNS = (Column("MESSAGES"), Column("RECEIVED", is_number=True), Column("SENT", is_number=True))


def _prefix_rows(peer: View) -> Iterator[Row]:
    for family, counts in peer["prefixes"].items():
        yield (family, *(str(counts.get(which, 0)) for which in ("received", "accepted", "rejected", "stale", "sent")))


def _message_rows(peer: View) -> Iterator[Row]:
    messages = peer["messages"]
    for kind in dict.fromkeys((*messages["received"], *messages["sent"])):
        yield kind, str(messages["received"].get(kind, 0)), str(messages["sent"].get(kind, 0))


def _malformed(peer: View, paint: Paint) -> Iterator[str]:
    kept = peer.get("malformed_messages") or ()
    if not kept:
        yield f"no malformed message from {peer['name']}" + (" is kept" if peer.get("malformed") else " so far")
        return
    yield f"the last {len(kept)} of {peer.get('malformed', len(kept))} malformed messages from {peer['name']}, oldest first"
    for message in kept:
        yield ""
        yield from fields_of(
            (
                ("when", f"{duration(message['s_ago'])} ago"),
                ("octets", str(message["octets"])),
                ("wrong", message["text"]),
                ("answer", message["verdict"]),
            ),
            paint,
        )
        yield from hex_dump(message["hex"])


def hex_dump(digits: str) -> Iterator[str]:
    """`0000  ffff ffff …`, 16 octets a line: text2pcap and xxd -r take it nearly as it is."""
    for start in range(0, len(digits), 32):
        line = digits[start : start + 32]
        yield f"  {start // 2:04x}  {' '.join(line[index : index + 4] for index in range(0, len(line), 4))}"
