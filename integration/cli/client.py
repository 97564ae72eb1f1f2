"""Asking a running speaker, or Felix: HTTP over its Unix socket."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

DEFAULT_SOCKET = "/run/catbird/speaker.sock"
FELIX_SOCKET = "/run/catbird/felix.sock"
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


@dataclass(frozen=True, slots=True)
class Asked:
    """Who is asked, for what is said if nobody answers."""

    name: str
    start: str
    socket_option: str


SPEAKER = Asked("speaker", "catbird speaker -c FILE.toml", "--socket or $CATBIRD_SOCKET")
FELIX = Asked("felix", "catbird felix", "--socket or $CATBIRD_FELIX_SOCKET")


class SpeakerClient:
    """One speaker. Every method raises SpeakerError (Unreachable if nobody answers)."""

    asked = SPEAKER

    def __init__(self, path: str, timeout_s: float = TIMEOUT_S) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def get(self, *segments: str, **query: str) -> Any:
        with _answering(self._path, self.asked):
            return json.loads(self._request("GET", segments, query).read())

    def post(self, *segments: str, arguments: Mapping[str, Any] | None = None) -> Any:
        with _answering(self._path, self.asked):
            return json.loads(self._request("POST", segments, {}, arguments).read())

    def rows(self, *segments: str, **query: str) -> Iterator[dict[str, Any]]:
        """A streamed list, row by row. Raises also in the middle, if the speaker goes away or fails."""
        with _answering(self._path, self.asked):
            yield from _rows(self._request("GET", segments, query))

    def post_for_rows(self, *segments: str, arguments: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """The request is made at once, and its rows come as they come. Raises as `rows`."""
        with _answering(self._path, self.asked):
            response = self._request("POST", segments, {}, arguments)
        return self._rows_of(response)

    def _rows_of(self, response: http.client.HTTPResponse) -> Generator[dict[str, Any], None, None]:
        with _answering(self._path, self.asked), response:
            yield from _rows(response)

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
            raise _error_in(response, self.asked)
        return response


class FelixClient(SpeakerClient):
    """This node's Felix. Raises as the speaker's client does."""

    asked = FELIX


def _rows(response: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in response:
        row = json.loads(line)
        if "error" in row and "prefix" not in row:
            raise SpeakerError(str(row["error"]))
        yield row


def _error_in(response: http.client.HTTPResponse, asked: Asked) -> SpeakerError:
    data = response.read()
    try:
        value = json.loads(data)
        return SpeakerError(str(value["error"]), str(value.get("hint", "")))
    except (ValueError, KeyError, TypeError):
        return SpeakerError(f"the {asked.name} answered {response.status}: {data[:200]!r}")


class _answering:
    """Turns what sockets, HTTP and JSON raise into one line that says what to do."""

    def __init__(self, path: str, asked: Asked) -> None:
        self._path = path
        self._asked = asked

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        name, start = self._asked.name, self._asked.start
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise Unreachable(
                f"no {name}: {self._path} does not exist",
                f"is one running ({start})? Another socket: {self._asked.socket_option}",
            ) from None
        if isinstance(error, ConnectionRefusedError):
            raise Unreachable(f"no {name}: nobody serves {self._path}", f"it has ended; start one: {start}") from None
        if isinstance(error, PermissionError):
            hint = f"the socket belongs to who runs the {name}" + ("" if os.geteuid() == 0 else "; try sudo")
            raise Unreachable(f"no access to {self._path}", hint) from None
        if isinstance(error, TimeoutError):
            raise Unreachable(
                f"no answer from {self._path}", f"the {name} runs but is stuck or very busy; look at its log"
            ) from None
        if isinstance(error, http.client.HTTPException | OSError | ValueError):
            what = str(error) or type(error).__name__
            raise Unreachable(f"the {name} behind {self._path} went away or is none: {what}") from None
