#!/usr/bin/python3 -IS
"""The program that a container runtime executes: `calico` and `calico-ipam`.

A pod waits for its start, so it imports nothing that the interpreter has not loaded anyway: it hands the request and the
container's network namespace to the node agent over a Unix socket and prints the answer. Where no agent listens, it
becomes the whole plugin. `catbird cni install` writes it, with the two paths below filled in.

The request is `CATBIRD-CNI 1`, a line each for the plugin's name and CNI's variables, an empty line, and the
configuration; the answer is the exit code in a line, and what is to be printed.
"""

import _socket
import os
import sys

PYTHON = "/usr/bin/python3"
AGENT = "/run/catbird/cni.sock"
TIMEOUT_S = 120.0  # above everything that the agent itself waits for
SOL_SOCKET, SCM_RIGHTS = 1, 1


def main() -> int:
    """Exit code as the specification says: 0, or 1 with an error object on standard output."""
    if len(sys.argv) > 1:
        return be_the_plugin(b"", sys.argv[1:])
    config = read_all(0)
    try:
        agent = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        agent.connect(os.environ.get("CATBIRD_CNI_AGENT", AGENT))
    except OSError:
        return be_the_plugin(config, [])
    answer = b""
    try:
        ask(agent, config)
        agent.settimeout(TIMEOUT_S)
        while chunk := agent.recv(65536):
            answer += chunk
    except TimeoutError:
        return fail("the node agent has not answered in time; see its log")
    except OSError:
        answer = b""
    code, newline, text = answer.partition(b"\n")
    if not newline:
        # It died over our request: what it has begun is taken back first.
        return be_the_plugin(config, ["--begun"])
    write_all(1, text)
    return int(code)


def ask(agent: _socket.socket, config: bytes) -> None:
    lines = [b"CATBIRD-CNI 1", b"PLUGIN=" + os.fsencode(os.path.basename(sys.argv[0]))]
    lines += [name + b"=" + value for name, value in os.environb.items() if name.startswith(b"CNI_")]
    request = b"\n".join(line.replace(b"\n", b" ") for line in lines) + b"\n\n" + config
    namespace = open_namespace()
    passed = [] if namespace is None else [(SOL_SOCKET, SCM_RIGHTS, namespace.to_bytes(4, sys.byteorder))]
    sent = agent.sendmsg([request], passed)
    agent.sendall(request[sent:])
    agent.shutdown(_socket.SHUT_WR)


def open_namespace() -> int | None:
    """The agent may see other paths than we do, so it gets the open file."""
    try:
        return os.open(os.environ.get("CNI_NETNS", ""), os.O_RDONLY)
    except OSError:
        return None


def be_the_plugin(config: bytes, arguments: list[str]) -> int:
    held = os.memfd_create("config")
    write_all(held, config)
    os.lseek(held, 0, os.SEEK_SET)
    os.dup2(held, 0)
    os.environ["CATBIRD_CNI_PLUGIN"] = os.path.basename(sys.argv[0])
    try:
        os.execv(PYTHON, [PYTHON, "-m", "integration.cni.standalone", *arguments])
    except OSError as error:
        return fail(f"cannot run {PYTHON}: {error.strerror}")


def fail(text: str) -> int:
    write_all(1, b'{"cniVersion": "0.4.0", "code": 11, "msg": "%s"}\n' % text.replace('"', "'").encode())
    return 1


def read_all(descriptor: int) -> bytes:
    parts = []
    while chunk := os.read(descriptor, 65536):
        parts.append(chunk)
    return b"".join(parts)


def write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    os._exit(main())  # nothing buffered is left to flush
