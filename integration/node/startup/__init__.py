"""What calico-node does before it routes: who this node is, where it is, and what a cluster needs to begin with."""

from integration.node.startup.run import monitor_addresses, start_up
from integration.node.startup.variables import StartUpError

__all__ = ["StartUpError", "monitor_addresses", "start_up"]
