"""The running configuration as TOML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from integration.cli.columns import visible


def config_lines(view: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {visible(view['file'])}, read {view['loaded_at']}; passwords are not shown"
    if refused := view.get("refused"):
        yield f"# since {refused['at']} what is there now is refused:"
        yield from (f"#   {visible(line)}" for line in refused["text"].splitlines())
    if lost := view.get("datastore_lost"):
        yield f"# the datastore does not answer, and the last configuration stands: {visible(lost)}"
    yield from (f"# not used as written: {visible(problem)}" for problem in view.get("problems") or ())
    yield from toml_lines(view["running"])


def toml_lines(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Plain values first, then sub-tables: TOML has no way back to an outer table. None is left out."""
    below: list[tuple[str, Any]] = []
    for key, value in table.items():
        if value is None:
            continue
        if (isinstance(value, Mapping) and len(path) < 2) or (_is_array_of_tables(value) and not path):
            below.append((key, value))
        else:
            yield f"{_key(key)} = {inline(value)}"
    for key, value in below:
        name = ".".join(map(_key, (*path, key)))
        for item in value if isinstance(value, list) else [value]:
            inner = list(toml_lines(item, (*path, key)))
            has_own_values = not inner or inner[0] != ""
            if has_own_values:
                yield ""
                yield f"[[{name}]]" if isinstance(value, list) else f"[{name}]"
            yield from inner


def _is_array_of_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def inline(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        return (
            "{ " + ", ".join(f"{_key(key)} = {inline(item)}" for key, item in value.items() if item is not None) + " }"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(str(value)).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
