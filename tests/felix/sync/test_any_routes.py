"""Whatever is wanted, whatever others do, seen or unseen: after a reading the table is as it should be."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from felix.sync.routes import GRACE_S, KernelRoute, Ownership, RouteBook, RouteClass, Step, WantedRoute, as_written

DESTINATIONS = [f"10.0.0.{number}/32" for number in range(3)]
INTERFACES = ["calia", "calib", "eth0"]
MAKERS = ["one", "other"]
OWNERSHIP = Ownership()


@dataclass
class Kernel:
    """IPv4's main table, by destination in the order of metrics. Links that go down take their routes along."""

    routes: list[KernelRoute] = field(default_factory=list)
    indexes: dict[str, int] = field(default_factory=lambda: {name: at for at, name in enumerate(INTERFACES, start=1)})
    up: set[str] = field(default_factory=lambda: set(INTERFACES))
    next_index: int = 10

    def put(self, route: KernelRoute) -> None:
        """NLM_F_REPLACE: the first of its metric."""
        for at, one in enumerate(self.routes):
            if (one.destination, one.metric) == (route.destination, route.metric):
                self.routes[at] = route
                return
        self.routes.append(route)

    def delete(self, route: KernelRoute) -> None:
        """By destination, metric, protocol and the way out."""
        for one in self.routes:
            if (one.destination, one.metric, one.protocol, one.interface_index) == (
                route.destination, route.metric, route.protocol, route.interface_index,
            ):  # fmt: skip
                self.routes.remove(one)
                return

    def drop(self, index: int) -> None:
        self.routes = [one for one in self.routes if one.interface_index != index]

    def name(self, index: int) -> str:
        return next((name for name, one in self.indexes.items() if one == index), "")


class World:
    def __init__(self) -> None:
        self.kernel, self.book, self.now = Kernel(), RouteBook(), 1000.0
        for index in self.kernel.indexes.values():
            self.book.interface_appeared(index, self.now)

    def read(self) -> None:
        self.book.begin_reading()
        kernel = self.kernel
        self.book.read(
            [
                one
                for one in kernel.routes
                if one.destination in self.book.wanted
                or OWNERSHIP.is_ours(one.protocol, kernel.name(one.interface_index))
            ]
        )

    def up(self) -> dict[str, int]:
        return {name: self.kernel.indexes[name] for name in self.kernel.up}

    def write(self) -> Step:
        step = self.book.step(self.up(), OWNERSHIP, self.kernel.name, self.now)
        for want in step.puts:
            self.kernel.put(as_written(want, self.up()))
        for gone in step.deletes:
            self.kernel.delete(gone)
        self.book.wrote(step, self.up(), ())
        return step

    def flap(self, name: str, *, is_renewed: bool) -> None:
        """Down and up again before anybody looks; or another one by the same name."""
        index = self.kernel.indexes[name]
        self.kernel.drop(index)
        if is_renewed:
            self.book.interface_gone(index)
            self.kernel.indexes[name] = self.kernel.next_index
            self.kernel.next_index += 1
            self.book.interface_appeared(self.kernel.indexes[name], self.now)
        self.book.interface_changed(name, index)

    def toggle(self, name: str) -> None:
        if name in self.kernel.up:
            self.kernel.up.remove(name)
            self.kernel.drop(self.kernel.indexes[name])
        else:
            self.kernel.up.add(name)
        self.book.interface_changed(name, self.kernel.indexes[name])

    def others_put(self, destination: str, name: str, protocol: int, metric: int, *, is_seen: bool) -> None:
        if name not in self.kernel.up:
            return
        route = KernelRoute(destination, self.kernel.indexes[name], "", protocol, metric)
        replaces = any((one.destination, one.metric) == (destination, metric) for one in self.kernel.routes)
        self.kernel.put(route)
        is_ours = OWNERSHIP.is_ours(protocol, name)
        if is_seen and self.book.was_put(route, is_replacement=replaces, is_ours=is_ours) == "read":
            self.read()

    def others_delete(self, at: int, *, is_seen: bool) -> None:
        if self.kernel.routes:
            gone = self.kernel.routes.pop(at % len(self.kernel.routes))
            if is_seen:
                self.book.was_deleted(gone)


destination, interface = st.sampled_from(DESTINATIONS), st.sampled_from(INTERFACES)
wanted = st.builds(
    WantedRoute, destination, st.sampled_from([RouteClass.LOCAL_WORKLOAD, RouteClass.NO_ENCAPSULATION]), interface,
    protocol=st.sampled_from([3, 80]), metric=st.sampled_from([0, 1024]),
)  # fmt: skip
steps = st.one_of(
    st.tuples(st.just("want"), st.sampled_from(MAKERS), st.lists(wanted, max_size=3)),
    st.tuples(st.just("write")),
    st.tuples(st.just("read")),
    st.tuples(st.just("flap"), interface, st.booleans()),
    st.tuples(st.just("toggle"), interface),
    st.tuples(st.just("wait")),
    st.tuples(
        st.just("put"),
        destination,
        interface,
        st.sampled_from([3, 4, 12, 80]),
        st.sampled_from([0, 1024]),
        st.booleans(),
    ),
    st.tuples(st.just("delete"), st.integers(0, 5), st.booleans()),
)


def play(world: World, story: list[tuple[object, ...]]) -> None:
    for what, *rest in story:
        match what, rest:
            case "want", [str(maker), list(routes)]:
                world.book.want(maker, routes)
            case "write", _:
                world.write()
            case "read", _:
                world.read()
            case "flap", [str(name), bool(is_renewed)]:
                world.flap(name, is_renewed=is_renewed)
            case "toggle", [str(name)]:
                world.toggle(name)
            case "wait", _:
                world.now += GRACE_S / 2
            case "put", [str(to), str(name), int(protocol), int(metric), bool(is_seen)]:
                world.others_put(to, name, protocol, metric, is_seen=is_seen)
            case "delete", [int(at), bool(is_seen)]:
                world.others_delete(at, is_seen=is_seen)


def wrong(world: World) -> list[str]:
    """What is not as it should be."""
    kernel, book, up = world.kernel, world.book, world.up()
    ready = {to: as_written(one, up) for to, one in book.wanted.items() if one.interface in up}
    found = [f"{one} is missing" for one in ready.values() if one not in kernel.routes]
    for one in kernel.routes:
        is_ours = OWNERSHIP.is_ours(one.protocol, kernel.name(one.interface_index))
        if is_ours and one.destination not in book.wanted:
            found.append(f"{one} is wanted by nobody")
        elif is_ours and one.destination in ready and one != ready[one.destination]:
            found.append(f"{one} is not what is wanted")
    return found


@settings(max_examples=400, deadline=None)
@given(st.lists(steps, max_size=25))
def test_after_a_reading_the_table_is_as_it_should_be(story: list[tuple[object, ...]]) -> None:
    world = World()
    play(world, story)
    world.now += GRACE_S
    world.read()
    world.write()
    assert wrong(world) == []
    foreign = list(world.kernel.routes)
    assert (world.write().puts, world.kernel.routes) == ([], foreign)


def unseen(step: tuple[object, ...]) -> bool:
    return step[0] in ("put", "delete") and step[-1] is False


@settings(max_examples=400, deadline=None)
@given(st.lists(steps.filter(lambda step: not unseen(step)), max_size=25))
def test_where_everything_is_seen_no_reading_is_needed(story: list[tuple[object, ...]]) -> None:
    world = World()
    world.read()
    play(world, [step for step in story if step[0] != "read"])
    world.now += GRACE_S
    world.write()
    world.write()
    assert wrong(world) == []


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, max_size=25))
def test_others_routes_are_never_deleted(story: list[tuple[object, ...]]) -> None:
    world = World()
    kept = KernelRoute("10.9.0.0/16", world.kernel.indexes["eth0"], "172.16.0.7", 12, 0)
    world.kernel.put(kept)
    play(world, [step for step in story if step[0] not in ("delete", "flap", "toggle")])
    world.now += GRACE_S
    world.read()
    world.write()
    assert kept in world.kernel.routes
