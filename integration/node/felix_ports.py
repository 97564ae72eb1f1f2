"""Felix' HTTP ports, /liveness and /readiness on one and /metrics on another, as the configuration wants them at the moment.

A port that cannot be had is told once and tried again: Felix does its work without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bgp.ports import EventSink
from felix.config import FelixConfig
from felix.figures import Figures
from felix.health import Health, Verdict
from integration.node.complaints import Complaints
from integration.node.http_server import Answer, Application, HttpError, HttpServer, Request, Response
from integration.node.sockets import CannotListen, bind_tcp

if TYPE_CHECKING:
    import ssl

LOOK_S = 5.0
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """Paths of PEM files. `ca` signs clients' certificates; `client_auth` is one of Go's names for what is asked of them."""

    cert: str
    key: str
    ca: str = ""
    client_auth: str = "NoClientCert"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where to listen. `setting` is the parameter that moves it, for people."""

    host: str
    port: int
    setting: str
    tls: TLSFiles | None = None


def health_port(config: FelixConfig) -> Wanted | None:
    return Wanted(config.health_host, config.health_port, "HealthPort") if config.health_enabled else None


def metrics_port(config: FelixConfig) -> Wanted | None:
    """TLS if certificate and key are set, as in Calico."""
    if not config.prometheus_metrics_enabled:
        return None
    cert, key = config.prometheus_metrics_cert_file, config.prometheus_metrics_key_file
    tls = TLSFiles(cert, key, config.prometheus_metrics_ca_file, config.prometheus_metrics_client_auth)
    return Wanted(
        config.prometheus_metrics_host,
        config.prometheus_metrics_port,
        "PrometheusMetricsPort",
        tls if cert or key or tls.ca else None,
    )


class ConfiguredPort:
    """One HTTP port. `run()` until cancelled; `look_soon` after a change of the configuration."""

    def __init__(
        self, name: str, application: Application, wanted: Callable[[], Wanted | None], log: EventSink
    ) -> None:
        """`name` begins the events: NAME_port_failed."""
        self._application, self._wanted, self._log = application, wanted, log
        self._name = name
        self._complaints = Complaints(log, f"{name}_port")
        self._server: HttpServer | None = None
        self._is: Wanted | None = None
        self._tls: ssl.SSLContext | None = None
        self._loaded: tuple[int, ...] = ()
        self._look = asyncio.Event()
        self.address: tuple[str, int] | None = None  # where it listens now

    def look_soon(self) -> None:
        self._look.set()

    async def run(self) -> None:
        try:
            while True:
                self._look.clear()
                self._complaints.tell(await self.adapt())
                try:
                    async with asyncio.timeout(LOOK_S):
                        await self._look.wait()
                except TimeoutError:
                    pass
        finally:
            await self._close()

    async def adapt(self) -> str:
        """Listen where it is wanted, or not at all. Why that cannot be, or nothing."""
        wanted = self._wanted()
        if wanted == self._is:
            return self._renew_certificate()
        await self._close()
        if wanted is None:
            return ""
        try:
            tls = None
            if wanted.tls is not None:
                tls, self._loaded = server_context(wanted.tls), _changed_at(wanted.tls)
            host = f"[{wanted.host}]" if ":" in wanted.host else wanted.host
            # The name may be one that a DNS server has to say.
            listening = await asyncio.to_thread(bind_tcp, f"{host}:{wanted.port}", self._name, wanted.setting)
        except CannotListen as error:
            return str(error)
        except (OSError, ValueError) as error:
            return f"{self._name}: its certificates cannot be used: {error}"
        self._server = HttpServer(self._application, failed=self._failed)
        try:
            await self._server.serve(listening, tls)
        except OSError as error:
            listening.close()
            return f"{self._name} {host}:{wanted.port}: {error.strerror}"
        self._is, self._tls = wanted, tls
        self.address = listening.getsockname()[:2]
        self._log.event(f"{self._name}_port_open", address=f"{host}:{self.address[1]}", tls=tls is not None)
        return ""

    def _renew_certificate(self) -> str:
        """Connections from now on see a renewed file; one that is broken leaves the certificate that is there."""
        if self._is is None or self._is.tls is None or self._tls is None:
            return ""
        changed_at = _changed_at(self._is.tls)
        if changed_at == self._loaded:
            return ""
        try:
            self._tls.load_cert_chain(self._is.tls.cert, self._is.tls.key)
        except (OSError, ValueError) as error:
            return f"{self._name}: its renewed certificate cannot be used: {error}"
        self._loaded = changed_at
        return ""

    def _failed(self, text: str) -> None:
        self._log.event("defect", where=self._name, error=text)

    async def _close(self) -> None:
        server, self._server, self._is, self.address = self._server, None, None, None
        if server is not None:
            await server.close()


def server_context(files: TLSFiles) -> ssl.SSLContext:
    """Raises OSError (ssl.SSLError is one) and ValueError.

    RequireAnyClientCert verifies too: Python cannot ask for a certificate that it then ignores, and this fails closed.
    """
    import ssl  # 4 MB that only TLS pays for

    if not (files.cert and files.key):
        raise ValueError("PrometheusMetricsCertFile and PrometheusMetricsKeyFile belong together")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(files.cert, files.key)
    if files.client_auth != "NoClientCert":
        if not files.ca:
            raise ValueError(f"{files.client_auth} needs PrometheusMetricsCAFile")
        context.load_verify_locations(files.ca)
        is_optional = files.client_auth == "VerifyClientCertIfGiven"
        context.verify_mode = ssl.CERT_OPTIONAL if is_optional else ssl.CERT_REQUIRED
    return context


def _changed_at(files: TLSFiles) -> tuple[int, ...]:
    found = []
    for path in (files.cert, files.key):
        try:
            found.append(Path(path).stat().st_mtime_ns)
        except OSError:
            found.append(0)
    return tuple(found)


# --- what they answer ---------------------------------------------------------------------------------------------------


def health_application(health: Health) -> Application:
    """GET /liveness and /readiness: 200 or 503, and Calico's table."""

    async def answer(request: Request) -> Answer:
        match _read(request):
            case ("liveness",):
                return _verdict(health.liveness())
            case ("readiness",):
                return _verdict(health.readiness())
        raise HttpError(404, f"there is no /{'/'.join(request.path)} here", "GET /liveness or /readiness")

    return answer


def metrics_application(figures: Callable[[], Figures], config: Callable[[], FelixConfig]) -> Application:
    """GET /metrics: Felix' figures, and the process's unless PrometheusProcessMetricsEnabled says no."""

    async def answer(request: Request) -> Answer:
        if _read(request) != ("metrics",):
            raise HttpError(404, f"there is no /{'/'.join(request.path)} here", "GET /metrics")
        text = figures().text().encode()
        if config().prometheus_process_metrics_enabled:
            text += process_text()
        return Response(200, text, CONTENT_TYPE)

    return answer


def process_text() -> bytes:
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.exposition import generate_latest

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def _read(request: Request) -> tuple[str, ...]:
    if request.method not in ("GET", "HEAD"):
        raise HttpError(405, f"{request.method} is not for this; use GET", headers={"Allow": "GET, HEAD"})
    return request.path


def _verdict(verdict: Verdict) -> Response:
    return Response(200 if verdict.is_ok else 503, verdict.text.encode(), "text/plain; charset=utf-8")
