"""Prometheus metrics, /healthz and /readyz.

Cardinality is bounded by the configuration: a dynamic peer counts under the name of its range, never under its own.
prometheus_client is imported with the first scrape: a speaker that nobody scrapes does not pay its 8 MB.
"""

from __future__ import annotations

import asyncio
import platform
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from integration.node.http_server import Answer, HttpError, Request, Response
from integration.node.loop_lag import BUCKETS_S, LoopLag

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

STATES = ("Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established")
PREFIX_COUNTS = {
    "received": "Prefixes that the peer announces now.",
    "accepted": "Of those, the ones that the import policy accepts.",
    "rejected": "Of those, the ones that the import policy rejects.",
    "sent": "Prefixes announced to the peer now.",
    "stale": "Prefixes kept from an ended session, RFC 4724.",
}


_CONFIG_HELP = {
    "resource_problems": "Parts of resources that are not used as written; `catbird show config` lists them.",
    "datastore_in_sync": "1 once all resources were read.",
    "datastore_reachable": "0 while the datastore does not answer and the last configuration stands.",
}


@dataclass(slots=True)
class ReloadCounts:
    successes: int = 0
    failures: int = 0
    last_success_at: float = 0.0  # seconds since the epoch
    last_failure_at: float = 0.0
    effects: Counter[str] = field(default_factory=Counter)  # of the changes that were taken over


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the numbers come from, asked at each scrape."""

    peers: Callable[[], list[dict[str, Any]]]  # Speaker.peers_view
    summary: Callable[[], dict[str, Any]]  # Speaker.summary
    fib: Callable[[], Mapping[str, Any]]  # FibAdapter.counters, empty without a kernel
    event_counts: Callable[[], Mapping[str, int]]
    not_ready: Callable[[], str]  # why not, or empty
    lag: LoopLag
    reloads: ReloadCounts
    config: Callable[[], Mapping[str, float]]  # ConfigSource.numbers
    version: str


class Monitor:
    """The application behind the metrics port."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    async def __call__(self, request: Request) -> Answer:
        if request.method not in ("GET", "HEAD"):
            raise HttpError(405, f"{request.method} is not for this; use GET", headers={"Allow": "GET, HEAD"})
        match request.path:
            case ("metrics",):
                return await self._metrics()
            case ("healthz",):
                lag_s = self._sources.lag.recent_max_s
                return _text(200, f"ok: the event loop turns, at most {lag_s * 1000:.0f} ms late in the last minute\n")
            case ("readyz",):
                why = self._sources.not_ready()
                return _text(503, f"not ready: {why}\n") if why else _text(200, "ok: listening and converged\n")
        raise HttpError(404, f"there is no /{'/'.join(request.path)} here", "GET /metrics, /healthz or /readyz")

    async def _metrics(self) -> Response:
        """Family by family, the event loop gets its turn in between: a thousand peers are 0.1 s of text."""
        from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

        pieces = []
        for metric in collect(self._sources):
            pieces.append(generate_latest(_Only(metric)))
            await asyncio.sleep(0)
        return Response(200, b"".join(pieces), CONTENT_TYPE_PLAIN_0_0_4)


@dataclass(frozen=True, slots=True)
class _Only:
    """A registry of one metric, as generate_latest wants it."""

    metric: Metric

    def collect(self) -> Iterator[Metric]:
        yield self.metric


def _text(status: int, text: str) -> Response:
    return Response(status, text.encode(), "text/plain; charset=utf-8")


def collect(sources: Sources) -> Iterator[Metric]:
    yield from _about_process(sources)
    yield from _about_peers(by_label(sources.peers()))
    yield from _about_fib(sources.fib())


@dataclass(slots=True)
class PeerNumbers:
    """One configured peer, or all sessions of one range; those that are Gone count in the sums, not in the states."""

    asn: str
    states: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    sums: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    messages: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))  # (direction, type)
    prefixes: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))  # (family, which)


def by_label(peers: list[dict[str, Any]]) -> dict[str, PeerNumbers]:
    numbers: dict[str, PeerNumbers] = {}
    for peer in peers:
        label = label_of(peer)
        into = numbers.setdefault(label, PeerNumbers(str(peer.get("asn", ""))))
        state = str(peer.get("state", ""))
        if state in into.states:
            into.states[state] += 1
        for name in ("flaps", "malformed", "dropped_attributes"):
            into.sums[name] += int(peer.get(name) or 0)
        for direction, counts in (peer.get("messages") or {}).items():
            for kind, count in counts.items():
                into.messages[direction, kind] += count
        for family, counts in (peer.get("prefixes") or {}).items():
            for which, count in counts.items():
                into.prefixes[family, which] += count
    return numbers


def label_of(peer: Mapping[str, Any]) -> str:
    return str(peer.get("range_name") or peer["name"])


def _about_peers(numbers: Mapping[str, PeerNumbers]) -> Iterator[Metric]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    states = GaugeMetricFamily(
        "catbird_bgp_peer_state",
        "1 for the state that the session is in, else 0; for a range the number of its sessions in that state.",
        labels=["peer", "asn", "state"],
    )
    messages = CounterMetricFamily(
        "catbird_bgp_messages",
        "BGP messages; direction is sent or received.",
        labels=["peer", "asn", "direction", "type"],
    )
    for name, peer in numbers.items():
        for state, count in peer.states.items():
            states.add_metric([name, peer.asn, state], count)
        for (direction, kind), count in peer.messages.items():
            messages.add_metric([name, peer.asn, direction, kind], count)
    yield states
    yield messages
    for key, metric, text in (
        ("flaps", "catbird_bgp_peer_flaps", "How often an Established session ended."),
        ("malformed", "catbird_bgp_malformed_messages", "Messages from the peer that broke an RFC."),
        ("dropped_attributes", "catbird_bgp_dropped_attributes", "Unknown attributes stopped by the allow-list."),
    ):
        sums = CounterMetricFamily(metric, text, labels=["peer", "asn"])
        for name, peer in numbers.items():
            sums.add_metric([name, peer.asn], peer.sums[key])
        yield sums
    for which, text in PREFIX_COUNTS.items():
        prefixes = GaugeMetricFamily(f"catbird_bgp_prefixes_{which}", text, labels=["peer", "asn", "family"])
        for name, peer in numbers.items():
            for family in dict.fromkeys(family for family, _ in peer.prefixes):
                prefixes.add_metric([name, peer.asn, family], peer.prefixes[family, which])
        yield prefixes


def _about_process(sources: Sources) -> Iterator[Metric]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.process_collector import ProcessCollector

    build = GaugeMetricFamily("catbird_build_info", "1, with what runs here.", labels=["version", "python"])
    build.add_metric([sources.version, platform.python_version()], 1)
    yield build
    yield from ProcessCollector(registry=None).collect()
    summary = sources.summary()
    yield GaugeMetricFamily("catbird_bgp_uptime_seconds", "Since the start.", value=summary["uptime_s"])
    yield GaugeMetricFamily("catbird_bgp_peers", "Sessions that should be, dynamic ones too.", value=summary["peers"])
    yield GaugeMetricFamily("catbird_bgp_peers_established", "Of those, Established.", value=summary["established"])
    yield GaugeMetricFamily(
        "catbird_bgp_converged", "1 once every peer said End-of-RIB or timed out.", value=int(summary["converged"])
    )
    routes = GaugeMetricFamily("catbird_bgp_routes", "Destinations in the Loc-RIB.", labels=["family"])
    for family, count in summary["routes"].items():
        routes.add_metric([family], count)
    yield routes
    lag, total, buckets = sources.lag, 0, []
    for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), sources.lag.bucket_counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    yield HistogramMetricFamily(
        "catbird_loop_lag_seconds", "How late the event loop woke, measured 4 times a second.", buckets, lag.sum_s
    )
    yield GaugeMetricFamily("catbird_loop_lag_max_seconds", "The worst of the last minute.", value=lag.recent_max_s)
    yield from _about_reloads(sources.reloads)
    for name, number in sources.config().items():
        yield GaugeMetricFamily(f"catbird_{name}", _CONFIG_HELP[name], value=float(number))
    events = CounterMetricFamily("catbird_events", "What the log tells of, held-back lines too.", labels=["event"])
    for name, count in sources.event_counts().items():
        events.add_metric([name], count)
    yield events


def _about_reloads(reloads: ReloadCounts) -> Iterator[Metric]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    counts = CounterMetricFamily("catbird_config_reloads", "Configuration reloads.", labels=["result"])
    counts.add_metric(["success"], reloads.successes)
    counts.add_metric(["failure"], reloads.failures)
    yield counts
    effects = CounterMetricFamily(
        "catbird_config_changes", "Changed fields, peers added and removed, by what they cost.", labels=["effect"]
    )
    for effect, count in reloads.effects.items():
        effects.add_metric([effect], count)
    yield effects
    for result, at in (("success", reloads.last_success_at), ("failure", reloads.last_failure_at)):
        yield GaugeMetricFamily(
            f"catbird_config_last_reload_{result}_timestamp_seconds", f"Of the last {result}, 0 = never.", value=at
        )


def _about_fib(counters: Mapping[str, Any]) -> Iterator[Metric]:
    """Counters are numbers, or numbers by family; `routes` and `pending` are gauges."""
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    for name, value in counters.items():
        is_gauge = name in ("routes", "pending", "stale", "learned", "foreign")
        kind: Callable[..., Any] = GaugeMetricFamily if is_gauge else CounterMetricFamily
        values = value if isinstance(value, Mapping) else {"": value}
        labels = ["family"] if isinstance(value, Mapping) else []
        metric = kind(f"catbird_fib_{name}", f"The FIB adapter's {name.replace('_', ' ')}.", labels=labels)
        for family, number in values.items():
            metric.add_metric([str(family)] if labels else [], float(number))
        yield metric
