"""`catbird policy explain --trace`: packets as they come, until the time is over or Ctrl-C."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from felix.explain.traced import SAID, traced_lines
from integration.cli.client import FelixClient, SpeakerError
from integration.cli.columns import visible
from integration.cli.node_commands import Format
from integration.cli.outcome import Failed

ANSWER_S = 30.0


def trace_flow(socket: str, question: Mapping[str, Any], seconds: float, output: Format, expected: str | None) -> None:
    """Raises Failed if no packet came, or one's verdict is not the `expected` one; SpeakerError if Felix cannot."""
    client = FelixClient(socket, timeout_s=seconds + ANSWER_S)
    rows = client.post_for_rows("policy", "trace", arguments={**question, "seconds": seconds})
    _note(f"tracing for {seconds:g} s; Ctrl-C ends it")
    verdicts: list[str] = []
    try:
        for row in rows:
            verdicts.append(row["verdict"])
            for line in _lines(row, output):
                print(line, flush=True)
    except KeyboardInterrupt:
        pass
    except (KeyError, TypeError, ValueError) as error:
        raise SpeakerError(f"the answer is not one that this version understands: {error!r}") from None
    finally:
        rows.close()  # Felix sees that nobody listens
    counts = ", ".join(f"{verdicts.count(one)} {SAID[one].lower()}" for one in SAID if one in verdicts)
    _note(
        f"{len(verdicts)} {'packet' if len(verdicts) == 1 else 'packets'}{f': {counts}' if counts else ' of this flow'}"
    )
    if not verdicts or (expected is not None and any(one != expected for one in verdicts)):
        raise Failed


def _lines(row: Mapping[str, Any], output: Format) -> Iterator[str]:
    match output:
        case Format.json:
            yield json.dumps(row)
        case Format.yaml:
            from integration.cli.app import to_yaml

            yield "---"
            yield to_yaml(row).rstrip()
        case Format.table:
            for line in traced_lines(row):
                yield visible(line)


def _note(text: str) -> None:
    """On stderr: what is on stdout is packets."""
    print(text, file=sys.stderr, flush=True)
