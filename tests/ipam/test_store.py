from __future__ import annotations

from tests.ipam.contract import keeps_the_contract
from tests.ipam.store import MemoryStore, run


def test_the_store_in_memory_is_like_the_real_ones() -> None:
    run(keeps_the_contract(MemoryStore()))
