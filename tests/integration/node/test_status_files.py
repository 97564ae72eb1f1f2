"""The files that the CNI plugin waits for."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from felix.desired import WorkloadEndpoint, WorkloadId, WorkloadRemove, WorkloadUpdate
from integration.node.status_files import StatusFiles, file_name
from tests.integration.node.waiting import Log, until

POD = WorkloadId("k8s", "ns/pod", "eth0")
ENDPOINT = WorkloadEndpoint(POD, "cali1", mac="ee:ee:ee:ee:ee:ee", ipv4_nets=("10.0.0.1/32",), bgp_peer="tor")


def names(files: StatusFiles) -> list[str]:
    return sorted(os.listdir(files.directory))


def with_pod(prefix: Path, log: Log | None = None) -> StatusFiles:
    files = StatusFiles(str(prefix), log or Log())
    files.on_message(WorkloadUpdate(ENDPOINT))
    files.told({POD: "up"})
    return files


def test_a_workload_that_is_up_has_a_file_with_calicos_name_and_fields(tmp_path: Path) -> None:
    files = with_pod(tmp_path / "calico")
    assert asyncio.run(files.write_once()) == ""
    assert names(files) == ["k8s ns%2Fpod eth0"]
    path = files.directory / "k8s ns%2Fpod eth0"
    assert path.stat().st_mode & 0o777 == 0o644
    assert json.loads(path.read_text()) == {
        "ifaceName": "cali1",
        "mac": "ee:ee:ee:ee:ee:ee",
        "ipv4Nets": ["10.0.0.1/32"],
        "bgpPeerName": "tor",
    }


def test_parts_of_a_name_cannot_be_mistaken_for_each_other() -> None:
    assert file_name(WorkloadId("a b", "c/../d", "%e")) == "a%20b c%2F..%2Fd %25e"
    assert file_name(WorkloadId("openstack", "a:b@c=d+e", "é")) == "openstack a:b@c=d+e %C3%A9"


def test_a_changed_endpoint_is_written_again(tmp_path: Path) -> None:
    files = with_pod(tmp_path)
    asyncio.run(files.write_once())
    files.on_message(WorkloadUpdate(WorkloadEndpoint(POD, "cali2")))
    asyncio.run(files.write_once())
    assert json.loads((files.directory / file_name(POD)).read_text()) == {"ifaceName": "cali2"}


@pytest.mark.parametrize("is_removed", [True, False])
def test_the_file_goes_with_the_workload_or_when_it_is_down(tmp_path: Path, is_removed: bool) -> None:
    files = with_pod(tmp_path)
    asyncio.run(files.write_once())
    if is_removed:
        files.on_message(WorkloadRemove(POD))
    else:
        files.told({POD: "down"})
    asyncio.run(files.write_once())
    assert names(files) == []


def test_files_of_a_former_process_stay_until_everything_is_known(tmp_path: Path) -> None:
    directory = tmp_path / "endpoint-status"
    directory.mkdir()
    (directory / "k8s ns%2Fgone eth0").write_text("{}")
    (directory / file_name(POD)).write_text("not what we write")
    (directory / ".writing-12").write_text("half of it")
    files = with_pod(tmp_path)
    asyncio.run(files.write_once())
    assert names(files) == ["k8s ns%2Fgone eth0", file_name(POD)]
    assert json.loads((directory / file_name(POD)).read_text())["ifaceName"] == "cali1"
    files.in_sync()
    asyncio.run(files.write_once())
    assert names(files) == [file_name(POD)]


def test_a_directory_that_somebody_removes_comes_back_with_all_files(tmp_path: Path) -> None:
    files = with_pod(tmp_path)
    other = WorkloadId("k8s", "ns/other", "eth0")
    files.on_message(WorkloadUpdate(WorkloadEndpoint(other, "cali3")))
    files.told({other: "up"})
    asyncio.run(files.write_once())
    subprocess.run(["rm", "-r", files.directory], check=True)
    files.on_message(WorkloadUpdate(WorkloadEndpoint(other, "cali4")))
    assert asyncio.run(files.write_once()) != ""
    assert asyncio.run(files.write_once()) == ""
    assert names(files) == sorted([file_name(other), file_name(POD)])


def test_one_name_that_is_too_long_harms_no_other(tmp_path: Path) -> None:
    files = with_pod(tmp_path)
    long = WorkloadId("k8s", "n" * 253 + "/" + "p" * 253, "eth0")
    files.on_message(WorkloadUpdate(WorkloadEndpoint(long, "cali5")))
    files.told({long: "up"})
    assert "too long" in asyncio.run(files.write_once())
    assert names(files) == [file_name(POD)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 4 KiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "catbird-test", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.root
def test_a_full_disk_is_told_once_and_tried_again(small_disk: Path) -> None:
    log = Log()
    filler = small_disk / "filler"
    filler.write_bytes(bytes(4096))
    files = with_pod(small_disk, log)

    tries = 0
    write_once = files.write_once

    async def counted() -> str:
        nonlocal tries
        tries += 1
        return await write_once()

    files.write_once = counted  # type: ignore[method-assign]

    async def scene() -> None:
        running = asyncio.create_task(files.run())
        await until(lambda: tries >= 3, "it is tried again")
        assert [name for name, _ in log.events] == ["endpoint_files_failed"]
        assert "No space left" in log.events[0][1]["error"]
        assert names(files) == []
        filler.unlink()
        await until(lambda: len(log.events) == 2, "it is said that it works again")
        running.cancel()

    asyncio.run(scene())
    assert log.events[1][0] == "endpoint_files_written_again"
    assert names(files) == [file_name(POD)]
