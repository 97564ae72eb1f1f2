"""The servers of an etcd cluster that only a domain names (ETCD_DISCOVERY_SRV): SRV records, RFC 2782."""

from __future__ import annotations

import asyncio

import dns.asyncresolver
import dns.exception
import dns.resolver

from integration.datastore.errors import Unavailable

# etcd's service names, and how the servers behind each are spoken to.
SERVICES = (("_etcd-client-ssl._tcp", "https"), ("_etcd-client._tcp", "http"))


async def discovered(
    domain: str, timeout_s: float, resolver: dns.asyncresolver.Resolver | None = None
) -> tuple[str, ...]:
    """The endpoints as URLs, those of the best priority first. Raises Unavailable if there are none."""
    try:
        resolver = resolver or dns.asyncresolver.Resolver()
    except dns.exception.DNSException as error:
        raise Unavailable(f"no name server to ask for the etcd servers of {domain}: {error}") from None

    async def of_service(service: str, scheme: str) -> list[str] | dns.exception.DNSException:
        try:
            answer = await resolver.resolve(f"{service}.{domain.rstrip('.')}.", "SRV", lifetime=timeout_s)
        except dns.exception.DNSException as error:
            return error
        records = sorted(answer, key=lambda record: (record.priority, -record.weight))
        return [f"{scheme}://{record.target.to_text(omit_final_dot=True)}:{record.port}" for record in records]

    found = await asyncio.gather(*(of_service(*service) for service in SERVICES))
    endpoints = [endpoint for one in found if isinstance(one, list) for endpoint in one]
    if endpoints:
        return tuple(endpoints)
    names = " and ".join(f"{service}.{domain}" for service, _ in SERVICES)
    why = next((str(one) for one in found if not isinstance(one, dns.resolver.NXDOMAIN | list)), "no such record")
    raise Unavailable(f"ETCD_DISCOVERY_SRV: the SRV records {names} name no etcd server: {why}")
