"""The cluster's IPAM settings (IPAMConfig)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from integration.resources.keys import Key
from ipam.errors import IpamError
from ipam.ports import BlockStore, Exists, Missing
from ipam.retrying import until_unchallenged

KEY = Key("IPAMConfig", "default")
DEFAULT_MAX_BLOCKS = 20  # of each family, where neither the request nor the cluster says a number (Calico)
LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Settings:
    """`max_blocks_per_host` 0: DEFAULT_MAX_BLOCKS. `vm_address_persistence` is Enabled or Disabled (KubeVirt)."""

    strict_affinity: bool = False
    auto_allocate_blocks: bool = True
    max_blocks_per_host: int = 0
    vm_address_persistence: str = "Enabled"
    cooldown_s: int = 0

    def block_limit(self, requested: int) -> int:
        """The smaller of the two numbers that are said."""
        said = [number for number in (requested, self.max_blocks_per_host) if number > 0]
        return min(said, default=DEFAULT_MAX_BLOCKS)


class BadSettings(IpamError):
    """Settings that exclude each other."""


def read_settings(value: Mapping[str, Any]) -> Settings:
    """What is of a wrong type has its default: settings that nobody can read must not stop every allocation."""

    def number(name: str) -> int:
        found = value.get(name)
        return found if type(found) is int and 0 <= found <= LARGEST else 0

    return Settings(
        strict_affinity=value.get("strict_affinity") is True,
        # Go leaves false out when it writes, so what is absent in an object that is there is false.
        auto_allocate_blocks=value.get("auto_allocate_blocks") is True,
        max_blocks_per_host=number("maxBlocksPerHost"),
        vm_address_persistence="Disabled" if value.get("kubeVirtVMAddressPersistence") == "Disabled" else "Enabled",
        cooldown_s=number("ipCooldownSeconds"),
    )


async def load_settings(store: BlockStore) -> Settings:
    """The defaults where nothing is stored; nothing is written."""
    try:
        return read_settings((await store.get(KEY)).value)
    except Missing:
        return Settings()


async def save_settings(store: BlockStore, settings: Settings) -> bool:
    """Whether anything had to be written. Raises BadSettings, TooManyConflicts."""
    refuse_bad(settings)
    fields: dict[str, Any] = {
        "strict_affinity": settings.strict_affinity,
        "auto_allocate_blocks": settings.auto_allocate_blocks,
        "maxBlocksPerHost": settings.max_blocks_per_host,
        "kubeVirtVMAddressPersistence": settings.vm_address_persistence,
        "ipCooldownSeconds": settings.cooldown_s,
    }
    written = {name: part for name, part in fields.items() if part}

    async def attempt() -> bool:
        try:
            stored = await store.get(KEY)
        except Missing:
            await store.create(KEY, written)
            return True
        if read_settings(stored.value) == settings:
            return False
        unknown = {name: part for name, part in stored.value.items() if name not in fields}
        try:
            await store.update(KEY, unknown | written, stored.revision)
        except Missing:
            raise Exists from None
        return True

    return await until_unchallenged("IPAM settings", attempt)


def refuse_bad(settings: Settings) -> None:
    """Raises BadSettings."""
    if not settings.strict_affinity and not settings.auto_allocate_blocks:
        raise BadSettings("without strict affinity, hosts must be allowed to claim blocks (autoAllocateBlocks)")
    if settings.max_blocks_per_host > 0 and not settings.strict_affinity:
        raise BadSettings("maxBlocksPerHost needs strict affinity: set strictAffinity as well")
    for name, number in (
        ("maxBlocksPerHost", settings.max_blocks_per_host),
        ("ipCooldownSeconds", settings.cooldown_s),
    ):
        if not 0 <= number <= LARGEST:
            raise BadSettings(f"{name} is {number}, and must be 0 to {LARGEST}")
