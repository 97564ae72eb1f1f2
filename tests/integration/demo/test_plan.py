"""The plan alone: what must be announced and learned."""

from __future__ import annotations

import ipaddress
import itertools

import pytest

from integration.demo.plan import MAX_NODES, MAX_REFLECTORS, make_plan


def test_every_prefix_has_one_router_that_stands_for_it() -> None:
    plan = make_plan(nodes=MAX_NODES)
    announced = [prefix for router in plan.routers for prefix in router.announced]
    assert len(announced) == len(set(announced))


def test_blocks_and_addresses_do_not_overlap() -> None:
    plan = make_plan(nodes=MAX_NODES, reflectors=MAX_REFLECTORS)
    for one, other in itertools.combinations((prefix for router in plan.routers for prefix in router.aggregates), 2):
        assert one.version != other.version or not one.overlaps(other)
    addresses = [address for workload in plan.workloads for address in workload.addresses]
    addresses += [address for router in plan.routers for address in (router.ipv4, router.ipv6)]
    assert len(addresses) == len(set(addresses))


def test_workloads_lie_in_a_block_of_their_node_or_have_borrowed() -> None:
    plan = make_plan(nodes=MAX_NODES)
    for router in plan.routers:
        for workload in router.workloads:
            for address in workload.addresses:
                owners = [one for one in plan.routers if any(address in prefix for prefix in one.aggregates)]
                assert len(owners) == 1
                assert (owners[0] is router) != workload.is_borrowed


def test_interface_names_fit_the_kernel_and_look_like_calicos() -> None:
    names = [workload.interface for node in make_plan(nodes=MAX_NODES).nodes for workload in node.workloads]
    assert len(names) == len(set(names))
    assert all(len(name) == 15 and name.startswith("cali") for name in names)


def test_a_node_learns_blocks_and_workloads_of_the_others_and_the_racks_prefixes() -> None:
    plan = make_plan(nodes=3)
    learned = plan.expected_in_kernel(plan.nodes[0])
    # Two other nodes with two blocks and one workload of two borrowed addresses each; two rack prefixes.
    assert len(learned) == 2 * (2 + 2) + 2
    borrowed = next(workload for workload in plan.nodes[1].workloads if workload.is_borrowed)
    assert all(learned[prefix] is plan.nodes[1] for prefix in borrowed.prefixes)
    assert learned[ipaddress.ip_network("198.51.100.0/24")] is plan.tor
    assert not any(prefix in learned for prefix in plan.nodes[0].announced)


def test_a_withdrawn_prefix_is_expected_nowhere() -> None:
    plan = make_plan()
    gone = frozenset(plan.nodes[0].workloads[1].prefixes)
    assert not gone & plan.expected_in_kernel(plan.tor, without=gone).keys()


def test_three_nodes_have_three_mesh_sessions_and_one_each_with_the_tor() -> None:
    assert sum(1 for _ in make_plan(nodes=3).sessions()) == 6


def test_reflectors_take_the_place_of_the_mesh_and_leave_their_kernels_alone() -> None:
    meshed, plan = make_plan(nodes=3), make_plan(nodes=3, reflectors=2)
    assert [peer.name for peer in plan.peers_of(plan.nodes[0])] == ["rr1", "rr2", "tor"]
    assert [peer.name for peer in plan.peers_of(plan.reflectors[0])] == ["node1", "node2", "node3", "rr2"]
    assert [peer.name for peer in plan.peers_of(plan.tor)] == ["node1", "node2", "node3"]
    assert sum(1 for _ in plan.sessions()) == 3 * 2 + 1 + 3
    assert plan.expected_in_kernel(plan.reflectors[0]) == {}
    for before, after in zip((*meshed.nodes, meshed.tor), (*plan.nodes, plan.tor), strict=True):
        assert plan.expected_in_kernel(after) == meshed.expected_in_kernel(before)


@pytest.mark.parametrize("reflectors", [-1, MAX_REFLECTORS + 1])
def test_an_impossible_number_of_reflectors_is_refused(reflectors: int) -> None:
    with pytest.raises(ValueError, match="0 to 4"):
        make_plan(reflectors=reflectors)


@pytest.mark.parametrize("nodes", [-1, 0, 1, MAX_NODES + 1])
def test_an_impossible_number_of_nodes_is_refused(nodes: int) -> None:
    with pytest.raises(ValueError, match="2 to 16"):
        make_plan(nodes=nodes)
