"""`catbird speaker`: the engine, its sockets, the kernel, the control socket and the metrics port in one process.

Foreground, logs on stderr, no forking: what starts it (a shell, systemd, a container) keeps it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Literal, TextIO

from bgp.config import SpeakerConfig
from bgp.toml import ConfigError, load
from integration.arguments import add_log
from integration.lean import collect_seldom
from integration.logs import EventLog, LineWriter
from integration.node.daemon import CannotStart, SpeakerDaemon
from integration.node.sockets import CannotListen
from integration.node.sources import FileSource
from reflector.rules import reflection_of

Program = Literal["speaker", "reflector", "node"]
DESCRIPTIONS: dict[str, tuple[str, str]] = {
    "speaker": (
        "Run a BGP speaker in the foreground.",
        "examples:\n  catbird speaker -c /etc/catbird/speaker.toml\n  catbird speaker -c node.toml --check",
    ),
    "reflector": (
        "Run a BGP route reflector (RFC 4456) in the foreground. It needs no kernel and, on a port above 1023, no root.",
        """a file to begin with:
  [speaker]
  asn = 64512
  router_id = "10.0.0.1"
  cluster_id = "10.0.0.1"                      # two reflectors of one cluster may share it
  port = 1790
  control = "/run/user/1000/reflector.sock"

  [[peer]]                                     # whoever connects from these addresses is a client
  name = "nodes"
  range = "10.0.0.0/16"
  asn = 64512
  client = true

examples:
  catbird reflector -c reflector.toml
  catbird reflector -c reflector.toml --check""",
    ),
}
NO_CLIENT = "no peer is a client, so nothing would be reflected; set client = true in a [[peer]] or in [defaults]"


def main(argv: Sequence[str], program: Program = "speaker") -> int:
    """`reflector` is the same daemon with a file in which some peer is a client.

    Exit code: 0 stopped by a signal, or --check found nothing; 1 error, said in a line; 2 usage."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the event loop listens; the file is read after this anyway
    arguments = parse_arguments(argv, program)
    try:
        config = load(arguments.config)
    except OSError as error:
        return _fail(f"cannot read {arguments.config}: {error.strerror or error}")
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    if program == "reflector" and reflection_of(config) is None:
        print(f"{arguments.config}: {NO_CLIENT}", file=sys.stderr)
        return 1
    if arguments.check:
        print(f"{arguments.config}: ok: AS {config.asn}, {len(config.peers)} peers")
        return 0
    return run_daemon(arguments, lambda log, writer: _run(arguments.config, config, log, writer))


def parse_arguments(argv: Sequence[str], program: Program = "speaker") -> argparse.Namespace:
    """argparse, not typer: the daemon's memory is measured against BIRD's."""
    what, example = DESCRIPTIONS[program]
    parser = argparse.ArgumentParser(
        prog=f"catbird {program}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{what}\nSIGHUP or a change of the file reloads it; SIGTERM says goodbye to the peers and exits 0.",
        epilog=example,
    )
    parser.add_argument("-c", "--config", required=True, metavar="FILE.toml", help="the configuration")
    parser.add_argument("--check", action="store_true", help="read the file, say what is wrong with it, and exit")
    add_log(parser)
    return parser.parse_args(argv)


def run_daemon(arguments: argparse.Namespace, run: Callable[[EventLog, LineWriter], Coroutine[None, None, int]]) -> int:
    """The process around a daemon: descriptors, log, exit. `arguments` has log_format and log_level."""
    _raise_file_limit()
    stderr = _open_standard_files()
    writer = LineWriter(stderr)
    log = EventLog(writer.write, log_format=arguments.log_format, level=arguments.log_level, colors=stderr.isatty())
    try:
        code = asyncio.run(run(log, writer))
    except (CannotListen, CannotStart) as error:
        writer.close()
        code = _fail(str(error))
    writer.close()
    # Not by returning: taking a million routes apart object by object takes seconds, and all is said and closed.
    os._exit(code)


async def _run(path: str, config: SpeakerConfig, log: EventLog, writer: LineWriter) -> int:
    collect_seldom()
    loop = asyncio.get_running_loop()
    daemon = SpeakerDaemon(FileSource(path), config, log, writer)

    def stop(name: str) -> None:
        if daemon.is_stopping:
            writer.close(0.2)
            os._exit(1)
        daemon.stop(name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number.name)
    loop.add_signal_handler(signal.SIGHUP, daemon.reload_soon, "SIGHUP")
    return await daemon.run()


def _open_standard_files() -> TextIO:
    """stderr. Started with 0, 1 or 2 closed, a socket would take that number and get what is meant for people."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(descriptor)
    return sys.stderr if sys.stderr is not None else open(os.devnull, "w", encoding="utf-8")


def _raise_file_limit() -> None:
    """A session is a descriptor; the usual soft limit of 1,024 is less than a large cluster's mesh."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _fail(text: str) -> int:
    print(f"catbird speaker: {text}", file=sys.stderr)
    return 1
