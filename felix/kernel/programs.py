"""Programs that the packet filter runs: what they print, or their complaint; bounded in time and in octets."""

from __future__ import annotations

import asyncio
import functools
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


@functools.cache
def find(program: str) -> str | None:
    """Its path, if it is installed."""
    return shutil.which(program, path=_PATH)


async def run(program: str, arguments: Sequence[str] = (), text: str = "") -> str:
    """What it printed, having been given `text`. Raises Refused. A cancelled call leaves no process behind."""
    try:
        process = await _started(program, arguments, text.encode())
    except OSError as error:
        raise Refused(f"{program} could not be started: {error.strerror}") from error
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, complaint = await asyncio.gather(_output_of(process, program), _complaint_of(process))
            await process.wait()
    except TimeoutError:
        raise Refused(f"{program} was not done within {TIMEOUT_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()  # asyncio's wait() would wait until its pipes are read to their ends
    if process.returncode != 0:
        raise Refused(complaint.decode(errors="replace").strip() or f"{program} ended with {process.returncode}")
    return output.decode(errors="replace")


async def _started(program: str, arguments: Sequence[str], data: bytes) -> Process:
    """It dies with us: if we are killed, a former process' wishes must not be written after its heir's. And its input is
    there as a whole before it starts: ipset would take a line cut in its middle (`10.0.0.0/2` of `10.0.0.0/24`) for a whole
    one. Raises OSError."""
    setpriv = find("setpriv")  # of util-linux; without it, only the next check would notice
    command = [setpriv, "--pdeathsig", "KILL", "--", program] if setpriv else [program]
    with os.fdopen(os.memfd_create("input"), "wb") as file:
        file.write(data)
        file.flush()
        file.seek(0)
        return await asyncio.create_subprocess_exec(*command, *arguments, stdin=file, stdout=PIPE, stderr=PIPE)


async def _output_of(process: Process, program: str) -> bytes:
    assert process.stdout is not None
    parts, octets = [], 0
    while chunk := await process.stdout.read(_CHUNK):
        octets += len(chunk)
        if octets <= MAX_OUTPUT:
            parts.append(chunk)
        elif parts:
            parts.clear()
            process.kill()
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
