"""Who has an interface that several workloads claim."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from felix.claims import Claims, LocalWorkloads
from felix.desired import WorkloadEndpoint, WorkloadId, WorkloadRemove, WorkloadUpdate

A, B, C = (WorkloadId("k8s", f"shop/{name}", "eth0") for name in "abc")


def test_the_lowest_id_has_it_and_the_next_one_when_it_goes() -> None:
    claims = Claims()
    assert claims.claim(B, "cali1") == {B}
    assert claims.claim(C, "cali1") == set()
    assert claims.claim(A, "cali1") == {A, B}
    assert (claims.owns(A), claims.owns(B), claims.owners) == (True, False, {"cali1": A})
    assert claims.forget(A) == {A, B}
    assert claims.owners == {"cali1": B}


def test_who_moves_to_another_interface_gives_the_former_up() -> None:
    claims = Claims()
    claims.claim(A, "cali1")
    claims.claim(B, "cali1")
    assert claims.claim(A, "cali2") == {A, B}
    assert claims.owners == {"cali1": B, "cali2": A}
    assert claims.claim(A, "cali2") == set()


def test_a_stranger_owns_nothing() -> None:
    claims = Claims()
    assert claims.forget(A) == set()
    assert not claims.owns(A)


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.sampled_from(["", "cali1", "cali2"])), max_size=20))
def test_after_any_story_each_interface_is_its_lowest_claimants_and_changes_were_told(
    story: list[tuple[WorkloadId, str]],
) -> None:
    claims, wanted = Claims(), dict[WorkloadId, str]()
    for id, interface in story:
        before = {one for one in (A, B, C) if claims.owns(one)}
        if interface:
            told = claims.claim(id, interface)
            wanted[id] = interface
        else:
            told = claims.forget(id)
            wanted.pop(id, None)
        after = {one for one in (A, B, C) if claims.owns(one)}
        assert before ^ after <= told
    for interface in ("cali1", "cali2"):
        claimants = [one for one, name in wanted.items() if name == interface]
        assert claims.owners.get(interface) == min(claimants, default=None)


def test_messages_say_of_which_workloads_anything_is_otherwise() -> None:
    workloads = LocalWorkloads()
    a, b = WorkloadEndpoint(A, "cali1"), WorkloadEndpoint(B, "cali1")
    assert workloads.on_message(WorkloadUpdate(b)) == {B}
    assert workloads.on_message(WorkloadUpdate(a)) == {A, B}
    assert workloads.on_message(WorkloadUpdate(b)) == {B}
    assert (workloads.owner("cali1"), list(workloads.owners())) == (a, [("cali1", a)])
    assert workloads.on_message(WorkloadRemove(A)) == {A, B}
    assert (workloads.owner("cali1"), workloads.by_id) == (b, {B: b})
    assert workloads.on_message(WorkloadRemove(B)) == {B}
    assert workloads.owner("cali1") is None
