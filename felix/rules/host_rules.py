"""Host endpoints: which interface has which, their chains in four tables, and the ways to these. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from felix.desired import HostEndpoint, PolicyId
from felix.rules import names
from felix.rules.dispatch import host_dispatch
from felix.rules.endpoints import SelectorOf, host_chains
from felix.rules.interfaces import HostInterfaces
from felix.rules.policies import Dialect
from felix.rules.sections import Section, Sections, SharedChains


class HostRules:
    """`endpoints` and `interfaces` are told by whoever owns this; `needed_in_mangle` is as of the last `build`."""

    def __init__(
        self, sections: Sections, groups: SharedChains, prefixes: Sequence[str], excluded: Sequence[re.Pattern[str]]
    ) -> None:
        self.endpoints: dict[str, HostEndpoint] = {}
        self.interfaces = HostInterfaces(prefixes, excluded)
        self.needed_in_mangle: frozenset[PolicyId | str] = frozenset()  # policies, profiles by name
        self.on: dict[str, HostEndpoint] = {}  # by interface, as of the last `build`
        self._sections, self._groups = sections, groups

    def build(self, dialect: Dialect, selector_of: SelectorOf) -> frozenset[PolicyId | str]:
        """All at once: there are few, and which interface has which depends on all of them.

        Whose chains are needed in the mangle table, and were not before, or no longer.
        """
        on = self.on = self.interfaces.endpoints(self.endpoints.values())
        used: set[Section] = set()
        for interface, endpoint in on.items():
            section = "host", interface
            used.add(section)
            built = host_chains(endpoint, interface, dialect, selector_of)
            self._groups.put(section, built.chains, built.groups)
        for former in set(self._sections.of_kind("host")) - used:
            self._groups.drop(former)
        self._dispatch(on, dialect)
        before, self.needed_in_mangle = self.needed_in_mangle, frozenset(_needed_in_mangle(on.values()))
        return before ^ self.needed_in_mangle

    def _dispatch(self, on: Mapping[str, HostEndpoint], dialect: Dialect) -> None:
        untracked = [name for name, one in on.items() if one.untracked_tiers and name != names.ANY_INTERFACE]
        pre_dnat = [name for name, one in on.items() if one.pre_dnat_tiers]
        self._sections.put(
            ("host dispatch",),
            {
                "filter": [
                    *host_dispatch(names.FROM_HOST, "in", "cali-fh-", on, dialect),
                    *host_dispatch(names.TO_HOST, "out", "cali-th-", on, dialect, skips_workloads=True),
                    *host_dispatch(names.FROM_HOST_FORWARD, "in", "cali-fhfw-", on, dialect),
                    *host_dispatch(names.TO_HOST_FORWARD, "out", "cali-thfw-", on, dialect),
                ],
                "raw": [
                    *host_dispatch(names.FROM_HOST, "in", "cali-fh-", untracked, dialect),
                    *host_dispatch(names.TO_HOST, "out", "cali-th-", untracked, dialect),
                ],
                "mangle": [
                    # In Calico the pre-DNAT policies for all interfaces meet the packets of named host endpoints too.
                    *host_dispatch(names.FROM_HOST, "in", "cali-fh-", pre_dnat, dialect, spared=on),
                    *host_dispatch(names.TO_HOST, "out", "cali-th-", on, dialect, skips_workloads=True),
                ],
            },
        )


def _needed_in_mangle(endpoints: Iterable[HostEndpoint]) -> Iterator[PolicyId | str]:
    """What the mangle table's chains of egress jump to."""
    for endpoint in endpoints:
        yield from endpoint.profiles
        for tier in endpoint.tiers:
            yield from tier.egress
