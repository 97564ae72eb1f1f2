"""What this kernel can. Run `tests/guest/run.sh` for one that can all of it."""

from __future__ import annotations

import functools
import os

import pytest

from tests.netns import network_namespace


@functools.cache
def can_make(kind: str) -> bool:
    """A device of the kind, in a namespace of its own."""
    if os.geteuid() != 0:
        return False
    with network_namespace() as namespace:
        ends = "local 192.0.2.1 remote 192.0.2.2" if kind == "ipip" else ""  # without, it would be tunl0 again
        namespace.ip(f"link add probe0 type {kind} {ends}", check=False)
        return bool(namespace.ip("link show probe0", check=False))


def needs(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not can_make(kind), reason=f"this kernel makes no {kind} devices: tox -e guest")
