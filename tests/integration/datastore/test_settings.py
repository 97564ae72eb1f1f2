"""Which datastore: by URL, environment or file; and what is said of a setting that cannot be meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from integration.datastore.settings import Settings, SettingsError, load_settings

ETCD = ("http://10.0.0.1:2379", "https://etcd.example:2379")


@pytest.mark.parametrize(
    ("url", "environment", "wanted"),
    [
        ("", {}, Settings()),
        ("local:/tmp/x.db", {"CALICO_ETCD_ENDPOINTS": ""}, ("local", {"local_path": Path("/tmp/x.db")})),
        ("etcd:" + ",".join(ETCD), {}, ("etcdv3", {"etcd_endpoints": ETCD})),
        (
            "",
            {"DATASTORE_TYPE": "etcdv3", "ETCD_ENDPOINTS": f"{ETCD[0]}, {ETCD[1]}"},
            ("etcdv3", {"etcd_endpoints": ETCD}),
        ),
        ("", {"ETCD_ENDPOINTS": ETCD[0]}, ("etcdv3", {"etcd_endpoints": ETCD[:1]})),
        (
            "",
            {"CALICO_ETCD_ENDPOINTS": ETCD[0], "ETCD_ENDPOINTS": ETCD[1]},
            ("etcdv3", {"etcd_endpoints": ETCD[:1]}),
        ),
        ("", {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, ("kubernetes", {})),
        ("kubernetes:/etc/kubeconfig", {}, ("kubernetes", {"kubeconfig": "/etc/kubeconfig"})),
        (
            "",
            {"DATASTORE_TYPE": "kubernetes", "USE_POD_CIDR": "true", "CALICO_API_GROUP": "projectcalico.org/v3"},
            ("kubernetes", {"use_pod_cidr": True, "calico_api_group": "projectcalico.org/v3"}),
        ),
    ],
)
def test_where_the_datastore_is(url: str, environment: dict[str, str], wanted: object) -> None:
    settings = load_settings(url, environment=environment)
    if isinstance(wanted, tuple):
        kind, more = wanted
        wanted = Settings(datastore_type=kind, **more)
    assert settings == wanted


def test_a_file_of_calicos_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    path = tmp_path / "calicoctl.cfg"
    path.write_text(
        "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n"
        "  datastoreType: etcdv3\n  etcdEndpoints: http://10.0.0.1:2379\n  etcdPassword: secret\n  k8sClientQPS: 5\n"
    )
    settings = load_settings(config_file=path, environment={"ETCD_USERNAME": "root"})
    assert (settings.etcd_endpoints, settings.etcd_username, settings.etcd_password) == (ETCD[:1], "root", "secret")
    assert load_settings(config_file=path, environment={"ETCD_ENDPOINTS": ETCD[1]}).etcd_endpoints == ETCD[1:]
    assert "secret" not in repr(settings) + str(settings)


@pytest.mark.parametrize(
    ("url", "environment", "text", "words"),
    [
        ("mysql:x", {}, "", "datastore 'mysql:x' is not known; local:PATH"),
        ("etcd:10.0.0.1:2379", {}, "", "endpoint '10.0.0.1:2379'; http://HOST:PORT"),
        ("", {"DATASTORE_TYPE": "etcd3"}, "", "DATASTORE_TYPE in the environment is 'etcd3'"),
        ("", {"DATASTORE_TYPE": "etcdv3"}, "", "has no endpoint; set ETCD_ENDPOINTS"),
        ("", {"ETCD_ENDPOINTS": ETCD[0], "ETCD_DISCOVERY_SRV": "x.example"}, "", "are both given"),
        ("", {"ETCD_ENDPOINTS": ETCD[0], "ETCD_KEY_FILE": "/k"}, "", "only one is given"),
        ("", {"USE_POD_CIDR": "perhaps"}, "", "USE_POD_CIDR in the environment is 'perhaps'; true or false"),
        ("", {}, "kind: Pod", "kind is not CalicoAPIConfig"),
        ("", {}, "kind: CalicoAPIConfig\nspec: {etcdEndpoint: x}", "spec.etcdEndpoint is not known"),
        ("", {}, "kind: [", "not YAML"),
    ],
)
def test_what_cannot_be_meant_is_named(
    tmp_path: Path, url: str, environment: dict[str, str], text: str, words: str
) -> None:
    path = tmp_path / "file.cfg"
    path.write_text(text)
    with pytest.raises(SettingsError, match=re.escape(words)):
        load_settings(url, config_file=path if text else None, environment=environment)


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load_settings(config_file=tmp_path / "none", environment={})
