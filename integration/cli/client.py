"""Asking a running speaker: HTTP over its Unix socket."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

DEFAULT_SOCKET = "/run/catbird/speaker.sock"
TIMEOUT_S = 30.0


class SpeakerError(Exception):
    """What went wrong and, in `hint`, what would help."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint


class Unreachable(SpeakerError):
    """No speaker answers behind the socket."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class SpeakerClient:
    """One speaker. Every method raises SpeakerError (Unreachable if nobody answers)."""

    def __init__(self, path: str, timeout_s: float = TIMEOUT_S) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def get(self, *segments: str, **query: str) -> Any:
        with _answering(self._path):
            return json.loads(self._request("GET", segments, query).read())

    def post(self, *segments: str, arguments: Mapping[str, Any] | None = None) -> Any:
        with _answering(self._path):
            return json.loads(self._request("POST", segments, {}, arguments).read())

    def rows(self, *segments: str, **query: str) -> Iterator[dict[str, Any]]:
        """A streamed list, row by row. Raises also in the middle, if the speaker goes away or fails."""
        with _answering(self._path):
            for line in self._request("GET", segments, query):
                row = json.loads(line)
                if "error" in row and "prefix" not in row:
                    raise SpeakerError(str(row["error"]))
                yield row

    def _request(
        self, method: str, segments: tuple[str, ...], query: Mapping[str, str], body: Mapping[str, Any] | None = None
    ) -> http.client.HTTPResponse:
        target = "/v1/" + "/".join(quote(segment, safe="") for segment in segments)
        connection = _UnixConnection(self._path, self._timeout_s)
        connection.request(
            method,
            f"{target}?{urlencode(query)}" if query else target,
            json.dumps(body) if body else None,
        )
        response = connection.getresponse()
        if response.status != 200:
            raise _error_in(response)
        return response


def _error_in(response: http.client.HTTPResponse) -> SpeakerError:
    data = response.read()
    try:
        value = json.loads(data)
        return SpeakerError(str(value["error"]), str(value.get("hint", "")))
    except (ValueError, KeyError, TypeError):
        return SpeakerError(f"the speaker answered {response.status}: {data[:200]!r}")


class _answering:
    """Turns what sockets, HTTP and JSON raise into one line that says what to do."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise Unreachable(
                f"no speaker: {self._path} does not exist",
                "is one running (catbird speaker -c FILE.toml)? Another socket: --socket or $CATBIRD_SOCKET",
            ) from None
        if isinstance(error, ConnectionRefusedError):
            raise Unreachable(
                f"no speaker: nobody serves {self._path}", "it has ended; start one: catbird speaker -c FILE.toml"
            ) from None
        if isinstance(error, PermissionError):
            hint = "the socket belongs to who runs the speaker" + ("" if os.geteuid() == 0 else "; try sudo")
            raise Unreachable(f"no access to {self._path}", hint) from None
        if isinstance(error, TimeoutError):
            raise Unreachable(
                f"no answer from {self._path}", "the speaker runs but is stuck or very busy; look at its log"
            ) from None
        if isinstance(error, http.client.HTTPException | OSError | ValueError):
            what = str(error) or type(error).__name__
            raise Unreachable(f"the speaker behind {self._path} went away or is none: {what}") from None
