"""Reading Calico's environment variables, and saying which of them is wrong."""

from __future__ import annotations

from collections.abc import Mapping

YES, NO = {"true", "1", "yes", "y", "t"}, {"false", "0", "no", "n", "f"}


class StartUpError(Exception):
    """The node cannot start like this: `variable` decides it, `reason` is what is wrong, `fix` what to do about it."""

    def __init__(self, variable: str, reason: str, fix: str) -> None:
        self.variable, self.reason, self.fix = variable, reason, fix
        super().__init__(f"{variable}: {reason}; {fix}")


class Variables:
    """The environment. A variable that is empty is not set: that is how manifests leave one out."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment

    def text(self, name: str, default: str = "") -> str:
        return self.environment.get(name, "").strip() or default

    def switch(self, name: str, default: bool = False) -> bool:
        """Raises StartUpError for a word that is neither yes nor no."""
        word = self.text(name).lower()
        if word and word not in YES | NO:
            raise StartUpError(name, f"{word!r} is neither true nor false", f"set {name}=true or {name}=false")
        return word in YES if word else default

    @property
    def has_networking(self) -> bool:
        """False: policy only, somebody else routes."""
        return self.text("CALICO_NETWORKING_BACKEND").lower() != "none"
