"""catbird against the routers that people run: BIRD, FRR, GoBGP and OpenBGPD, each in a network namespace of its own.

Every daemon, catbird included, is a `Router` (router.py) with the same few verbs, so that one test reads the same
whoever is on the other end.
"""
