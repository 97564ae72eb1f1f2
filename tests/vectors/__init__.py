"""Golden vectors: annotated hexadecimal that a person can check against the RFC.

A file holds any number of them. `[name]` begins one; everything behind a `#` is for the reader; the rest is octets.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def read_vectors(file: str) -> dict[str, bytes]:
    """`open.txt` → name → octets. Raises ValueError for a name used twice or for what is not hexadecimal."""
    vectors: dict[str, bytearray] = {}
    current = bytearray()
    for line in (_HERE / file).read_text().splitlines():
        text = line.partition("#")[0].strip()
        if text.startswith("["):
            name = text.strip("[]")
            if name in vectors:
                raise ValueError(f"{file}: {name} is there twice")
            vectors[name] = current = bytearray()
        else:
            current += bytes.fromhex(text)
    return {name: bytes(octets) for name, octets in vectors.items()}
