"""Whether the endpoints of this host are up: what the datastore, the kernel and the dataplane say, together. Pure.

Source: Calico's endpoint status. `up`: the interface is, the endpoint is meant to be, and everything about it is programmed;
`error`: something about it could not be programmed, or no interface fits a host endpoint; else `down`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias

from felix.claims import LocalWorkloads
from felix.desired import (
    HostEndpoint,
    HostEndpointRemove,
    HostEndpointUpdate,
    Message,
    WorkloadId,
    WorkloadUpdate,
)
from felix.ports import Failure

Status = Literal["up", "down", "error"]
ALL_INTERFACES = "*"


class HostEndpointId(NamedTuple):
    name: str


EndpointId: TypeAlias = WorkloadId | HostEndpointId


class EndpointStates:
    """Statuses follow from messages, interfaces and the outcome of applies; `changes` says what became another since.

    An endpoint is not `up` before an apply that began after it was told. So `on_message` wants every message, also those
    that are about no endpoint, in the order in which the dataplane takes them.
    """

    def __init__(self) -> None:
        self._workloads = LocalWorkloads()
        self._hosts: dict[HostEndpointId, HostEndpoint] = {}
        self._up: dict[str, bool] = {}  # by interface; absent: there is none
        self._addresses: dict[str, frozenset[str]] = {}
        self._seen = self._applied = 0  # messages
        self._waiting: dict[EndpointId, int] = {}  # not part of any apply yet → number of the message that told it
        self._failed: set[str] = set()  # words of the last apply's failures
        self._told: dict[EndpointId, Status] = {}
        self._dirty: set[EndpointId] = set()

    def on_message(self, message: Message) -> None:
        self._seen += 1
        match message:
            case WorkloadUpdate(endpoint):
                before = self._workloads.by_id.get(endpoint.id)
                if before is None or before.interface != endpoint.interface:
                    self._waiting[endpoint.id] = self._seen
            case HostEndpointUpdate(host):
                name = HostEndpointId(host.name)
                if name not in self._hosts:
                    self._waiting[name] = self._seen
                self._hosts[name] = host
                self._dirty.add(name)
            case HostEndpointRemove(name):
                self._hosts.pop(HostEndpointId(name), None)
                self._dirty.add(HostEndpointId(name))
        self._dirty |= self._workloads.on_message(message)

    def interface_changed(
        self, name: str, state: Literal["up", "down", "gone"], addresses: frozenset[str], ifindex: int
    ) -> None:
        if state == "gone":
            self._up.pop(name, None)
            self._addresses.pop(name, None)
        else:
            self._up[name] = state == "up"
            self._addresses[name] = addresses
        if (owner := self._workloads.owner(name)) is not None:  # others that claim it are down anyway
            self._dirty.add(owner.id)
        self._dirty.update(self._hosts)

    def applied(self, failures: Iterable[Failure], messages: int | None = None) -> None:
        """An apply is done, all but these. `messages`: how many more it knew when it began than the one before; None: all."""
        self._applied = self._seen if messages is None else self._applied + messages
        words = {word for failure in failures for word in failure.what.split()[1:]}
        if words != self._failed:
            self._dirty.update(self._workloads.by_id, self._hosts)
        self._failed = words
        for id in [id for id, told in self._waiting.items() if told <= self._applied]:
            del self._waiting[id]
            self._dirty.add(id)

    def changes(self) -> dict[EndpointId, Status | None]:
        """What is to be told now; None: the endpoint is gone."""
        found: dict[EndpointId, Status | None] = {}
        for id in self._dirty:
            status = self.status(id)
            if status is None:
                if self._told.pop(id, None) is not None:
                    found[id] = None
                self._waiting.pop(id, None)
            elif self._told.get(id) != status:
                found[id] = self._told[id] = status
        self._dirty.clear()
        return found

    def status(self, id: EndpointId) -> Status | None:
        """As it is now; None: no such endpoint."""
        if isinstance(id, HostEndpointId):
            host = self._hosts.get(id)
            return None if host is None else self._status_of_host(id, host)
        workload = self._workloads.by_id.get(id)
        if workload is None:
            return None
        if self._has_failed(workload.interface, (*workload.ipv4_nets, *workload.ipv6_nets)):
            return "error"
        is_up = (
            workload.is_up
            and self._workloads.owns(id)
            and self._up.get(workload.interface, False)
            and id not in self._waiting
        )
        return "up" if is_up else "down"

    def _status_of_host(self, id: HostEndpointId, host: HostEndpoint) -> Status:
        if host.interface == ALL_INTERFACES:
            return "down" if id in self._waiting else "up"
        names = [host.interface] if host.interface else self._with_address(frozenset(host.expected_ips))
        known = [name for name in names if name in self._up]
        if not known or any(self._has_failed(name, ()) for name in known):
            return "error"
        return "up" if any(self._up[name] for name in known) and id not in self._waiting else "down"

    def _with_address(self, wanted: frozenset[str]) -> list[str]:
        return [name for name, addresses in self._addresses.items() if addresses & wanted]

    def _has_failed(self, interface: str, nets: tuple[str, ...]) -> bool:
        """Failures name interfaces (`interface cali1`), chains that end with one (`cali-tw-cali1`), and routes by net."""
        return any(word == interface or word.endswith(f"-{interface}") or word in nets for word in self._failed)
