"""`catbird cni`: install the plugins, and serve them on this node."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from integration.arguments import add_datastore, add_datastore_config, add_log
from integration.cni.agent import DEFAULT_SOCKET, Agent
from integration.cni.allocation import IpamAllocator
from integration.cni.install import DEFAULT_NAME, InstallError, Target, install
from integration.cni.worker import MTU_FILE, Surroundings, Worker
from integration.datastore.errors import DatastoreError
from integration.datastore.settings import Settings, load_settings, open_datastore
from integration.logs import EventLog, LineWriter

EXAMPLES = """examples:
  catbird cni install                                        # /opt/cni/bin and /etc/cni/net.d
  catbird cni install --datastore etcd:http://127.0.0.1:2379 --conf-dir /host/etc/cni/net.d --bin-dir /host/opt/cni/bin
  catbird cni serve --datastore etcd:http://127.0.0.1:2379 --node worker-1"""


def main(argv: Sequence[str]) -> int:
    """Exit code: 0 done or stopped by a signal, 1 error said in a line, 2 usage."""
    arguments = parse_arguments(argv)
    try:
        settings = load_settings(arguments.datastore, config_file=getattr(arguments, "config", None))
        if arguments.command == "serve":
            return asyncio.run(_serve(arguments, settings))
        target = Target(
            arguments.bin_dir, arguments.conf_dir, arguments.conf_name, arguments.host_conf_dir, str(arguments.agent)
        )
        for path in install(target, settings, os.environ):
            print(f"wrote {path}")
    except (DatastoreError, InstallError, OSError) as error:
        print(f"catbird cni {arguments.command}: {error}", file=sys.stderr)
        return 1
    return 0


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="catbird cni",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Calico's CNI plugin: how a container runtime hands containers to catbird.",
        epilog=EXAMPLES,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    installing = commands.add_parser("install", help="write the plugins and the network configuration")
    installing.add_argument("--bin-dir", type=Path, default=Path("/opt/cni/bin"), metavar="DIR")
    installing.add_argument("--conf-dir", type=Path, default=Path("/etc/cni/net.d"), metavar="DIR")
    installing.add_argument(
        "--host-conf-dir", type=Path, default=Path("/etc/cni/net.d"), metavar="DIR",
        help="what the host calls --conf-dir, if this runs in a container",
    )  # fmt: skip
    installing.add_argument(
        "--conf-name",
        default=os.environ.get("CNI_CONF_NAME", DEFAULT_NAME),
        metavar="FILE",
        help=f"default: {DEFAULT_NAME}",
    )
    serving = commands.add_parser("serve", help="do the plugins' work in a warm process (catbird node does this too)")
    serving.add_argument("--node", default="", metavar="NAME", help="default: what the network configuration says")
    serving.add_argument("--mtu-file", type=Path, default=MTU_FILE, metavar="FILE")
    add_log(serving)
    add_datastore_config(serving)
    for command in (installing, serving):
        add_datastore(command)
        command.add_argument("--agent", type=Path, default=DEFAULT_SOCKET, metavar="SOCKET")
    return parser.parse_args(argv)


async def _serve(arguments: argparse.Namespace, settings: Settings) -> int:
    writer = LineWriter(sys.stderr)
    log = EventLog(writer.write, log_format=arguments.log_format, level=arguments.log_level, colors=sys.stderr.isatty())
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    datastore = open_datastore(settings)
    kubernetes = None
    try:
        if settings.datastore_type == "etcdv3" and (settings.kubeconfig or os.environ.get("KUBERNETES_SERVICE_HOST")):
            kubernetes = open_datastore(replace(settings, datastore_type="kubernetes"))
        prefix = os.environ.get("FELIX_INTERFACEPREFIX", "cali").partition(",")[0]
        around = Surroundings(
            datastore, IpamAllocator(datastore), arguments.node, kubernetes, interface_prefix=prefix,
            mtu_file=arguments.mtu_file, told=log.event,
        )  # fmt: skip
        async with Agent(Worker(around), arguments.agent, log.event):
            log.event("cni_listening", socket=str(arguments.agent), datastore=str(settings))
            await stopping.wait()
        log.event("cni_stopped")
    finally:
        await datastore.close()
        if kubernetes is not None:
            await kubernetes.close()
        writer.close()
    return 0
