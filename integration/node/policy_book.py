"""What each workload's policy client must be told, and in which order. Pure: octets go out through the outlet given.

Source: Calico's policysync: IP sets, policies and profiles before the endpoint that needs them, and away after it. Unlike
there, order and repetition of what comes in do not matter, and a client that takes nothing holds up nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, Protocol

from felix.desired import (
    Entity,
    InSync,
    IPSetDelta,
    IPSetRemove,
    IPSetType,
    IPSetUpdate,
    Message,
    NamespaceRemove,
    NamespaceUpdate,
    PolicyId,
    PolicyRemove,
    PolicyRule,
    PolicyUpdate,
    ProfileRemove,
    ProfileUpdate,
    ServiceAccountRemove,
    ServiceAccountUpdate,
    WorkloadEndpoint,
    WorkloadId,
    WorkloadRemove,
    WorkloadUpdate,
)
from integration.node import policy_messages as messages

P = ParamSpec("P")


class Outlet(Protocol):
    """One client. Neither may raise or block."""

    def send(self, octets: bytes) -> None: ...

    def close(self) -> None:
        """After what was sent: the workload is gone, or another client has taken its place."""
        ...


@dataclass(slots=True)
class _IPSet:
    type: IPSetType
    members: set[str]
    told: tuple[bytes, ...] = ()  # the whole of it in messages, which the clients' backlogs share; () after a change


@dataclass(slots=True)
class _Said:
    """A message that is made when the first client wants it, and kept for the others."""

    what: str
    make: Callable[[], bytes]
    sets: frozenset[str] = frozenset()  # that the rules in it ask about
    octets: bytes = b""


@dataclass(slots=True)
class _Client:
    outlet: Outlet
    ip_sets: set[str] = field(default_factory=set)  # that it knows
    policies: set[PolicyId] = field(default_factory=set)
    profiles: set[str] = field(default_factory=set)
    knows_endpoint: bool = False


class PolicyBook:
    """Everything that was told, and per workload at most one client."""

    def __init__(self, failed: Callable[[str, Exception], None]) -> None:
        """`failed(what, error)` is told of what cannot be put into a message; it is left out, which Dikastes denies."""
        self._failed = failed
        self._ip_sets: dict[str, _IPSet] = {}
        self._policies: dict[PolicyId, _Said] = {}
        self._profiles: dict[str, _Said] = {}
        self._endpoints: dict[WorkloadId, WorkloadEndpoint] = {}
        self._accounts: dict[tuple[str, str], _Said] = {}
        self._namespaces: dict[str, _Said] = {}
        self._clients: dict[WorkloadId, _Client] = {}
        self._is_in_sync = False

    # --- clients ----------------------------------------------------------------------------------------------------

    def connect(self, id: WorkloadId, outlet: Outlet) -> None:
        """The workload's client from now on; the one before it is closed. The workload may be unknown as yet."""
        before = self._clients.pop(id, None)
        if before is not None:
            before.outlet.close()
        client = self._clients[id] = _Client(outlet)
        if id in self._endpoints:
            self._bring_up_to_date(client, self._endpoints[id], is_news=True)
        for said in (*self._accounts.values(), *self._namespaces.values()):
            self._say([client], said)
        if self._is_in_sync:
            outlet.send(messages.IN_SYNC)

    def disconnect(self, id: WorkloadId, outlet: Outlet) -> None:
        """The client has gone; nothing happens if another has its place already."""
        client = self._clients.get(id)
        if client is not None and client.outlet is outlet:
            del self._clients[id]

    # --- what the calculation says ----------------------------------------------------------------------------------

    def on_message(self, message: Message) -> None:
        match message:
            case IPSetUpdate(id, type, members):
                self._ip_sets[id] = _IPSet(type, set(members))
                self._send_ip_set(id)
            case IPSetDelta(id, added, removed):
                self._change_ip_set(id, added, removed)
            case IPSetRemove(id):
                self._remove_ip_set(id)
            case PolicyUpdate(policy):
                sets = sets_of((*policy.inbound, *policy.outbound))
                self._policies[policy.id] = _Said(f"policy {policy.id}", partial(messages.policy_update, policy), sets)
                for client, endpoint in self._served():
                    if policy.id in policies_of(endpoint):
                        client.policies.discard(policy.id)
                        self._bring_up_to_date(client, endpoint, is_news=False)
            case PolicyRemove(id):
                self._policies.pop(id, None)
            case ProfileUpdate(profile):
                sets = sets_of((*profile.inbound, *profile.outbound))
                self._profiles[profile.name] = _Said(
                    f"profile {profile.name}", partial(messages.profile_update, profile), sets
                )
                for client, endpoint in self._served():
                    if profile.name in endpoint.profiles:
                        client.profiles.discard(profile.name)
                        self._bring_up_to_date(client, endpoint, is_news=False)
            case ProfileRemove(name):
                self._profiles.pop(name, None)
            case WorkloadUpdate(endpoint):
                self._endpoints[endpoint.id] = endpoint
                if endpoint.id in self._clients:
                    self._bring_up_to_date(self._clients[endpoint.id], endpoint, is_news=True)
            case WorkloadRemove(id):
                self._remove_workload(id)
            case InSync():
                if not self._is_in_sync:
                    self._is_in_sync = True
                    for client in list(self._clients.values()):
                        client.outlet.send(messages.IN_SYNC)
            case _:
                self._on_identity(message)

    def _on_identity(self, message: Message) -> None:
        """Namespaces and service accounts: every client is told of all of them."""
        clients = list(self._clients.values())
        match message:
            case ServiceAccountUpdate(namespace, name, labels):
                make = partial(messages.service_account_update, namespace, name, labels)
                self._accounts[namespace, name] = _Said(f"service account {namespace}/{name}", make)
                self._say(clients, self._accounts[namespace, name])
            case ServiceAccountRemove(namespace, name):
                self._accounts.pop((namespace, name), None)
                self._send(clients, "service account", messages.service_account_remove, namespace, name)
            case NamespaceUpdate(name, labels):
                self._namespaces[name] = _Said(f"namespace {name}", partial(messages.namespace_update, name, labels))
                self._say(clients, self._namespaces[name])
            case NamespaceRemove(name):
                self._namespaces.pop(name, None)
                self._send(clients, "namespace", messages.namespace_remove, name)

    def _remove_workload(self, id: WorkloadId) -> None:
        self._endpoints.pop(id, None)
        client = self._clients.pop(id, None)
        if client is not None:
            if client.knows_endpoint:
                self._send([client], "workload", messages.workload_remove, id)
            client.outlet.close()

    def _served(self) -> list[tuple[_Client, WorkloadEndpoint]]:
        return [(client, self._endpoints[id]) for id, client in self._clients.items() if id in self._endpoints]

    # --- sending ----------------------------------------------------------------------------------------------------

    def _bring_up_to_date(self, client: _Client, endpoint: WorkloadEndpoint, *, is_news: bool) -> None:
        """What the endpoint needs and the client does not know, the endpoint if it `is_news`, then what it needs no more."""
        policies = {id for id in policies_of(endpoint) if id in self._policies}
        profiles = {name for name in endpoint.profiles if name in self._profiles}
        needed = self._sets_for(policies, profiles)
        for id in sorted(needed - client.ip_sets):
            self._send_whole_set([client], id)
        for policy in sorted(policies - client.policies):
            self._say([client], self._policies[policy])
        for name in sorted(profiles - client.profiles):
            self._say([client], self._profiles[name])
        if is_news:
            self._send([client], f"workload {endpoint.id}", messages.workload_update, endpoint)
            client.knows_endpoint = True
        for policy in sorted(client.policies - policies):
            self._send([client], "policy", messages.policy_remove, policy)
        for name in sorted(client.profiles - profiles):
            self._send([client], "profile", messages.profile_remove, name)
        for id in sorted(client.ip_sets - needed):
            self._send([client], "set", messages.ip_set_remove, id)
        client.policies, client.profiles, client.ip_sets = policies, profiles, needed

    def _sets_for(self, policies: Iterable[PolicyId], profiles: Iterable[str]) -> set[str]:
        """Of those that are known."""
        wanted: set[str] = set()
        wanted.update(*(self._policies[id].sets for id in policies))
        wanted.update(*(self._profiles[name].sets for name in profiles))
        return {id for id in wanted if id in self._ip_sets}

    def _send_ip_set(self, id: str) -> None:
        """A set that is new or was told whole again, to all that need it."""
        needing = []
        for client, endpoint in self._served():
            policies = (known for known in policies_of(endpoint) if known in self._policies)
            profiles = (known for known in endpoint.profiles if known in self._profiles)
            if id in client.ip_sets or id in self._sets_for(policies, profiles):
                client.ip_sets.add(id)
                needing.append(client)
        self._send_whole_set(needing, id)

    def _send_whole_set(self, clients: list[_Client], id: str) -> None:
        if clients:
            self._send_each(clients, f"set {id}", lambda: self._whole_set(id))

    def _whole_set(self, id: str) -> Iterator[bytes]:
        known = self._ip_sets[id]
        known.told = known.told or tuple(messages.ip_set_update(id, known.type, known.members))
        return iter(known.told)

    def _remove_ip_set(self, id: str) -> None:
        self._ip_sets.pop(id, None)
        knowing = [client for client in self._clients.values() if id in client.ip_sets]
        self._send(knowing, "set", messages.ip_set_remove, id)
        for client in knowing:
            client.ip_sets.discard(id)

    def _change_ip_set(self, id: str, added: frozenset[str], removed: frozenset[str]) -> None:
        known = self._ip_sets.get(id)
        if known is None:
            return
        known.members -= removed
        known.members |= added
        known.told = ()
        knowing = [client for client in self._clients.values() if id in client.ip_sets]
        if knowing:
            self._send_each(knowing, f"set {id}", lambda: messages.ip_set_delta(id, added, removed))

    def _send(
        self, clients: list[_Client], what: str, make: Callable[P, bytes], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        if clients:
            self._send_each(clients, what, lambda: iter((make(*args, **kwargs),)))

    def _say(self, clients: list[_Client], said: _Said) -> None:
        if clients:
            self._send_each(clients, said.what, lambda: iter((self._octets_of(said),)))

    def _octets_of(self, said: _Said) -> bytes:
        said.octets = said.octets or said.make()
        return said.octets

    def _send_each(self, clients: list[_Client], what: str, make: Callable[[], Iterator[bytes]]) -> None:
        try:
            for octets in make():
                for client in clients:
                    client.outlet.send(octets)
        except (ValueError, TypeError) as error:  # a text that is no Unicode, a number that is too large
            self._failed(what, error)


def policies_of(endpoint: WorkloadEndpoint) -> set[PolicyId]:
    return {id for tier in endpoint.tiers for id in (*tier.ingress, *tier.egress)}


def sets_of(rules: Iterable[PolicyRule]) -> frozenset[str]:
    """The ids of all IP sets that the rules ask about."""
    return frozenset(id for rule in rules for entity in (rule.source, rule.destination) for id in _sets_of(entity))


def _sets_of(entity: Entity) -> tuple[str, ...]:
    return (
        *entity.ip_sets, *entity.not_ip_sets, *entity.named_ports, *entity.not_named_ports, *entity.services
    )  # fmt: skip
