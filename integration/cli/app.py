"""`catbird show …` and `catbird peer …`: what a running speaker knows, and telling it what to do."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from integration.cli import (
    config_text,
    ipam_commands,
    node_commands,
    peers,
    policy_commands,
    resource_commands,
    routes,
    status,
)
from integration.cli.client import DEFAULT_SOCKET, SpeakerClient, SpeakerError
from integration.cli.columns import visible
from integration.cli.outcome import Failed
from integration.version import VERSION

EPILOG = """
Examples:

  catbird speaker -c /etc/catbird/speaker.toml    run a speaker

  catbird speaker -c speaker.toml --check         only say what is wrong with the file

  catbird show peers --watch                      sessions, every 2 seconds

  catbird show peer tor1 --malformed              the broken messages it sent

  catbird show routes 10.1.0.0/26 --why           why this path won, where others lost

  catbird show routes --peer tor1 --received      what it announced, before policy

  catbird peer tor1 shutdown "moving to rack 7"   the other side sees the text

  catbird apply -f peers.yaml                     resources into the datastore

  catbird get bgppeers                            what is there
"""


class Output(StrEnum):
    table = "table"
    json = "json"
    yaml = "yaml"


class PeerAction(StrEnum):
    reset = "reset"
    refresh = "refresh"
    shutdown = "shutdown"
    enable = "enable"


class FamilyName(StrEnum):
    ipv4 = "ipv4"
    ipv6 = "ipv6"


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="table for people, json or yaml for programs.")]
SocketOption = Annotated[
    str, typer.Option("--socket", envvar="CATBIRD_SOCKET", metavar="PATH", help="The speaker's control socket.")
]
WatchOption = Annotated[
    float, typer.Option("--watch", metavar="[SECONDS]", help="Again and again, every so many seconds (2).")
]

app = typer.Typer(
    name="catbird",
    help="Calico in Python, with a native BGP speaker.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
show = typer.Typer(help="Show what a running speaker knows.", no_args_is_help=True)
app.add_typer(show, name="show")
resource_commands.add_to(app)
node_commands.add_to(app)
policy_commands.add_to(app)
ipam_commands.add_to(app)


@dataclass(frozen=True, slots=True)
class Screen:
    """Where lines go, painted if a terminal looks on."""

    console: Console

    def paint(self, text: str, style: str) -> str:
        if not self.console.is_terminal:
            return text
        with self.console.capture() as capture:
            self.console.print(Text(text, style), end="", soft_wrap=True)
        return capture.get()

    def put(self, lines: Iterable[str]) -> None:
        for line in lines:
            sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def clear(self) -> None:
        if self.console.is_terminal:
            sys.stdout.write("\x1b[H\x1b[2J")


def screen() -> Screen:
    return Screen(Console(highlight=False))


def say(error: SpeakerError) -> None:
    print(f"catbird: {visible(error.text)}" + (f" ({visible(error.hint)})" if error.hint else ""), file=sys.stderr)


def repeat(once: Callable[[Screen], None], watch_s: float) -> None:
    """`once` a single time, or for ever; a speaker that goes away is waited for then."""
    onto = screen()
    if not watch_s:
        once(onto)
        return
    while True:
        onto.clear()
        if onto.console.is_terminal:
            onto.put([time.strftime("%H:%M:%S") + f"  every {watch_s:g} s, Ctrl-C ends", ""])
        try:
            once(onto)
        except SpeakerError as error:
            say(error)
        except Failed:
            pass
        time.sleep(watch_s)


def put_value(onto: Screen, value: object, output: Output, table: Callable[[], Iterator[str]]) -> None:
    if output is Output.table:
        onto.put(table())
    elif output is Output.json:
        onto.put([json.dumps(value, indent=2)])
    else:
        onto.put([to_yaml(value)])


def to_yaml(value: object) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=False, width=10_000)).rstrip("\n")


def put_rows(onto: Screen, rows: Iterator[dict[str, Any]], output: Output, table: Callable[..., Iterator[str]]) -> int:
    """Row by row: a full table does not have to fit in memory. Returns how many there were."""
    count = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal count
        for row in rows:
            count += 1
            yield row

    if output is Output.table:
        onto.put(table(counted(), onto.paint))
    elif output is Output.json:
        onto.put(_json_array(counted()))
    else:
        onto.put(to_yaml([row]) for row in counted())
        if not count:
            onto.put(["[]"])
    return count


def _json_array(rows: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    """One object a line, so that grep and jq --stream are happy too."""
    before = "["
    for row in rows:
        yield before + json.dumps(row)
        before = ","
    yield "]" if before == "," else "[]"


@show.command("peers")
def show_peers(
    output: OutputOption = Output.table, socket: SocketOption = DEFAULT_SOCKET, watch: WatchOption = 0
) -> None:
    """All sessions: state, for how long, prefixes received, accepted and sent, the last error."""

    def once(onto: Screen) -> None:
        views = SpeakerClient(socket).get("peers")
        put_value(onto, views, output, lambda: peers.peers_table(views, onto.paint))

    repeat(once, watch)


@show.command("peer")
def show_peer(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As in the configuration.")],
    malformed: Annotated[bool, typer.Option("--malformed", help="The last broken messages it sent, in hex.")] = False,
    output: OutputOption = Output.table,
    socket: SocketOption = DEFAULT_SOCKET,
    watch: WatchOption = 0,
) -> None:
    """One session: what was negotiated, timers, counters, policies, the last error."""

    def once(onto: Screen) -> None:
        view = SpeakerClient(socket).get("peers", name)
        value = view.get("malformed_messages", []) if malformed else view
        put_value(onto, value, output, lambda: peers.peer_details(view, onto.paint, malformed=malformed))

    repeat(once, watch)


@show.command("routes")
def show_routes(
    prefix: Annotated[
        str, typer.Argument(metavar="PREFIX", help="One destination; an address finds its longest match.")
    ] = "",
    *,
    peer: Annotated[str, typer.Option("--peer", metavar="NAME", help="Only paths from (or sent to) this peer.")] = "",
    received: Annotated[
        bool, typer.Option("--received", help="With --peer: what it announced, before policy.")
    ] = False,
    sent: Annotated[bool, typer.Option("--sent", help="With --peer: what we announce to it.")] = False,
    best: Annotated[bool, typer.Option("--best", help="Only the paths that won.")] = False,
    reasons: Annotated[bool, typer.Option("--why", help="For every path the step of the decision it lost at.")] = False,
    family: Annotated[FamilyName | None, typer.Option("--family", help="Only this address family.")] = None,
    output: OutputOption = Output.table,
    socket: SocketOption = DEFAULT_SOCKET,
    watch: WatchOption = 0,
) -> None:
    """Routes with all their paths, streamed: a full table does not need memory here."""
    chosen = [name for name, wanted in (("received", received), ("sent", sent), ("best", best)) if wanted]
    if len(chosen) > 1:
        raise typer.BadParameter(f"--{chosen[0]} and --{chosen[1]} exclude each other")
    if chosen and chosen[0] != "best" and not peer:
        raise typer.BadParameter(f"--{chosen[0]} is about one peer: add --peer NAME")
    query = {"which": chosen[0] if chosen else "all"}
    query |= {key: value for key, value in (("prefix", prefix), ("peer", peer), ("family", family or "")) if value}

    def once(onto: Screen) -> None:
        rows = SpeakerClient(socket).rows("routes", **query)
        count = put_rows(onto, rows, output, routes.why if reasons else routes.routes_table)
        if prefix and not count:
            print(f"catbird: no route {'for' if '/' not in prefix else 'to'} {visible(prefix)}", file=sys.stderr)
            raise Failed

    repeat(once, watch)


@show.command("config")
def show_config(output: OutputOption = Output.table, socket: SocketOption = DEFAULT_SOCKET) -> None:
    """The configuration that runs, as TOML, and what is refused or not used as written."""
    onto = screen()
    view = SpeakerClient(socket).get("config")
    put_value(onto, view, output, lambda: config_text.config_lines(view))


@show.command("status")
def show_status(
    output: OutputOption = Output.table, socket: SocketOption = DEFAULT_SOCKET, watch: WatchOption = 0
) -> None:
    """The speaker itself: ready or why not, sessions, routes, memory, how late its event loop runs."""

    def once(onto: Screen) -> None:
        view = SpeakerClient(socket).get("status")
        put_value(onto, view, output, lambda: status.status_lines(view, onto.paint))

    repeat(once, watch)


@app.command("peer")
def peer_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As in the configuration.")],
    action: Annotated[PeerAction, typer.Argument(help="What to do with the session.")],
    reason: Annotated[str, typer.Argument(metavar="REASON", help="For shutdown: told to the other side.")] = "",
    *,
    inward: Annotated[bool, typer.Option("--in", help="For refresh: only ask for its routes.")] = False,
    outward: Annotated[bool, typer.Option("--out", help="For refresh: only send ours.")] = False,
    socket: SocketOption = DEFAULT_SOCKET,
) -> None:
    """Reset or refresh a session, or shut it down and enable it again.

    reset      ends the session with Cease/Administrative Reset; it comes back by itself

    refresh    routes once more, both ways, without a reset (RFC 2918)

    shutdown   ends the session and keeps it down until enable, or a restart of the speaker

    enable     lets it come up again
    """
    if reason and action is not PeerAction.shutdown:
        raise typer.BadParameter(f"{action} takes no reason")
    if (inward or outward) and action is not PeerAction.refresh:
        raise typer.BadParameter("--in and --out are for refresh")
    arguments: dict[str, str] = {}
    if action is PeerAction.shutdown:
        arguments["reason"] = reason
    if inward != outward:
        arguments["direction"] = "in" if inward else "out"
    done = SpeakerClient(socket).post("peers", name, action, arguments=arguments)
    print(visible(done["done"]))


@app.command("reload")
def reload_command(socket: SocketOption = DEFAULT_SOCKET) -> None:
    """Read the configuration file again and say what changed; refused, the old one goes on."""
    print(visible(SpeakerClient(socket).post("reload")["done"]))


@app.command("version")
def version() -> None:
    """The version of catbird."""
    print(f"catbird {VERSION}")


def run(argv: Sequence[str], programs: Mapping[str, str]) -> int:
    """Exit code: 0 done, 1 error (said on stderr), 2 usage. `programs`: others of ours, for the help."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a Latin-1 terminal gets \\u2192, not a traceback
    for name, text in programs.items():
        app.command(name, help=text, add_help_option=False)(_elsewhere)
    try:
        app(list(with_watch_seconds(argv)), standalone_mode=True, prog_name="catbird")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except SpeakerError as error:
        say(error)
        return 1
    except Failed:
        return 1
    return 0


def _elsewhere() -> None:
    """Reached only with an option before the program's name."""
    raise typer.BadParameter("put the program's name first: catbird speaker …")


def with_watch_seconds(argv: Sequence[str]) -> Iterator[str]:
    """`--watch` alone becomes `--watch=2`: the parser knows no option with an optional value."""
    words = list(argv)
    for index, word in enumerate(words):
        if word == "--watch" and not re.fullmatch(r"[0-9.]+", words[index + 1] if index + 1 < len(words) else ""):
            yield "--watch=2"
        else:
            yield word
