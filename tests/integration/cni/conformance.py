"""Every operation of the CNI specification in every version, with each error that can occur, by the executed plugin.

`python -m tests.integration.cni.conformance` (as root) prints the table as Markdown.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from integration.cni.results import SINCE, order
from tests.integration.cni.bed import Answer, Node, a_node, a_pod, resource
from tests.netns import Namespace

VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
GARBAGE = {"cni.dev/valid-attachments": [{"containerID": "attached", "ifname": "eth0"}]}
ATTACHING = ("ADD", "DEL", "CHECK")


@dataclass(frozen=True)
class Case:
    """`code` 0 is success. `raw` is what is written instead of the configuration; `paused`: the datastore is not ready."""

    command: str
    code: int
    when: str
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    raw: str | None = None
    paused: bool = False

    def code_in(self, version: str) -> int:
        """A version that has no such operation refuses it with 1, unless what it is given is worse."""
        is_known = order(version) >= order(SINCE.get(self.command, "0.1.0"))
        return self.code if is_known or self.code == 6 or "" in self.environment.values() else 1


def cases(no_namespace: Path) -> Iterator[Case]:
    """`no_namespace` is a file that is no network namespace."""
    gone, wrong = {"CNI_NETNS": "/run/netns/gone"}, {"CNI_NETNS": str(no_namespace)}
    for command in (*ATTACHING, "STATUS", "GC"):
        config = GARBAGE if command == "GC" else {}
        yield Case(command, 0, "all is well", config)
        yield Case(command, 1, "cniVersion is not supported", {**config, "cniVersion": "9.9.9"})
        yield Case(command, 2, "a field that only Windows has", {**config, "mode": "vxlan"})
        if command in ATTACHING:
            for name in ("CNI_CONTAINERID", "CNI_IFNAME", *(["CNI_NETNS"] if command != "DEL" else [])):
                yield Case(command, 4, f"{name} is missing", environment={name: ""})
            yield Case(command, 4, "CNI_CONTAINERID is no ID", environment={"CNI_CONTAINERID": "../x"})
            yield Case(command, 4, "CNI_IFNAME is too long", environment={"CNI_IFNAME": "a" * 16})
            yield Case(command, 0 if command == "DEL" else 3, "the namespace is gone", environment=gone)
            yield Case(command, 0 if command == "DEL" else 4, "CNI_NETNS is no namespace", environment=wrong)
        code = 50 if command == "STATUS" else 5
        yield Case(command, code, "the IPAM plugin cannot be executed", {**config, "ipam": {"type": "broken"}})
        yield Case(command, 6, "standard input is no JSON", raw="{")
        yield Case(command, 6, "standard input is no JSON object", raw="[]")
        yield Case(command, 7, "name is missing", {**config, "name": None})
        yield Case(command, 7, "mtu is a text", {**config, "mtu": "1500"})
        yield Case(command, 50 if command == "STATUS" else 11, "the datastore is not ready", config, paused=True)
    yield Case("ADD", 7, "ipam.type is missing", {"ipam": {}})
    yield Case("CHECK", 7, "prevResult is missing", {"prevResult": None})
    yield Case("GC", 7, "the valid attachments are missing")
    yield Case("GC", 7, "the valid attachments are no list", {"cni.dev/valid-attachments": 7})
    yield Case("VERSION", 0, "all is well")
    yield Case("VERSION", 6, "standard input is no JSON", raw="{")


@dataclass(frozen=True)
class Cell:
    """What a plugin did. `wrong` "": as the specification says."""

    case: Case
    version: str
    answer: Answer
    wrong: str

    @property
    def code(self) -> int:
        return 0 if self.answer.code == 0 else int(self.answer.json.get("code", -1))


class Bench:
    """A node with one pod that is attached and one that is not."""

    def __init__(self, node: Node, attached: Namespace, fresh: Namespace) -> None:
        self.node, self.attached, self.fresh = node, attached, fresh
        self.is_paused = False

    def cells(self, cases: list[Case]) -> Iterator[Cell]:
        for version in VERSIONS:
            previous = self.node.call("ADD", self.attached, "attached", {"cniVersion": version}).json
            # Pausing is a write: once for all that need it.
            for case in sorted(cases, key=lambda case: case.paused):
                self.pause(case.paused)
                answer = self.execute(case, version, previous)
                yield Cell(case, version, answer, fault_of(case, version, answer))
            self.pause(False)
            assert self.node.call("DEL", self.attached, "attached").code == 0

    def pause(self, paused: bool) -> None:
        if paused != self.is_paused:
            self.node.put(resource("ClusterInformation", "default", {"datastoreReady": not paused}))
            self.is_paused = paused

    def execute(self, case: Case, version: str, previous: dict[str, Any]) -> Answer:
        config: dict[str, Any] = {"cniVersion": version, "prevResult": None, **case.config}
        if case.command == "CHECK":
            config = {**config, "prevResult": previous, **case.config}
        pod, container = {"CHECK": (self.attached, "attached"), "ADD": (self.fresh, "fresh"), "DEL": (self.fresh, "fresh")}.get(
            case.command, (None, "")
        )  # fmt: skip
        if case.command == "DEL" and case.code == 0:
            added = self.node.call("ADD", pod, container, {"cniVersion": version})
            assert added.code == 0, added
        answer = self.node.call(case.command, pod, container, config, more=case.environment, raw=case.raw)
        if case.command in ("ADD", "DEL") and (case.code == 0 or answer.code == 0):
            assert self.node.call("DEL", pod, container).code == 0
        return answer


def fault_of(case: Case, version: str, answer: Answer) -> str:
    """What is not as the specification says, "" if nothing."""
    wanted = case.code_in(version)
    try:
        value = json.loads(answer.text or "{}")
    except ValueError:
        return f"standard output is no JSON: {answer.text!r}"
    if (answer.code != 0) != (wanted != 0) or (wanted and value.get("code") != wanted):
        return f"{wanted} is wanted, not exit code {answer.code} with {answer.text!r} {answer.complaint!r}"
    if wanted:
        # What cannot be read, or is in no version that we know, is answered in our latest.
        written_in = VERSIONS[-1] if case.raw is not None or case.config.get("cniVersion") else version
        if (
            value["cniVersion"] != written_in
            or not value.get("msg")
            or not set(value) <= {"cniVersion", "code", "msg", "details"}
        ):
            return f"no error object of {written_in}: {answer.text}"
        return ""
    return success_fault(case.command, version, answer, value)


def success_fault(command: str, version: str, answer: Answer, value: dict[str, Any]) -> str:
    if command == "VERSION":
        is_right = value["cniVersion"] == version and set(VERSIONS) <= set(value["supportedVersions"])
        return "" if is_right else answer.text
    if command != "ADD":
        return f"printed {answer.text!r}" if answer.text else ""
    expected = {"address", "interface"} | ({"version"} if order(version) < (1, 0, 0) else set())
    inner = {"name", "mac", "sandbox"} | ({"mtu"} if order(version) >= (1, 1, 0) else set())
    is_right = (
        value["cniVersion"] == version
        and [set(one) for one in value["ips"]] == [expected] * 2
        and all(value["interfaces"][one["interface"]]["name"] == "eth0" for one in value["ips"])
        and set(value["interfaces"][1]) == inner
        and [one["dst"] for one in value["routes"]] == ["0.0.0.0/0", "::/0"]
    )
    return "" if is_right else f"no result of {version}: {answer.text}"


def executed(folder: Path) -> list[Cell]:
    """The whole table, on a node of its own with an agent."""
    with ExitStack() as stack:
        node = stack.enter_context(a_node(folder))
        bench = Bench(node, stack.enter_context(a_pod()), stack.enter_context(a_pod()))
        no_namespace = folder / "no-namespace"
        no_namespace.touch()
        broken = node.binaries / "broken"
        broken.write_bytes(b"\x7fno program")
        broken.chmod(0o755)
        found = list(bench.cells(list(cases(no_namespace))))
        assert node.allocated() == 0
        assert node.all("WorkloadEndpoint") == {}
        return found


def table(cells: list[Cell]) -> Iterator[str]:
    """Lines of Markdown; a cell has the error's code, `ok` for success, and a ✗ where that is wrong."""
    yield f"| operation | when | {' | '.join(VERSIONS)} |"
    yield "|---|---|" + "---|" * len(VERSIONS)
    rows: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        said = ("ok" if cell.code == 0 else str(cell.code)) + (" ✗" if cell.wrong else "")
        rows.setdefault((cell.case.command, cell.case.when), []).append(said)
    for (command, when), row in rows.items():
        yield f"| {command} | {when} | {' | '.join(row)} |"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cells = executed(Path(folder))
    print("\n".join(table(cells)))
    for cell in cells:
        if cell.wrong:
            print(f"{cell.case.command} {cell.version}, {cell.case.when}: {cell.wrong}")


if __name__ == "__main__":
    main()
