"""What a node does before its speaker runs: who it is, its addresses, and what a new cluster lacks."""
