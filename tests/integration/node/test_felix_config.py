"""Felix' configuration while it runs."""

from __future__ import annotations

from pathlib import Path

from felix.config import FelixConfig
from felix.desired import ConfigUpdate, InSync
from integration.node.felix_config import LiveConfig
from tests.integration.node.waiting import Log


def live(tmp_path: Path, log: Log, file: str = "", **environ: str) -> LiveConfig:
    path = tmp_path / "felix.cfg"
    path.write_text(file)
    return LiveConfig(environ, "node-1", log, file=str(path))


def test_environment_beats_file_beats_datastore(tmp_path: Path) -> None:
    config = live(tmp_path, Log(), "LogPrefix = file\nVXLANPort = 1\n", FELIX_LOGPREFIX="environment")
    config.on_message(ConfigUpdate({"LogPrefix": "x", "VXLANPort": "2", "VXLANVNI": "3"}, for_node={"VXLANVNI": "4"}))
    now = config.now
    assert (now.hostname, now.log_prefix, now.vxlan_port, now.vxlan_vni) == ("node-1", "environment", 1, 4)


def test_before_the_beginning_nothing_needs_a_restart(tmp_path: Path) -> None:
    config = live(tmp_path, Log())
    config.on_message(ConfigUpdate({"VXLANPort": "2"}))
    assert config.restart == frozenset()
    assert config.now.vxlan_port == 2


def test_a_live_change_reaches_the_listeners(tmp_path: Path) -> None:
    log, heard = Log(), list[FelixConfig]()
    config = live(tmp_path, log)
    config.begin()
    config.listen(heard.append)
    config.on_message(ConfigUpdate({"HealthEnabled": "true"}))
    config.on_message(ConfigUpdate({"HealthEnabled": "true"}))
    config.on_message(InSync())
    assert [one.health_enabled for one in heard] == [True]
    assert log.named("felix_config_changed") == [{"changed": ["health_enabled"]}]


def test_a_change_that_needs_a_restart_is_not_taken_over_and_may_be_taken_back(tmp_path: Path) -> None:
    log, heard = Log(), list[FelixConfig]()
    config = live(tmp_path, log)
    config.begin()
    config.listen(heard.append)
    config.on_message(ConfigUpdate({"VXLANPort": "2", "HealthEnabled": "true"}))
    assert config.restart == {"vxlan_port"}
    assert config.now.vxlan_port == 4789
    assert heard == []
    config.on_message(ConfigUpdate())
    assert config.restart == frozenset()


def test_a_problem_is_told_once_and_gone_when_it_is_mended(tmp_path: Path) -> None:
    log = Log()
    config = live(tmp_path, log, "VXLANPort = none of\nnonsense\n")
    config.on_message(ConfigUpdate({"LogPrefix": "x"}))
    config.on_message(ConfigUpdate({"MetadataPort": "x\x1b"}))
    told = [fields["problem"] for fields in log.named("felix_config_problem")]
    assert len(told) == 3
    assert "\x1b" not in told[2]
    assert [problem.parameter for problem in config.problems if problem.is_vital] == ["MetadataPort"]
    config.on_message(ConfigUpdate())
    assert not any(problem.is_vital for problem in config.problems)
    assert len(config.problems) == 2


def test_a_file_that_cannot_be_read_is_a_vital_problem(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "latin").write_bytes(b"LogPrefix = \xe9\n")
    for name in ("directory", "latin"):
        config = LiveConfig({}, "node-1", Log(), file=str(tmp_path / name))
        assert [problem.parameter for problem in config.problems if problem.is_vital] == [str(tmp_path / name)]
    assert LiveConfig({}, "node-1", Log(), file=str(tmp_path / "none")).problems == []
