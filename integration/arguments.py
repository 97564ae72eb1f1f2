"""Options that several programs have, with the same words."""

from __future__ import annotations

import argparse
from pathlib import Path

from integration.logs import LEVELS


def add_datastore(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--datastore", default="", metavar="URL",
        help="local:PATH, etcd:URL[,URL…] or kubernetes[:KUBECONFIG]; default: as the environment says",
    )  # fmt: skip


def add_datastore_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="a CalicoAPIConfig file with the datastore's settings"
    )


def add_node(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--node", default="", metavar="NAME", help="the Node that this is; default: NODENAME, else the host's name"
    )


def add_log(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log-format", choices=("console", "json"), default="console")
    parser.add_argument("--log-level", choices=tuple(LEVELS), default="info")
