"""What a workload's policy client is told, message by message."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from felix.desired import (
    Entity,
    HTTPMatch,
    InSync,
    IPSetDelta,
    IPSetRemove,
    IPSetUpdate,
    Message,
    NamespaceRemove,
    NamespaceUpdate,
    Origin,
    Policy,
    PolicyId,
    PolicyRemove,
    PolicyRule,
    PolicyUpdate,
    PortRange,
    Profile,
    ProfileRemove,
    ProfileUpdate,
    ServiceAccountRemove,
    ServiceAccountUpdate,
    TierPolicies,
    WorkloadEndpoint,
    WorkloadId,
    WorkloadRemove,
    WorkloadUpdate,
)
from integration.felixbackend import MAX_MEMBERS, MESSAGES
from integration.node import policy_messages
from integration.node.policy_book import PolicyBook

POD = WorkloadId("k8s", "ns/pod", "eth0")
ONE, TWO = PolicyId("NetworkPolicy", "ns", "one"), PolicyId("GlobalNetworkPolicy", "", "two")


class Client:
    def __init__(self) -> None:
        self.octets: list[bytes] = []
        self.is_closed = False

    def send(self, octets: bytes) -> None:
        assert not self.is_closed
        self.octets.append(octets)

    def close(self) -> None:
        self.is_closed = True

    def take(self) -> list[Any]:
        """What came since, as ToDataplane."""
        taken, self.octets = self.octets, []
        return [MESSAGES["ToDataplane"].FromString(octets) for octets in taken]


def told(client: Client) -> list[str]:
    return [short(message) for message in client.take()]


def short(message: Any) -> str:
    """`policy one`, `-policy one`, `set a`…"""
    kind = message.WhichOneof("payload")
    body = getattr(message, kind)
    match kind:
        case "ipset_update":
            return f"set {body.id}"
        case "ipset_delta_update":
            return f"delta {body.id}"
        case "ipset_remove":
            return f"-set {body.id}"
        case "active_policy_update" | "active_policy_remove":
            return f"{'-' if kind.endswith('remove') else ''}policy {body.id.name}"
        case "active_profile_update" | "active_profile_remove":
            return f"{'-' if kind.endswith('remove') else ''}profile {body.id.name}"
        case "workload_endpoint_update" | "workload_endpoint_remove":
            return f"{'-' if kind.endswith('remove') else ''}workload {body.id.workload_id}"
        case "service_account_update" | "service_account_remove" | "namespace_update" | "namespace_remove":
            return f"{'-' if kind.endswith('remove') else ''}{kind.rpartition('_')[0]} {body.id.name}"
    return str(kind)


def policy(id: PolicyId, *sets: str) -> PolicyUpdate:
    return PolicyUpdate(Policy(id, "default", inbound=(PolicyRule("allow", source=Entity(ip_sets=sets)),)))


def workload(*policies: PolicyId, profiles: tuple[str, ...] = ()) -> WorkloadUpdate:
    tiers = (TierPolicies("default", ingress=policies),) if policies else ()
    return WorkloadUpdate(WorkloadEndpoint(POD, "cali1", tiers=tiers, profiles=profiles))


def net(id: str, *members: str) -> IPSetUpdate:
    return IPSetUpdate(id, "net", frozenset(members))


def with_messages(*sent: Message) -> PolicyBook:
    book = PolicyBook(failed=_never)
    for message in sent:
        book.on_message(message)
    return book


def _never(what: str, error: Exception) -> None:
    raise AssertionError(f"{what}: {error}")


SCENE = (
    net("a", "10.0.0.1/32"),
    net("b"),
    net("other"),
    policy(ONE, "a"),
    policy(TWO, "a", "b"),
    policy(PolicyId("NetworkPolicy", "x", "other"), "other"),
    ProfileUpdate(Profile("kns.ns", inbound=(PolicyRule("allow", destination=Entity(services=("b",))),))),
    ProfileUpdate(Profile("kns.other")),
    ServiceAccountUpdate("ns", "sa", (("a", "b"),)),
    NamespaceUpdate("ns", (("c", "d"),)),
    workload(ONE, TWO, profiles=("kns.ns",)),
)


def test_a_new_client_is_told_what_its_endpoint_needs_and_no_more() -> None:
    book, client = with_messages(*SCENE, InSync()), Client()
    book.connect(POD, client)
    assert told(client) == [
        "set a",
        "set b",
        "policy two",
        "policy one",
        "profile kns.ns",
        "workload ns/pod",
        "service_account sa",
        "namespace ns",
        "in_sync",
    ]


def test_a_client_from_the_start_ends_up_with_the_same() -> None:
    book, client = PolicyBook(failed=_never), Client()
    book.connect(POD, client)
    for message in (*SCENE, InSync(), InSync()):
        book.on_message(message)
    found = told(client)
    assert found.count("in_sync") == 1
    assert found.index("set a") < found.index("policy one") < found.index("workload ns/pod")
    assert "set other" not in found
    assert "profile kns.other" not in found


def test_a_policy_that_is_needed_no_more_goes_after_the_endpoint_that_says_so() -> None:
    book, client = with_messages(*SCENE), Client()
    book.connect(POD, client)
    told(client)
    book.on_message(workload(ONE))
    assert told(client) == ["workload ns/pod", "-policy two", "-profile kns.ns", "-set b"]
    book.on_message(PolicyRemove(TWO))
    book.on_message(ProfileRemove("kns.ns"))
    book.on_message(IPSetRemove("b"))
    assert told(client) == []


def test_a_changed_policy_brings_its_new_sets_first_and_takes_the_old_ones_last() -> None:
    book, client = with_messages(*SCENE), Client()
    book.connect(POD, client)
    book.on_message(workload(ONE))
    told(client)
    book.on_message(policy(ONE, "b"))
    assert told(client) == ["set b", "policy one", "-set a"]


def test_what_comes_after_its_endpoint_is_told_when_it_comes() -> None:
    book, client = with_messages(workload(ONE, profiles=("p",))), Client()
    book.connect(POD, client)
    assert told(client) == ["workload ns/pod"]
    book.on_message(policy(ONE, "a"))
    assert told(client) == ["policy one"]
    book.on_message(net("a"))
    book.on_message(ProfileUpdate(Profile("p")))
    assert told(client) == ["set a", "profile p"]


def test_changes_of_sets_reach_only_those_that_know_them() -> None:
    book, client = with_messages(*SCENE), Client()
    book.connect(POD, client)
    told(client)
    book.on_message(IPSetDelta("a", frozenset({"10.0.0.2/32"}), frozenset({"10.0.0.1/32"})))
    book.on_message(IPSetDelta("other", frozenset({"10.0.0.2/32"})))
    book.on_message(IPSetDelta("unknown", frozenset({"10.0.0.2/32"})))
    (delta,) = client.take()
    assert delta.ipset_delta_update.added_members == ["10.0.0.2/32"]
    assert delta.ipset_delta_update.removed_members == ["10.0.0.1/32"]
    later = Client()
    book.connect(POD, later)
    assert later.take()[0].ipset_update.members == ["10.0.0.2/32"]


def test_identities_come_and_go_for_everybody() -> None:
    book, client = with_messages(), Client()
    book.connect(POD, client)
    book.on_message(ServiceAccountUpdate("ns", "sa", (("a", "b"),)))
    book.on_message(ServiceAccountRemove("ns", "sa"))
    book.on_message(NamespaceUpdate("ns", (("a", "b"),)))
    book.on_message(NamespaceRemove("ns"))
    first, *rest = client.take()
    assert dict(first.service_account_update.labels) == {"a": "b"}
    assert [short(message) for message in rest] == ["-service_account sa", "namespace ns", "-namespace ns"]


def test_a_new_client_ends_the_one_before_and_its_leaving_does_not_end_the_new_one() -> None:
    book, first, second = with_messages(*SCENE), Client(), Client()
    book.connect(POD, first)
    book.connect(POD, second)
    assert first.is_closed
    book.disconnect(POD, first)
    second.take()
    book.on_message(workload(ONE))
    assert "workload ns/pod" in told(second)


def test_a_workload_that_goes_ends_its_client() -> None:
    book, client = with_messages(*SCENE), Client()
    book.connect(POD, client)
    client.take()
    book.on_message(WorkloadRemove(POD))
    assert told(client) == ["-workload ns/pod"]
    assert client.is_closed
    book.on_message(WorkloadRemove(POD))


def test_a_workload_that_was_never_told_is_not_removed_but_its_client_is_closed() -> None:
    book, client = with_messages(), Client()
    book.connect(POD, client)
    book.on_message(WorkloadRemove(POD))
    assert told(client) == []
    assert client.is_closed


def test_large_sets_are_split() -> None:
    members = frozenset(
        f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}/32" for number in range(2 * MAX_MEMBERS + 1)
    )
    book, client = with_messages(policy(ONE, "a"), workload(ONE), net("a", *members)), Client()
    book.connect(POD, client)
    first, second, third, *_ = client.take()
    assert [len(first.ipset_update.members), len(second.ipset_delta_update.added_members)] == [MAX_MEMBERS, MAX_MEMBERS]
    assert len(third.ipset_delta_update.added_members) == 1
    assert max(map(len, [first.SerializeToString(), second.SerializeToString()])) < 4 << 20
    found = {*first.ipset_update.members, *second.ipset_delta_update.added_members}
    assert found | set(third.ipset_delta_update.added_members) == members
    book.on_message(IPSetDelta("a", frozenset({"1.1.1.1/32"}), members))
    removed = client.take()
    assert len(removed) == 4
    assert sum(len(message.ipset_delta_update.removed_members) for message in removed) == len(members)


def test_one_policy_that_cannot_be_sent_keeps_no_other_back() -> None:
    failures: list[str] = []
    book, client = PolicyBook(failed=lambda what, error: failures.append(what)), Client()
    bad = Policy(TWO, "default", inbound=(PolicyRule("allow", annotations=(("a", "\ud800"),)),))
    for message in (PolicyUpdate(bad), policy(ONE), workload(ONE, TWO), InSync()):
        book.on_message(message)
    book.connect(POD, client)
    assert told(client) == ["policy one", "workload ns/pod", "in_sync"]
    assert len(failures) == 1
    assert "two" in failures[0]


def test_a_rule_has_all_its_parts() -> None:
    rule = PolicyRule(
        "deny",
        ip_version=6,
        protocol=6,
        not_protocol=17,
        source=Entity(nets=("fd00::/64",), not_nets=("fd01::/64",), ip_sets=("a",), services=("svcnoport",)),
        destination=Entity(
            not_ip_sets=("b",), ports=(PortRange(1, 2),), not_ports=(PortRange(3, 3),), named_ports=("n",),
            not_named_ports=("m",), services=("svc",),
        ),
        icmp=(0, None),
        not_icmp=(1, 0),
        http=HTTPMatch(("GET",), (("exact", "/a"), ("prefix", "/b"))),
        source_origin=Origin("sel", "not", "nssel", ("sa",), "sasel"),
        destination_origin=Origin(service="ns/web"),
        annotations=(("k", "v"),),
    )  # fmt: skip
    made = MESSAGES["Rule"].FromString(policy_messages.rule(rule).SerializeToString())
    assert (made.action, made.ip_version, made.protocol.number, made.not_protocol.number) == ("deny", 6, 6, 17)
    assert (made.src_net, made.not_src_net, made.src_ip_set_ids) == (["fd00::/64"], ["fd01::/64"], ["a", "svcnoport"])
    assert (made.not_dst_ip_set_ids, made.dst_ip_port_set_ids) == (["b"], ["svc"])
    assert (made.dst_named_port_ip_set_ids, made.not_dst_named_port_ip_set_ids) == (["n"], ["m"])
    assert [(ports.first, ports.last) for ports in (*made.dst_ports, *made.not_dst_ports)] == [(1, 2), (3, 3)]
    assert made.WhichOneof("icmp") == "icmp_type"  # though it is 0
    assert (made.not_icmp_type_code.type, made.not_icmp_type_code.code) == (1, 0)
    assert [path.WhichOneof("path_match") for path in made.http_match.paths] == ["exact", "prefix"]
    assert made.original_src_selector == "sel"
    assert made.original_not_src_selector == "not"
    assert made.original_src_namespace_selector == "nssel"
    assert (list(made.src_service_account_match.names), made.src_service_account_match.selector) == (["sa"], "sasel")
    assert (made.original_dst_service_namespace, made.original_dst_service) == ("ns", "web")
    assert dict(made.metadata.annotations) == {"k": "v"}


POLICIES = [ONE, TWO, PolicyId("NetworkPolicy", "ns", "three")]
SETS = st.lists(st.sampled_from("abc"), max_size=3, unique=True)
STEPS = st.one_of(
    st.builds(lambda id, sets: policy(id, *sets), st.sampled_from(POLICIES), SETS),
    st.builds(PolicyRemove, st.sampled_from(POLICIES)),
    st.builds(lambda ids: workload(*ids), st.lists(st.sampled_from(POLICIES), max_size=3, unique=True)),
    st.builds(
        lambda id, members: net(id, *members), st.sampled_from("abc"), st.lists(st.sampled_from("xyz"), max_size=2)
    ),
    st.builds(
        lambda id, more, less: IPSetDelta(id, frozenset(more) - frozenset(less), frozenset(less)),
        st.sampled_from("abc"),
        st.lists(st.sampled_from("xyz"), max_size=2),
        st.lists(st.sampled_from("xyz"), max_size=2),
    ),
    st.builds(IPSetRemove, st.sampled_from("abc")),
)


class Store:
    """What a client makes of what it is told. A message that does not fit what it knows is a failure."""

    def __init__(self) -> None:
        self.sets: dict[str, set[str]] = {}
        self.policies: dict[str, Any] = {}
        self.endpoint: Any = None

    def take(self, messages: list[Any]) -> None:
        for message in messages:
            body = getattr(message, message.WhichOneof("payload"))
            match message.WhichOneof("payload"):
                case "ipset_update":
                    self.sets[body.id] = set(body.members)
                case "ipset_delta_update":
                    self.sets[body.id] = (self.sets[body.id] - set(body.removed_members)) | set(body.added_members)
                case "ipset_remove":
                    del self.sets[body.id]
                case "active_policy_update":
                    self.policies[body.id.name] = body.policy
                case "active_policy_remove":
                    del self.policies[body.id.name]
                case "workload_endpoint_update":
                    self.endpoint = body.endpoint


@given(st.lists(STEPS, max_size=20))
def test_a_client_that_follows_knows_what_one_that_comes_now_is_told(steps: list[Message]) -> None:
    book, client, following = with_messages(workload()), Client(), Store()
    book.connect(POD, client)
    for step in steps:
        book.on_message(step)
        following.take(client.take())
    book.on_message(workload(*POLICIES))  # so that removals that waited for it have been told
    following.take(client.take())
    fresh, new = Client(), Store()
    book.connect(POD, fresh)
    new.take(fresh.take())
    assert following.sets == new.sets
    assert following.policies == new.policies
    assert following.endpoint == new.endpoint
