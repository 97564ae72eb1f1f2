"""Felix' numbers for people: counters, gauges and times under Calico's names. Pure; who shows them imports what that needs.

The calculation and the dataplane feed them through `FigureSink`, and know nothing of Prometheus.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, Protocol, TypeAlias

Gauge = Literal[
    "felix_active_local_endpoints", "felix_active_local_policies", "felix_active_local_selectors",
    "felix_cluster_num_host_endpoints", "felix_cluster_num_hosts", "felix_cluster_num_policies",
    "felix_cluster_num_profiles", "felix_cluster_num_tiers", "felix_cluster_num_workload_endpoints",
    "felix_ipsets_calico", "felix_iptables_chains", "felix_iptables_rules", "felix_resync_state",
    "felix_route_table_num_routes",
]  # fmt: skip
Counter = Literal[
    "felix_calc_graph_output_events", "felix_calc_graph_updates_processed", "felix_denied_packets",
    "felix_int_dataplane_failures", "felix_int_dataplane_messages", "felix_ipset_errors", "felix_iptables_restore_errors",
    "felix_resyncs_started",
]  # fmt: skip
Summary = Literal[
    "felix_calc_graph_update_time_seconds", "felix_int_dataplane_apply_time_seconds", "felix_int_dataplane_msg_batch_size",
]  # fmt: skip
UNLABELLED: tuple[Counter, ...] = (
    "felix_calc_graph_output_events", "felix_int_dataplane_failures", "felix_ipset_errors",
    "felix_iptables_restore_errors", "felix_resyncs_started",
)  # fmt: skip

HELP: Final[dict[Gauge | Counter | Summary, str]] = {
    "felix_active_local_endpoints": "Endpoints of this host.",
    "felix_active_local_policies": "Policies that some endpoint of this host is under.",
    "felix_active_local_selectors": "Selectors of rules that are in force on this host.",
    "felix_calc_graph_output_events": "Messages that the calculation sent.",
    "felix_calc_graph_update_time_seconds": "Time to calculate what follows from a batch of updates.",
    "felix_calc_graph_updates_processed": "Updates of the datastore taken in, by type.",
    "felix_cluster_num_host_endpoints": "Host endpoints of the whole cluster.",
    "felix_cluster_num_hosts": "Hosts of the cluster.",
    "felix_cluster_num_policies": "Policies of the cluster.",
    "felix_cluster_num_profiles": "Profiles of the cluster.",
    "felix_cluster_num_tiers": "Tiers of the cluster.",
    "felix_cluster_num_workload_endpoints": "Workload endpoints of the whole cluster.",
    "felix_denied_packets": "Denied packets by tier, policy and direction; those that were told: each rule tells of 10 a second.",
    "felix_int_dataplane_apply_time_seconds": "Time to bring the kernel up to date.",
    "felix_int_dataplane_failures": "Applies in which the kernel refused something; it is tried again.",
    "felix_int_dataplane_messages": "Messages that the dataplane took in, by type.",
    "felix_int_dataplane_msg_batch_size": "Messages taken together.",
    "felix_ipset_errors": "Sets and members that the kernel refused, each time they were tried.",
    "felix_ipsets_calico": "Sets of ours, by IP version.",
    "felix_iptables_chains": "Chains of ours, by IP version and table.",
    "felix_iptables_restore_errors": "Chains and tables that the kernel refused, each time they were tried.",
    "felix_iptables_rules": "Rules of ours, by IP version and table.",
    "felix_resync_state": "The datastore: 1 waiting for it, 2 reading it, 3 in sync.",
    "felix_resyncs_started": "Times that the datastore was read anew.",
    "felix_route_table_num_routes": "Routes that are wanted, by workloads here and blocks elsewhere.",
}

QUANTILES = (0.5, 0.9, 0.99)
WINDOW_S, MOST_SAMPLES = 600.0, 500  # of a summary's quantiles, as Calico's ten minutes

Labels = tuple[tuple[str, str], ...]


Reading: TypeAlias = tuple[Gauge, float, Mapping[str, str]]
"""Of a gauge that is looked up when somebody asks: name, value and labels."""


class FigureSink(Protocol):
    """Cheap, never raises, from one thread. Labels have few values: an interface's name is none."""

    def set(self, name: Gauge, value: float, **labels: str) -> None: ...

    def count(self, name: Counter, amount: float = 1.0, **labels: str) -> None: ...

    def observe(self, name: Summary, value: float) -> None: ...


class Figures:
    """The sink that remembers. `text` is Prometheus' exposition format 0.0.4.

    Not prometheus_client: it appends `_total` to counters' names, and the dashboards of Calico's users have none.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._values: dict[str, dict[Labels, float]] = {}
        self._kinds: dict[str, str] = {}
        self._samples: dict[str, deque[tuple[float, float]]] = {}
        self._totals: dict[str, tuple[int, float]] = {}
        for name in UNLABELLED:  # a rate needs a beginning
            self.count(name, 0)

    def set(self, name: Gauge, value: float, **labels: str) -> None:
        self._kinds[name] = "gauge"
        self._values.setdefault(name, {})[tuple(sorted(labels.items()))] = value

    def count(self, name: Counter, amount: float = 1.0, **labels: str) -> None:
        self._kinds[name] = "counter"
        values, key = self._values.setdefault(name, {}), tuple(sorted(labels.items()))
        values[key] = values.get(key, 0.0) + amount

    def observe(self, name: Summary, value: float) -> None:
        self._kinds[name] = "summary"
        number, total = self._totals.get(name, (0, 0.0))
        self._totals[name] = (number + 1, total + value)
        self._samples.setdefault(name, deque(maxlen=MOST_SAMPLES)).append((self._clock(), value))

    def value(self, name: Gauge | Counter, **labels: str) -> float:
        """0 if nobody said one."""
        return self._values.get(name, {}).get(tuple(sorted(labels.items())), 0.0)

    def text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        for name in sorted(self._kinds):
            yield f"# HELP {name} {HELP.get(name, name)}"  # type: ignore[call-overload]
            yield f"# TYPE {name} {self._kinds[name]}"
            if self._kinds[name] == "summary":
                yield from self._summary(name)
            else:
                for labels, value in self._values[name].items():
                    yield f"{name}{labels_text(labels)} {number_text(value)}"

    def _summary(self, name: str) -> Iterator[str]:
        oldest = self._clock() - WINDOW_S
        recent = sorted(value for at, value in self._samples[name] if at >= oldest)
        for quantile in QUANTILES:
            value = recent[min(len(recent) - 1, int(quantile * len(recent)))] if recent else float("nan")
            yield f"{name}{labels_text((('quantile', str(quantile)),))} {number_text(value)}"
        number, total = self._totals[name]
        yield f"{name}_sum {number_text(total)}"
        yield f"{name}_count {number}"


def labels_text(labels: Labels) -> str:
    if not labels:
        return ""
    escape = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
    return "{" + ",".join(f'{name}="{value.translate(escape)}"' for name, value in labels) + "}"


def number_text(value: float) -> str:
    number = float(value)
    if math.isfinite(number):
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
    return "NaN" if math.isnan(number) else "+Inf" if number > 0 else "-Inf"
