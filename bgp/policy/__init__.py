"""Import and export policy: ordered rules compiled once, then asked per path and run of prefixes.

The well-known communities (RFC 1997 §"Well-known Communities") are not policy: the speaker obeys them whatever a
policy says.
"""

from bgp.policy.compiled import EMPTY_SETTING, CompiledPolicy, Verdict, compile_policy
from bgp.policy.rules import RouteView

__all__ = ["EMPTY_SETTING", "CompiledPolicy", "RouteView", "Verdict", "compile_policy"]
