"""Felix' configuration as it is in force: local sources read once, the datastore's as the calculation tells it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from bgp.ports import EventSink
from felix.config import ConfigProblem, FelixConfig, difference, resolve
from felix.config_sources import CONFIG_FILE, environment_layer, file_layer
from felix.desired import ConfigUpdate, Message
from integration.logs import printable


class LiveConfig:
    """`now` is what is in force. A change that a running Felix cannot take over is not: `restart` names it instead.

    Listeners are called after each change that is taken over.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        hostname: str,
        log: EventSink,
        *,
        file: str = CONFIG_FILE,
        also_live: Collection[str] = (),
    ) -> None:
        """`hostname` is the node's name, unless FELIX_FELIXHOSTNAME says otherwise. `also_live`: see `felix.config.difference`."""
        self._log, self._hostname, self._also_live = log, hostname, also_live
        self._environment = environment_layer(environ)
        self._file, self._file_problems = read_file(file)
        self._update = ConfigUpdate()
        self._listeners: list[Callable[[FelixConfig], None]] = []
        self._has_begun = False
        self.problems: list[ConfigProblem] = []
        self.restart: frozenset[str] = frozenset()  # attributes that wait for a restart
        self.now = FelixConfig()
        self._resolve()

    def listen(self, listener: Callable[[FelixConfig], None]) -> None:
        """Called with each configuration that comes into force from now on."""
        self._listeners.append(listener)

    def begin(self) -> None:
        """The parts are being made from `now`: from here on a change of theirs needs a restart."""
        self._has_begun = True

    def on_message(self, message: Message) -> None:
        if isinstance(message, ConfigUpdate) and message != self._update:
            self._update = message
            self._resolve()

    def _resolve(self) -> None:
        update = self._update
        config, problems = resolve(
            self._environment, self._file, update.for_node, update.by_selector, update.everywhere,
            hostname=self._hostname,
        )  # fmt: skip
        self._tell(self._file_problems + problems)
        found = difference(self.now, config, self._also_live)
        self.restart = found.restart if self._has_begun else frozenset()
        if not found.changed:
            return
        if self.restart:
            # Half of a configuration is none that somebody wrote.
            self._log.event("felix_config_needs_restart", changed=sorted(self.restart))
            return
        self.now = config
        if self._has_begun:
            self._log.event("felix_config_changed", changed=sorted(found.changed))
        for listener in self._listeners:
            listener(config)

    def _tell(self, problems: list[ConfigProblem]) -> None:
        """Those that are new."""
        for problem in problems:
            if problem not in self.problems:
                level = "error" if problem.is_vital else "warning"
                self._log.event("felix_config_problem", level=level, problem=printable(str(problem)))
        self.problems = problems


def read_file(path: str) -> tuple[dict[str, str], list[ConfigProblem]]:
    """A file that is not there says nothing; one that cannot be read is a problem."""
    try:
        return file_layer(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, []
    except OSError as error:
        return {}, [ConfigProblem(path, "config file", "", error.strerror or str(error), is_vital=True)]
    except UnicodeDecodeError as error:
        return {}, [ConfigProblem(path, "config file", "", f"is no UTF-8: {error.reason}", is_vital=True)]
