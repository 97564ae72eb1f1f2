"""The dataplane's observer, behind the real loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from felix.dataplane.loop import Dataplane
from felix.desired import InSync, Message, QoS, WorkloadEndpoint, WorkloadId, WorkloadUpdate
from felix.endpoint_status import EndpointId, Status
from felix.figures import Figures
from felix.health import Health
from felix.ports import Failure
from integration.node.felix_observer import MAIN_LOOP, FelixObserver
from tests.integration.node.waiting import Log, until

POD = WorkloadId("k8s", "ns/pod", "eth0")


class Part:
    """A programmer that the kernel refuses as the test says."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []

    def on_message(self, message: Message) -> None: ...

    async def apply(self, now: float) -> list[Failure]:
        return self.failures


class Scene:
    def __init__(self) -> None:
        self.figures, self.health, self.log = Figures(time.monotonic), Health(time.monotonic), Log()
        self.told: list[Mapping[EndpointId, Status | None]] = []
        self.observer = FelixObserver(self.figures, self.health, self.log, self.told.append, watchdog_s=90)
        self.part = Part()
        self.dataplane = Dataplane({"part": self.part}, {}, self.observer)

    def take(self, *messages: Message) -> None:
        for message in messages:
            self.observer.on_message(message)
        self.dataplane.take(messages)


def run(scene: Any) -> Scene:
    made: list[Scene] = []

    async def running() -> None:
        made.append(Scene())
        task = asyncio.create_task(made[0].dataplane.run())
        await scene(made[0])
        task.cancel()

    asyncio.run(running())
    return made[0]


def test_felix_is_ready_after_the_first_apply_and_its_endpoints_are_up() -> None:
    async def scene(it: Scene) -> None:
        it.observer.states.interface_changed("cali1", "up", frozenset(), 7)
        assert not it.health.readiness().is_ok
        it.take(WorkloadUpdate(WorkloadEndpoint(POD, "cali1")), InSync())
        await until(lambda: it.health.readiness().is_ok)
        assert it.told == [{POD: "up"}]

    it = run(scene)
    assert f"| {MAIN_LOOP} | 1m30s" in it.health.liveness().text
    assert 'felix_int_dataplane_messages{type="WorkloadUpdate"} 1\n' in it.figures.text()
    assert "felix_int_dataplane_msg_batch_size_sum 2\n" in it.figures.text()


def test_a_failure_is_told_once_however_often_it_is_tried_and_when_it_is_over() -> None:
    async def scene(it: Scene) -> None:
        it.part.failures = [Failure(f"route 10.0.0.{number}/32", "no") for number in range(7)]
        it.part.failures += [Failure("member x of set s:a", "no"), Failure("chain filter cali-x", "no")]
        it.take(InSync())
        for tries in (1, 2, 3):
            await until(lambda tries=tries: it.figures.value("felix_int_dataplane_failures") >= tries)  # type: ignore[misc]
            it.dataplane.wake()
        it.part.failures = []
        it.dataplane.wake()
        await until(lambda: it.log.named("dataplane_works_again"))

    it = run(scene)
    (failed,) = it.log.named("dataplane_failed")
    assert failed["failures"][0] == "route 10.0.0.0/32: no"
    assert (len(failed["failures"]), failed["more"]) == (5, 4)
    assert it.figures.value("felix_ipset_errors") >= 3
    assert it.figures.value("felix_iptables_restore_errors") >= 3


def test_a_limit_of_bandwidth_is_told_to_have_no_effect_once_a_workload() -> None:
    async def scene(it: Scene) -> None:
        limited = WorkloadEndpoint(POD, "cali1", qos=QoS(ingress_bandwidth=1_000_000))
        for one in (limited, limited, WorkloadEndpoint(POD, "cali1"), limited):
            it.take(WorkloadUpdate(one))

    told = run(scene).log.named("bandwidth_not_limited")
    assert [one["workload"] for one in told] == [POD.workload] * 2
