"""Programs that the packet filter runs: what they print, or their complaint; bounded in time and in octets."""

from __future__ import annotations

import asyncio
import os
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence

TIMEOUT_S = 60.0
MAX_OUTPUT = 256 << 20  # octets: a node with 30,000 services has some 10 MiB in its nat table
MAX_COMPLAINT = 64 << 10
_CHUNK = 1 << 18
# A daemon's PATH need not have these.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


class ProgramMissing(OSError):
    """A program is not installed; the text says what to install."""


class Refused(Exception):
    """The program's complaint, or why it could not be run. Of what it was given it may have done a part."""


def find(program: str) -> str | None:
    """Its path, if it is installed."""
    return shutil.which(program, path=_PATH)


async def run(program: str, arguments: Sequence[str] = (), text: str = "") -> str:
    """What it printed, having been given `text`. Raises Refused. A cancelled call leaves no process behind."""
    try:
        process = await asyncio.create_subprocess_exec(program, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    except OSError as error:
        raise Refused(f"{program} could not be started: {error.strerror}") from error
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, complaint, _ = await asyncio.gather(
                _output_of(process, program), _complaint_of(process), _feed(process, text.encode())
            )
            await process.wait()
    except TimeoutError:
        raise Refused(f"{program} was not done within {TIMEOUT_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise Refused(complaint.decode(errors="replace").strip() or f"{program} ended with {process.returncode}")
    return output.decode(errors="replace")


async def _output_of(process: Process, program: str) -> bytes:
    assert process.stdout is not None
    parts, octets = [], 0
    while chunk := await process.stdout.read(_CHUNK):
        parts.append(chunk)
        octets += len(chunk)
        if octets > MAX_OUTPUT:
            raise Refused(f"{program} printed more than {MAX_OUTPUT >> 20} MiB")
    return b"".join(parts)


async def _complaint_of(process: Process) -> bytes:
    """Its start; the rest is read as well, or the program would wait for us."""
    assert process.stderr is not None
    kept = b""
    while chunk := await process.stderr.read(_CHUNK):
        kept = (kept + chunk)[:MAX_COMPLAINT]
    return kept


async def _feed(process: Process, data: bytes) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(data)
        await process.stdin.drain()
        process.stdin.close()
        await process.stdin.wait_closed()
    except (BrokenPipeError, ConnectionResetError):
        pass  # it complains, and says why
