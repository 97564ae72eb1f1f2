"""`catbird apply`, `get` and the other verbs of calicoctl: their words. What they do is imported when one of them runs."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from integration.cli.outcome import Failed, complain

if TYPE_CHECKING:
    from integration.cli.writing import Job, Rules, Verb
    from integration.resources.documents import Document
    from integration.resources.kinds import Kind

Result = TypeVar("Result")


class Shown(StrEnum):
    ps = "ps"
    wide = "wide"
    yaml = "yaml"
    json = "json"
    name = "name"


StoreOption = Annotated[
    str,
    typer.Option(
        "--datastore", metavar="URL",
        help="local:PATH, etcd:URL[,URL…] or kubernetes[:KUBECONFIG]; without it Calico's environment variables or --config say.",
    ),
]  # fmt: skip
ConfigOption = Annotated[
    Path | None,
    typer.Option("-c", "--config", metavar="FILE", help="A CalicoAPIConfig file with the datastore's settings."),
]
FilesOption = Annotated[
    list[str] | None,
    typer.Option("-f", "--filename", metavar="FILE", help="YAML or JSON, a directory, or - for stdin. Repeatable."),
]
RecursiveOption = Annotated[bool, typer.Option("-R", "--recursive", help="Directories inside directories too.")]
SkipEmptyOption = Annotated[bool, typer.Option("--skip-empty", help="A file without resources is no error.")]
NamespaceOption = Annotated[
    str, typer.Option("-n", "--namespace", metavar="NS", help="Of kinds that have one; otherwise default.")
]
KindArgument = Annotated[str, typer.Argument(metavar="KIND", help="As calicoctl: bgppeer, bgpp, ippools …")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME")]


def add_to(app: typer.Typer) -> None:
    for name, command, example in (
        ("apply", apply, "catbird apply -f peers.yaml"),
        ("create", create, "catbird create -f pool.yaml --skip-exists"),
        ("replace", replace, "catbird replace -f peers.yaml"),
        ("delete", delete, "catbird delete bgppeer tor1 tor2"),
        ("get", get, "catbird get ippools -o wide"),
        ("patch", patch, """catbird patch bgppeer tor1 -p '{"spec": {"asNumber": 65001}}'"""),
        ("label", label, "catbird label node worker-1 rack=7 old-"),
    ):
        app.command(name, epilog=f"Example: {example}", rich_help_panel="Resources")(command)


def apply(
    files: FilesOption = None,
    *,
    namespace: NamespaceOption = "",
    recursive: RecursiveOption = False,
    skip_empty: SkipEmptyOption = False,
    datastore: StoreOption = "",
    config: ConfigOption = None,
) -> None:
    """Create resources, or overwrite those that are there."""
    _write("apply", files, namespace, recursive, skip_empty, datastore, config)


def create(
    files: FilesOption = None,
    *,
    namespace: NamespaceOption = "",
    recursive: RecursiveOption = False,
    skip_empty: SkipEmptyOption = False,
    skip_exists: Annotated[bool, typer.Option("--skip-exists", help="What is there already is no error.")] = False,
    datastore: StoreOption = "",
    config: ConfigOption = None,
) -> None:
    """Create resources that are not there yet."""
    _write("create", files, namespace, recursive, skip_empty, datastore, config, skip_exists=skip_exists)


def replace(
    files: FilesOption = None,
    *,
    namespace: NamespaceOption = "",
    recursive: RecursiveOption = False,
    skip_empty: SkipEmptyOption = False,
    datastore: StoreOption = "",
    config: ConfigOption = None,
) -> None:
    """Overwrite resources that are there; ends at the first that is not."""
    _write("replace", files, namespace, recursive, skip_empty, datastore, config)


def delete(
    targets: Annotated[list[str] | None, typer.Argument(metavar="[KIND NAME…]", help="Or KIND/NAME…")] = None,
    files: FilesOption = None,
    *,
    namespace: NamespaceOption = "",
    recursive: RecursiveOption = False,
    skip_empty: SkipEmptyOption = False,
    skip_not_exists: Annotated[
        bool, typer.Option("-s", "--skip-not-exists", help="What is not there is no error.")
    ] = False,
    datastore: StoreOption = "",
    config: ConfigOption = None,
) -> None:
    """Delete resources by name, or those that files name."""
    if bool(targets) == bool(files):
        raise typer.BadParameter("say KIND NAME…, or -f FILE")
    if files:
        _write("delete", files, namespace, recursive, skip_empty, datastore, config, skip_not_exists=skip_not_exists)
        return
    from integration.cli.writing import Rules

    jobs = _jobs_named(targets or [], namespace)
    if any(not job.key.name for job in jobs):
        raise typer.BadParameter("resource name may not be empty")
    _carry_out("delete", jobs, Rules(skip_not_exists=skip_not_exists), datastore, config)


def get(
    targets: Annotated[list[str] | None, typer.Argument(metavar="[KIND [NAME…]]", help="Or KIND/NAME…")] = None,
    files: FilesOption = None,
    *,
    output: Annotated[Shown, typer.Option("-o", "--output", help="Tables (ps, wide), or the resources.")] = Shown.ps,
    namespace: NamespaceOption = "",
    all_namespaces: Annotated[bool, typer.Option("-A", "-a", "--all-namespaces", help="Of every namespace.")] = False,
    export: Annotated[bool, typer.Option("--export", help="Without what belongs to this cluster alone.")] = False,
    recursive: RecursiveOption = False,
    skip_empty: SkipEmptyOption = False,
    datastore: StoreOption = "",
    config: ConfigOption = None,
) -> None:
    """Show all resources of a kind, or some by name."""
    if bool(targets) == bool(files):
        raise typer.BadParameter("say KIND [NAME…], or -f FILE")
    if all_namespaces and namespace:
        raise typer.BadParameter("-A and -n exclude each other")
    from integration.cli.reading import Shape, get_all, get_named
    from integration.cli.stores import with_client
    from integration.cli.writing import jobs_of

    shape = Shape(output.value, with_namespace=bool(namespace or all_namespaces), export=export)
    if files:
        jobs = jobs_of(load(files, namespace, recursive, skip_empty))
        with_client(datastore, config, lambda client: get_named(client, jobs, shape))
        return
    jobs = _jobs_named(targets or [], namespace)
    if any(job.key.name for job in jobs):
        if all_namespaces:
            raise typer.BadParameter("a NAME and -A exclude each other")
        if not all(job.key.name for job in jobs):
            raise typer.BadParameter("resource name may not be empty")
        with_client(datastore, config, lambda client: get_named(client, jobs, shape))
        return
    kind = _kind((targets or [""])[0].rstrip("/"))
    where = jobs[0].key.namespace if kind.namespaced and not all_namespaces else None
    with_client(datastore, config, lambda client: get_all(client, kind, where, shape))


def patch(
    kind: KindArgument,
    name: NameArgument,
    text: Annotated[str, typer.Option("-p", "--patch", metavar="JSON|YAML", help="Only what changes; null removes.")],
    namespace: NamespaceOption = "",
    datastore: StoreOption = "",
    config: ConfigOption = None,
) -> None:
    """Change some fields of a resource (a merge patch, RFC 7396)."""
    from integration.cli.changing import patch as patched
    from integration.cli.changing import patch_of
    from integration.cli.stores import with_client

    job = _job(kind, name, namespace)
    changes = _or_complain(lambda: patch_of(text))
    with_client(datastore, config, lambda client: patched(client, job.key, changes))


def label(
    kind: KindArgument,
    name: NameArgument,
    labels: Annotated[list[str], typer.Argument(metavar="KEY=VALUE|KEY-…", help="KEY=VALUE sets, KEY- removes.")],
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also labels that have another value now.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="As calicoctl: remove each KEY.")] = False,
    namespace: NamespaceOption = "",
    datastore: StoreOption = "",
    config: ConfigOption = None,
) -> None:
    """Set or remove labels of a resource."""
    from integration.cli.changing import label as labelled
    from integration.cli.changing import label_changes
    from integration.cli.stores import with_client

    job = _job(kind, name, namespace)
    changes = _or_complain(lambda: label_changes(labels, remove=remove, overwrite=overwrite))
    with_client(datastore, config, lambda client: labelled(client, job.key, changes))


def _write(
    verb: Verb,
    files: list[str] | None,
    namespace: str,
    recursive: bool,
    skip_empty: bool,
    datastore: str,
    config: Path | None,
    *,
    skip_exists: bool = False,
    skip_not_exists: bool = False,
) -> None:
    if not files:
        raise typer.BadParameter("say -f FILE")
    from integration.cli.writing import Rules, jobs_of

    jobs = jobs_of(load(files, namespace, recursive, skip_empty))
    _carry_out(verb, jobs, Rules(skip_exists, skip_not_exists), datastore, config)


def _carry_out(verb: Verb, jobs: list[Job], rules: Rules, datastore: str, config: Path | None) -> None:
    from integration.cli.stores import with_client
    from integration.cli.writing import carry_out

    with_client(datastore, config, lambda client: carry_out(client, verb, jobs, rules))


def load(files: list[str], namespace: str, recursive: bool, skip_empty: bool) -> list[Document]:
    """Failed if any of them cannot be used."""
    from integration.cli import files as resource_files

    return resource_files.load(files, resource_files.Reading(recursive, skip_empty, namespace))


def _jobs_named(targets: list[str], namespace: str) -> list[Job]:
    from integration.cli.reading import named_kinds

    return [_job(kind, name, namespace) for kind, name in named_kinds(targets)]


def _job(kind_text: str, name: str, namespace: str) -> Job:
    from integration.cli.files import DEFAULT_NAMESPACE
    from integration.cli.writing import Job
    from integration.resources.keys import Key

    kind = _kind(kind_text)
    if namespace and not kind.namespaced:
        complain(f"a {kind.name} is not namespaced: leave -n out")
        raise Failed
    return Job(Key(kind.name, name, (namespace or DEFAULT_NAMESPACE) if kind.namespaced else ""))


def _kind(text: str) -> Kind:
    from integration.resources.kinds import kind_of

    return _or_complain(lambda: kind_of(text))


def _or_complain(make: Callable[[], Result]) -> Result:
    try:
        return make()
    except ValueError as error:
        complain(str(error))
        raise Failed from None
