"""Felix' local sources as layers for `felix.config.resolve`: the environment and felix.cfg. Pure: texts in, layers out."""

from __future__ import annotations

from collections.abc import Mapping

from felix.config import ATTRIBUTES, PARAMETERS, ConfigProblem

CONFIG_FILE = "/etc/calico/felix.cfg"
PREFIX = "FELIX_"


def environment_layer(environ: Mapping[str, str]) -> dict[str, str]:
    """`FELIX_LOGSEVERITYSCREEN=debug` → `LogSeverityScreen: debug`; the variable's case does not matter.

    Where two variables differ in case only, the one that is all upper-case counts, as documented.
    """
    found: dict[str, str] = {}
    for variable in sorted(environ, key=lambda name: (name.isupper(), name)):
        if variable.upper().startswith(PREFIX) and len(variable) > len(PREFIX):
            lower = variable[len(PREFIX) :].lower()
            found[PARAMETERS[ATTRIBUTES[lower]].name if lower in ATTRIBUTES else variable[len(PREFIX) :]] = environ[
                variable
            ]
    return found


def file_layer(text: str) -> tuple[dict[str, str], list[ConfigProblem]]:
    """felix.cfg, an ini file: `NAME = VALUE` under any section; `#` and `;` begin comments outside of quotes.

    A line that is nothing of the kind is a problem and is left out. The last of several lines of one name counts.
    """
    found: dict[str, str] = {}
    problems: list[ConfigProblem] = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped[0] in "#;" or (stripped[0] == "[" and "]" in stripped):
            continue
        at = min((place for place in (stripped.find("="), stripped.find(":")) if place > 0), default=-1)
        if at < 0:
            problems.append(ConfigProblem(f"line {number}", "config file", stripped, "is not NAME = VALUE"))
            continue
        found[stripped[:at].strip()] = _value(stripped[at + 1 :].strip())
    return found, problems


def _value(text: str) -> str:
    quote = text[:1]
    if quote in ('"', "'") and quote and text.find(quote, 1) > 0:
        return text[1 : text.find(quote, 1)]
    cut = min((place for place in (text.find("#"), text.find(";")) if place >= 0), default=len(text))
    return text[:cut].strip()
