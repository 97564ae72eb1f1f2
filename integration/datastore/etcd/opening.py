"""Settings as people give them → an EtcdDatastore."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.datastore.errors import Unsupported
from integration.datastore.etcd.connection import EtcdSettings, read_pem
from integration.datastore.etcd.driver import EtcdDatastore

if TYPE_CHECKING:
    from integration.datastore.settings import Settings


def open_etcd(settings: Settings) -> EtcdDatastore:
    """Raises Unsupported for ETCD_DISCOVERY_SRV, DatastoreError if a certificate's file cannot be read."""
    if not settings.etcd_endpoints:
        raise Unsupported(
            f"etcd servers are not looked up in DNS (ETCD_DISCOVERY_SRV is {settings.etcd_discovery_srv!r})",
            "name them in ETCD_ENDPOINTS",
        )
    return EtcdDatastore(
        EtcdSettings(
            endpoints=settings.etcd_endpoints,
            username=settings.etcd_username,
            password=settings.etcd_password,
            ca=settings.etcd_ca_cert.encode() or (read_pem(path) if (path := settings.etcd_ca_cert_file) else b""),
            cert=settings.etcd_cert.encode() or (read_pem(path) if (path := settings.etcd_cert_file) else b""),
            key=settings.etcd_key.encode() or (read_pem(path) if (path := settings.etcd_key_file) else b""),
        )
    )
