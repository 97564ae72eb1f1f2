"""What Prometheus sees, read back with its own parser."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from integration.node.http_server import HttpError, Request, Response
from integration.node.loop_lag import LoopLag
from integration.node.metrics import Monitor, ReloadCounts, Sources
from tests.integration.node.stand_in import StandIn, peer_view

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def sources(peers: list[dict[str, object]], **changes: object) -> Sources:
    lag = LoopLag(lambda lag_s: None)
    for lag_s in (0.0005, 0.02, 7.0):
        lag.record(lag_s)
    given: dict[str, object] = {
        "peers": lambda: peers,
        "summary": lambda: StandIn(routes=5).summary(0.0),
        "fib": dict,
        "event_counts": lambda: {"peer_state": 3},
        "not_ready": lambda: "",
        "lag": lag,
        "reloads": ReloadCounts(successes=2, failures=1, last_success_at=5.0, last_failure_at=6.0),
        "config": lambda: {"resource_problems": 2},
        "version": "1.2.3",
    }
    return Sources(**(given | changes))  # type: ignore[arg-type]


def ask(monitor: Monitor, *path: str) -> Response:
    answer = asyncio.run(monitor(Request("GET", path, {})))
    assert isinstance(answer, Response)
    return answer


def scrape(made: Sources) -> Samples:
    text = ask(Monitor(made), "metrics").body.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for metric in text_string_to_metric_families(text)
        for sample in metric.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_what_changes_cost_is_counted() -> None:
    reloads = ReloadCounts()
    reloads.effects.update(("reset", "live", "live"))
    made = scrape(sources([], reloads=reloads))
    counts = {dict(labels)["effect"]: value for (name, labels), value in made.items() if "config_changes_total" in name}
    assert counts == {"reset": 1, "live": 2}


def test_problems_of_resources_are_a_gauge() -> None:
    assert scrape(sources([]))["catbird_resource_problems", frozenset()] == 2


def test_a_peer_has_state_messages_and_prefixes() -> None:
    samples = scrape(sources([peer_view("tor1", flaps=4, malformed=2, dropped_attributes=1)]))
    assert value(samples, "catbird_bgp_peer_state", peer="tor1", asn="65000", state="Established") == 1
    assert value(samples, "catbird_bgp_peer_state", peer="tor1", asn="65000", state="Idle") == 0
    assert value(samples, "catbird_bgp_peer_flaps_total", peer="tor1", asn="65000") == 4
    assert value(samples, "catbird_bgp_malformed_messages_total", peer="tor1", asn="65000") == 2
    received = {"peer": "tor1", "asn": "65000", "direction": "received", "type": "update"}
    assert value(samples, "catbird_bgp_messages_total", **received) == 4
    assert value(samples, "catbird_bgp_prefixes_accepted", peer="tor1", asn="65000", family="ipv4") == 8
    assert value(samples, "catbird_bgp_prefixes_sent", peer="tor1", asn="65000", family="ipv6") == 2


def test_dynamic_peers_count_under_their_range_so_that_series_stay_bounded() -> None:
    peers = [peer_view(f"dyn-{n}", dynamic=True, range_name="clients") for n in range(500)]
    samples = scrape(sources(peers))
    assert value(samples, "catbird_bgp_peer_state", peer="clients", asn="65000", state="Established") == 500
    assert value(samples, "catbird_bgp_prefixes_received", peer="clients", asn="65000", family="ipv4") == 5000
    assert {label for name, labels in samples for key, label in labels if key == "peer"} == {"clients"}


def test_a_dynamic_peer_that_is_gone_is_no_session_but_its_flaps_count() -> None:
    gone = peer_view("dyn-1", dynamic=True, range_name="clients", state="Gone", flaps=3)
    samples = scrape(sources([gone, peer_view("dyn-2", dynamic=True, range_name="clients", flaps=1)]))
    labels = {"peer": "clients", "asn": "65000"}
    assert sum(n for (name, _), n in samples.items() if name == "catbird_bgp_peer_state") == 1
    assert value(samples, "catbird_bgp_peer_flaps_total", **labels) == 4


def test_the_loop_lag_is_a_histogram_and_a_recent_maximum() -> None:
    samples = scrape(sources([]))
    assert value(samples, "catbird_loop_lag_seconds_bucket", le="0.001") == 1
    assert value(samples, "catbird_loop_lag_seconds_bucket", le="+Inf") == 3
    assert value(samples, "catbird_loop_lag_max_seconds") == 7.0


def test_reloads_routes_and_build_are_there() -> None:
    samples = scrape(sources([]))
    assert value(samples, "catbird_config_reloads_total", result="failure") == 1
    assert value(samples, "catbird_config_last_reload_success_timestamp_seconds") == 5.0
    assert value(samples, "catbird_bgp_routes", family="ipv4") == 5
    assert value(samples, "catbird_events_total", event="peer_state") == 3
    assert any(name == "catbird_build_info" and ("version", "1.2.3") in labels for name, labels in samples)
    assert value(samples, "process_resident_memory_bytes") > 0


def test_a_hostile_label_cannot_forge_a_sample() -> None:
    samples = scrape(sources([peer_view('x",state="Idle"} 1\ncatbird_bgp_peers 99\n')]))
    assert value(samples, "catbird_bgp_peers") == 1


def test_health_is_the_loop_and_readiness_says_why_not() -> None:
    assert ask(Monitor(sources([])), "healthz").status == 200
    assert ask(Monitor(sources([])), "readyz").status == 200
    answer = ask(Monitor(sources([], not_ready=lambda: "not converged: no session with tor1")), "readyz")
    assert (answer.status, answer.body) == (503, b"not ready: not converged: no session with tor1\n")


def test_an_unknown_path_says_which_exist() -> None:
    with pytest.raises(HttpError) as caught:
        ask(Monitor(sources([])), "metricz")
    assert caught.value.status == 404
    assert "/metrics" in caught.value.hint
