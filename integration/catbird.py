"""The console script `catbird`: picks the program. Alone knows them all; imports only the one that runs.

The daemon must not pay for typer and rich, nor `catbird show` for the engine.
"""

from __future__ import annotations

import os
import sys
from typing import Literal


def run_speaker(argv: list[str], program: Literal["speaker", "reflector"] = "speaker") -> int:
    from integration.lean import hidden

    with hidden("ssl"):  # 4 MB, and no port of the speaker speaks TLS
        import asyncio  # noqa: F401
    from integration.node.speaker_daemon import main as speaker

    return speaker(argv, program)


def run_reflector(argv: list[str]) -> int:
    if any(argument.startswith("--datastore") for argument in argv):
        return run_node(argv, "reflector")
    return run_speaker(argv, "reflector")


def run_node(argv: list[str], program: Literal["node", "reflector"] = "node") -> int:
    from integration.node.node_daemon import main as node

    return node(argv, program)


def run_demo(argv: list[str]) -> int:
    from integration.demo.main import main as demo

    return demo(argv)


def run_cni(argv: list[str]) -> int:
    from integration.cni.main import main as cni

    return cni(argv)


def run_felix(argv: list[str]) -> int:
    from integration.node.felix.program import main as felix

    return felix(argv)


PROGRAMS = {
    "speaker": run_speaker,
    "reflector": run_reflector,
    "node": run_node,
    "felix": run_felix,
    "cni": run_cni,
    "demo": run_demo,
}
PROGRAM_HELP = {
    "speaker": "Run a BGP speaker in the foreground: catbird speaker -c FILE.toml",
    "reflector": "Run a BGP route reflector in the foreground: catbird reflector -c FILE.toml",
    "node": "Run the BGP speaker of a Calico node from its datastore: catbird node --datastore URL",
    "felix": "Program this node's packet filter, routes and interfaces: catbird felix --datastore URL (root)",
    "cni": "Install Calico's CNI plugins, or serve them: catbird cni install | serve",
    "demo": "Build three nodes and a router in network namespaces and watch routes spread (root).",
}


def main(argv: list[str] | None = None) -> int:
    """Runs `catbird ARGUMENTS`; returns the exit code: 0 done, 1 error, 2 usage."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        if arguments and arguments[0] in PROGRAMS:
            return PROGRAMS[arguments[0]](arguments[1:])
        from integration.cli.app import run

        return run(arguments, PROGRAM_HELP)
    except BrokenPipeError:  # `catbird show routes | head`
        # The interpreter would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
