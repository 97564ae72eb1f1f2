"""Plain data as TOML, as far as the tests need it: tables inline, so that every value stands on its own line."""

from __future__ import annotations

import json
from typing import Any


def to_toml(tables: dict[str, Any]) -> str:
    lines: list[str] = []
    for name, content in tables.items():
        for header, table in (
            [(f"[[{name}]]", item) for item in content] if isinstance(content, list) else [(f"[{name}]", content)]
        ):
            lines.append(header)
            lines += [f"{key} = {inline(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {inline(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value)  # strings, numbers and booleans look the same
