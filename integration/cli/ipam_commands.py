"""`catbird ipam show|check|release|configure|split`: calicoctl's words. What they do is imported when one of them runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from integration.cli.node_commands import Format, FormatOption, put
from integration.cli.outcome import Failed, complain
from integration.cli.resource_commands import ConfigOption, StoreOption

if TYPE_CHECKING:
    from integration.datastore.client import ResourceClient

Result = TypeVar("Result")


class Switch(StrEnum):
    true = "true"
    false = "false"


class Persistence(StrEnum):
    Enabled = "Enabled"
    Disabled = "Disabled"


ipam = typer.Typer(
    help="Addresses of pods, tunnels and load balancers: who has them, and whether that is right.", no_args_is_help=True
)


def add_to(app: typer.Typer) -> None:
    for name, command, example in (
        ("show", show, "catbird ipam show --show-blocks"),
        ("check", check, "catbird ipam check --show-problem-ips -o report.json; catbird ipam check --repair"),
        ("release", release, "catbird ipam release --ip 10.65.79.4"),
        ("configure", configure, "catbird ipam configure --strictaffinity true"),
        ("split", split, "catbird ipam split 2 --name default-ipv4-ippool"),
    ):
        ipam.command(name, epilog=f"Example: {example}")(command)
    app.add_typer(ipam, name="ipam", rich_help_panel="Addresses")


def with_allocator(datastore: str, config: Path | None, work: Callable[[ResourceClient], Awaitable[Result]]) -> Result:
    """What `work` returns; what IPAM refuses is told to the person, and is Failed then."""
    from integration.cli.stores import with_client
    from ipam.errors import IpamError

    try:
        return with_client(datastore, config, work)
    except IpamError as error:
        complain(str(error))
        raise Failed from None


def say(lines: Iterable[str]) -> None:
    from integration.cli.columns import visible

    for line in lines:
        print(visible(line))


def show(
    ip: Annotated[str, typer.Option("--ip", metavar="IP", help="Only this address: who has it.")] = "",
    *,
    show_blocks: Annotated[bool, typer.Option("--show-blocks", help="Blocks below their pools.")] = False,
    show_borrowed: Annotated[
        bool, typer.Option("--show-borrowed", help="Addresses from blocks of other nodes.")
    ] = False,
    show_configuration: Annotated[bool, typer.Option("--show-configuration", help="The settings of IPAM.")] = False,
    output: FormatOption = Format.table,
    datastore: StoreOption = "",
    config: ConfigOption = None,
) -> None:
    """How full pools are, or who has an address."""
    if sum(map(bool, (ip, show_blocks, show_borrowed, show_configuration))) > 1:
        raise typer.BadParameter("--ip, --show-blocks, --show-borrowed and --show-configuration exclude each other")
    from integration.cli.ipam_work import show_address, show_borrowed_addresses, show_settings, show_usage

    if ip:
        lines, view = with_allocator(datastore, config, lambda client: show_address(client.datastore, ip))
    elif show_borrowed:
        lines, view = with_allocator(datastore, config, lambda client: show_borrowed_addresses(client.datastore))
    elif show_configuration:
        lines, view = with_allocator(datastore, config, lambda client: show_settings(client.datastore))
    else:
        lines, view = with_allocator(
            datastore, config, lambda client: show_usage(client.datastore, with_blocks=show_blocks)
        )
    if output is Format.table:
        say(lines)
    else:
        put(view, output)


def check(
    show_all_ips: Annotated[bool, typer.Option("--show-all-ips", help="Every allocation.")] = False,
    show_problem_ips: Annotated[bool, typer.Option("--show-problem-ips", help="What is wrong, one by one.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Write a report for `ipam release --from-report`; - prints it."
        ),
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Say what would be repaired; with --yes do it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --repair: act.")] = False,
    kubeconfig: Annotated[
        str,
        typer.Option(
            "--kubeconfig", metavar="FILE", help="Accepted for calicoctl's sake, and not needed.", hidden=True
        ),
    ] = "",
    datastore: StoreOption = "",
    config: ConfigOption = None,
) -> None:
    """Compare what IPAM has stored with itself and with who uses addresses."""
    if yes and not repair:
        raise typer.BadParameter("--yes is for --repair")
    from integration.cli.ipam_work import check_cluster

    with_allocator(
        datastore,
        config,
        lambda client: check_cluster(
            client.datastore, report, all_ips=show_all_ips, problem_ips=show_problem_ips, repair=repair, act=yes
        ),
    )


def release(
    ip: Annotated[str, typer.Option("--ip", metavar="IP", help="This address, whoever has it.")] = "",
    from_report: Annotated[
        list[Path] | None,
        typer.Option("--from-report", metavar="FILE", help="What all these reports call leaked. Repeatable."),
    ] = None,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Also though the datastore is not locked or the version differs.")
    ] = False,
    datastore: StoreOption = "",
    config: ConfigOption = None,
) -> None:
    """Give an address back, or all that leaked."""
    if bool(ip) == bool(from_report):
        raise typer.BadParameter("say --ip IP or --from-report FILE")
    from integration.cli.ipam_work import release_address, release_reported

    if ip:
        say([with_allocator(datastore, config, lambda client: release_address(client.datastore, ip))])
    else:
        paths = from_report or []
        say(with_allocator(datastore, config, lambda client: release_reported(client.datastore, paths, force=force)))


def configure(
    strict_affinity: Annotated[
        Switch | None, typer.Option("--strictaffinity", help="Whether nodes use their own blocks only.")
    ] = None,
    max_blocks: Annotated[
        int | None,
        typer.Option(
            "--max-blocks-per-host", metavar="N", min=0, help="Blocks a node may hold; needs strict affinity. 0: 20."
        ),
    ] = None,
    persistence: Annotated[
        Persistence | None,
        typer.Option("--kubevirt-ip-persistence", help="Whether virtual machines keep their addresses."),
    ] = None,
    cooldown_s: Annotated[
        int | None, typer.Option("--ip-cooldown-seconds", metavar="S", min=0, help="How long a released address rests.")
    ] = None,
    datastore: StoreOption = "",
    config: ConfigOption = None,
) -> None:
    """Change the settings of IPAM; what is not said stays."""
    changes = {
        "strict_affinity": strict_affinity is Switch.true if strict_affinity else None,
        "max_blocks_per_host": max_blocks,
        "vm_address_persistence": str(persistence) if persistence else None,
        "cooldown_s": cooldown_s,
    }
    said = {name: value for name, value in changes.items() if value is not None}
    if not said:
        raise typer.BadParameter(
            "say --strictaffinity, --max-blocks-per-host, --kubevirt-ip-persistence or --ip-cooldown-seconds"
        )
    from integration.cli.ipam_work import configure_cluster

    say(with_allocator(datastore, config, lambda client: configure_cluster(client.datastore, said)))


def split(
    parts: Annotated[int, typer.Argument(metavar="N", help="How many pools: a power of two.")],
    *,
    cidr: Annotated[str, typer.Option("--cidr", metavar="CIDR", help="The pool's CIDR …")] = "",
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="… or its name.")] = "",
    datastore: StoreOption = "",
    config: ConfigOption = None,
) -> None:
    """Make several pools of one. The datastore must be locked, so that nothing is assigned meanwhile."""
    if bool(cidr) == bool(name):
        raise typer.BadParameter("say --cidr CIDR or --name NAME")
    from integration.cli.ipam_work import split_pool

    say([with_allocator(datastore, config, lambda client: split_pool(client.datastore, parts, name, cidr))])
