"""What our objects are called in nftables, and where the kernel's hooks call us. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from felix.desired import IPVersion
from felix.filter_rules import Hook, Table

TABLE_NAME = "calico"
FAMILIES: Mapping[IPVersion, str] = {4: "ip", 6: "ip6"}
# Where the kernel's hooks call us: (type, hook, priority).
BASE_CHAINS: Mapping[tuple[Table, Hook], tuple[str, str, int]] = {
    ("raw", "PREROUTING"): ("filter", "prerouting", -300),
    ("raw", "OUTPUT"): ("filter", "output", -300),
    ("mangle", "PREROUTING"): ("filter", "prerouting", -150),
    ("mangle", "POSTROUTING"): ("filter", "postrouting", -150),
    ("nat", "PREROUTING"): ("nat", "prerouting", -100),
    ("nat", "OUTPUT"): ("nat", "output", -100),
    ("nat", "POSTROUTING"): ("nat", "postrouting", 110),
    ("filter", "INPUT"): ("filter", "input", 0),
    ("filter", "FORWARD"): ("filter", "forward", 0),
    ("filter", "OUTPUT"): ("filter", "output", 0),
}
MAX_NAME = 100  # the kernel takes 255; nft 1.0.6 cuts map elements' verdicts earlier
_LEGAL = re.compile(r"[A-Za-z0-9/_.\-]+")


def chain_name(table: Table, name: str) -> str:
    """One table holds the chains of all: `filter-cali-FORWARD`."""
    return legal(f"{table}-{name}")


def set_name(version: IPVersion, id: str) -> str:
    return legal(f"cali{version}0{id.replace(':', '-')}")


def map_name(table: Table, name: str) -> str:
    return legal(f"{table}-{name}")


def legal(name: str) -> str:
    """What nft cannot read, or not in that length, is replaced by a hash of all."""
    if len(name) <= MAX_NAME and _LEGAL.fullmatch(name):
        return name
    digest = hashlib.sha224(name.encode()).hexdigest()[:24]
    return f"{re.sub(r'[^A-Za-z0-9/_.-]', '-', name)[: MAX_NAME - 25]}_{digest}"
