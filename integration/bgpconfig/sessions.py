"""Record → PeerConfig: what the session with one peer is like."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from bgp.config import PeerConfig, Policy
from bgp.families import IPV4, IPV6
from integration.bgpconfig.facts import Cluster, NodeFacts, SecretRef
from integration.bgpconfig.peers import Record
from integration.bgpconfig.problems import Problem
from integration.resources.keys import Key
from integration.resources.models.kubernetes import Secret

# BIRD's, as Calico leaves them.
HOLD_TIME_S = 240
RESTART_TIME_S = 120
CONNECT_RETRY_S = 5.0
HOPS = 64
PASSWORD_OCTETS = 80  # TCP_MD5SIG_MAXKEYLEN

Policies = Callable[[int, tuple[str, ...]], tuple[Policy, Policy]]
"""IP version and BGPFilters → import and export policy."""


@dataclass(frozen=True, slots=True)
class PeerReport:
    """One peer, and what for: `origin` are the resources that say so, the deciding one first."""

    config: PeerConfig
    filters: tuple[str, ...]
    origin: tuple[Key, ...]
    cluster_id: str | None  # if it is a client
    local_asn: int

    def to_json(self) -> dict[str, Any]:
        config = self.config
        return {
            "name": config.name,
            "address": str(config.address),
            "port": config.port,
            "remote_asn": config.asn,
            "local_asn": self.local_asn,
            "passive": config.passive,
            "password": config.password is not None,
            "source": None if config.source is None else str(config.source),
            "ttl_security": config.ttl_security,
            "multihop": config.multihop,
            "client": config.client,
            "cluster_id": self.cluster_id,
            "next_hop": config.next_hop,
            "graceful_restart_s": config.restart_time_s,
            "keepalive_s": config.keepalive_s,
            "allow_own_asn": config.allowed_own_asn,
            "filters": list(self.filters),
            "from": [str(key) for key in self.origin],
            **({} if config.shutdown is None else {"held_down": config.shutdown}),
        }


@dataclass(frozen=True, slots=True)
class Session:
    record: Record
    report: PeerReport
    problems: tuple[Problem, ...] = ()

    @property
    def config(self) -> PeerConfig:
        return self.report.config

    def with_policies(self, policies: Policies) -> Session:
        """The same if they are the same."""
        config = self.config
        assert config.address is not None
        taken, told = policies(config.address.version, self.record.filters)
        if config.import_policy is taken and config.export_policy is told:
            return self
        config = replace(config, import_policy=taken, export_policy=told)
        return replace(self, report=replace(self.report, config=config))


@dataclass(frozen=True, slots=True)
class Passwords:
    """Reads secrets of one namespace; `find` gives the Secret with this key, or None."""

    namespace: str
    find: Callable[[Key], Secret | None]

    def key(self, ref: SecretRef) -> Key:
        return Key("Secret", ref.name, self.namespace)

    def get(self, ref: SecretRef) -> str:
        """Raises ValueError with what is missing or wrong; the password itself is in no text."""
        secret = self.find(self.key(ref))
        if secret is None:
            raise ValueError(f"{self.key(ref)} does not exist")
        if ref.key in secret.string_data:
            octets = secret.string_data[ref.key].encode()
        elif ref.key in secret.data:
            try:
                octets = base64.b64decode(secret.data[ref.key], validate=True)
            except (binascii.Error, ValueError):
                raise ValueError(f"{self.key(ref)}: {ref.key} is not base64") from None
        else:
            raise ValueError(f"{self.key(ref)} has no {ref.key}")
        if not 1 <= len(octets) <= PASSWORD_OCTETS:
            raise ValueError(f"{self.key(ref)}: {ref.key} has {len(octets)} octets, allowed are 1 to {PASSWORD_OCTETS}")
        try:
            return octets.decode()
        except UnicodeDecodeError:
            raise ValueError(f"{self.key(ref)}: {ref.key} is not UTF-8") from None


class Sessions:
    """Makes sessions for the node `me`."""

    def __init__(self, me: NodeFacts, cluster: Cluster, passwords: Passwords, policies: Policies) -> None:
        self.me = me
        self.asn = me.asn or cluster.asn
        self.passwords = passwords
        self.policies = policies

    def make(self, record: Record) -> Session | None:
        """None: no session with this end, it is us or we have no address of its family."""
        me, version = self.me, record.address.version
        own = me.address(version)
        if own is None or record.address == own:
            return None
        local_asn = record.local_asn or self.asn
        is_internal = local_asn == record.asn
        is_client = bool(me.cluster) and is_internal and record.remote_cluster != me.cluster
        password, problems = self.password(record)
        taken, told = self.policies(version, record.filters)
        next_hop = record.next_hop or ("keep" if record.keeps_external and not is_internal else "auto")
        # Which of two nodes dials is text order in Calico, so it must be here.
        waits = record.is_passive or (record.elects_passive and str(record.address) > str(own))
        config = PeerConfig(
            name=name_of(record),
            address=record.address,
            asn=record.asn,
            port=record.end[1],
            passive=waits,
            local_asn=None if local_asn == self.asn else local_asn,
            password=password,
            source=own if record.uses_node_ip else None,
            multihop=None if record.ttl_security else HOPS,
            ttl_security=record.ttl_security,
            hold_time_s=HOLD_TIME_S,
            keepalive_s=record.keepalive_s,
            connect_retry_s=CONNECT_RETRY_S,
            families=(IPV4 if version == 4 else IPV6,),
            next_hop=next_hop,
            client=is_client,
            import_policy=taken,
            export_policy=told,
            allowed_own_asn=record.allowed_own_asn,
            restart_time_s=RESTART_TIME_S if record.restart_s is None else record.restart_s,
            unknown_attributes="pass",
            enforce_first_asn=False,
            shutdown="waiting for its password" if problems else None,
        )
        secret = () if record.password is None else (self.passwords.key(record.password),)
        filters = tuple(Key("BGPFilter", name) for name in record.filters)
        report = PeerReport(
            config, record.filters, (*record.origin, *secret, *filters), me.cluster if is_client else None, local_asn
        )
        return Session(record, report, problems)

    def password(self, record: Record) -> tuple[str | None, tuple[Problem, ...]]:
        """A session whose password is not there is held down: without it, it would come up unprotected."""
        if record.password is None:
            return None, ()
        try:
            return self.passwords.get(record.password), ()
        except ValueError as error:
            owner = next(
                (key for key in record.origin if key.kind in ("BGPPeer", "BGPConfiguration")), record.origin[0]
            )
            where = "spec.password" if owner.kind == "BGPPeer" else "spec.nodeMeshPassword"
            return None, (Problem(owner, where, f"{error}; its sessions are held down"),)


def name_of(record: Record) -> str:
    """As Calico names it, so that programs that read names go on."""
    address = str(record.address).replace(".", "_").replace(":", "_")
    return f"{record.scope}_{address}" + (f"_port_{record.port}" if record.port is not None else "")
