"""Counters, gauges and summaries in Prometheus' text."""

from __future__ import annotations

from typing import get_args

from prometheus_client.parser import text_string_to_metric_families

from felix.figures import HELP, MOST_SAMPLES, Counter, Figures, Gauge, Summary


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_text_has_calicos_names_without_a_suffix() -> None:
    figures = Figures(Clock())
    figures.set("felix_resync_state", 3)
    figures.count("felix_denied_packets", tier="default")
    figures.count("felix_denied_packets", 2, tier="default")
    figures.set("felix_iptables_rules", 7, ip_version="4", table="filter")
    assert figures.value("felix_denied_packets", tier="default") == 3
    text = figures.text()
    assert ('# TYPE felix_denied_packets counter\nfelix_denied_packets{tier="default"} 3\n') in text
    assert text.endswith(
        "# HELP felix_iptables_rules Rules of ours, by IP version and table.\n"
        "# TYPE felix_iptables_rules gauge\n"
        'felix_iptables_rules{ip_version="4",table="filter"} 7\n'
        "# HELP felix_resync_state The datastore: 1 waiting for it, 2 reading it, 3 in sync.\n"
        "# TYPE felix_resync_state gauge\n"
        "felix_resync_state 3\n"
        "# HELP felix_resyncs_started Times that the datastore was read anew.\n"
        "# TYPE felix_resyncs_started counter\n"
        "felix_resyncs_started 0\n"
    )


def test_a_summary_has_quantiles_of_the_last_minutes_and_sums_of_all() -> None:
    clock = Clock()
    figures = Figures(clock)
    for number in range(1, 101):
        figures.observe("felix_int_dataplane_apply_time_seconds", number / 100)
    text = figures.text()
    assert 'felix_int_dataplane_apply_time_seconds{quantile="0.5"} 0.51\n' in text
    assert 'felix_int_dataplane_apply_time_seconds{quantile="0.99"} 1\n' in text
    assert "felix_int_dataplane_apply_time_seconds_sum 50.5\n" in text
    assert "felix_int_dataplane_apply_time_seconds_count 100\n" in text
    clock.now = 601
    assert 'felix_int_dataplane_apply_time_seconds{quantile="0.5"} NaN\n' in figures.text()


def test_a_summary_keeps_a_bounded_number_of_samples() -> None:
    figures = Figures(Clock())
    for number in range(MOST_SAMPLES * 3):
        figures.observe("felix_calc_graph_update_time_seconds", number)
    assert len(figures._samples["felix_calc_graph_update_time_seconds"]) == MOST_SAMPLES


def test_prometheus_reads_hostile_labels_back_as_they_were() -> None:
    figures = Figures(Clock())
    hostile = 'a"b\\c\nd} 1'
    figures.count("felix_int_dataplane_messages", 1.5, type=hostile)
    family = next(one for one in text_string_to_metric_families(figures.text()) if one.samples[0].labels)
    assert [(sample.labels, sample.value) for sample in family.samples] == [({"type": hostile}, 1.5)]


def test_every_name_has_a_help() -> None:
    names = {*get_args(Gauge), *get_args(Counter), *get_args(Summary)}
    assert names == set(HELP)
