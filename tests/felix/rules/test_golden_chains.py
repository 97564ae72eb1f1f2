"""Chains as iptables reads them, against a file that was read side by side with Calico's own (felix/rules/*.go).

`python -m tests.felix.rules.test_golden_chains` prints the file anew; read the difference before you keep it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

from felix.desired import IPVersion
from felix.filter_rules import Rule
from felix.rules.iptables_text import IptablesText
from felix.rules.settings import RuleSettings
from tests.felix.rules.recording_filter import RecordingFilter
from tests.felix.rules.world import EVERYTHING, PLAIN, messages, told

GOLDEN = Path(__file__).parent / "chains.golden.txt"
SHOWN: list[tuple[str, RuleSettings, tuple[IPVersion, ...], list[str]]] = [
    ("everything", EVERYTHING, (4, 6), [
        "raw cali-PREROUTING", "raw cali-OUTPUT", "raw cali-rpf-skip", "raw cali-wireguard-incoming-mark",
        "raw cali-failsafe-in", "raw cali-failsafe-out",
        "mangle cali-PREROUTING", "mangle cali-POSTROUTING", "mangle cali-egress-dscp", "mangle cali-th-eth0",
        "nat cali-PREROUTING", "nat cali-OUTPUT", "nat cali-POSTROUTING", "nat cali-nat-outgoing",
        "nat cali-fip-dnat", "nat cali-fip-snat",
        "filter cali-INPUT", "filter cali-FORWARD", "filter cali-OUTPUT", "filter cali-wl-to-host",
        "filter cali-cidr-block", "filter cali-fw-caliab", "filter cali-tw-caliab",
        "filter cali-pi-gnp/web", "filter cali-pi-sgnp/staged", "filter cali-pro-kns.default",
    ]),
    ("plain", PLAIN, (4,), [
        "raw cali-PREROUTING", "raw cali-fh-eth0", "raw cali-th-eth0", "raw cali-from-host-endpoint",
        "mangle cali-POSTROUTING", "mangle cali-fh-eth0", "mangle cali-from-host-endpoint", "mangle cali-to-host-endpoint",
        "filter cali-INPUT", "filter cali-FORWARD", "filter cali-OUTPUT",
        "filter cali-failsafe-in", "filter cali-failsafe-out",
        "filter cali-from-wl-dispatch", "filter cali-from-wl-dispatch-a", "filter cali-to-host-endpoint",
        "filter cali-tw-calia", "filter cali-fw-calia", "filter cali-tw-calidown",
        "filter cali-gi-KY9jDVAnTT1c5sBzT_nb", "filter cali-pi-gnp/empty",
        "filter cali-fh-eth0", "filter cali-th-eth0", "filter cali-fhfw-eth0", "filter cali-thfw-_Nqh4HyA73udmyanQI",
    ]),
]  # fmt: skip


def lines() -> Iterator[str]:
    for title, settings, versions, chains in SHOWN:
        for version in versions:
            filter_ = RecordingFilter(version, is_like_nftables=False)
            told(filter_, settings, messages())
            text = IptablesText(version)
            yield f"# {title}, IPv{version}"
            for where in chains:
                table, name = where.split(" ", 1)
                yield f"{table} {name}"
                yield from (f"  {rule_line(text, rule)}" for rule in filter_.chains[table][name].rules)  # type: ignore[index]
            for (table, hook), rules in sorted(filter_.hooks.items()):
                for where, some in (("first", rules.inserted), ("last", rules.appended)):
                    yield from (f"{table} {hook} {where}: {rule_line(text, rule)}" for rule in some)


def rule_line(text: IptablesText, rule: Rule) -> str:
    comments = f"# {'; '.join(rule.comments)}" if rule.comments else ""
    return " ".join(filter(None, [text.criteria(rule), text.action(rule.action), comments]))


def test_chains_are_as_calicos() -> None:
    difference = list(
        difflib.unified_diff(GOLDEN.read_text().splitlines(), list(lines()), "golden", "now", lineterm="")
    )
    assert difference == [], "\n".join(difference)


if __name__ == "__main__":
    print("\n".join(lines()))
