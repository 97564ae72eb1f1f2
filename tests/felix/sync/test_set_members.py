"""Which members of a set go into the kernel, after any history."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from felix.sync.set_members import SetMembers

MEMBERS = [
    "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "10.1.2.4/32", "10.2.0.0/16", "11.0.0.1/32", "0.0.0.0/0",
    "10.1.2.3", "fd00::1/128", "nonsense",
]  # fmt: skip


def widest(members: set[str]) -> set[str]:
    networks = {ipaddress.ip_network(one) for one in members if ":" not in one and one != "nonsense"}
    return {
        str(one)
        for one in networks
        if not any(one != other and one.subnet_of(other) for other in networks)  # type: ignore[arg-type]
    }


@given(st.lists(st.tuples(st.sets(st.sampled_from(MEMBERS)), st.sets(st.sampled_from(MEMBERS))), max_size=8))
def test_after_any_history_the_widest_networks_are_in_effect_and_each_step_says_what_changed(
    steps: list[tuple[set[str], set[str]]],
) -> None:
    members = SetMembers("net", 4)
    wanted: set[str] = set()
    kernel: set[str] = set()
    for added, removed in steps:
        effect = members.change(added, removed - added)
        wanted = (wanted - (removed - added)) | added
        assert not effect.added & kernel
        assert effect.removed <= kernel
        kernel = (kernel - effect.removed) | effect.added
        assert kernel == widest(wanted) == members.effective
        assert ("nonsense" in members.bad) == ("nonsense" in wanted)


def test_replacing_the_members_tells_the_difference_alone() -> None:
    members = SetMembers("net", 4)
    members.replace({"10.0.0.1/32", "10.0.0.2/32"})
    effect = members.replace({"10.0.0.2/32", "10.0.0.3/32"})
    assert (effect.added, effect.removed, effect.must_be_one) == ({"10.0.0.3/32"}, {"10.0.0.1/32"}, False)


def test_a_network_that_swallows_members_replaces_them_at_once() -> None:
    members = SetMembers("net", 4)
    members.replace({"10.0.0.1/32"})
    effect = members.change({"10.0.0.0/8"}, ())
    assert (effect.added, effect.removed, effect.must_be_one) == ({"10.0.0.0/8"}, {"10.0.0.1/32"}, True)


def test_ports_are_told_apart_by_version_and_form() -> None:
    members = SetMembers("ip,port", 6)
    effect = members.change({"fd00::1,tcp:80", "10.0.0.1,tcp:80", "fd00::1,gre:1"}, ())
    assert effect.added == {"fd00::1,tcp:80"}
    assert members.bad == {"fd00::1,gre:1"}
    assert members.replace(()).removed == {"fd00::1,tcp:80"}
