"""The table of one family: destinations with their paths, and the log of what changed since the last flush.

A destination's value is the `Path` itself; where paths compete, a tuple of them, the best first. Every change is a
function from old value to new value, and prefixes with the same old value (an UPDATE's usually have) go through it
together: the decision runs once a distinct value, the table is changed in bulk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Set
from itertools import repeat

from bgp.families import Family, Nlri
from bgp.rib.decision import order
from bgp.rib.path import HopState, Path, Source, Value, best_of, paths_of

# (best now, best before, prefixes); None: no usable path
Change = tuple[Path | None, Path | None, list[Nlri]]


class LocRib:
    """`tracks_fib`: collect `dirty`, the prefixes whose kernel route may differ. `multipath`: also if only a second path changed."""

    def __init__(self, family: Family, *, tracks_fib: bool = False, multipath: bool = False) -> None:
        self.family = family
        self.table: dict[Nlri, Value] = {}
        self.log: list[Change] = []
        self.dirty: set[Nlri] = set()
        self.version = 0  # of the best paths, counted in logs taken
        self.always_compare_med = False
        self.tracks_fib = tracks_fib
        self.multipath = multipath

    def announce(self, path: Path, nlris: list[Nlri]) -> None:
        """The source of `path` announces these prefixes with it, in place of what it had announced."""
        table, source = self.table, path.source
        rejected = source.rejected[self.family]
        if rejected:
            for nlri in nlris:
                rejected.pop(nlri, None)
        # One probe a prefix: what is not there is set, what is there is found.
        before = len(table)
        values: list[Value | None] = list(map(table.setdefault, nlris, repeat(path)))
        added = len(table) - before
        source.accepted[self.family] += added
        if added == len(nlris):
            if path.hop.resolution.reachable:
                self._note(path, None, nlris)
            return
        always = self.always_compare_med
        for old, run in _by_value(nlris, values):
            new: Value
            if old is path:  # just set, or announced once more as it was
                if added and path.hop.resolution.reachable:
                    self._note(path, None, list(dict.fromkeys(run)))
                continue
            if type(old) is Path:
                was_there = old.source is source
                new = path if was_there else order((old, path), always)
            else:
                others = tuple([other for other in old if other.source is not source])  # type: ignore[union-attr]
                was_there = len(others) < len(old)  # type: ignore[arg-type]
                new = order((*others, path), always) if others else path
            count = self._set(old, new, run)
            if not was_there:
                source.accepted[self.family] += count

    def withdraw(self, source: Source, nlris: list[Nlri]) -> None:
        rejected = source.rejected[self.family]
        if rejected:
            for nlri in nlris:
                rejected.pop(nlri, None)
        nlris = list(dict.fromkeys(nlris))
        for old, run in _by_value(nlris, list(map(self.table.get, nlris))):
            if old is not None:
                self._remove(old, run, lambda path: path.source is source)

    def reject(self, path: Path, nlris: list[Nlri]) -> None:
        """Import refused this path; what the source had announced before is gone."""
        self.withdraw(path.source, nlris)
        path.source.rejected[self.family].update(dict.fromkeys(nlris, path))

    def remove_where(self, is_gone: Callable[[Path], bool]) -> None:
        """Take all such paths out: a peer is gone, stale routes are swept."""
        for old, run in self._select(is_gone):
            self._remove(old, run, is_gone)

    def using(self, hops: set[HopState]) -> list[tuple[Value, Path | None, list[Nlri]]]:
        """What uses these next hops, with its best path as it is before their answers change; for `decide_again`."""
        return [(old, best_of(old), run) for old, run in self._select(lambda path: path.hop in hops)]

    def decide_again(self, before: list[tuple[Value, Path | None, list[Nlri]]]) -> None:
        for old, was, run in before:
            new = old if isinstance(old, Path) else order(old, self.always_compare_med)
            if new is not old:
                self.table.update(dict.fromkeys(run, new))
            now = best_of(new)
            if now is not was:
                self._note(now, was, run)
            elif self.tracks_fib:
                self.dirty.update(run)  # another way out, or another member of a multipath

    def turned_stale(self, sources: Set[Source]) -> None:
        """Their sessions are gone, their paths stay for now (RFC 4724 §4.2): choose again where these compete.

        That they are fresh again needs no call: a path of a new session is a new object, and to announce it is to choose.
        """
        for old, run in self._competing(lambda path: path.source in sources):
            new = order(old, self.always_compare_med)
            if new is not old:
                self._set(old, new, run)

    def of_source(self, source: Source) -> list[tuple[Path, list[Nlri]]]:
        """The source's paths with their prefixes."""
        return self.where(lambda path: path.source is source)

    def where(self, wanted: Callable[[Path], bool]) -> list[tuple[Path, list[Nlri]]]:
        """Such paths with their prefixes."""
        found: dict[int, tuple[Path, list[Nlri]]] = {}
        for value, run in self._select(wanted):
            for path in paths_of(value):
                if wanted(path):
                    found.setdefault(id(path), (path, []))[1].extend(run)
        return list(found.values())

    def by_best(self) -> dict[Path, list[Nlri]]:
        """Best path → its prefixes: what a new neighbour is to be told."""
        found: dict[Path, list[Nlri]] = {}
        get = found.get
        for nlri, value in self.table.items():
            path = value if type(value) is Path else value[0]  # type: ignore[index]
            run = get(path)
            if run is None:
                found[path] = [nlri]
            else:
                run.append(nlri)
        return {path: run for path, run in found.items() if path.hop.resolution.reachable}

    def competing(self) -> list[tuple[Value, Path | None, list[Nlri]]]:
        """All destinations with more than one path, for `decide_again` by other rules."""
        return [(old, best_of(old), run) for old, run in self._competing(lambda _: True)]

    def count_by_best(self) -> dict[Path, int]:
        """Best path → how many prefixes have it. Counted in C: 0.1 s for a full table."""
        found: dict[Path, int] = {}
        for value, count in Counter(self.table.values()).items():
            path = best_of(value)
            if path is not None:
                found[path] = found.get(path, 0) + count
        return found

    def take_log(self) -> list[Change]:
        log, self.log = self.log, []
        self.version += bool(log)
        return log

    # --- inside -----------------------------------------------------------------------------------------------------

    def _competing(self, wanted: Callable[[Path], bool]) -> list[tuple[tuple[Path, ...], list[Nlri]]]:
        """As `_select`, of those with more than one path; the others cost a look."""
        items = (item for item in self.table.items() if type(item[1]) is tuple)
        return self._select(wanted, items)  # type: ignore[return-value]

    def _select(
        self, wanted: Callable[[Path], bool], items: Iterable[tuple[Nlri, Value]] | None = None
    ) -> list[tuple[Value, list[Nlri]]]:
        """Destinations with such a path, grouped by value. One walk over the table."""
        verdicts: dict[int, list[Nlri] | None] = {}
        groups: list[tuple[Value, list[Nlri]]] = []
        unknown = object()
        for nlri, value in self.table.items() if items is None else items:
            run = verdicts.get(id(value), unknown)
            if run is unknown:
                paths = (value,) if isinstance(value, Path) else value
                run = [] if any(wanted(path) for path in paths) else None
                verdicts[id(value)] = run
                if run is not None:
                    groups.append((value, run))
            if run is not None:
                run.append(nlri)  # type: ignore[attr-defined]
        return groups

    def _remove(self, old: Value, run: list[Nlri], is_gone: Callable[[Path], bool]) -> None:
        paths = (old,) if isinstance(old, Path) else old
        left = tuple([path for path in paths if not is_gone(path)])
        if len(left) == len(paths):
            return
        for path in paths:
            if is_gone(path):
                path.source.accepted[self.family] -= len(run)
        self._set(old, None if not left else left[0] if len(left) == 1 else order(left, self.always_compare_med), run)

    def _set(self, old: Value | None, new: Value | None, run: list[Nlri]) -> int:
        """Returns how many distinct prefixes these are. `run` may name one twice unless `new` is None."""
        table = self.table
        if new is None:
            for nlri in run:
                del table[nlri]
        else:
            fresh = dict.fromkeys(run, new)
            table.update(fresh)
            if len(fresh) < len(run):
                run = list(fresh)
        now, was = best_of(new), best_of(old)
        if now is not was:
            self._note(now, was, run)
        elif self.tracks_fib and self.multipath:
            self.dirty.update(run)
        return len(run)

    def _note(self, now: Path | None, was: Path | None, run: list[Nlri]) -> None:
        self.log.append((now, was, run))
        if self.tracks_fib:
            self.dirty.update(run)


def _by_value(nlris: list[Nlri], values: list[Value | None]) -> Iterable[tuple[Value | None, list[Nlri]]]:
    """Prefixes grouped by their values."""
    if not values or values.count(values[0]) == len(values):
        return ((values[0], nlris),) if values else ()
    groups: dict[int, tuple[Value | None, list[Nlri]]] = {}
    for nlri, value in zip(nlris, values, strict=True):
        group = groups.get(id(value))
        if group is None:
            groups[id(value)] = (value, [nlri])
        else:
            group[1].append(nlri)
    return groups.values()
