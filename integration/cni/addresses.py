"""Where a container's addresses come from: Calico's IPAM, another plugin, or its annotations."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from integration.cni.errors import GENERIC, CNIError
from integration.cni.identity import Identity
from integration.cni.pods import Wishes
from integration.cni.request import Request
from integration.cni.results import Address, Result, Route, read_result

DELEGATE_TIMEOUT_S = 60.0
ANYWHERE = {4: "0.0.0.0/0", 6: "::/0"}


@dataclass(frozen=True, slots=True)
class Granted:
    """Addresses with the length that IPAM says (its block's), and routes as networks."""

    addresses: tuple[str, ...]
    routes: tuple[str, ...]


class Allocator(Protocol):
    """Calico's IPAM as the plugin needs it. Raises CNIError."""

    async def assign(self, identity: Identity, wishes: Wishes) -> tuple[str, ...]:
        """One address of each wished version, or the wished addresses, with their block's length; all or none."""
        ...

    async def release(self, handle: str) -> bool:
        """Everything on the handle; False if there was nothing."""
        ...

    async def addresses_of(self, handle: str) -> frozenset[str]:
        """Without length."""
        ...

    async def handles_of(self, node: str, prefix: str) -> frozenset[str]:
        """Of this node's allocations, for garbage collection."""
        ...


class AddressSource(Protocol):
    async def add(self, identity: Identity, wishes: Wishes, request: Request) -> Granted: ...

    async def delete(self, identity: Identity, request: Request) -> None:
        """Idempotent."""
        ...

    async def check(self, identity: Identity, request: Request, addresses: Sequence[str]) -> list[str]:
        """What is wrong."""
        ...


class CalicoIpam:
    """`ipam.type` calico-ipam, in this process."""

    def __init__(self, allocator: Allocator) -> None:
        self._allocator = allocator

    async def add(self, identity: Identity, wishes: Wishes, request: Request) -> Granted:
        addresses = await self._allocator.assign(identity, wishes)
        return Granted(addresses, tuple(ANYWHERE[6 if ":" in one else 4] for one in addresses))

    async def delete(self, identity: Identity, request: Request) -> None:
        for handle in (identity.handle, *identity.former_handles):
            await self._allocator.release(handle)

    async def check(self, identity: Identity, request: Request, addresses: Sequence[str]) -> list[str]:
        owned = await self._allocator.addresses_of(identity.handle)
        return [
            f"IPAM has not given {one} to this container"
            for one in (address.partition("/")[0] for address in addresses)
            if one not in owned
        ]


class FixedAddresses:
    """The annotation ipAddrsNoIpam: nobody is asked."""

    async def add(self, identity: Identity, wishes: Wishes, request: Request) -> Granted:
        addresses = tuple(f"{one}/{128 if ':' in one else 32}" for one in wishes.addresses_without_ipam)
        return Granted(addresses, tuple(ANYWHERE[6 if ":" in one else 4] for one in addresses))

    async def delete(self, identity: Identity, request: Request) -> None:
        pass

    async def check(self, identity: Identity, request: Request, addresses: Sequence[str]) -> list[str]:
        return []


class DelegatedIpam:
    """Another IPAM plugin (host-local …), executed as the specification's section 4 says."""

    def __init__(self, environment: Mapping[str, str], pod_cidrs: Sequence[str] = ()) -> None:
        self._environment = environment
        self._pod_cidrs = pod_cidrs

    async def add(self, identity: Identity, wishes: Wishes, request: Request) -> Granted:
        result = read_result(await self._execute(request, "ADD"), f"what {request.config.ipam_type} answered")
        routes = [route.destination for route in result.routes]
        if request.config.includes_default_routes or not routes:
            routes += [ANYWHERE[6 if ":" in one.cidr else 4] for one in result.addresses]
        if not result.addresses:
            raise CNIError(GENERIC, f"{request.config.ipam_type} gave no address")
        return Granted(tuple(one.cidr for one in result.addresses), tuple(dict.fromkeys(routes)))

    async def delete(self, identity: Identity, request: Request) -> None:
        await self._execute(request, "DEL")

    async def check(self, identity: Identity, request: Request, addresses: Sequence[str]) -> list[str]:
        try:
            await self._execute(request, "CHECK")
        except CNIError as error:
            return [error.text]
        return []

    async def status(self, request: Request) -> None:
        await self._execute(request, "STATUS")

    async def collect_garbage(self, request: Request) -> None:
        await self._execute(request, "GC")

    async def _execute(self, request: Request, command: str) -> Any:
        name = request.config.ipam_type
        program = _find(name, request.path)
        config = json.dumps(self._config(request, command)).encode()
        process = await asyncio.create_subprocess_exec(
            program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **self._environment, "CNI_COMMAND": command},
        )  # fmt: skip
        try:
            async with asyncio.timeout(DELEGATE_TIMEOUT_S):
                output, complaint = await process.communicate(config)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise CNIError(11, f"{name} {command} has not answered within {DELEGATE_TIMEOUT_S:.0f} s") from None
        try:
            answer = json.loads(output) if output.strip() else {}
        except ValueError:
            answer = {}
        if process.returncode != 0:
            said = answer.get("msg") if isinstance(answer, dict) else ""
            raise CNIError(
                answer.get("code", GENERIC) if said else GENERIC,
                f"{name} {command}: {said or complaint.decode(errors='replace').strip() or 'failed without a word'}",
            )
        return answer

    def _config(self, request: Request, command: str) -> dict[str, Any]:
        """The whole configuration, with `usePodCidr` replaced by the node's range."""
        # Addresses are given back by the container's ID: any range will do (Calico), and the Node may be gone.
        cidrs = ANYWHERE.values() if command in ("DEL", "GC") else self._pod_cidrs
        config = json.loads(json.dumps(request.config.raw))
        ipam = config.get("ipam", {})
        for place in (ipam, *(one for ranges in ipam.get("ranges", []) for one in ranges)):
            wanted = {"usePodCidr": False, "usePodCidrIPv6": True}.get(place.get("subnet", ""))
            if wanted is not None:
                place["subnet"] = next((one for one in cidrs if (":" in one) == wanted), None)
                if place["subnet"] is None:
                    raise CNIError(GENERIC, "ipam.subnet: the Node has no podCIDR of that version yet")
        return dict(config)


def _find(name: str, folders: Sequence[str]) -> str:
    for folder in folders:
        path = Path(folder, name)
        if "/" not in name and os.access(path, os.X_OK) and path.is_file():
            return str(path)
    raise CNIError(GENERIC, f"ipam.type: there is no plugin {name!r} in CNI_PATH ({':'.join(folders)})")


def as_result(granted: Granted) -> Result:
    """What calico-ipam answers when somebody else executes it."""
    return Result(tuple(Address(one) for one in granted.addresses), (), tuple(Route(one) for one in granted.routes))
