"""`catbird policy …`: what policies do to packets. A running Felix is asked, or the datastore alone."""

from __future__ import annotations

import re
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
FromOption = Annotated[str, typer.Option("--from", metavar="WHO", help=WHO)]
ToOption = Annotated[str, typer.Option("--to", metavar="WHO", help=WHO)]
PortOption = Annotated[int | None, typer.Option("--port", metavar="PORT", help="Of the destination.")]
SourcePortOption = Annotated[
    int | None, typer.Option("--source-port", metavar="PORT", help="Otherwise one that no rule names.")
]
ProtocolOption = Annotated[str, typer.Option("--protocol", metavar="NAME", help="tcp, udp, sctp, icmp, or a number.")]
TypeOption = Annotated[int | None, typer.Option("--icmp-type", metavar="TYPE", help="8 is an echo request.")]
CodeOption = Annotated[int | None, typer.Option("--icmp-code", metavar="CODE")]
VersionOption = Annotated[int | None, typer.Option("--ip-version", metavar="4|6", help="Where names leave it open.")]
InOption = Annotated[
    str, typer.Option("--in", metavar="NAME", help="By which interface it arrives, if that does not follow.")
]
OutOption = Annotated[str, typer.Option("--out", metavar="NAME", help="By which it leaves, if that does not follow.")]
SentToOption = Annotated[
    str, typer.Option("--sent-to", metavar="ADDRESS[:PORT]", help="Of a service: what the sender wrote.")
]
OnlyNodeOption = Annotated[str, typer.Option("--node", metavar="NAME", help="Computed for this node alone.")]


TraceOption = Annotated[
    bool, typer.Option("--trace", help="Follow real packets of this flow through the kernel's rules. Needs nftables.")
]
DEFAULT_FOR = "10s"
ForOption = Annotated[
    str, typer.Option("--for", metavar="TIME", help=f"How long to trace: 30s, 5m; otherwise {DEFAULT_FOR}.")
]


class Expected(StrEnum):
    allow = "allow"
    deny = "deny"


def add_to(app: typer.Typer) -> None:
    policy = typer.Typer(
        help="What policies do to packets: why one is denied, how many met which rule.", no_args_is_help=True
    )
    app.add_typer(policy, name="policy", rich_help_panel="Nodes")
    for name, command, example in (
        ("explain", explain, "catbird policy explain --from default/web --to 10.65.0.2 --port 5432" + TRACE_EXAMPLE),
        ("stats", stats, "catbird policy stats --met"),
    ):
        policy.command(name, epilog=f"Example: {example}")(command)


TRACE_EXAMPLE = """

catbird policy explain --from other/c --to default/b --port 80 --trace

packet 1: DENIED  tcp 10.65.0.3 port 45645 -> 10.65.0.2 port 80 (SYN)

ingress of workload default/b on calib: End of tier default. Drop if no policies passed packet

…"""


def explain(
    source: FromOption,
    destination: ToOption,
    *,
    port: PortOption = None,
    protocol: ProtocolOption = "",
    source_port: SourcePortOption = None,
    icmp_type: TypeOption = None,
    icmp_code: CodeOption = None,
    ip_version: VersionOption = None,
    in_interface: InOption = "",
    out_interface: OutOption = "",
    sent_to: SentToOption = "",
    expect: Annotated[
        Expected | None, typer.Option("--expect", help="Exit code 1 if the verdict is another one.")
    ] = None,
    output: FormatOption = Format.table,
    socket: SocketOption = FELIX_SOCKET,
    datastore: StoreOption = "",
    config: ConfigOption = None,
    node: OnlyNodeOption = "",
    trace: TraceOption = False,
    for_: ForOption = "",
) -> None:
    """Which policy and rule decides about a packet, tier by tier, and why the others do not.

    Asks this node's Felix. With --datastore, --config or --node it is computed, for the nodes of both ends.

    With --trace the kernel says which rules real packets of the flow meet, hook by hook, until --for is over or Ctrl-C.
    Exit code 1 if none came by, or one went otherwise than --expect says.
    """
    flow = {"from": source, "to": destination, "port": port, "protocol": protocol, "sourcePort": source_port}
    flow |= {"icmpType": icmp_type, "icmpCode": icmp_code, "ipVersion": ip_version, "sentTo": sent_to}
    flow |= {"inInterface": in_interface, "outInterface": out_interface}
    question = {name: value for name, value in flow.items() if value not in (None, "")}
    if for_ and not trace:
        raise typer.BadParameter("is for --trace", param_hint="--for")
    if trace:
        if datastore or config or node:
            raise typer.BadParameter("needs a running Felix, and no datastore", param_hint="--trace")
        from integration.cli.policy_trace import trace_flow

        trace_flow(socket, question, seconds_of(for_ or DEFAULT_FOR), output, None if expect is None else expect.value)
        return
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


def seconds_of(text: str) -> float:
    """`10s`, `1.5m`, `10`. Raises BadParameter."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min)?", text)
    if found is None or not float(found[1]):
        raise typer.BadParameter(f"{text!r} is no time; write 10s or 5m", param_hint="--for")
    return float(found[1]) * (60 if found[2] in ("m", "min") else 1)


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
