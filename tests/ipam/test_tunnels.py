"""Addresses of tunnel devices: kept as long as they may be, replaced when they may not."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from ipam.errors import NoNode
from ipam.tunnels import TUNNELS, assign_tunnel_address, release_tunnel_address, tunnel_handle
from tests.ipam.scenes import allocator, assign, check, held, store_with
from tests.ipam.store import MemoryStore, run


def tunnelled() -> MemoryStore:
    store = store_with()
    store.ip_pools.clear()
    store.add_pool("10.0.0.0/27", ipipMode="Always", blockSize=28)
    store.add_pool("10.1.0.0/27", vxlanMode="CrossSubnet", blockSize=28)
    store.add_pool("fd00::/120", vxlanMode="Always")
    return store


def test_each_tunnel_has_an_address_of_its_pools_under_calicos_handle() -> None:
    store = tunnelled()
    made = allocator(store)
    for kind, start in (("ipip", "10.0."), ("vxlan", "10.1."), ("vxlan-v6", "fd00:"), ("wireguard", "10.")):
        address = run(assign_tunnel_address(made, "a", kind))  # type: ignore[arg-type]
        assert str(address).startswith(start)
        assert address is not None
        found = run(made.attribute(address))
        assert found == {"handle_id": f"{kind}-tunnel-addr-a", "secondary": {"node": "a", "type": TUNNELS[kind].type}}
        assert run(assign_tunnel_address(made, "a", kind, address)) == address  # type: ignore[arg-type]
        assert run(assign_tunnel_address(made, "a", kind)) == address  # type: ignore[arg-type]
    assert len(held(store)) == 4
    check(store)


def test_an_address_that_was_lost_is_taken_back_where_nobody_has_it() -> None:
    store = tunnelled()
    made = allocator(store)
    assert run(assign_tunnel_address(made, "a", "ipip", ip_address("10.0.0.9"))) == ip_address("10.0.0.9")
    run(release_tunnel_address(made, "a", "ipip"))
    run(made.assign_address(ip_address("10.0.0.9"), "b", "pod"))
    other = run(assign_tunnel_address(made, "a", "ipip", ip_address("10.0.0.9")))
    assert other not in (None, ip_address("10.0.0.9"))
    check(store)


def test_an_address_outside_the_tunnels_pools_is_replaced() -> None:
    store = tunnelled()
    made = allocator(store)
    old = run(assign_tunnel_address(made, "a", "ipip"))
    store.add_pool("10.0.0.0/27", "pool-0", blockSize=28)  # the tunnel is off
    store.add_pool("10.2.0.0/27", ipipMode="Always", blockSize=28)
    new = run(assign_tunnel_address(made, "a", "ipip", old))
    assert str(new).startswith("10.2.")
    assert list(held(store)) == [str(new)]
    check(store)


def test_without_a_pool_for_it_a_tunnel_gives_its_address_back() -> None:
    store = tunnelled()
    made = allocator(store)
    old = run(assign_tunnel_address(made, "a", "ipip"))
    store.add_pool("10.0.0.0/27", "pool-0", blockSize=28, ipipMode="Always", allowedUses=["Workload"])
    assert run(assign_tunnel_address(made, "a", "ipip", old)) is None
    assert held(store) == {}
    run(release_tunnel_address(made, "a", "ipip"))  # again: no error


def test_a_node_that_is_gone_has_no_tunnel() -> None:
    store = tunnelled()
    made = allocator(store)
    run(assign_tunnel_address(made, "a", "ipip"))
    del store.nodes["a"]
    assert run(assign_tunnel_address(made, "a", "ipip")) is None
    assert held(store) == {}
    with pytest.raises(NoNode):
        assign(made, "a")
    assert tunnel_handle("a", "vxlan-v6") == "vxlan-v6-tunnel-addr-a"
