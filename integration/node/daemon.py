"""SpeakerDaemon: starts the parts in order, reloads them, stops them within a bound."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from bgp.config import SpeakerConfig
from bgp.io.server import SpeakerServer
from bgp.speaker import Speaker
from bgp.toml import ConfigError, config_to_dict
from integration.logs import EventLog, LineWriter, timestamp
from integration.node.control import ControlApi, ReloadRefused, Surroundings
from integration.node.local_ports import LocalPorts
from integration.node.loop_lag import LoopLag
from integration.node.metrics import Monitor, ReloadCounts, Sources
from integration.node.sockets import CannotListen, why_not_bound
from integration.node.sources import ConfigSource
from integration.node.stopping import finish
from integration.version import VERSION
from reflector.rules import reflection_of

if TYPE_CHECKING:
    from integration.node.kernel_seat import KernelSeat


class CannotStart(Exception):
    """One line that says what is in the way and what to do about it."""


class SpeakerDaemon:
    """One run of the speaker, wherever its configuration comes from. Make it and use it inside the event loop."""

    def __init__(self, source: ConfigSource, config: SpeakerConfig, log: EventLog, writer: LineWriter) -> None:
        self._source = source
        self._config = config
        self._log = log
        self._writer = writer
        self._started_at = time.time()
        self._stop_cause = ""
        self._stop_wanted = asyncio.Event()
        self._reload_cause = ""
        self._reload_wanted = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._refused: dict[str, str] | None = None
        self._reloads = ReloadCounts(last_success_at=self._started_at)
        self._lag = LoopLag(lambda lag_s: log.event("loop_lag", late_s=round(lag_s, 3)))
        self._kernel: KernelSeat | None = None
        self._is_listening = False
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> int:
        """Until stop(); returns the exit code. Raises CannotListen or CannotStart."""
        self._log.hide(peer.password for peer in self._config.peers)
        self._ports = LocalPorts(self._config.control, self._config.metrics)
        try:
            await self._start_engine()
            await self._serve_ports()
        except BaseException:
            await self._ports.close()
            raise
        self._log.event(
            "speaker_started",
            asn=self._config.asn,
            router_id=self._config.router_id,
            port=self._config.port,
            peers=len(self._config.peers),
            control=self._config.control,
            pid=os.getpid(),
            version=VERSION,
        )
        self._start_tasks(
            self._lag.run(), self._watch_source(), self._reload_when_asked(), self._freeze_when_converged()
        )
        await self._stop_wanted.wait()
        await self._stop()
        return 0

    @property
    def speaker(self) -> Speaker | None:
        """None until it has started."""
        return self._speaker if self._is_listening else None

    @property
    def reconfigured_at(self) -> float:
        """Seconds since the epoch."""
        return self._reloads.last_success_at

    @property
    def is_stopping(self) -> bool:
        return self._stop_wanted.is_set()

    def stop(self, cause: str) -> None:
        """Ends run(). `cause` is a signal's name."""
        self._stop_cause = cause
        self._stop_wanted.set()

    async def _start_engine(self) -> None:
        if self._config.kernel is not None:
            from integration.node.kernel_seat import KernelSeat

            self._kernel = KernelSeat(self._config.kernel, self._log)
        self._speaker = Speaker(
            self._config,
            fib=self._kernel,
            next_hops=self._kernel,
            events=self._log,
            rng=random.Random(),
            now=time.monotonic(),
            reflection_of=reflection_of,
        )
        self._server = SpeakerServer(self._speaker, self._config)
        if self._kernel is not None:
            self._kernel.speaker = self._speaker
            try:
                await self._kernel.start()
            except OSError as error:
                why = error.strerror or str(error)
                raise CannotStart(f"the kernel's routes: {why}; [kernel] needs root (CAP_NET_ADMIN)") from None
        try:
            await self._server.start()
        except OSError as error:
            raise CannotStart(why_not_bound(error, self._config.port, "port")) from None
        self._is_listening = True

    async def _serve_ports(self) -> None:
        monitor = Monitor(
            Sources(
                peers=lambda: self._speaker.peers_view(time.monotonic()),
                summary=lambda: self._speaker.summary(time.monotonic()),
                fib=self._fib_counters,
                event_counts=lambda: self._log.counts,
                not_ready=self._why_not_ready,
                lag=self._lag,
                reloads=self._reloads,
                config=self._source.numbers,
                version=VERSION,
            )
        )
        around = Surroundings(
            status=self._status,
            config=self._config_view,
            reload=lambda: self.reload("operator"),
            explain_fib=self._explain_fib,
            monitor=monitor,
            told=self._log.event,
        )
        await self._ports.serve(
            ControlApi(self._speaker, around, time.monotonic),
            monitor,
            lambda text: self._log.event("request_failed", level="error", error=text),
        )

    async def _stop(self) -> None:
        self._log.event("speaker_stopping", cause=self._stop_cause)
        for task in self._tasks:
            task.cancel()
        self._is_listening = False
        if self._kernel is not None:
            self._kernel.freeze()  # what the peers taught stays in the kernel while they are told goodbye
        await self._bounded("peers", self._server.stop("the speaker stops"))
        if (kernel := self._kernel) is not None:
            await self._bounded("kernel", kernel.close(), lambda: kernel.left)
        await self._bounded("control socket", self._ports.close())
        self._log.event("speaker_stopped")

    async def _bounded(self, what: str, work: Coroutine[Any, Any, Any], left: Callable[[], int] = lambda: 0) -> None:
        """Nothing that hangs or breaks on the way out may keep the process alive."""
        began_at = time.monotonic()

        def tell(name: str) -> None:
            after_s = round(time.monotonic() - began_at, 1)
            self._log.event(name, level="warning", what=what, after_s=after_s, left=left() or None)

        try:
            await finish(work, left, lambda: tell("stop_takes_long"))
        except TimeoutError:
            tell("stop_not_waited_for")
        except Exception as error:
            self._log.event("stop_failed", level="error", what=what, error=f"{type(error).__name__}: {error}")

    def _start_tasks(self, *works: Coroutine[Any, Any, None]) -> None:
        for work in works:
            task = asyncio.create_task(work)
            task.add_done_callback(self._task_ended)
            self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.event("task_failed", level="error", error=f"{type(error).__name__}: {error}")

    async def _freeze_when_converged(self) -> None:
        """What the first convergence brought stays: a full collection would walk it all, 60 ms per 500,000 routes."""
        while True:
            await asyncio.sleep(1.0)
            if self._speaker.is_converged:
                break
        gc.collect()
        gc.freeze()

    # Reloading

    def reload_soon(self, cause: str) -> None:
        self._reload_cause = cause
        self._reload_wanted.set()

    async def _watch_source(self) -> None:
        while True:
            self.reload_soon(await self._source.changed())

    async def _reload_when_asked(self) -> None:
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            try:
                await self.reload(self._reload_cause)
            except ReloadRefused:
                pass  # logged, counted, and shown by `catbird show config`

    async def reload(self, cause: str) -> str:
        """Read the source and apply what differs; say what that was. Raises ReloadRefused: the old one goes on."""
        async with self._reloading:
            try:
                config = self._source.load()
                check_can_change(self._config, config)
                changes = await self._apply(config)
            except (ConfigError, CannotListen, ReloadRefused, OSError) as error:
                raise self._refuse(cause, error) from None
            except Exception as error:
                self._log.event("reload_failed", level="error", error=f"{type(error).__name__}: {error}")
                raise self._refuse(cause, error) from None
            self._config = config
            self._source.applied()
            self._refused = None
            self._reloads.successes += 1
            self._reloads.last_success_at = time.time()
        self._log.event(
            "config_reloaded", cause=cause, source=self._source.where, changes=len(changes), what=changes[:10] or None
        )
        return "; ".join(changes) if changes else "nothing differs from the running configuration"

    async def _apply(self, config: SpeakerConfig) -> list[str]:
        """What can fail goes first: sockets, then the kernel; raises with everything as it was."""
        old = self._config
        self._log.hide(peer.password for peer in (*config.peers, *old.peers))
        places = self._ports.prepare(config.control, config.metrics)
        try:
            changes = await self._server.reconfigure(config)
        except BaseException as error:
            self._ports.give_up(places)
            if isinstance(error, OSError):
                raise CannotListen(why_not_bound(error, config.port, "listen or port")) from None
            raise
        await self._ports.move(places)
        if self._kernel is not None and config.kernel is not None:
            await self._kernel.reconfigure(config.kernel)
        for change in changes:
            self._reloads.effects.update(change.effects)
        return [str(change) for change in changes]

    def _refuse(self, cause: str, error: Exception) -> ReloadRefused:
        text = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else str(error)
        self._refused = {"at": timestamp(time.time()), "text": text}
        self._reloads.failures += 1
        self._reloads.last_failure_at = time.time()
        for line in text.splitlines():
            self._log.event("config_refused", level="error", cause=cause, error=line)
        return ReloadRefused(text)

    # What people ask

    def _why_not_ready(self) -> str:
        if not self._is_listening:
            return "not listening"
        if self._speaker.is_converged:
            return ""
        peers = self._speaker.peers_view(time.monotonic())
        expected = [peer for peer in peers if not peer["dynamic"] and not peer["shutdown"]]
        waiting = [str(peer["name"]) for peer in expected if peer["state"] != "Established"]
        if not waiting:
            return "not converged: waiting for End-of-RIB"
        more = f" and {len(waiting) - 5} more" if len(waiting) > 5 else ""
        return f"not converged: no session with {', '.join(waiting[:5])}{more}"

    def _status(self) -> dict[str, Any]:
        return self._speaker.summary(time.monotonic()) | {
            "version": VERSION,
            "pid": os.getpid(),
            "started_at": timestamp(self._started_at),
            "not_ready": self._why_not_ready(),
            "control": self._config.control,
            "metrics": self._config.metrics,
            "config_file": self._source.where,
            "config_loaded_at": timestamp(self._reloads.last_success_at),
            "config_refused": self._refused,
            "resource_problems": self._source.numbers().get("resource_problems"),
            "loop_lag_max_s": round(self._lag.recent_max_s, 4),
            "memory_octets": memory_octets(),
            "log_lines_dropped": self._writer.dropped,
            "fib": dict(self._fib_counters()) or None,
        }

    def _config_view(self) -> dict[str, Any]:
        return {
            "file": self._source.where,
            "loaded_at": timestamp(self._reloads.last_success_at),
            "refused": self._refused,
            "running": config_to_dict(self._config),
        } | self._source.view()

    def _fib_counters(self) -> Mapping[str, Any]:
        return self._kernel.counters if self._kernel is not None else {}

    def _explain_fib(self, prefix: str) -> Mapping[str, Any] | None:
        return self._kernel.explain(prefix) if self._kernel is not None else None


def check_can_change(old: SpeakerConfig, new: SpeakerConfig) -> None:
    """Raises ReloadRefused for what the running engine was not built with, or did not keep what it would need for."""
    had, has = old.kernel, new.kernel
    if (had is None) != (has is None) or (had is not None and has is not None and has.program and not had.program):
        raise ReloadRefused("adding or removing [kernel], or turning its program on, needs a restart of the speaker")
    if had is not None and has is not None and (had.priority_base is None) != (has.priority_base is None):
        raise ReloadRefused("turning priority_base of [kernel] on or off needs a restart of the speaker")


def memory_octets() -> int:
    """Resident set of this process; 0 where /proc is missing."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
