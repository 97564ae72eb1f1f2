"""Health and metrics over HTTP, as the configuration wants them."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from felix.config import FelixConfig
from felix.figures import Figures
from felix.health import Health
from integration.node.felix_ports import (
    ConfiguredPort,
    TLSFiles,
    Wanted,
    health_application,
    health_port,
    metrics_application,
    metrics_port,
    server_context,
)
from tests.integration.node.speakers import free_port
from tests.integration.node.waiting import Log, until


async def get(port: int, path: str, method: str = "GET", tls: ssl.SSLContext | None = None) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None
    )
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body.decode()


def test_health_answers_200_or_503_with_the_table() -> None:
    health = Health(time.monotonic)
    health.register("a")

    async def scene() -> None:
        wanted = Wanted("127.0.0.1", 0, "HealthPort")
        port = ConfiguredPort("health", health_application(health), lambda: wanted, Log())
        assert await port.adapt() == ""
        assert port.address is not None
        at = port.address[1]
        assert (await get(at, "/liveness"))[0] == 200
        status, table = await get(at, "/readiness")
        assert status == 503
        assert "| a         |" in table
        health.report("a")
        assert (await get(at, "/readiness"))[0] == 200
        assert (await get(at, "/readiness", "HEAD"))[1] == ""
        assert (await get(at, "/readiness", "POST"))[0] == 405
        assert (await get(at, "/"))[0] == 404

    asyncio.run(scene())


def test_metrics_have_felix_figures_and_the_process() -> None:
    figures = Figures(time.monotonic)
    figures.set("felix_resync_state", 3)
    config = FelixConfig()

    async def scene() -> None:
        nonlocal config
        application = metrics_application(lambda: figures, lambda: config)
        port = ConfiguredPort("metrics", application, lambda: Wanted("127.0.0.1", 0, "PrometheusMetricsPort"), Log())
        assert await port.adapt() == ""
        assert port.address is not None
        status, text = await get(port.address[1], "/metrics")
        assert status == 200
        assert "felix_resync_state 3\n" in text
        assert "process_resident_memory_bytes" in text
        config = replace(config, prometheus_process_metrics_enabled=False)
        assert "process_resident_memory_bytes" not in (await get(port.address[1], "/metrics"))[1]

    asyncio.run(scene())


def test_ports_are_as_configured() -> None:
    config = FelixConfig()
    assert health_port(config) is None
    assert metrics_port(config) is None
    config = replace(config, health_enabled=True, prometheus_metrics_enabled=True, prometheus_metrics_cert_file="/c")
    assert health_port(config) == Wanted("localhost", 9099, "HealthPort")
    assert metrics_port(config) == Wanted("", 9091, "PrometheusMetricsPort", TLSFiles("/c", ""))


def run_port(scene: Callable[[ConfiguredPort, Log, list[Wanted | None]], Awaitable[None]]) -> None:
    log, wanted = Log(), [None]

    async def run() -> None:
        port = ConfiguredPort("health", health_application(Health(time.monotonic)), lambda: wanted[0], log)
        running = asyncio.create_task(port.run())
        await scene(port, log, wanted)  # type: ignore[arg-type]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert port.address is None

    asyncio.run(run())


def test_the_port_follows_the_configuration() -> None:
    async def scene(port: ConfiguredPort, log: Log, wanted: list[Wanted | None]) -> None:
        for number in (free_port(), free_port()):
            wanted[0] = Wanted("127.0.0.1", number, "HealthPort")
            port.look_soon()
            await until(lambda number=number: port.address == ("127.0.0.1", number))  # type: ignore[misc]
            assert (await get(number, "/liveness"))[0] == 200
        wanted[0] = None
        port.look_soon()
        await until(lambda: port.address is None)

    run_port(scene)


def test_a_port_that_is_taken_is_told_once_with_its_owner_and_had_when_it_is_free() -> None:
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    number = taken.getsockname()[1]

    async def scene(port: ConfiguredPort, log: Log, wanted: list[Wanted | None]) -> None:
        wanted[0] = Wanted("127.0.0.1", number, "HealthPort")
        for _ in range(3):
            port.look_soon()
            await until(lambda: log.named("health_port_failed"))
        assert len(log.named("health_port_failed")) == 1
        assert "set another HealthPort" in log.named("health_port_failed")[0]["error"]
        taken.close()
        port.look_soon()
        await until(lambda: port.address is not None)

    run_port(scene)


def make_certificates(directory: Path) -> None:
    """An authority, a server's and a client's certificate."""
    for command in (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca",
        *(
            part
            for name in ("server", "client")
            for part in (
                f"openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}.key -out {name}.csr "
                "-subj /CN=localhost -addext subjectAltName=DNS:localhost",
                f"openssl x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -copy_extensions copy "
                f"-out {name}.pem -days 2",
            )
        ),
    ):
        subprocess.run(command.split(), cwd=directory, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certificates")
    make_certificates(directory)
    return directory


def client_context(directory: Path, *, with_certificate: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    if with_certificate:
        context.load_cert_chain(directory / "client.pem", directory / "client.key")
    return context


@pytest.mark.parametrize(
    ("client_auth", "without"),
    [
        ("NoClientCert", True),
        ("VerifyClientCertIfGiven", True),
        ("RequireAndVerifyClientCert", False),
        ("RequireAnyClientCert", False),
    ],
)
def test_metrics_over_tls_ask_for_what_is_configured(certificates: Path, client_auth: str, without: bool) -> None:
    files = TLSFiles(
        str(certificates / "server.pem"), str(certificates / "server.key"), str(certificates / "ca.pem"), client_auth
    )

    async def scene() -> None:
        wanted = Wanted("127.0.0.1", 0, "PrometheusMetricsPort", files)
        application = health_application(Health(time.monotonic))
        port = ConfiguredPort("metrics", application, lambda: wanted, Log())
        assert await port.adapt() == ""
        assert port.address is not None
        at = port.address[1]
        assert (await get(at, "/liveness", tls=client_context(certificates, with_certificate=True)))[0] == 200
        try:
            answer = await get(at, "/liveness", tls=client_context(certificates, with_certificate=False))
        except (OSError, IndexError):
            assert not without
        else:
            assert without
            assert answer[0] == 200

    asyncio.run(scene())


def test_a_renewed_certificate_is_shown_to_new_connections(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    wanted = Wanted(
        "127.0.0.1", 0, "PrometheusMetricsPort", TLSFiles(str(tmp_path / "server.pem"), str(tmp_path / "server.key"))
    )

    async def scene() -> None:
        port = ConfiguredPort("metrics", health_application(Health(time.monotonic)), lambda: wanted, Log())
        assert await port.adapt() == ""
        assert port.address is not None
        before = (tmp_path / "server.pem").read_text()
        make_certificates(tmp_path)
        assert (tmp_path / "server.pem").read_text() != before
        assert await port.adapt() == ""
        assert (await get(port.address[1], "/liveness", tls=client_context(tmp_path, with_certificate=False)))[0] == 200
        (tmp_path / "server.pem").write_text("broken")
        assert "renewed certificate" in await port.adapt()
        assert (await get(port.address[1], "/liveness", tls=client_context(tmp_path, with_certificate=False)))[0] == 200

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (TLSFiles("/none.pem", ""), "belong together"),
        (TLSFiles("/none.pem", "/none.key"), "No such file"),
    ],
)
def test_certificates_that_cannot_be_used_are_told(files: TLSFiles, words: str) -> None:
    with pytest.raises((OSError, ValueError), match=words):
        server_context(files)


def test_a_client_certificate_needs_an_authority(certificates: Path) -> None:
    files = TLSFiles(str(certificates / "server.pem"), str(certificates / "server.key"), "", "RequireAnyClientCert")
    with pytest.raises(ValueError, match="PrometheusMetricsCAFile"):
        server_context(files)
