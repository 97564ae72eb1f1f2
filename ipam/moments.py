"""Times as Calico writes them into blocks (RFC 3339, whole seconds, UTC) and into attributes (Go's `time.String`)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

SECOND_NS = 1_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TEXT = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)")


def text_of(now_ns: int) -> str:
    return (EPOCH + timedelta(seconds=now_ns // SECOND_NS)).strftime("%Y-%m-%dT%H:%M:%SZ")


def ns_of(text: str) -> int:
    """Nanoseconds since 1970. Raises ValueError."""
    found = TEXT.fullmatch(text)
    if found is None:
        raise ValueError("is no RFC 3339 time")
    zone = "+00:00" if found[4] in "Zz" else found[4]
    seconds = (datetime.fromisoformat(f"{found[1]}T{found[2]}{zone}") - EPOCH) // timedelta(seconds=1)
    return seconds * SECOND_NS + int((found[3] or "0")[:9].ljust(9, "0"))


def go_text_of(now_ns: int) -> str:
    """`2026-08-22 10:04:05.123456789 +0000 UTC`: the attribute `timestamp`; trailing zeros of the fraction are left out."""
    whole = (EPOCH + timedelta(seconds=now_ns // SECOND_NS)).strftime("%Y-%m-%d %H:%M:%S")
    fraction = f"{now_ns % SECOND_NS:09d}".rstrip("0")
    return f"{whole}{'.' + fraction if fraction else ''} +0000 UTC"
