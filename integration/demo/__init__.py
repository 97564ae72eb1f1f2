"""`catbird demo`: three nodes and a top-of-rack router in network namespaces, with real packets between workloads.

`plan` says what there is (pure), `namespaces` and `build` make it, `routers` starts a BGP speaker in each, `probe` sends
the packets, `checks` compares the world with the plan, `screen` shows it, `main` puts the parts in order.
"""
