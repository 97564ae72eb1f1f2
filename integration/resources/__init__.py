"""The resources of projectcalico.org/v3 and what catbird reads of Kubernetes: model, keys, selectors, validation.

A leaf: it imports nothing of ours, and touches neither clock nor network.
"""
