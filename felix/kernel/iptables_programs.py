"""iptables' programs: which backend's they are, saving, restoring, and removing all that is ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from felix.desired import IPVersion
from felix.filter_rules import Table
from felix.kernel.programs import ProgramMissing, Refused, find, run
from felix.rules.iptables_text import Rendered
from felix.sync.iptables_saved import Unreadable, count_rules, read_saved
from felix.sync.iptables_table import TableBook

Kind = Literal["nft", "legacy", ""]
KINDS: tuple[Kind, ...] = ("nft", "legacy")
TABLES: tuple[Table, ...] = ("raw", "mangle", "nat", "filter")
LOCK_WAIT_S = 10
MANY = 10  # rules that others have with legacy: then nobody asks how many they have with nft (Calico)
HINTS = ("KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY")  # kubelet makes these chains to show which backend it uses


@dataclass(frozen=True, slots=True)
class Backend:
    """The programs of one IP version and backend; `kind` is empty if they do not say."""

    version: IPVersion
    kind: Kind
    path_of_save: str
    path_of_restore: str

    async def save(self, table: str = "", with_counters: bool = False) -> str:
        """Raises Refused."""
        options = [*(["-c"] if with_counters else []), *(["-t", table] if table else [])]
        return await run(self.path_of_save, options)

    async def restore(self, text: str) -> None:
        """Raises Refused."""
        lock = [] if self.kind == "nft" else [f"--wait={LOCK_WAIT_S}"]
        await run(self.path_of_restore, ["--noflush", *lock], text)

    def tables(self) -> tuple[str, ...]:
        """Those that there may be. Asking legacy for one would make it."""
        if self.kind != "legacy":
            return TABLES
        names = "ip_tables_names" if self.version == 4 else "ip6_tables_names"
        try:
            return tuple(Path("/proc/thread-self/net", names).read_text().split())
        except OSError:
            return ()

    async def remove_ours(self) -> list[str]:
        """All chains and rules of ours, and of Calico's first days. Says what could not be removed."""
        complaints = []
        for table in set(self.tables()) & set(TABLES):
            book = TableBook(table, _nothing)
            try:
                book.take_standing(read_saved(await self.save(table)))
                if lines := book.changes():
                    await self.restore(lines.text())
                if lines := book.removals():
                    await self.restore(lines.text())
            except (Refused, Unreadable) as error:
                complaints.append(f"table {table}: {error}")
        return complaints


def _nothing(_name: str) -> Rendered | None:
    return None


def programs_of(version: IPVersion, kind: Kind) -> Backend | None:
    """Those of a backend, or, if `kind` is empty, those that bear no backend's name."""
    start = ("iptables" if version == 4 else "ip6tables") + (f"-{kind}" if kind else "")
    save, restore = find(f"{start}-save"), find(f"{start}-restore")
    return Backend(version, kind, save, restore) if save and restore else None


class Programs:
    """Those of the wanted backend. Raises ProgramMissing when made on a machine without."""

    def __init__(self, version: IPVersion, wanted: str, told: Callable[..., None]) -> None:
        """`wanted`: `nft`, `legacy`, `auto`."""
        self.version: IPVersion = version
        self._wanted = wanted
        self._told = told
        self._chosen: Backend | None = None
        name = "iptables" if version == 4 else "ip6tables"
        self._found = [found for kind in KINDS if (found := programs_of(version, kind))]
        if not self._found and (plain := programs_of(version, "")):
            self._found = [plain]
        if not self._found:
            raise ProgramMissing(f"there is no {name}-save and {name}-restore: apt-get install iptables")

    async def chosen(self) -> Backend:
        """Decided once, at the first call."""
        if self._chosen is None:
            detected = await self._detected() if len(self._found) > 1 else self._found[0].kind
            kind = self._wanted if self._wanted in KINDS else detected
            by_kind = {one.kind: one for one in self._found}
            self._chosen = by_kind.get(kind, self._found[0])
            if self._chosen.kind != kind or kind != detected:
                self._told("iptables_backend", wanted=self._wanted, used=self._chosen.kind, others_use=detected)
        return self._chosen

    async def others(self) -> list[Backend]:
        chosen = await self.chosen()
        return [one for one in self._found if one.kind != chosen.kind]

    async def _detected(self) -> Kind:
        """What others on this host use: legacy if they have many rules there, else where they have more (Calico). Where
        nobody has any, what kubelet hints at, or plain `iptables` is; Calico takes legacy then."""
        legacy = await self._saved("legacy")
        rules = sum(map(count_rules, legacy))
        if rules >= MANY:
            return "legacy"
        nft = await self._saved("nft")
        of_nft = sum(map(count_rules, nft))
        if rules != of_nft:
            return "legacy" if rules > of_nft else "nft"
        by_kind: tuple[tuple[Kind, list[str]], ...] = (("nft", nft), ("legacy", legacy))
        for kind, saved in by_kind:
            if any(f":{hint} " in text for text in saved for hint in HINTS):
                return kind
        return "nft" if not rules and await self._is_plain_nft() else "legacy"

    async def _saved(self, kind: Kind) -> list[str]:
        """Of both IP versions."""
        texts = []
        versions: tuple[IPVersion, ...] = (4, 6)
        for version in versions:
            if programs := programs_of(version, kind):
                try:
                    texts.append(await programs.save())
                except Refused:
                    pass  # a kernel without legacy tables
        return texts

    async def _is_plain_nft(self) -> bool:
        path = find("iptables")
        try:
            return path is None or "nf_tables" in await run(path, ["--version"])
        except Refused:
            return True
