"""A plan for files: what the datastore holds now, and what it would hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from integration.bgpconfig import Environment
from integration.cli.cluster_rules import refuse_what_is_not_ours
from integration.cli.cluster_state import snapshot_of_datastore
from integration.cli.outcome import Failed, complain
from integration.cli.plan import NodePlan, ResourcePlan, nodes_of, plan_node, would_be
from integration.cli.writing import Job, jobs_of, written
from integration.datastore.api import Datastore, Value
from integration.datastore.cluster_rules import check_change, check_create, check_delete
from integration.datastore.errors import DoesNotExist, Invalid, Unreadable, Unsupported
from integration.resources.base import Model
from integration.resources.documents import Document
from integration.resources.keys import Key
from integration.resources.validate import defaulted

Update = tuple[Key, Model | None]


async def plan_documents(
    datastore: Datastore,
    documents: Sequence[Document],
    nodes: Sequence[str],
    environment: Environment,
    *,
    deleted: bool = False,
) -> tuple[list[ResourcePlan], Iterator[NodePlan]]:
    """What applying (deleting) the documents would do to them, and to these nodes (to all, if none is named); the nodes are worked out one by one.

    Failed if a node that is named exists neither before nor afterwards.
    """
    resources: list[ResourcePlan] = []
    updates: list[Update] = []
    for job in jobs_of(documents):
        before = {key for key, _ in updates}
        planned, update = await (_deletion if deleted else _application)(datastore, job, before)
        resources.append(planned)
        updates += update
    snapshot, _ = await snapshot_of_datastore(datastore, environment.secret_namespace)
    known = sorted({*nodes_of(snapshot), *(key.name for key, one in updates if key.kind == "Node" and one is not None)})
    if unknown := [node for node in nodes if node not in known]:
        complain(f"there is no Node {unknown[0]}; known are {', '.join(known) or 'none'}")
        raise Failed
    # What this process is told by its environment of the one node it might stand on says nothing of the others.
    router_id = environment.router_id if environment.router_id == "hash" else ""
    everywhere = replace(environment, kubernetes_node="", router_id=router_id)
    return resources, (plan_node(node, snapshot, updates, everywhere) for node in nodes or known)


async def _application(datastore: Datastore, job: Job, coming: Collection[Key]) -> tuple[ResourcePlan, list[Update]]:
    assert job.document is not None
    if problems := job.document.problems():
        return ResourcePlan(job.key, "refused", tuple(map(str, problems))), []
    resource = defaulted(written(job.document.resource))
    before: Value | None = None
    try:
        refuse_what_is_not_ours(job.key)
        before = (await datastore.get(job.key)).value
        check_change(job.key, resource, before)
    except DoesNotExist:
        pass
    except Unreadable:
        before = {}
    except (Unsupported, Invalid) as error:
        return ResourcePlan(job.key, "refused", (str(error),)), []
    if before is None:
        try:
            await check_create(datastore, job.key, resource, coming)
        except (Unsupported, Invalid) as error:
            return ResourcePlan(job.key, "refused", tuple(job.told(error))), []
    action = would_be(before, resource.to_json())
    return ResourcePlan(job.key, action), [] if action == "unchanged" else [(job.key, resource)]


async def _deletion(datastore: Datastore, job: Job, gone: Collection[Key]) -> tuple[ResourcePlan, list[Update]]:
    try:
        refuse_what_is_not_ours(job.key)
        await check_delete(datastore, job.key, gone)
        await datastore.get(job.key)
    except Unreadable:
        pass
    except (DoesNotExist, Unsupported, Invalid) as error:
        return ResourcePlan(job.key, "refused", (str(error),)), []
    return ResourcePlan(job.key, "delete"), [(job.key, None)]
