"""The iptables filter among others: Calico before us, people at the same chains at the same moment, two backends, kills."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from felix.desired import PortRange
from felix.filter_rules import Accept, Chain, Drop, HookRules, Jump, Ports, Protocol, Return, Rule
from felix.kernel.iptables import IptablesFilter
from felix.kernel.iptables_programs import Backend
from tests.felix.kernel.filters import base, forward, inside, policy
from tests.netns import Namespace, network_namespace

pytestmark = pytest.mark.root

# What a node of a small cluster has: Calico's hooks, dispatch, a policy, translations, and kube-proxy's chains between.
CALICO = """*raw
:cali-OUTPUT - -
:cali-PREROUTING - -
:cali-rpf-skip - -
-A PREROUTING -m comment --comment "cali:6gwbT8clXdHdC1b1" -j cali-PREROUTING
-A OUTPUT -m comment --comment "cali:tVnHkvAo15HuiPy0" -j cali-OUTPUT
-A cali-OUTPUT -m comment --comment "cali:njdnLwYeGqBJyMxW" -j MARK --set-xmark 0x0/0xf0000
-A cali-PREROUTING -i cali+ -m comment --comment "cali:PWuxTAIaFCtsg5Qa" -j MARK --set-xmark 0x40000/0x40000
-A cali-PREROUTING -m comment --comment "cali:fSSbGND7dgyemWU7" -m mark --mark 0x40000/0x40000 -j cali-rpf-skip
COMMIT
*mangle
:cali-POSTROUTING - -
-A POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING
COMMIT
*nat
:KUBE-SERVICES - -
:cali-POSTROUTING - -
:cali-nat-outgoing - -
-A PREROUTING -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING
-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE
-A cali-POSTROUTING -m comment --comment "cali:Z-c7XtVd2Bq7s_hA" -j cali-nat-outgoing
-A cali-nat-outgoing -m comment --comment "cali:flqWnvo8yq4ULQLa" -m set --match-set cali40masq-ipam-pools src -j MASQUERADE
COMMIT
*filter
:KUBE-FORWARD - -
:cali-FORWARD - -
:cali-from-wl-dispatch - -
:cali-fw-cali1234 - -
:cali-pi-_abc - -
-A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
-A FORWARD -j KUBE-FORWARD
-A FORWARD -m comment --comment "cali:S93hcgKJrXEqnTfs" -m comment --comment "Policy explicitly accepted packet." -m mark --mark 0x10000/0x10000 -j ACCEPT
-A FORWARD -m comment --comment "cali:mp77cMpurHhyjLrM" -j MARK --set-xmark 0x10000/0x10000
-A cali-FORWARD -i cali+ -m comment --comment "cali:8ZoYfO5HKXWbB3pk" -j cali-from-wl-dispatch
-A cali-from-wl-dispatch -i cali1234 -m comment --comment "cali:XUOnBNwdSEwbGLnG" -g cali-fw-cali1234
-A cali-from-wl-dispatch -m comment --comment "cali:CtlNHoZ03gKNDMnn" -m comment --comment "Unknown interface" -j DROP
-A cali-fw-cali1234 -m comment --comment "cali:uJyFYLvVRKRwX2jd" -m set --match-set cali40s:gone src -j cali-pi-_abc
-A cali-pi-_abc -m comment --comment "cali:1KgqOoA3Jzhr7jbE" -j MARK --set-xmark 0x10000/0x10000
COMMIT
"""
SETS = "create cali40masq-ipam-pools hash:net\ncreate cali40s:gone hash:net\nadd cali40s:gone 10.0.0.1\ncreate cali4t0 hash:net\n"
SO_RCVBUFFORCE = 33
FIRST_DAYS = "*filter\n:felix-FORWARD - -\n-A FORWARD -j felix-FORWARD\n-A felix-FORWARD -i tap+ -j DROP\nCOMMIT\n"


@pytest.fixture
def host() -> Iterator[Namespace]:
    with network_namespace() as namespace:
        yield namespace


@pytest.fixture(params=["nft", "legacy"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load(host: Namespace, backend: str, *texts: str) -> None:
    host.run("bash", "-c", f"printf '%s' '{SETS}' | ipset restore -exist")
    for text in texts:
        host.run("bash", "-c", f"iptables-{backend}-restore --noflush <<'EOF'\n{text}EOF")


def rules_of(host: Namespace, backend: str) -> str:
    saved = host.run(f"iptables-{backend}-save")
    return "\n".join(sorted(line for line in saved.splitlines() if line.startswith(("-A", ":cali", ":felix"))))


@dataclass(frozen=True, slots=True)
class Watched(Backend):
    """The programs, with somebody who acts between our looking and our writing."""

    before: Callable[[str], None] = lambda _text: None
    after: Callable[[], None] = lambda: None

    async def restore(self, text: str) -> None:
        self.before(text)
        await Backend.restore(self, text)
        self.after()


async def watch(
    rules: IptablesFilter, before: Callable[[str], None] = lambda _text: None, after: Callable[[], None] = lambda: None
) -> None:
    chosen = await rules._programs.chosen()
    programs = (chosen.path_of_save, chosen.path_of_restore)
    rules._programs._chosen = Watched(chosen.version, chosen.kind, *programs, before, after)


def test_a_node_of_calico_is_taken_over_in_one_transaction_a_table(host: Namespace, backend: str) -> None:
    load(host, backend, CALICO, FIRST_DAYS)
    written: list[str] = []

    async def body(rules: IptablesFilter) -> None:
        await watch(rules, written.append)
        base(rules)
        assert await rules.apply() == []
        assert await rules.apply() == []

    inside(host, body, backend)
    changes = [text for text in written if "\n-A" in text or "\n-D" in text]
    assert sorted(text.splitlines()[0] for text in changes) == ["*filter", "*mangle", "*nat", "*raw"]
    assert "172.17.0.0/16" in rules_of(host, backend)
    assert "-j KUBE-FORWARD" in forward(host, backend)[1]
    assert host.run("ipset", "list", "-name") == "cali40s:web\n"
    ours = {line.split()[1] for line in rules_of(host, backend).splitlines() if "cali" in line and line[0] == "-"}
    assert ours == {"FORWARD", "cali-FORWARD", "cali-pi-x"}
    assert "felix" not in rules_of(host, backend)


def test_what_calico_has_as_we_want_it_is_not_touched(host: Namespace, backend: str) -> None:
    load(host, backend, CALICO)
    written: list[str] = []

    async def body(rules: IptablesFilter) -> None:
        await watch(rules, written.append)
        rules.set_chains("mangle", [Chain("cali-POSTROUTING")])
        rules.set_hook("mangle", "POSTROUTING", HookRules((Rule((), Jump("cali-POSTROUTING")),)))
        assert await rules.apply() == []

    inside(host, body, backend)
    assert not [text for text in written if text.startswith("*mangle")]


def test_calicos_leftovers_are_removed_without_anything_being_known_of_them(host: Namespace, backend: str) -> None:
    load(host, backend, CALICO, FIRST_DAYS)
    inside(host, IptablesFilter.remove_everything, backend)
    assert "cali" not in rules_of(host, backend)
    assert "felix" not in rules_of(host, backend)
    assert host.run("ipset", "list", "-name") == ""
    assert rules_of(host, backend).splitlines() == [
        "-A FORWARD -j KUBE-FORWARD",
        "-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE",
        "-A PREROUTING -j KUBE-SERVICES",
    ]


def test_what_calico_left_with_the_other_backend_goes_when_ours_stands(host: Namespace, backend: str) -> None:
    other = {"nft": "legacy", "legacy": "nft"}[backend]
    load(host, other, CALICO)

    async def body(rules: IptablesFilter) -> None:
        base(rules)
        assert await rules.apply() == []

    inside(host, body, backend)
    assert "cali" not in rules_of(host, other)
    assert "KUBE-FORWARD" in rules_of(host, other)
    assert "-j cali-FORWARD" in forward(host, backend)[0]


def test_rules_of_others_that_move_while_we_look_are_not_hit(host: Namespace, backend: str) -> None:
    async def first(rules: IptablesFilter) -> None:
        base(rules)
        assert await rules.apply() == []

    def interfere(text: str) -> None:
        if interfere_now.is_set():
            interfere_now.clear()
            for number in range(3):
                host.run(f"iptables-{backend}", "-I", "FORWARD", "1", "-s", f"192.0.2.{number}", "-j", "ACCEPT")

    async def second(rules: IptablesFilter) -> None:
        await watch(rules, interfere)
        base(rules)
        rules.set_hook("filter", "FORWARD", HookRules((), (Rule((), Jump("cali-FORWARD")),)))
        interfere_now.set()
        assert await rules.apply() == []

    interfere_now = threading.Event()
    inside(host, first, backend)
    inside(host, second, backend)
    now = forward(host, backend)
    assert [line.split()[3] for line in now[:3]] == ["192.0.2.2/32", "192.0.2.1/32", "192.0.2.0/32"]
    assert len(now) == 4
    assert "-j cali-FORWARD" in now[3]


def test_a_flush_between_looking_and_writing_closes_nothing(host: Namespace, backend: str) -> None:
    """It looks as if our chain were refused, when it is somebody else's doing."""

    def interfere(text: str) -> None:
        if interfere_now.is_set():
            interfere_now.clear()
            host.run(f"iptables-{backend}", "-F", "cali-pi-x")

    async def body(rules: IptablesFilter) -> None:
        await watch(rules, interfere)
        base(rules)
        assert await rules.apply() == []
        rules.set_chains("filter", [Chain("cali-pi-x", (policy_rule, Rule((), Return())))])
        interfere_now.set()
        assert await rules.apply() == []
        assert await rules.check() == []

    policy_rule = policy().rules[0]
    interfere_now = threading.Event()
    inside(host, body, backend)
    assert "refused" not in rules_of(host, backend)


def test_a_cancelled_apply_leaves_a_whole_table_and_no_wrong_belief(host: Namespace) -> None:
    async def body(rules: IptablesFilter) -> None:
        for turn in range(12):
            base(rules)
            rules.set_chains("filter", [Chain("cali-pi-x", (Rule((), Drop(), (str(turn),)), *[Rule((), Drop())] * 50))])
            task = asyncio.create_task(rules.apply())
            await asyncio.sleep(0.004 * turn)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            count = host.run("iptables-nft-save", "-t", "filter").count("-A cali-pi-x")
            assert count in (0, 51)
        assert await rules.apply() == []
        assert await rules.check() == []

    inside(host, body)


def test_an_apply_that_is_cancelled_when_all_is_written_looks_again(host: Namespace, backend: str) -> None:
    """Else the next one would append what stands there already."""

    def interfere() -> None:
        if interfere_now.is_set():
            interfere_now.clear()
            raise asyncio.CancelledError

    async def body(rules: IptablesFilter) -> None:
        await watch(rules, after=interfere)
        base(rules)
        assert await rules.apply() == []
        rules.set_chains("filter", [Chain("cali-pi-x", (*policy().rules, Rule((), Return())))])
        interfere_now.set()
        with pytest.raises(asyncio.CancelledError):
            await rules.apply()
        assert await rules.apply() == []
        assert await rules.check() == []

    interfere_now = threading.Event()
    inside(host, body, backend)
    assert rules_of(host, backend).count("-A cali-pi-x") == 3


@pytest.mark.parametrize("wanted", ["nft", "legacy", "AUTO"])
def test_the_backend_is_the_one_asked_for_or_the_one_that_others_use(host: Namespace, wanted: str) -> None:
    for number in range(3):
        host.run("iptables-legacy", "-A", "INPUT", "-s", f"192.0.2.{number}", "-j", "ACCEPT")
    host.run("iptables-nft", "-A", "INPUT", "-s", "192.0.2.9", "-j", "ACCEPT")
    told = []

    async def body(rules: IptablesFilter) -> None:
        base(rules)
        await rules.apply()

    inside(host, body, wanted, told=lambda name, **fields: told.append((name, fields)))
    used = "nft" if wanted == "nft" else "legacy"
    assert "cali-FORWARD" in rules_of(host, used)
    assert [fields["used"] for _, fields in told] == (["nft"] if wanted == "nft" else [])


def test_where_nobody_has_rules_kubelets_hint_decides(host: Namespace) -> None:
    host.run("iptables-legacy", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT")

    async def body(rules: IptablesFilter) -> None:
        base(rules)
        await rules.apply()

    inside(host, body, "auto")
    assert "cali-FORWARD" in rules_of(host, "legacy")


# --- packets ---------------------------------------------------------------------------------------------------------


def ports(port: int) -> tuple[Protocol, Ports]:
    return Protocol(17), Ports("destination", (PortRange(port, port),))


def wanted_of(rules: IptablesFilter, turn: int) -> None:
    """Every turn other chains under other names: one port open, one closed, always."""
    name = f"cali-pi-{turn}"
    rules.set_chains(
        "filter",
        [
            Chain("cali-INPUT", (Rule((), Jump(name)),)),
            Chain(name, (Rule(ports(7), Accept(), (str(turn),)), Rule(ports(9), Drop()))),
        ],
    )
    rules.set_hook("filter", "INPUT", HookRules((Rule((), Jump("cali-INPUT")),)))


class Traffic(threading.Thread):
    """One packet to each of two ports, again and again, until it is stopped."""

    def __init__(self, host: Namespace) -> None:
        super().__init__()
        self.opened, self.closed, self._sender = (host.open_socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3))
        for receiver, port in ((self.opened, 7), (self.closed, 9)):
            receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
            receiver.bind(("127.0.0.1", port))
            receiver.setblocking(False)
        self._is_done = threading.Event()
        self.sent = 0

    def run(self) -> None:
        while not self._is_done.wait(0.0002):
            for port in (7, 9):
                with contextlib.suppress(PermissionError):
                    self._sender.sendto(b"x", ("127.0.0.1", port))
            self.sent += 1

    def __enter__(self) -> Traffic:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_done.set()
        self.join()


def test_no_packet_meets_half_a_ruleset(host: Namespace, backend: str) -> None:
    """One port is always open and one always closed, while rulesets are replaced within a process and by new ones."""

    async def first(rules: IptablesFilter) -> None:
        wanted_of(rules, 0)
        assert await rules.apply() == []

    async def many(rules: IptablesFilter) -> None:
        for turn in range(1, 8):
            wanted_of(rules, turn)
            assert await rules.apply() == []

    host.ip("link set lo up")
    inside(host, first, backend)
    with Traffic(host) as traffic:
        inside(host, many, backend)
        inside(host, first, backend)
    assert received(traffic.closed) == 0
    assert received(traffic.opened) == traffic.sent > 100


@pytest.mark.parametrize("moment_s", [0.0, 0.02, 0.05, 0.11, 0.17])
def test_a_process_killed_at_any_moment_leaves_no_half_ruleset_and_an_heir_finds_its_way(
    host: Namespace, backend: str, moment_s: float
) -> None:
    async def first(rules: IptablesFilter) -> None:
        wanted_of(rules, 0)
        assert await rules.apply() == []

    async def heir(rules: IptablesFilter) -> None:
        wanted_of(rules, 0)
        assert await rules.apply() == []
        assert await rules.check() == []

    ours = f"""if True:
        import asyncio
        from felix.kernel.iptables import IptablesFilter
        from tests.felix.kernel.test_iptables_others import wanted_of
        async def go():
            rules = IptablesFilter(4, "{backend}")
            print("up", flush=True)
            for turn in range(1, 1000):
                wanted_of(rules, turn)
                rules.set_ip_set(f"s:{{turn}}", "net", {{f"10.{{turn % 250}}.{{n // 250}}.{{n % 250}}/32" for n in range(2000)}})
                rules.remove_ip_set(f"s:{{turn - 1}}")
                await rules.apply()
        asyncio.run(go())"""
    host.ip("link set lo up")
    inside(host, first, backend)
    with Traffic(host) as traffic:
        command = host.command(sys.executable, "-c", ours)
        with subprocess.Popen(command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(moment_s)  # the moment is what this is about
            process.kill()
        inside(host, heir, backend)
    assert received(traffic.closed) == 0
    assert received(traffic.opened) == traffic.sent > 50
    assert host.run("ipset", "list", "-name") == ""


def received(sock: socket.socket) -> int:
    count = 0
    with contextlib.suppress(BlockingIOError), sock:
        while sock.recv(10):
            count += 1
    return count
