"""Pools, blocks, affinities, handles: who has which address. Pure logic over a BlockStore (`ports.py`); see DESIGN.md."""
