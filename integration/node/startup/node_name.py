"""What this node is called, and where other programs (the CNI plugin) look it up."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from integration.node.startup.variables import StartUpError, Variables
from integration.resources.fields import SUBDOMAIN

NAME_FILE = "CALICO_NODENAME_FILE"
DEFAULT_NAME_FILE = "/var/lib/calico/nodename"


def node_name(variables: Variables) -> str:
    """NODENAME, else what the file says from an earlier start, else HOSTNAME, else the host's name; in lower case.

    Raises StartUpError.
    """
    path = name_file(variables)
    try:
        stored = "" if variables.text("NODENAME") else path.read_text()
    except FileNotFoundError:
        stored = ""
    except (OSError, UnicodeDecodeError) as error:
        raise StartUpError(
            NAME_FILE, f"{path} cannot be read: {error}", f"make it readable, or set NODENAME or another {NAME_FILE}"
        ) from error
    found = {
        "NODENAME": variables.text("NODENAME"),
        NAME_FILE: stored,
        "HOSTNAME": variables.text("HOSTNAME"),
        "the host's name": socket.gethostname(),
    }
    where, name = next(
        ((where, text.strip().lower()) for where, text in found.items() if text.strip()), ("the host's name", "")
    )
    if len(name) > 253 or not re.fullmatch(SUBDOMAIN, name):
        raise StartUpError(
            where, f"{name[:80]!r} cannot be the name of a node",
            "set NODENAME to lower-case letters, digits, '-' and '.', at most 253",
        )  # fmt: skip
    return name


def name_file(variables: Variables) -> Path:
    return Path(variables.text(NAME_FILE, DEFAULT_NAME_FILE))


def remember_name(variables: Variables, name: str) -> bool:
    """Written last: whoever waits for the file finds a node that is ready. Raises StartUpError.

    False: nobody named the file, and its usual folder is not there: no CNI plugin reads it on this machine.
    """
    path = name_file(variables)
    if not variables.text(NAME_FILE) and not path.parent.is_dir():
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.new")
        beside.write_text(name)
        beside.replace(path)  # never half a name
        return True
    except OSError as error:
        raise StartUpError(
            NAME_FILE, f"{path} cannot be written: {error.strerror or error}",
            f"make its folder writable, or set {NAME_FILE} to a file that can be written",
        ) from error  # fmt: skip
