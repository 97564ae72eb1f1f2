"""`catbird felix`: the packet filter, routes and interfaces of this node, from the datastore's resources."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from felix.dataplane.mtu import MTU_FILE
from integration.arguments import add_datastore, add_datastore_config, add_log, add_node
from integration.datastore.errors import DatastoreError
from integration.datastore.settings import load_settings, open_datastore
from integration.lean import load_undisturbed
from integration.logs import EventLog, LineWriter
from integration.node.daemon import CannotStart
from integration.node.felix.daemon import FelixDaemon, Options
from integration.node.following import first_cause
from integration.node.speaker_daemon import run_daemon
from integration.node.startup.start_up import StartUpError, node_name

DEFAULT_CONTROL = "/run/catbird/felix.sock"
EPILOG = """examples:
  catbird felix --datastore etcd:http://127.0.0.1:2379 --node worker-1
  FELIX_LOGSEVERITYSCREEN=debug catbird felix --datastore local:/var/lib/catbird/store.db
  catbird policy explain --from shop/cart-0 --to 10.65.0.2 --port 5432     # why is it dropped?

environment: Calico's FELIX_… parameters, /etc/calico/felix.cfg, FelixConfiguration resources, in this order; and the
datastore's (DATASTORE_TYPE, ETCD_ENDPOINTS, KUBECONFIG …). What it wrote stays in the kernel when it ends."""


def main(argv: Sequence[str]) -> int:
    """Exit code: 0 stopped by a signal, 1 error, said in a line, 2 usage, 129 start again (the configuration changed)."""
    arguments = parse_arguments(argv)
    try:
        settings = load_settings(arguments.datastore, config_file=arguments.config)
        datastore = open_datastore(settings)
        node = arguments.node or node_name(os.environ)
    except (DatastoreError, StartUpError) as error:
        return _fail(str(error))
    if os.geteuid() != 0:
        return _fail("needs root: it programs the kernel's packet filter and routes")

    async def run(log: EventLog, writer: LineWriter) -> int:
        load_undisturbed()
        daemon = FelixDaemon(datastore, Options(node, arguments.control, os.environ, arguments.mtu_file), log)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, daemon.stop)
        try:
            return await daemon.run()
        except* OSError as errors:
            raise CannotStart(str(first_cause(errors))) from None
        finally:
            await datastore.close()

    return run_daemon(arguments, run)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="catbird felix",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Program this node's packet filter, routes and interfaces, as the resources of the datastore say.\n"
        "Every change in the datastore is live at once. Needs root.",
        epilog=EPILOG,
    )
    add_datastore(parser)
    add_datastore_config(parser)
    add_node(parser)
    parser.add_argument("--control", default=DEFAULT_CONTROL, metavar="PATH", help="socket for `catbird policy`")
    parser.add_argument(
        "--mtu-file",
        type=Path,
        default=MTU_FILE,
        metavar="FILE",
        help="tells the CNI plugin how large pods' packets may be",
    )
    add_log(parser)
    return parser.parse_args(argv)


def _fail(text: str) -> int:
    print(f"catbird felix: {text}", file=sys.stderr)
    return 1
