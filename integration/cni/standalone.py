"""The whole plugin in one process, for when no node agent listens: slower, same result. Also `-v`, `-t` and `-upgrade`."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from integration.cni.allocation import IpamAllocator
from integration.cni.errors import TRY_AGAIN_LATER, CNIError
from integration.cni.network_config import NetworkConfig
from integration.cni.request import Request
from integration.cni.serving import RawCall, answer_call
from integration.cni.worker import Answer, Surroundings, Worker, open_container
from integration.datastore.errors import DatastoreError
from integration.datastore.settings import Settings, load_settings, open_datastore


class Alone:
    """Opens the datastore that the network configuration names, does the one thing, and closes it again."""

    def __init__(self, was_begun: bool) -> None:
        self._was_begun = was_begun

    async def perform(self, request: Request, environment: Mapping[str, str], namespace: int | None) -> Answer:
        try:
            settings = settings_of(request.config, environment)
            datastore = open_datastore(settings)
        except DatastoreError as error:
            raise CNIError(TRY_AGAIN_LATER, f"the datastore: {error}") from error
        kubernetes = None
        try:
            # Only etcd holds no pods; the file of a cluster without Kubernetes may.
            if request.config.is_kubernetes_policy and settings.datastore_type == "etcdv3":
                kubernetes = open_datastore(replace(settings, datastore_type="kubernetes"))
            worker = Worker(
                Surroundings(
                    datastore, IpamAllocator(datastore), socket.gethostname().lower(), kubernetes,
                    interface_prefix=environment.get("FELIX_INTERFACEPREFIX", "cali").partition(",")[0],
                    told=_to_stderr,
                )
            )  # fmt: skip
            with _alone_on_this_host(request.config):
                if self._was_begun and request.command == "ADD":
                    await worker.perform(replace(request, command="DEL"), environment, namespace)
                return await worker.perform(request, environment, namespace)
        finally:
            await datastore.close()
            if kubernetes is not None:
                await kubernetes.close()


def settings_of(config: NetworkConfig, environment: Mapping[str, str]) -> Settings:
    """Calico's keys of the network configuration; what it does not say, the environment and the usual file do.

    Raises SettingsError.
    """
    raw = config.raw
    names = {
        "datastore_type": "DATASTORE_TYPE", "etcd_endpoints": "ETCD_ENDPOINTS",
        "etcd_discovery_srv": "ETCD_DISCOVERY_SRV", "etcd_key_file": "ETCD_KEY_FILE",
        "etcd_cert_file": "ETCD_CERT_FILE", "etcd_ca_cert_file": "ETCD_CA_CERT_FILE",
        "calico_api_group": "CALICO_API_GROUP",
    }  # fmt: skip
    said = {variable: str(raw[key]) for key, variable in names.items() if raw.get(key)}
    kubernetes = {**(raw.get("policy") or {}), **(raw.get("kubernetes") or {})}
    for key, variable in (
        ("kubeconfig", "KUBECONFIG"), ("k8s_api_root", "K8S_API_ENDPOINT"), ("k8s_auth_token", "K8S_API_TOKEN"),
        ("k8s_client_certificate", "K8S_CERT_FILE"), ("k8s_client_key", "K8S_KEY_FILE"),
        ("k8s_certificate_authority", "K8S_CA_FILE"),
    ):  # fmt: skip
        if kubernetes.get(key):
            said[variable] = str(kubernetes[key])
    url = f"local:{raw['local_path']}" if raw.get("datastore_type") == "local" and raw.get("local_path") else ""
    return load_settings(url, environment={**os.environ, **said})


@contextmanager
def _alone_on_this_host(config: NetworkConfig) -> Iterator[None]:
    """Fifty plugins that start at once would only conflict with each other over the same block. Best effort, as Calico's."""
    try:
        path = Path(config.ipam_lock_file)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError:
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _to_stderr(name: str, **fields: object) -> None:
    said = " ".join(f"{key}={value!r}" for key, value in fields.items() if value is not None)
    print(f"calico: {name} {said}", file=sys.stderr)


async def _run(call: RawCall, was_begun: bool) -> tuple[int, str]:
    namespace = None
    path = call.environment.get("CNI_NETNS", "")
    if path:
        namespace = open_container(_only_path(path))
    try:
        return await answer_call(call, Alone(was_begun), namespace)
    finally:
        if namespace is not None:
            os.close(namespace)


def _only_path(path: str) -> Request:
    return Request("", NetworkConfig("1.0.0", "", {}), netns=path)


async def _test_datastore(config: NetworkConfig) -> int:
    """`-t`: can the datastore be reached?"""
    try:
        datastore = open_datastore(settings_of(config, os.environ))
        try:
            await datastore.check()
        finally:
            await datastore.close()
    except DatastoreError as error:
        print(f"Failed to connect to the datastore: {error}", file=sys.stderr)
        return 1
    print("Successfully connected to the datastore.")
    return 0


def main(arguments: Sequence[str]) -> int:
    """Exit code 0, 1 with an error object, or 2 for unknown arguments."""
    plugin = os.environ.get("CATBIRD_CNI_PLUGIN", "calico")
    match list(arguments):
        case ["-v" | "--version"]:
            print(version("catbird-bgp"))
            return 0
        case ["-t"]:
            return asyncio.run(_test_datastore(NetworkConfig("1.0.0", "", {})))
        case [] | ["--begun"]:
            config = sys.stdin.read()
            environment = {name: value for name, value in os.environ.items() if name.startswith(("CNI_", "FELIX_"))}
            code, text = asyncio.run(_run(RawCall(plugin, environment, config), bool(arguments)))
            sys.stdout.write(text)
            sys.stdout.flush()
            return code
    print(
        f"{plugin}: a container runtime executes this, with CNI_COMMAND set; alone it knows -v and -t", file=sys.stderr
    )
    return 2


if __name__ == "__main__":
    # Not by returning: gRPC's threads would be waited for.
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)
