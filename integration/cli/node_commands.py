"""`catbird bgp-config` and `catbird plan`: what nodes run, and what they would run. No node is asked."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from integration.cli.outcome import Failed
from integration.cli.resource_commands import (
    ConfigOption,
    FilesOption,
    NamespaceOption,
    RecursiveOption,
    SkipEmptyOption,
    StoreOption,
    load,
)

if TYPE_CHECKING:
    from integration.bgpconfig import Environment


class Format(StrEnum):
    table = "table"
    json = "json"
    yaml = "yaml"


FormatOption = Annotated[Format, typer.Option("-o", "--output", help="table for people, json or yaml for programs.")]
NodeOption = Annotated[
    str, typer.Option("--node", metavar="NAME", envvar="NODENAME", help="The Node, as the datastore calls it.")
]


def add_to(app: typer.Typer) -> None:
    for name, command, example in (
        ("bgp-config", bgp_config, "catbird bgp-config --node worker-1 -f cluster/"),
        ("plan", plan, "catbird plan -f new-peers.yaml && catbird apply -f new-peers.yaml"),
    ):
        app.command(name, epilog=f"Example: {example}", rich_help_panel="Nodes")(command)


def bgp_config(
    node: NodeOption,
    files: FilesOption = None,
    *,
    output: FormatOption = Format.table,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 if anything is wrong.")] = False,
    namespace: NamespaceOption = "",
    recursive: RecursiveOption = False,
    skip_empty: SkipEmptyOption = False,
    datastore: StoreOption = "",
    config: ConfigOption = None,
) -> None:
    """The whole BGP configuration that a node runs, each peer with the resources that it comes from.

    With -f from these files alone, offline; otherwise from the datastore.
    """
    from integration.bgpconfig import build
    from integration.cli.cluster_state import snapshot_of_datastore, snapshot_of_documents
    from integration.cli.node_config_text import config_lines
    from integration.cli.stores import with_client

    environment = _environment()
    if files:
        snapshot, problems = snapshot_of_documents(load(files, namespace, recursive, skip_empty))
    else:
        snapshot, problems = with_client(
            datastore,
            config,
            lambda client: snapshot_of_datastore(client.datastore, environment.secret_namespace),
        )
    view = build(snapshot, node, environment).to_json()
    view["problems"] += [{"resource": str(one.key), "field": one.field, "reason": one.reason} for one in problems]
    if output is Format.table:
        for line in config_lines(view):
            print(line)
    else:
        put(view, output)
    if strict and view["problems"]:
        raise Failed


def plan(
    files: FilesOption = None,
    *,
    nodes: Annotated[
        list[str] | None, typer.Option("--node", metavar="NAME", help="Only this node. Repeatable; otherwise all.")
    ] = None,
    deleted: Annotated[bool, typer.Option("--delete", help="As if the resources were deleted.")] = False,
    output: FormatOption = Format.table,
    namespace: NamespaceOption = "",
    recursive: RecursiveOption = False,
    skip_empty: SkipEmptyOption = False,
    datastore: StoreOption = "",
    config: ConfigOption = None,
) -> None:
    """What would happen on each node if these files were applied; nothing is written.

    Peers that come and go, sessions that reset, policies, and which of the node's own routes its peers would hear.
    """
    if not files:
        raise typer.BadParameter("say -f FILE")
    from integration.cli.plan_text import plan_json, plan_lines
    from integration.cli.planning import plan_documents
    from integration.cli.stores import with_client

    environment = _environment()
    documents = load(files, namespace, recursive, skip_empty)
    resources, planned = with_client(
        datastore,
        config,
        lambda client: plan_documents(client.datastore, documents, nodes or [], environment, deleted=deleted),
    )
    if output is Format.yaml:
        put({"resources": [one.to_json() for one in resources], "nodes": [one.to_json() for one in planned]}, output)
    else:
        for line in (plan_lines if output is Format.table else plan_json)(resources, planned):
            print(line, flush=True)
    if any(one.action == "refused" for one in resources):
        raise Failed


def put(view: Any, output: Format) -> None:
    if output is Format.json:
        print(json.dumps(view, indent=2, ensure_ascii=False))
        return
    from integration.cli.app import to_yaml

    print(to_yaml(view))


def _environment() -> Environment:
    from integration.bgpconfig import Environment

    return Environment.of_variables(os.environ)
