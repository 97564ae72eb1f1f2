"""`catbird policy …`: what policies do to packets. A running Felix is asked, or the datastore alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from integration.cli.client import FELIX_SOCKET, FelixClient, SpeakerError
from integration.cli.columns import visible
from integration.cli.node_commands import Format, FormatOption, put
from integration.cli.outcome import Failed
from integration.cli.resource_commands import ConfigOption, StoreOption

SocketOption = Annotated[
    str, typer.Option("--socket", envvar="CATBIRD_FELIX_SOCKET", metavar="PATH", help="Felix' control socket.")
]
WHO = "NAMESPACE/POD, an address, or host."


class Expected(StrEnum):
    allow = "allow"
    deny = "deny"


def add_to(app: typer.Typer) -> None:
    policy = typer.Typer(
        help="What policies do to packets: why one is denied, how many met which rule.", no_args_is_help=True
    )
    app.add_typer(policy, name="policy", rich_help_panel="Nodes")
    for name, command, example in (
        ("explain", explain, "catbird policy explain --from default/web --to 10.65.0.2 --port 5432"),
        ("stats", stats, "catbird policy stats --met"),
    ):
        policy.command(name, epilog=f"Example: {example}")(command)


def explain(
    source: Annotated[str, typer.Option("--from", metavar="WHO", help=WHO)],
    destination: Annotated[str, typer.Option("--to", metavar="WHO", help=WHO)],
    *,
    port: Annotated[int | None, typer.Option("--port", metavar="PORT", help="Of the destination.")] = None,
    protocol: Annotated[
        str, typer.Option("--protocol", metavar="NAME", help="tcp, udp, sctp, icmp, or a number.")
    ] = "",
    source_port: Annotated[int | None, typer.Option("--source-port", metavar="PORT")] = None,
    icmp_type: Annotated[int | None, typer.Option("--icmp-type", metavar="TYPE", help="8 is an echo request.")] = None,
    icmp_code: Annotated[int | None, typer.Option("--icmp-code", metavar="CODE")] = None,
    ip_version: Annotated[
        int | None, typer.Option("--ip-version", metavar="4|6", help="Where names leave it open.")
    ] = None,
    in_interface: Annotated[
        str, typer.Option("--in", metavar="NAME", help="By which it arrives, if it does not follow.")
    ] = "",
    out_interface: Annotated[
        str, typer.Option("--out", metavar="NAME", help="By which it leaves, if it does not follow.")
    ] = "",
    sent_to: Annotated[
        str, typer.Option("--sent-to", metavar="ADDRESS[:PORT]", help="Of a service: what the sender wrote.")
    ] = "",
    expect: Annotated[
        Expected | None, typer.Option("--expect", help="Exit code 1 if the verdict is another one.")
    ] = None,
    output: FormatOption = Format.table,
    socket: SocketOption = FELIX_SOCKET,
    datastore: StoreOption = "",
    config: ConfigOption = None,
    node: Annotated[
        str, typer.Option("--node", metavar="NAME", help="With --datastore: only what this node does.")
    ] = "",
) -> None:
    """Which policy and rule decides about a packet, tier by tier, and why the others do not.

    Asks this node's Felix. With --datastore it computes, for the nodes of both ends.
    """
    question = _said(
        {
            "from": source,
            "to": destination,
            "port": port,
            "protocol": protocol,
            "sourcePort": source_port,
            "icmpType": icmp_type,
            "icmpCode": icmp_code,
            "ipVersion": ip_version,
            "inInterface": in_interface,
            "outInterface": out_interface,
            "sentTo": sent_to,
        }
    )
    if datastore or config or node:
        from integration.cli.policy_offline import explain_from_datastore

        view = explain_from_datastore(datastore, config, question, node)
    else:
        view = FelixClient(socket).post("policy", "explain", arguments=question)
    if output is Format.table:
        _print(_explanation_lines(view))
    else:
        put(view, output)
    if expect is not None and view["verdict"] != expect.value:
        raise Failed


def stats(
    *,
    met: Annotated[bool, typer.Option("--met", help="Only rules that a packet has met.")] = False,
    output: FormatOption = Format.table,
    socket: SocketOption = FELIX_SOCKET,
) -> None:
    """Packets and octets by policy and rule on this node: the first packets of connections, and all that were denied.

    Staged policies are counted too.
    """
    view = FelixClient(socket).get("policy", "stats")
    if output is not Format.table:
        put(view, output)
        return
    from felix.explain.stats import statistics_lines

    try:
        _print(statistics_lines(view, only_met=met))
    except (KeyError, TypeError, ValueError) as error:
        raise SpeakerError(f"the answer is not one that this version understands: {error!r}") from None


def _said(question: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in question.items() if value not in (None, "")}


def _explanation_lines(view: Mapping[str, Any]) -> Iterable[str]:
    from felix.explain.view import explanation_lines

    try:
        if "nodes" not in view:
            yield from explanation_lines(view)
            return
        yield f"{view['verdict'].upper()} by the datastore"
        for one in view["nodes"]:
            yield ""
            yield f"== node {one['node']}"
            yield from explanation_lines(one)
    except (KeyError, TypeError, ValueError) as error:
        raise SpeakerError(f"the answer is not one that this version understands: {error!r}") from None


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(visible(line))
