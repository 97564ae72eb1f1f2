"""AS_PATH values: segments of type, count and AS numbers (RFC 4271 §4.3, RFC 5065 §3, RFC 6793 §4).

Inside the engine a path is always in its 4-octet form; the 2-octet form exists only on the wire to old peers.
"""

from __future__ import annotations

from collections.abc import Iterator

AS_SET, AS_SEQUENCE, AS_CONFED_SEQUENCE, AS_CONFED_SET = 1, 2, 3, 4
AS_TRANS = 23456
AS_TRANS_OCTETS = AS_TRANS.to_bytes(2, "big")
CONFEDERATION = (AS_CONFED_SEQUENCE, AS_CONFED_SET)


def fault(value: bytes, *, octets: int, allow_confederation: bool) -> str:
    """What is wrong with a received path, or ''. RFC 7606 §7.2, RFC 7607 (AS 0), RFC 5065 §5."""
    at, end = 0, len(value)
    while at < end:
        if end - at < 2:
            return "one octet after the last segment"
        kind, count = value[at], value[at + 1]
        after = at + 2 + octets * count
        if kind not in (AS_SET, AS_SEQUENCE, AS_CONFED_SEQUENCE, AS_CONFED_SET):
            return f"segment type {kind}"
        if kind in CONFEDERATION and not allow_confederation:
            return "confederation segment from an external peer"
        if count == 0:
            return "segment without AS numbers"
        if after > end:
            return "segment runs past the path"
        if any(not any(value[i : i + octets]) for i in range(at + 2, after, octets)):
            return "AS 0 (RFC 7607)"
        at = after
    return ""


def segments(value: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    """A valid 4-octet path → (type, AS numbers) each."""
    at = 0
    while at < len(value):
        kind, count = value[at], value[at + 1]
        after = at + 2 + 4 * count
        yield kind, tuple(int.from_bytes(value[i : i + 4], "big") for i in range(at + 2, after, 4))
        at = after


def join(parts: list[tuple[int, tuple[int, ...]]]) -> bytes:
    """(type, AS numbers) each → a 4-octet path; neighbouring sequences are not merged, long ones are cut at 255."""
    out = []
    for kind, numbers in parts:
        for at in range(0, len(numbers), 255):
            some = numbers[at : at + 255]
            out.append(bytes((kind, len(some))) + b"".join(asn.to_bytes(4, "big") for asn in some))
    return b"".join(out)


def length(value: bytes) -> int:
    """RFC 4271 §9.1.2.2 a: a set counts as one; RFC 5065 §5.3: confederation segments do not count."""
    return sum(len(numbers) if kind == AS_SEQUENCE else 1 if kind == AS_SET else 0 for kind, numbers in segments(value))


def first_asn(value: bytes) -> int:
    """The neighbouring AS: the first of a leading AS_SEQUENCE, confederation segments passed over; 0 if there is none."""
    for kind, numbers in segments(value):
        if kind == AS_SEQUENCE:
            return numbers[0]
        if kind == AS_SET:
            return 0
    return 0


def leading_sequence(value: bytes) -> tuple[int, ...]:
    """The AS numbers before the first segment that is not an AS_SEQUENCE."""
    found: tuple[int, ...] = ()
    for kind, numbers in segments(value):
        if kind != AS_SEQUENCE:
            break
        found += numbers
    return found


def occurrences(value: bytes, asn: int) -> int:
    octets = asn.to_bytes(4, "big")
    if octets not in value:  # in C, and nearly always the answer
        return 0
    return sum(numbers.count(asn) for _, numbers in segments(value))


def prepend(value: bytes, numbers: tuple[int, ...]) -> bytes:
    """The path with `numbers` in front, in a leading AS_SEQUENCE as far as it has room (RFC 4271 §5.1.2)."""
    octets = b"".join(asn.to_bytes(4, "big") for asn in numbers)
    if value[:1] == b"\x02" and value[1] + len(numbers) <= 255:
        return bytes((AS_SEQUENCE, value[1] + len(numbers))) + octets + value[2:]
    return bytes((AS_SEQUENCE, len(numbers))) + octets + value


def without_confederation(value: bytes) -> bytes:
    """RFC 5065 §4: confederation segments do not leave. Ours is in none, they are only tolerated."""
    if not any(kind in CONFEDERATION for kind, _ in segments(value)):
        return value
    return join([(kind, numbers) for kind, numbers in segments(value) if kind not in CONFEDERATION])


def widen(value: bytes) -> bytes:
    """A valid 2-octet path → the 4-octet form."""
    out = []
    at = 0
    while at < len(value):
        count = value[at + 1]
        after = at + 2 + 2 * count
        out.append(value[at : at + 2])
        out.extend(b"\0\0" + value[i : i + 2] for i in range(at + 2, after, 2))
        at = after
    return b"".join(out)


def narrow(value: bytes) -> tuple[bytes, bytes]:
    """A 4-octet path → (2-octet AS_PATH, AS4_PATH or b'' if no number needs it). RFC 6793 §4.2.2."""
    out = []
    wide = []
    needs = False
    for kind, numbers in segments(value):
        out.append(bytes((kind, len(numbers))))
        for asn in numbers:
            needs = needs or asn > 0xFFFF
            out.append(asn.to_bytes(2, "big") if asn <= 0xFFFF else AS_TRANS_OCTETS)
        if kind not in CONFEDERATION:  # never in AS4_PATH
            wide.append((kind, numbers))
    return b"".join(out), join(wide) if needs else b""


def merge(wide: bytes, as4: bytes) -> bytes:
    """AS_PATH (already widened) and AS4_PATH → the path as it was (RFC 6793 §4.2.3).

    An AS4_PATH longer than the AS_PATH is ignored; what the AS_PATH has more is put in front.
    """
    clean = [(kind, numbers) for kind, numbers in segments(as4) if kind not in CONFEDERATION]
    extra = length(wide) - sum(len(n) if kind == AS_SEQUENCE else 1 for kind, n in clean)
    if extra < 0:
        return wide
    front: list[tuple[int, tuple[int, ...]]] = []
    for kind, numbers in segments(wide):
        if kind in CONFEDERATION:
            front.append((kind, numbers))
        elif extra <= 0:
            break
        elif kind == AS_SET:
            front.append((kind, numbers))
            extra -= 1
        else:
            front.append((kind, numbers[:extra]))
            extra -= min(extra, len(numbers))
    if front and clean and front[-1][0] == clean[0][0] == AS_SEQUENCE:
        clean[0] = (AS_SEQUENCE, front.pop()[1] + clean[0][1])
    return join(front + clean)


def text(value: bytes) -> str:
    """As routers print it: `65001 65002 {65003,65004} (64512)`."""
    words: list[str] = []
    for kind, numbers in segments(value):
        if kind == AS_SEQUENCE:
            words.extend(str(asn) for asn in numbers)
        else:
            brackets = {AS_SET: "{}", AS_CONFED_SEQUENCE: "()", AS_CONFED_SET: "[]"}[kind]
            words.append(
                brackets[0] + (" " if kind == AS_CONFED_SEQUENCE else ",").join(map(str, numbers)) + brackets[1]
            )
    return " ".join(words)
