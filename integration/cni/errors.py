"""CNI's errors: what a plugin prints when it fails, with the codes of the specification."""

from __future__ import annotations

from typing import Any

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
UNDECODABLE = 6
INVALID_CONFIG = 7
TRY_AGAIN_LATER = 11
NOT_AVAILABLE = 50  # STATUS: the plugin cannot do an ADD now
LIMITED_CONNECTIVITY = 51  # STATUS: and containers that run may not reach everything either
GENERIC = 100  # Calico's, for everything that the specification has no code for


class CNIError(Exception):
    """`text` says what is wrong and names the field; `hint` what to do about it."""

    def __init__(self, code: int, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.hint = hint

    def to_json(self, version: str) -> dict[str, Any]:
        """The error object of the specification (section "Error")."""
        value: dict[str, Any] = {"cniVersion": version, "code": self.code, "msg": self.text}
        if self.hint:
            value["details"] = self.hint
        return value
