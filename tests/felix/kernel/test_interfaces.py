"""The monitor of interfaces, addresses and others' routes, on a real kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Literal

import pytest

from felix.kernel.interfaces import InterfaceMonitor
from felix.kernel.routes import KernelRoutes
from felix.sync.routes import KernelRoute, RouteClass, WantedRoute
from tests.netns import Namespace, network_namespace

pytestmark = pytest.mark.root

State = Literal["up", "down", "gone"]
PATIENCE_S = 10.0


class Listener:
    """What was told, oldest first, and what is known by it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, State]] = []
        self.known: dict[str, tuple[State, frozenset[str], int]] = {}
        self.routes: list[tuple[str, bool, bool]] = []
        self.lost = 0
        self._changed = asyncio.Event()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()

    def interface_changed(self, name: str, state: State, addresses: frozenset[str], ifindex: int) -> None:
        self._changed.set()
        self.told.append((name, state))
        if state == "gone":
            self.known.pop(name, None)
        else:
            self.known[name] = (state, addresses, ifindex)

    def route_changed(self, route: KernelRoute, *, is_gone: bool, is_replacement: bool) -> None:
        self._changed.set()
        self.routes.append((route.destination, is_gone, is_replacement))

    def routes_lost(self) -> None:
        self._changed.set()
        self.lost += 1

    def state(self, name: str) -> State | None:
        found = self.known.get(name)
        return found[0] if found else None

    def addresses(self, name: str) -> set[str]:
        """Without link-local ones, which come when they come."""
        return {one for one in self.known[name][1] if not one.startswith("fe80")}


def lay(name: str) -> str:
    """Lines for `ip -batch`: an interface that has a carrier and wants to be up."""
    return f"link add {name} type veth peer name p{name}\nlink set {name} up\nlink set p{name} up\n"


Body = Callable[[Listener, Namespace], Awaitable[None]]
Watch = Callable[..., Listener]


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with network_namespace() as made:
        made.ip_batch(lay("cali1"))
        made.ip("address add 10.0.0.1/24 dev cali1")
        yield made


@pytest.fixture
def watch(namespace: Namespace) -> Watch:
    """Runs a body inside, with a monitor that watches protocols 3 and 80."""

    def run(body: Body, own_port_id: int = 1, **options: int) -> Listener:
        listener = Listener()

        async def inside() -> None:
            monitor = InterfaceMonitor([listener], listener, {3, 80}, own_port_id, **options)
            monitor.start()
            try:
                await listener.until(lambda: "lo" in listener.known)
                await body(listener, namespace)
            finally:
                monitor.close()

        namespace.call(lambda: asyncio.run(inside()))
        return listener

    return run


def test_what_is_there_is_told_at_the_start(watch: Watch) -> None:
    async def body(seen: Listener, node: Namespace) -> None:
        assert seen.known["cali1"][0] == "up"
        assert seen.known["cali1"][2] == node.ifindex("cali1")
        assert seen.addresses("cali1") == {"10.0.0.1"}
        assert seen.known["lo"][1] == {"127.0.0.1", "::1"}

    watch(body)


def test_an_interface_comes_goes_up_and_down_and_away(watch: Watch) -> None:
    async def body(seen: Listener, node: Namespace) -> None:
        node.ip("link add cali2 type veth peer name pcali2")
        node.ip("link set pcali2 up")
        await seen.until(lambda: seen.state("cali2") == "down")
        node.ip("link set cali2 up")
        await seen.until(lambda: seen.state("cali2") == "up")
        node.ip("link set cali2 down")
        await seen.until(lambda: seen.state("cali2") == "down")
        node.ip("link delete cali2")
        await seen.until(lambda: seen.state("cali2") is None)

    assert ("cali2", "gone") in watch(body).told


def test_up_means_with_a_carrier(watch: Watch) -> None:
    async def body(seen: Listener, node: Namespace) -> None:
        node.ip("link add cali2 type veth peer name pod2")
        node.ip("link set cali2 up")
        await seen.until(lambda: seen.state("cali2") == "down")
        node.ip("link set pod2 up")
        await seen.until(lambda: seen.state("cali2") == "up")

    watch(body)


def test_addresses_come_and_go(watch: Watch) -> None:
    async def body(seen: Listener, node: Namespace) -> None:
        node.ip("address add fd00::1/64 dev cali1 nodad")
        await seen.until(lambda: seen.addresses("cali1") == {"10.0.0.1", "fd00::1"})
        node.ip("address delete 10.0.0.1/24 dev cali1")
        await seen.until(lambda: seen.addresses("cali1") == {"fd00::1"})

    watch(body)


def test_a_renamed_interface_is_gone_by_its_old_name_and_has_its_addresses_by_the_new_one(watch: Watch) -> None:
    async def body(seen: Listener, node: Namespace) -> None:
        index = seen.known["cali1"][2]
        node.ip("link set cali1 down")
        node.ip("link set cali1 name away")
        await seen.until(lambda: "away" in seen.known and "cali1" not in seen.known)
        assert seen.known["away"][2] == index
        assert seen.addresses("away") == {"10.0.0.1"}

    told = watch(body).told
    assert told.index(("cali1", "gone")) < told.index(("away", "down"))


def test_an_interface_that_is_replaced_by_another_of_its_name_is_known_by_its_new_index(watch: Watch) -> None:
    """Both within one turn: what is gone by the time that it is told needs no telling."""

    async def body(seen: Listener, node: Namespace) -> None:
        before = seen.known["cali1"][2]
        node.ip_batch("link delete cali1\n" + lay("cali1"))
        await seen.until(lambda: seen.state("cali1") == "up" and seen.known["cali1"][2] != before)
        assert seen.known["cali1"][2] == node.ifindex("cali1")
        assert seen.addresses("cali1") == set()

    watch(body)


def test_changes_within_one_turn_are_told_once(watch: Watch) -> None:
    async def body(seen: Listener, node: Namespace) -> None:
        before = len(seen.told)
        node.ip_batch("".join(f"address add 10.1.{n}.1/32 dev cali1\n" for n in range(200)))
        await seen.until(lambda: len(seen.addresses("cali1")) == 201)
        assert len(seen.told) - before == 1

    watch(body)


def test_lost_notifications_are_made_up_for(watch: Watch) -> None:
    async def body(seen: Listener, node: Namespace) -> None:
        node.ip_batch(
            "link delete cali1\n"
            + "".join(lay(f"cali{n}") for n in range(2, 40))
            + "".join(f"address add 10.2.{n}.1/32 dev cali7\n" for n in range(100))
        )
        await seen.until(lambda: seen.lost > 0)
        await seen.until(lambda: all(seen.state(f"cali{n}") == "up" for n in range(2, 40)))
        await seen.until(lambda: len(seen.addresses("cali7")) == 100)
        assert seen.state("cali1") is None
        node.ip("link set cali9 down")  # and it goes on
        await seen.until(lambda: seen.state("cali9") == "down")

    watch(body, buffer_octets=8192)


# --- routes


def test_others_changes_to_routes_of_our_protocols_are_told(watch: Watch) -> None:
    async def body(seen: Listener, node: Namespace) -> None:
        node.ip("route add 10.9.0.1/32 dev cali1 proto 80")
        node.ip("route del 10.9.0.1/32 dev cali1 proto 80")
        node.ip("-6 route add fd09::1 dev cali1 proto boot")
        await seen.until(lambda: len(seen.routes) >= 3)

    assert watch(body).routes == [
        ("10.9.0.1/32", False, False),
        ("10.9.0.1/32", True, False),
        ("fd09::1/128", False, False),
    ]


def test_a_route_that_takes_the_place_of_another_is_told_whoever_writes_it(watch: Watch) -> None:
    async def body(seen: Listener, node: Namespace) -> None:
        node.ip("route add 10.9.0.1/32 dev cali1 proto 80")
        node.ip("route replace 10.9.0.1/32 via 10.0.0.9 proto bird")
        await seen.until(lambda: len(seen.routes) >= 2)

    assert watch(body).routes[1] == ("10.9.0.1/32", False, True)


def test_routes_of_no_concern_are_not_told(watch: Watch) -> None:
    async def body(seen: Listener, node: Namespace) -> None:
        node.ip("route add 10.9.0.1/32 dev cali1 proto bird")
        node.ip("route del 10.9.0.1/32 dev cali1 proto bird")
        node.ip("route add 10.9.0.2/32 dev cali1 table 7 proto 80")
        node.ip("route add 10.9.0.3/32 dev cali1 proto 80")
        await seen.until(lambda: bool(seen.routes))

    assert watch(body).routes == [("10.9.0.3/32", False, False)]


def test_what_we_write_ourselves_is_no_news(namespace: Namespace, watch: Watch) -> None:
    kernel = namespace.call(KernelRoutes)

    async def body(seen: Listener, node: Namespace) -> None:
        ours = WantedRoute("10.9.0.1/32", RouteClass.LOCAL_WORKLOAD, "cali1", protocol=3)
        assert await kernel.write([ours], [], {"cali1": node.ifindex("cali1")}) == []
        node.ip("route add 10.9.0.2/32 dev cali1 proto 80")
        await seen.until(lambda: bool(seen.routes))
        assert "10.9.0.1" in node.ip("route show proto boot")

    try:
        assert watch(body, own_port_id=kernel.port_id).routes == [("10.9.0.2/32", False, False)]
    finally:
        kernel.close()
