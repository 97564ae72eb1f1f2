"""Settings as people give them → an EtcdDatastore."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.datastore.etcd.connection import EtcdSettings, read_pem
from integration.datastore.etcd.driver import EtcdDatastore

if TYPE_CHECKING:
    from integration.datastore.settings import Settings


def open_etcd(settings: Settings) -> EtcdDatastore:
    """Raises DatastoreError if a certificate's file cannot be read."""
    return EtcdDatastore(
        EtcdSettings(
            endpoints=settings.etcd_endpoints,
            discovery=settings.etcd_discovery_srv,
            username=settings.etcd_username,
            password=settings.etcd_password,
            ca=settings.etcd_ca_cert.encode() or (read_pem(path) if (path := settings.etcd_ca_cert_file) else b""),
            cert=settings.etcd_cert.encode() or (read_pem(path) if (path := settings.etcd_cert_file) else b""),
            key=settings.etcd_key.encode() or (read_pem(path) if (path := settings.etcd_key_file) else b""),
        )
    )
