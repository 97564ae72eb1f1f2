"""`catbird node` and `catbird reflector --datastore`: the speaker of a node, configured by a datastore's resources."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bgp.config import SpeakerConfig
from integration.arguments import add_datastore, add_datastore_config, add_log, add_node
from integration.bgpconfig import Environment
from integration.datastore.client import ResourceClient
from integration.datastore.errors import DatastoreError
from integration.datastore.settings import load_settings, open_datastore
from integration.lean import collect_seldom
from integration.logs import EventLog, LineWriter
from integration.node.daemon import CannotStart, SpeakerDaemon
from integration.node.datastore_source import DatastoreSource
from integration.node.following import first_cause
from integration.node.node_status import NodeStatusReporter, Views
from integration.node.speaker_daemon import Program, run_daemon
from integration.node.startup.start_up import StartUp, StartUpError, node_name
from integration.node.supervisor import Program as Companion
from integration.node.supervisor import Supervisor
from integration.node.tunnel_addresses import TunnelAddresses

DESCRIPTIONS: dict[str, tuple[str, str]] = {
    "node": (
        "Run a Calico node in the foreground: the BGP speaker here, Felix and the CNI agent as supervised programs beside "
        "it, all configured by the resources of the datastore.",
        "examples:\n"
        "  catbird node --datastore local:/var/lib/catbird/store.db\n"
        "  catbird node --datastore etcd:http://127.0.0.1:2379 --node worker-1\n"
        "  catbird node --datastore local:store.db --without felix --without cni      # the speaker alone\n"
        "  DATASTORE_TYPE=kubernetes catbird node                # in a pod of a DaemonSet",
    ),
    "reflector": (
        "Run the route reflector of a Node whose routeReflectorClusterID is set. It needs no kernel.",
        "example:\n  catbird reflector --datastore etcd:http://127.0.0.1:2379 --node rr-1",
    ),
}
COMPANIONS = ("felix", "cni")
SETTINGS_HELP = (
    "environment: Calico's variables (DATASTORE_TYPE, ETCD_ENDPOINTS, ETCD_…_FILE, KUBECONFIG, NODENAME, "
    "IP, IP6, IP_AUTODETECTION_METHOD, AS, CALICO_IPV4POOL_CIDR, CALICO_ROUTER_ID, NAMESPACE, USE_POD_CIDR …)"
)


def main(argv: Sequence[str], program: Program = "node") -> int:
    """Exit code: 0 stopped by a signal, 1 error, said in a line, 2 usage."""
    arguments = parse_arguments(argv, program)
    try:
        settings = load_settings(arguments.datastore, config_file=arguments.config)
        datastore = open_datastore(settings)
        node = arguments.node or node_name(os.environ)
    except (DatastoreError, StartUpError) as error:
        return _fail(program, str(error))
    environment = Environment.of_variables(os.environ, control=arguments.control, metrics=arguments.metrics)

    async def run(log: EventLog, writer: LineWriter) -> int:
        source = DatastoreSource(
            datastore, str(settings), node, environment, log,
            adapt=without_kernel if program == "reflector" else as_it_is, writes_routes=program != "reflector",
        )  # fmt: skip
        client = ResourceClient(datastore)
        children = Supervisor(programs_of(arguments, node), log) if program == "node" else None
        start_up = StartUp(client, node, os.environ, log) if arguments.start_up else None
        tunnels = TunnelAddresses(client, node, log) if wants_tunnel_addresses(program, os.environ) else None
        try:
            return await run_node(source, client, start_up, log, writer, children, tunnels)
        except StartUpError as error:
            raise CannotStart(str(error)) from None
        finally:
            await datastore.close()

    return run_daemon(arguments, run)


def parse_arguments(argv: Sequence[str], program: Program) -> argparse.Namespace:
    what, examples = DESCRIPTIONS[program]
    parser = argparse.ArgumentParser(
        prog=f"catbird {program}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{what}\nEvery change in the datastore is live at once; SIGTERM says goodbye to the peers and exits 0.",
        epilog=f"{examples}\n\n{SETTINGS_HELP}",
    )
    add_datastore(parser)
    add_datastore_config(parser)
    add_node(parser)
    parser.add_argument(
        "--no-start-up",
        dest="start_up",
        action="store_false",
        help="write neither our Node (IP, IP6, IP_AUTODETECTION_METHOD, AS …) nor default pools: somebody else has",
    )
    parser.add_argument(
        "--control", default="/run/catbird/speaker.sock", metavar="PATH", help="socket for `catbird show`"
    )
    if program == "node":
        parser.add_argument(
            "--without", action="append", default=[], choices=COMPANIONS, metavar="NAME",
            help="do not run this one beside the speaker: felix (packet filter, routes, interfaces) or cni (the agent of the "
            "CNI plugins); may be given twice",
        )  # fmt: skip
        parser.add_argument(
            "--felix-control", default="/run/catbird/felix.sock", metavar="PATH", help="socket for `catbird policy`"
        )
        parser.add_argument(
            "--cni-agent", default="/run/catbird/cni.sock", metavar="PATH", help="socket for the CNI plugins"
        )
        parser.add_argument(
            "--mtu-file",
            default="/var/lib/calico/mtu",
            metavar="FILE",
            help="in which Felix tells the CNI plugins pods' MTU",
        )
    parser.add_argument(
        "--metrics", default=None, metavar="HOST:PORT", help="serve /metrics, /healthz and /readyz there"
    )
    add_log(parser)
    return parser.parse_args(argv)


def programs_of(arguments: argparse.Namespace, node: str) -> list[Companion]:
    """What runs beside the speaker: processes of their own, so that nothing they do delays a keepalive."""
    start = [sys.executable, "-P", "-m", "integration.catbird"]
    more = ["--node", node, "--log-format", arguments.log_format, "--log-level", arguments.log_level]
    if arguments.datastore:
        more += ["--datastore", arguments.datastore]
    if arguments.config:
        more += ["--config", str(arguments.config)]
    mtu = ["--mtu-file", arguments.mtu_file]
    commands = {
        "felix": [*start, "felix", "--control", arguments.felix_control, *mtu, *more],
        "cni": [*start, "cni", "serve", "--agent", arguments.cni_agent, *mtu, *more],
    }
    return [Companion(name, command) for name, command in commands.items() if name not in arguments.without]


def wants_tunnel_addresses(program: Program, environment: Mapping[str, str]) -> bool:
    """A reflector has no tunnels; with USE_POD_CIDR addresses are not Calico IPAM's to give."""
    return program == "node" and environment.get("USE_POD_CIDR", "").lower() not in ("1", "t", "true", "yes", "y", "on")


def as_it_is(config: SpeakerConfig) -> SpeakerConfig:
    return config


def without_kernel(config: SpeakerConfig) -> SpeakerConfig:
    """A reflector forwards no packet: it neither learns routes nor writes them."""
    return replace(config, kernel=None, originate=())


async def run_node(
    source: DatastoreSource,
    client: ResourceClient,
    start_up: StartUp | None,
    log: EventLog,
    writer: LineWriter,
    children: Supervisor | None = None,
    tunnels: TunnelAddresses | None = None,
) -> int:
    """Until a signal. The datastore is waited for, and may go away later without harm."""
    collect_seldom()
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    daemon: SpeakerDaemon | None = None
    cause = ""

    def stop(name: str) -> None:
        nonlocal cause
        if stopping.is_set():
            writer.close(0.2)
            os._exit(1)
        cause = name
        stopping.set()
        if children is not None:
            children.stop()
        if daemon is not None:
            daemon.stop(name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number.name)
    tasks: list[asyncio.Task[None]] = []

    def begin(work: Coroutine[None, None, None]) -> None:
        tasks.append(asyncio.create_task(work))
        tasks[-1].add_done_callback(lambda task: _told_end(task, log))

    try:
        if start_up is not None:
            if not await _first_of(start_up.run(), stopping):
                log.event("speaker_stopped", cause=cause)
                return 0
            begin(start_up.monitor())
        if children is not None:
            begin(children.run())
        if tunnels is not None:
            source.listeners.append(tunnels.updates)
        begin(source.run())
        if not await _first_of(source.in_sync.wait(), stopping) or not await _node_is_there(source, log, stopping):
            log.event("speaker_stopped", cause=cause)
            return 0
        daemon = SpeakerDaemon(source, source.load(), log, writer)
        if tunnels is not None:
            begin(tunnels.run())
        begin(NodeStatusReporter(client, source.node, log, views_of(daemon)).run())
        loop.add_signal_handler(signal.SIGHUP, daemon.reload_soon, "SIGHUP")
        return await daemon.run()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def views_of(daemon: SpeakerDaemon) -> Views:
    def summary() -> Mapping[str, Any] | None:
        if daemon.speaker is None:
            return None
        ago_s = time.time() - daemon.reconfigured_at
        return daemon.speaker.summary(time.monotonic()) | {"reconfigured_s_ago": ago_s}

    return Views(
        summary,
        peers=lambda: daemon.speaker.peers_view(time.monotonic()) if daemon.speaker else (),
        routes=lambda: daemon.speaker.routes_view(which="all") if daemon.speaker else (),
    )


async def _node_is_there(source: DatastoreSource, log: EventLog, stopping: asyncio.Event) -> bool:
    """Wait for our own Node; False: stopped."""
    if not source.has_node:
        log.event(
            "node_missing", level="warning", node=source.node, fix=f"create the Node {source.node}, or name another"
        )
    while not source.has_node:
        if not await _first_of(source.changed(), stopping):
            return False
    return True


async def _first_of(work: object, stopping: asyncio.Event) -> bool:
    """Whether the work was done before the stop."""
    task, stop = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())  # type: ignore[call-overload]
    await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
    done = task.done() and not stopping.is_set()
    for one in (task, stop):
        one.cancel()
    if done:
        task.result()  # raises what the work raised
    return done


def _told_end(task: asyncio.Task[None], log: EventLog) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        cause = first_cause(error)
        log.event("task_failed", level="error", error=f"{type(cause).__name__}: {cause}")


def _fail(program: str, text: str) -> int:
    print(f"catbird {program}: {text}", file=sys.stderr)
    return 1
