"""A routing table of ours and the rule that leads to it, on a real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from felix.desired import IPVersion
from felix.kernel.policy_routing import RoutedTable, UnlessMarked
from tests.netns import Namespace, network_namespace, wire

pytestmark = pytest.mark.root
RULE = UnlessMarked(99, 0x200000, 7)


class Scene(NamedTuple):
    namespace: Namespace
    table: RoutedTable
    device: int


@pytest.fixture(params=[4, 6])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    version: IPVersion = request.param
    with network_namespace() as namespace:
        wire(namespace, "wg", namespace, "other")
        table = namespace.call(lambda: RoutedTable(version, 7, 0xFFFF0000))
        yield Scene(namespace, table, namespace.ifindex("wg"))
        table.close()


def rules(scene: Scene, version: int) -> str:
    return scene.namespace.ip(f"-{version} rule show")


def of(scene: Scene) -> tuple[int, list[str]]:
    version = scene.table._version
    return version, ["10.1.0.0/24", "10.2.0.0/24"] if version == 4 else ["fd01::/64", "fd02::/64"]


def test_the_rule_is_made_once_and_taken_away(scene: Scene) -> None:
    version, _ = of(scene)
    changes, failures = scene.table.make_rule(RULE)
    assert (len(changes), failures) == (1, [])
    assert "99:\tnot from all fwmark 0x200000/0x200000 lookup 7" in rules(scene, version)
    assert scene.table.make_rule(RULE) == ([], [])
    changes, failures = scene.table.make_rule(UnlessMarked(50, 0x400000, 7))
    assert (len(changes), failures) == (2, [])
    assert "0x200000" not in rules(scene, version)
    scene.table.make_rule(None)
    assert "lookup 7" not in rules(scene, version)


@pytest.mark.parametrize(
    "rule",
    [
        "priority 5 from all fwmark 0x200000/0x200000 lookup 7",
        "priority 5 not from all fwmark 0x1/0x1 lookup 7",
        "priority 5 not from all fwmark 0x200000/0x200000 lookup 8",
        "priority 5 not from all fwmark 0x200000/0xff0000 lookup 7",
        "priority 5 from all lookup 7",
    ],
)
def test_rules_of_others_are_left_alone(scene: Scene, rule: str) -> None:
    version, _ = of(scene)
    scene.namespace.ip(f"-{version} rule add {rule}")
    scene.table.make_rule(RULE)
    scene.table.make_rule(None)
    assert "5:\t" in rules(scene, version)


def test_routes_are_made_changed_and_taken_away_and_others_stay(scene: Scene) -> None:
    version, (one, two) = of(scene)
    other = "10.9.0.0/24" if version == 4 else "fd09::/64"
    scene.namespace.ip(f"-{version} route add {other} dev other table 7 proto static")

    def shown() -> str:
        return scene.namespace.ip(f"-{version} route show table 7")

    changes, failures = scene.table.make_routes(scene.device, [one], [two])
    assert (len(changes), failures) == (2, [])
    assert f"{one} dev wg proto 80" in shown()
    assert f"throw {two}" in shown()
    assert scene.table.make_routes(scene.device, [one], [two]) == ([], [])
    scene.table.make_routes(scene.device, [two], [one])
    assert f"{two} dev wg proto 80" in shown()
    assert f"throw {one}" in shown()
    assert scene.table.make_routes(0, (), ())[1] == []
    assert len(shown().splitlines()) == 1
    assert other in shown()


def test_a_table_above_255(scene: Scene) -> None:
    version, (one, two) = of(scene)
    table = scene.namespace.call(lambda: RoutedTable(version, 4711, 0xFFFF0000))  # type: ignore[arg-type]
    assert table.make_routes(scene.device, [one], [two])[1] == []
    assert table.make_rule(UnlessMarked(99, 0x200000, 4711))[1] == []
    assert table.make_rule(UnlessMarked(99, 0x200000, 4711)) == ([], [])
    assert table.make_routes(scene.device, [one], [two]) == ([], [])
    table.close()
