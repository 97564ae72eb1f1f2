"""The speaker itself as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from integration.cli.columns import Cell, duration, fields_of

Paint = Callable[[str, str], str]


def status_lines(view: Mapping[str, Any], paint: Paint) -> Iterator[str]:
    yield from fields_of(_fields(view), paint)


def _fields(view: Mapping[str, Any]) -> Iterator[tuple[str, str | Cell]]:
    not_ready = view.get("not_ready")
    yield "ready", Cell(f"no, {not_ready}", "red") if not_ready else Cell("yes", "green")
    yield "AS", str(view["asn"])
    yield "router id", str(view["router_id"])
    yield "uptime", duration(view["uptime_s"])
    yield "sessions", f"{view['established']} of {view['peers']} Established"
    yield "routes", ", ".join(f"{family} {count}" for family, count in view["routes"].items())
    yield "converged", "yes" if view["converged"] else "no"
    yield "kernel", _counters(view.get("fib"))
    yield "control", str(view.get("control") or "")
    yield "metrics", f"http://{view['metrics']}/metrics" if view.get("metrics") else ""
    yield "file", f"{view.get('config_file', '')}, read {view.get('config_loaded_at', '')}"
    refused = view.get("config_refused")
    yield "refused", Cell(f"what is there now is refused: {refused['text']}" if refused else "", "red")
    problems = view.get("resource_problems")
    yield "problems", Cell(f"{problems}, see `catbird show config`" if problems else "", "red")
    yield "loop lag", f"at most {view['loop_lag_max_s'] * 1000:.0f} ms in the last minute"
    yield "memory", f"{view['memory_octets'] / 1048576:.0f} MiB"
    yield "version", f"{view['version']}, process {view['pid']}"


def _counters(fib: Mapping[str, Any] | None) -> str:
    if not fib:
        return ""
    return ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in fib.items())


def _number(value: Any) -> str:
    if isinstance(value, Mapping):
        return "/".join(f"{family} {count}" for family, count in value.items())
    return str(value)
