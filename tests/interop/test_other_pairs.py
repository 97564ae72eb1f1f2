"""The other daemons among themselves: when one of these fails, it is the test bed and not catbird."""

from __future__ import annotations

import pytest

from tests.interop.router import wait_no_routes, wait_routes
from tests.interop.world import World, establish, plain, prefixes


@pytest.mark.parametrize(("first", "second"), [("bird", "frr"), ("gobgp", "openbgpd")])
def test_the_test_bed_exchanges_and_withdraws_routes_between_other_daemons(
    world: World, first: str, second: str
) -> None:
    one, two = world.router(first, 65001), world.router(second, 65002)
    establish(one, two, announce_one=plain(65001), announce_two=plain(65002), password="s3cret")
    wait_routes(two, *prefixes(plain(65001)))
    seen = wait_routes(one, *prefixes(plain(65002)))
    assert seen["10.2.1.0/24"].as_path == (65002,)
    assert seen["2001:db8:2:1::/64"].next_hop == two.node.ipv6
    two.withdraw("10.2.1.0/24")
    wait_no_routes(one, "10.2.1.0/24")
