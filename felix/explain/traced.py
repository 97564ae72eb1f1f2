"""What the kernel told of packets on their way, as one JSON value a packet, and that as lines for people. Pure.

A packet meets hooks one after the other, in each hook chains, and in each chain the rules that match it. The kernel says of none
that it was the packet's last: a packet is done when it is dropped, or has been silent for QUIET_S. The kernel's
number of a packet is a hash of where it lies in memory, and the next one may get the same: a packet is known by its headers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

from felix.desired import PolicyId
from felix.explain.decide import Direction, policy_name
from felix.explain.denied import ip_header
from felix.explain.flow import ICMP, ICMPV6, TCP, WITH_PORTS, protocol_name
from felix.explain.matching import rule_text
from felix.explain.state import DesiredState
from felix.explain.view import View, flow_text

QUIET_S = 0.2
OURS = "calico"
# After these the kernel has more to ask: a packet that is seen in none of the others has been lost between them.
NOT_LAST = frozenset({"PREROUTING", "FORWARD", "OUTPUT"})
Key = tuple[object, ...]
TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG")


class Owner(NamedTuple):
    """Whose chain it is, a policy's or (by its name) a profile's. `rule`: which of the owner's rules matched, from 0."""

    owner: PolicyId | str
    direction: Direction
    rule: int | None


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that the kernel told: a rule that matched, the end of a chain, or what the hook does by default.

    `table` is nftables' own. `hook` (`filter FORWARD`) is known of our tables' first chains, otherwise empty. `rule` counts
    from 0 and is None where it does not say which. `header`: the packet from its IP header on, in a hook's first step.
    """

    packet: int
    table: str
    chain: str
    kind: Literal["rule", "return", "policy", "end"]
    rule: int | None
    verdict: str
    hook: str = ""
    place: str = ""
    text: str = ""
    owner: Owner | None = None
    in_interface: str = ""
    out_interface: str = ""
    header: bytes = b""


@dataclass(slots=True)
class _Hook:
    table: str
    base: str  # the hook's name where it is known, otherwise its first chain
    steps: list[Step]

    @property
    def name(self) -> str:
        return self.steps[0].hook

    @property
    def verdict(self) -> str:
        return self.steps[-1].verdict


@dataclass(slots=True)
class _Way:
    """One packet's, as far as it has come."""

    key: Key
    last_at: float
    hooks: list[_Hook] = field(default_factory=list)

    def has_met(self, step: Step) -> bool:
        return any((one.table, one.base) == (step.table, step.hook or step.chain) for one in self.hooks)


class Packets:
    """Steps in the order in which the kernel told them, sorted by packet. Times are monotonic seconds."""

    def __init__(self, state: DesiredState) -> None:
        self._state = state
        self._ways: dict[Key, _Way] = {}
        self._in_hook: dict[int, _Way] = {}  # by the kernel's number
        self.count = 0

    @property
    def is_empty(self) -> bool:
        return not self._ways

    def take(self, step: Step, now: float) -> Iterator[View]:
        """The packets that this ends."""
        way = self._in_hook.get(step.packet)
        if step.header or way is None:
            key = key_of(step)
            way = self._ways.get(key)
            if way is not None and way.has_met(step):  # one with the same headers
                yield self._done(way)
                way = None
            if way is None:
                way = self._ways[key] = _Way(key, now)
            way.hooks.append(_Hook(step.table, step.hook or step.chain, []))
            self._in_hook[step.packet] = way
        way.hooks[-1].steps.append(step)
        way.last_at = now
        if step.verdict == "drop":
            yield self._done(way)

    def quiet(self, now: float) -> Iterator[View]:
        """Those that have been silent long enough."""
        for way in [way for way in self._ways.values() if now - way.last_at >= QUIET_S]:
            yield self._done(way)

    def rest(self) -> Iterator[View]:
        for way in list(self._ways.values()):
            yield self._done(way)

    def _done(self, way: _Way) -> View:
        self.count += 1
        del self._ways[way.key]
        self._in_hook = {number: one for number, one in self._in_hook.items() if one is not way}
        return way_view(self.count, way.hooks, self._state)


def key_of(step: Step) -> Key:
    """What stays as it is while the packet goes through this node: neither lifetime nor checksums nor destination do."""
    packet = step.header
    header = ip_header(packet)
    if header is None:
        return (step.packet,)
    source, _, protocol, rest = header
    identification = packet[4:6] if packet[0] >> 4 == 4 else packet[:4]  # IPv6: the flow label
    if protocol == TCP:
        return source, protocol, identification, rest[:2], rest[4:14]  # numbers and flags
    if protocol in (ICMP, ICMPV6):
        return source, protocol, identification, rest[:2], rest[4:8]  # type, code, identifier, number
    return source, protocol, identification, rest[:2], rest[4:6]


# --- as JSON


def way_view(number: int, hooks: list[_Hook], state: DesiredState) -> View:
    """`{packet, verdict, reason, flow, tcpFlags, hooks: [{table, hook, in, out, flow, verdict, steps}]}`.

    `verdict`: `allow`, `deny`, or `lost`: let through as far as it was seen, and then not seen again. A step:
    `{chain, place, rule, verdict, text, policy}`, and `policy`: `{kind, namespace, name, tier, direction, rule, staged}`, or
    `{profile, direction, rule}`.
    """
    view: View = {"packet": number, "verdict": "", "reason": ""}
    flow: View = {}
    shown: list[View] = []
    for hook in hooks:
        first = hook.steps[0]
        one: View = {"table": hook.table, "hook": hook.base}
        one |= {"in": first.in_interface} if first.in_interface else {}
        one |= {"out": first.out_interface} if first.out_interface else {}
        seen = header_view(first.header)
        if seen and seen != flow:
            flow = seen
            one["flow"] = seen  # it is new, or has been translated
        steps = list(_steps_view(hook.steps, state))
        shown.append(one | {"verdict": hook.verdict, "steps": steps})
    view["verdict"], view["reason"] = _verdict(hooks, shown)
    view["flow"] = next((one["flow"] for one in shown if "flow" in one), {})
    return view | {"hooks": shown}


def header_view(packet: bytes) -> View:
    """As a flow's JSON, with `tcpFlags`; empty if the octets do not say."""
    header = ip_header(packet)
    if header is None:
        return {}
    source, destination, protocol, rest = header
    view: View = {"source": source, "destination": destination, "protocol": protocol_name(protocol)}
    if protocol in WITH_PORTS and len(rest) >= 4:
        ports = int.from_bytes(rest[:2], "big"), int.from_bytes(rest[2:4], "big")
        view |= {"sourcePort": ports[0], "destinationPort": ports[1]}
        if protocol == TCP and len(rest) >= 14:
            view["tcpFlags"] = [name for bit, name in enumerate(TCP_FLAGS) if rest[13] >> bit & 1]
    elif protocol in (ICMP, ICMPV6) and len(rest) >= 2:
        view["icmp"] = {"type": rest[0], "code": rest[1]}
    return view


def _steps_view(steps: list[Step], state: DesiredState) -> Iterator[View]:
    for step in steps:
        view: View = {"chain": step.chain, "kind": step.kind, "rule": step.rule, "verdict": step.verdict}
        view |= {"place": step.place} if step.place else {}
        text = step.text
        if step.owner is not None:
            view["policy"], text = owner_view(step.owner, state)
        if step.kind in ("return", "end"):
            text = "no more rule of it matches"
        elif step.kind == "policy":
            text = "the chain's default"
        yield view | {"text": text}


def owner_view(owner: Owner, state: DesiredState) -> tuple[View, str]:
    """The policy or profile, and its rule's text."""
    if isinstance(owner.owner, str):
        profile = state.profiles.get(owner.owner)
        rules = () if profile is None else profile.inbound if owner.direction == "in" else profile.outbound
        view: View = {"profile": owner.owner}
    else:
        id = owner.owner
        policy = state.policies.get(id)
        rules = () if policy is None else policy.inbound if owner.direction == "in" else policy.outbound
        view = {"kind": id.kind, "namespace": id.namespace, "name": id.name, "tier": policy.tier if policy else ""}
        view["staged"] = id.is_staged
    view |= {"direction": "ingress" if owner.direction == "in" else "egress", "rule": owner.rule}
    is_known = owner.rule is not None and owner.rule < len(rules)
    return view, rule_text(rules[owner.rule]) if is_known and owner.rule is not None else ""


def _verdict(hooks: list[_Hook], shown: list[View]) -> tuple[str, str]:
    last = hooks[-1]
    if last.verdict == "drop":
        return "deny", _step_reason(last, shown[-1]["steps"][-1])
    name = last.name.partition(" ")[2]
    if last.table == OURS and name in NOT_LAST:
        after = {"PREROUTING": "no route, the reverse path filter", "FORWARD": "a full queue", "OUTPUT": "no route"}
        return "lost", f"not seen again after {last.name}: {after[name]}, or a rule outside nftables"
    return "allow", _why_allowed(hooks, shown)


def _why_allowed(hooks: list[_Hook], shown: list[View]) -> str:
    allowing = [
        (hook, one)
        for hook, view in zip(hooks, shown, strict=True)
        for one in view["steps"]
        if one.get("policy") and one["text"].startswith("allow") and not one["policy"].get("staged")
    ]
    if not allowing:  # a known connection, a failsafe port
        allowing = [
            (hook, view["steps"][-1])
            for hook, view in zip(hooks, shown, strict=True)
            if hook.verdict == "accept" and hook.name.startswith("filter") and view["steps"][-1].get("place")
        ]
    return "; ".join(dict.fromkeys(_step_reason(*one) for one in allowing)) or "no policy was asked"


def _step_reason(hook: _Hook, step: Mapping[str, Any]) -> str:
    if "policy" in step:
        policy = step["policy"]
        return f"{_policy_text(policy)}, {policy['direction']} rule {policy['rule']}: {step['text']}"
    if hook.table != OURS:
        rule = "" if step["rule"] is None else f", rule {step['rule']}"
        return f"another program's table {hook.table}, chain {step['chain']}{rule}"
    return f"{step.get('place') or step['chain']}: {step['text']}"


def _policy_text(policy: Mapping[str, Any]) -> str:
    if "profile" in policy:
        return f"profile {policy['profile']}"
    id = PolicyId(policy["kind"], policy["namespace"], policy["name"])
    staged = ", staged" if policy["staged"] else ""
    return f"{policy_name(id)} in tier {policy['tier']}{staged}"


# --- lines

SAID = {"allow": "ALLOWED", "deny": "DENIED", "lost": "LOST"}


def traced_lines(view: Mapping[str, Any]) -> Iterator[str]:
    """Of `way_view`'s JSON: where it ended, and the way there without what only sets marks."""
    flow = view["flow"]
    flags = f" ({' '.join(flow['tcpFlags'])})" if flow.get("tcpFlags") else ""
    yield f"packet {view['packet']}: {SAID[view['verdict']]}  {flow_text(flow) if flow else '?'}{flags}"
    yield f"       {view['reason']}"
    for number, hook in enumerate(view["hooks"]):
        ways = f"{' in ' + hook['in'] if 'in' in hook else ''}{' out ' + hook['out'] if 'out' in hook else ''}"
        whose = "" if hook["table"] == OURS else f" of table {hook['table']}"
        yield f"  {hook['hook']}{whose}{ways}: {hook['verdict'].upper()}"
        if number and "flow" in hook:
            yield f"    now {flow_text(hook['flow'])}"
        yield from _step_lines(hook["steps"])
    yield ""


def _step_lines(steps: list[Mapping[str, Any]]) -> Iterator[str]:
    """Only the end of what no endpoint and no policy had a say in."""
    worth = [step for step in steps if _is_worth_a_line(step)]
    if not any("policy" in step or "place" in step for step in steps):
        worth = [step for step in worth if step["verdict"] in ("accept", "drop")]
    chain = ""
    for step, following in zip_longest(worth, worth[1:]):
        if _is_told_by(step, following):
            continue
        policy = step.get("policy")
        if step["chain"] != chain:
            chain = step["chain"]
            title = f"{_policy_text(policy)}, {policy['direction']}" if policy else step.get("place", "")
            yield f"    {chain}" + (f": {title}" if title else "")
        if policy and step["kind"] != "rule":
            yield "          no rule of it matches"
            continue
        number = policy["rule"] if policy and policy["rule"] is not None else step["rule"]
        verdict = f"{step['text']}  => {step['verdict']}" if step["text"] else f"=> {step['verdict']}"
        yield f"      {'?' if number is None else number:>3}  {verdict}"


def _is_told_by(step: Mapping[str, Any], following: Mapping[str, Any] | None) -> bool:
    """One rule of a policy is several of the kernel's; the last says what became of the packet."""
    if following is None or "policy" not in step or step["policy"]["rule"] is None:
        return False
    return bool(following.get("policy") == step["policy"] and following["chain"] == step["chain"])


def _is_worth_a_line(step: Mapping[str, Any]) -> bool:
    if step["kind"] in ("return", "end"):
        return "policy" in step
    if step["kind"] == "policy":
        return bool(step["verdict"] == "drop")
    return bool(step["verdict"] != "continue" or (step.get("policy") and step["policy"]["rule"] is not None))
