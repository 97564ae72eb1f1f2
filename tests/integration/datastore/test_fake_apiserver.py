"""The fake API server keeps the promises of the real one: every test here may be held against a real one too."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.integration.datastore.kubernetes_servers import BOTH, MADE_BY_TESTS, ApiAccess, Which, api_access

GROUP = "fake.catbird.example"
WIDGETS = f"/apis/{GROUP}/v1/widgets"
NODES = "/api/v1/nodes"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"


ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def definition() -> dict[str, Any]:
    spec = {
        "type": "object",
        "properties": {"size": {"type": "integer", "maximum": 99}, "colour": {"type": "string", "default": "red"}},
    }
    schema = {"type": "object", "properties": {"spec": spec, "status": ANYTHING}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{GROUP}", "labels": MADE_BY_TESTS},
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {"kind": "Widget", "listKind": "WidgetList", "plural": "widgets", "singular": "widget"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def widget(name: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Widget",
        "metadata": {"name": name, **metadata},
        "spec": {"size": 1},
    }


def run(which: Which, test: Callable[[ApiAccess, str], Awaitable[None]]) -> None:
    """Run `test` with names that nobody else uses, and remove afterwards what carries them."""

    async def main() -> None:
        prefix = f"t{uuid.uuid4().hex[:8]}"
        async with api_access(which) as api:
            made = await api("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition())
            assert made.status in (201, 409), made.text
            async with asyncio.timeout(20):
                while (await api("GET", WIDGETS)).status != 200:  # noqa: ASYNC110 (only asking tells)
                    await asyncio.sleep(0.05)
            try:
                await test(api, prefix)
            finally:
                for path in (WIDGETS, NODES):
                    for item in (await api("GET", path)).body["items"]:
                        if item["metadata"]["name"].startswith(prefix):
                            await api("PATCH", f"{path}/{item['metadata']['name']}", NO_FINALIZERS, media=MERGE)
                            await api("DELETE", f"{path}/{item['metadata']['name']}")

    asyncio.run(main())


NO_FINALIZERS = {"metadata": {"finalizers": None}}


async def create(api: ApiAccess, name: str, **metadata: Any) -> dict[str, Any]:
    made = await api("POST", WIDGETS, widget(name, **metadata))
    assert made.status == 201, made.text
    return made.body


@pytest.mark.parametrize("which", BOTH)
def test_create_gives_identity_and_refuses_a_second_one(which: Which) -> None:
    async def test(api: ApiAccess, name: str) -> None:
        made = await create(api, name)
        assert {"uid", "resourceVersion", "creationTimestamp"} <= set(made["metadata"])
        assert made["metadata"]["generation"] == 1
        again = await api("POST", WIDGETS, widget(name))
        assert (again.status, again.reason) == (409, "AlreadyExists")
        assert again.body["details"] == {"name": name, "group": GROUP, "kind": "widgets"}
        with_revision = await api("POST", WIDGETS, widget(f"{name}-2", resourceVersion="5"))
        assert with_revision.status == 500
        wrong_kind = await api("POST", WIDGETS, {**widget(f"{name}-2"), "kind": "Gadget"})
        assert (wrong_kind.status, wrong_kind.reason) == (422, "Invalid")
        wrong_name = await api("POST", WIDGETS, widget("Not_A_Name"))
        assert (wrong_name.status, wrong_name.body["details"]["causes"][0]["field"]) == (422, "metadata.name")

    run(which, test)


@pytest.mark.parametrize("which", BOTH)
def test_update_compares_the_resource_version_and_the_uid(which: Which) -> None:
    async def test(api: ApiAccess, name: str) -> None:
        first = await create(api, name)
        changed = {**first, "spec": {"size": 2}}
        second = await api("PUT", f"{WIDGETS}/{name}", changed)
        assert second.status == 200
        assert second.body["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]
        assert second.body["metadata"]["generation"] == 2
        stale = await api("PUT", f"{WIDGETS}/{name}", {**first, "spec": {"size": 3}})
        assert (stale.status, stale.reason) == (409, "Conflict")
        blind = await api("PUT", f"{WIDGETS}/{name}", widget(name))
        assert (blind.status, blind.reason) == (422, "Invalid")
        other = {**second.body, "metadata": {**second.body["metadata"], "uid": str(uuid.uuid4())}}
        assert (await api("PUT", f"{WIDGETS}/{name}", other)).status == 409
        missing = await api("PUT", f"{WIDGETS}/{name}-none", widget(f"{name}-none", resourceVersion="5"))
        assert (missing.status, missing.reason) == (404, "NotFound")

    run(which, test)


@pytest.mark.parametrize("which", BOTH)
def test_an_update_that_changes_nothing_makes_no_new_version(which: Which) -> None:
    async def test(api: ApiAccess, name: str) -> None:
        first = await create(api, name)
        again = await api("PUT", f"{WIDGETS}/{name}", first)
        assert again.body["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]

    run(which, test)


@pytest.mark.parametrize("which", BOTH)
def test_chunks_of_a_list_show_one_moment(which: Which) -> None:
    async def test(api: ApiAccess, name: str) -> None:
        for number in range(5):
            await create(api, f"{name}-{number}", labels={"run": name})
        query: dict[str, Any] = {"limit": 2, "labelSelector": f"run={name}"}
        page = (await api("GET", WIDGETS, **query)).body
        names = [item["metadata"]["name"] for item in page["items"]]
        await api("DELETE", f"{WIDGETS}/{name}-3")
        await create(api, f"{name}-5", labels={"run": name})
        revisions = {page["metadata"]["resourceVersion"]}
        while page["metadata"].get("continue"):
            page = (await api("GET", WIDGETS, **query, **{"continue": page["metadata"]["continue"]})).body
            names += [item["metadata"]["name"] for item in page["items"]]
            revisions.add(page["metadata"]["resourceVersion"])
        assert names == [f"{name}-{number}" for number in range(5)]
        assert len(revisions) == 1
        bad = await api("GET", WIDGETS, limit=2, **{"continue": "nonsense"})
        assert (bad.status, bad.reason) == (400, "BadRequest")

    run(which, test)


@pytest.mark.parametrize("which", BOTH)
def test_a_watch_shows_each_change_once_in_order_from_its_version(which: Which) -> None:
    async def test(api: ApiAccess, name: str) -> None:
        start = (await api("GET", WIDGETS)).body["metadata"]["resourceVersion"]
        first = await create(api, name, labels={"run": name})
        second = (await api("PATCH", f"{WIDGETS}/{name}", {"spec": {"size": 7}}, media=MERGE)).body
        await api("DELETE", f"{WIDGETS}/{name}")
        seen = []
        query: dict[str, Any] = {"resourceVersion": start, "labelSelector": f"run={name}", "timeoutSeconds": 10}
        async for kind, value in api.watch(WIDGETS, **query):
            seen.append((kind, value["metadata"]["resourceVersion"], value["spec"]["size"]))
            if kind == "DELETED":
                break
        revisions = [first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]]
        assert [each[0] for each in seen] == ["ADDED", "MODIFIED", "DELETED"]
        assert [each[1] for each in seen[:2]] == revisions
        # The last state, with the version of the deletion.
        assert int(seen[2][1]) > int(revisions[1])
        assert seen[2][2] == 7

    run(which, test)


@pytest.mark.parametrize("which", BOTH)
def test_a_watch_with_a_selector_adds_what_comes_to_match_and_deletes_what_no_longer_does(which: Which) -> None:
    async def test(api: ApiAccess, name: str) -> None:
        made = await create(api, name)
        for value in (name, None):
            await api("PATCH", f"{WIDGETS}/{name}", {"metadata": {"labels": {"run": value}}}, media=MERGE)
        query = {"resourceVersion": made["metadata"]["resourceVersion"], "labelSelector": f"run={name}"}
        kinds = []
        async for kind, _ in api.watch(WIDGETS, **query, timeoutSeconds=10):
            kinds.append(kind)
            if len(kinds) == 2:
                break
        assert kinds == ["ADDED", "DELETED"]

    run(which, test)


@pytest.mark.parametrize("which", BOTH)
def test_a_watch_ends_by_itself_and_without_a_version_begins_with_what_is_there(which: Which) -> None:
    async def test(api: ApiAccess, name: str) -> None:
        await create(api, name, labels={"run": name})
        seen = [kind async for kind, _ in api.watch(WIDGETS, labelSelector=f"run={name}", timeoutSeconds=1)]
        assert seen == ["ADDED"]

    run(which, test)


@pytest.mark.parametrize("which", BOTH)
def test_patches_of_each_type(which: Which) -> None:
    async def test(api: ApiAccess, name: str) -> None:
        node = {"metadata": {"name": name, "labels": {"a": "1", "b": "2"}}}
        assert (await api("POST", NODES, node)).status == 201
        path = f"{NODES}/{name}"
        change = {"metadata": {"labels": {"a": None, "c": "3"}, "annotations": {"x/y": "z"}}}
        for media in (MERGE, STRATEGIC):
            patched = await api("PATCH", path, change, media=media)
            assert patched.status == 200, patched.text
            assert patched.body["metadata"]["labels"] == {"b": "2", "c": "3"}
        steps = [
            {"op": "test", "path": "/metadata/annotations/x~1y", "value": "z"},
            {"op": "replace", "path": "/metadata/annotations/x~1y", "value": "w"},
            {"op": "add", "path": "/metadata/labels/d", "value": "4"},
            {"op": "remove", "path": "/metadata/labels/b"},
        ]
        patched = await api("PATCH", path, steps, media=JSON_PATCH)
        assert patched.body["metadata"]["labels"] == {"c": "3", "d": "4"}
        assert patched.body["metadata"]["annotations"]["x/y"] == "w"
        failed = await api("PATCH", path, steps, media=JSON_PATCH)
        assert failed.status == 422
        stale = {"metadata": {"resourceVersion": "1", "labels": {"e": "5"}}}
        assert (await api("PATCH", path, stale, media=MERGE)).status == 409
        other = {"metadata": {"uid": str(uuid.uuid4()), "labels": {"e": "5"}}}
        assert (await api("PATCH", path, other, media=STRATEGIC)).status == 422
        assert (await api("PATCH", f"{path}-none", change, media=MERGE)).status == 404

    run(which, test)


@pytest.mark.parametrize("which", BOTH)
def test_custom_resources_know_no_strategic_merge(which: Which) -> None:
    async def test(api: ApiAccess, name: str) -> None:
        await create(api, name)
        refused = await api("PATCH", f"{WIDGETS}/{name}", {"spec": {"size": 2}}, media=STRATEGIC)
        assert refused.status == 415

    run(which, test)


@pytest.mark.parametrize("which", BOTH)
def test_the_status_subresource_takes_the_status_alone(which: Which) -> None:
    async def test(api: ApiAccess, name: str) -> None:
        made = await api("POST", WIDGETS, {**widget(name), "status": {"up": True}})
        assert "status" not in made.body
        changed = {**made.body, "spec": {"size": 9}, "status": {"up": True}}
        changed["metadata"] = {**changed["metadata"], "annotations": {"a": "b"}}
        status = (await api("PUT", f"{WIDGETS}/{name}/status", changed)).body
        assert (status["spec"]["size"], status["status"]) == (1, {"up": True})
        assert "annotations" not in status["metadata"]
        plain = (await api("PUT", f"{WIDGETS}/{name}", {**status, "status": {"up": False}})).body
        assert plain["status"] == {"up": True}

    run(which, test)


@pytest.mark.parametrize("which", BOTH)
def test_the_schema_completes_prunes_and_refuses(which: Which) -> None:
    async def test(api: ApiAccess, name: str) -> None:
        value = {**widget(name), "spec": {"size": None, "colour": None, "unknown": True}, "other": 1}
        made = (await api("POST", WIDGETS, value)).body
        assert made["spec"] == {"colour": "red"}
        assert "other" not in made
        for wrong in (100, "1"):
            answer = await api("PUT", f"{WIDGETS}/{name}", {**made, "spec": {"size": wrong}})
            assert (answer.status, answer.reason) == (422, "Invalid")
            assert answer.body["details"]["causes"][0]["field"] == "spec.size"
        unnumbered = {**made, "metadata": {**made["metadata"], "resourceVersion": "x"}}
        assert (await api("PUT", f"{WIDGETS}/{name}", unnumbered)).status == 500

    run(which, test)


@pytest.mark.parametrize("which", BOTH)
def test_a_nodes_status_subresource_takes_annotations_too(which: Which) -> None:
    async def test(api: ApiAccess, name: str) -> None:
        assert (await api("POST", NODES, {"metadata": {"name": name}})).status == 201
        patch = {"metadata": {"annotations": {"x/y": "z"}}, "spec": {"podCIDR": "10.9.0.0/24"}}
        patched = await api("PATCH", f"{NODES}/{name}/status", patch, media=STRATEGIC)
        assert patched.status == 200, patched.text
        assert patched.body["metadata"]["annotations"]["x/y"] == "z"
        assert "podCIDR" not in patched.body.get("spec", {})

    run(which, test)


@pytest.mark.parametrize("which", BOTH)
def test_delete_compares_its_preconditions_and_waits_for_finalizers(which: Which) -> None:
    async def test(api: ApiAccess, name: str) -> None:
        made = await create(api, name, finalizers=["catbird.test/hold"])
        path = f"{WIDGETS}/{name}"
        for wrong in ({"uid": str(uuid.uuid4())}, {"resourceVersion": "1"}):
            refused = await api("DELETE", path, {"preconditions": wrong})
            assert (refused.status, refused.reason) == (409, "Conflict")
        right = {"preconditions": {"uid": made["metadata"]["uid"]}}
        assert (await api("DELETE", path, right)).status == 200
        held = (await api("GET", path)).body
        assert held["metadata"]["deletionTimestamp"]
        await api("PATCH", path, NO_FINALIZERS, media=MERGE)
        assert (await api("GET", path)).status == 404
        assert (await api("DELETE", path)).reason == "NotFound"

    run(which, test)


@pytest.mark.parametrize("which", BOTH)
def test_a_revision_of_the_future_cannot_be_listed(which: Which) -> None:
    async def test(api: ApiAccess, name: str) -> None:
        answer = await api("GET", WIDGETS, resourceVersion="99999999")
        assert (answer.status, answer.reason) == (504, "Timeout")
        assert answer.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"

    run(which, test)


@pytest.mark.parametrize("which", BOTH)
def test_discovery_names_groups_and_resources_and_unknown_paths_are_plain_404(which: Which) -> None:
    async def test(api: ApiAccess, name: str) -> None:
        groups = {group["name"] for group in (await api("GET", "/apis")).body["groups"]}
        assert {GROUP, "networking.k8s.io", "apiextensions.k8s.io"} <= groups
        members = {each["name"] for each in (await api("GET", f"/apis/{GROUP}/v1")).body["resources"]}
        assert "widgets" in members
        unknown = await api("GET", f"/apis/{GROUP}/v1/gadgets")
        assert (unknown.status, unknown.text.strip()) == (404, "404 page not found")
        missing = await api("GET", f"{WIDGETS}/{name}")
        assert (missing.status, missing.reason) == (404, "NotFound")

    run(which, test)


@pytest.mark.parametrize("which", BOTH)
def test_an_object_needs_its_namespace(which: Which) -> None:
    async def test(api: ApiAccess, name: str) -> None:
        answer = await api("POST", f"/api/v1/namespaces/{name}/configmaps", {"metadata": {"name": "x"}})
        assert (answer.status, answer.body["details"]["kind"]) == (404, "namespaces")

    run(which, test)


def test_what_was_compacted_is_gone_for_watches_and_chunks() -> None:
    async def test(api: ApiAccess, name: str) -> None:
        assert api.fake is not None
        for number in range(3):
            await create(api, f"{name}-{number}")
        page = (await api("GET", WIDGETS, limit=1)).body["metadata"]
        await create(api, f"{name}-3")
        api.fake.store.compact()
        expired = await api("GET", WIDGETS, limit=1, **{"continue": page["continue"]})
        assert (expired.status, expired.reason) == (410, "Expired")
        events = [event async for event in api.watch(WIDGETS, resourceVersion=page["resourceVersion"])]
        assert [(kind, value["code"], value["reason"]) for kind, value in events] == [("ERROR", 410, "Expired")]

    run("fake", test)


def test_bookmarks_tell_how_far_a_quiet_watch_is() -> None:
    async def test(api: ApiAccess, name: str) -> None:
        assert api.fake is not None
        api.fake.bookmark_every_s = 0.01
        made = await create(api, name)
        await api("POST", NODES, {"metadata": {"name": name}})
        start = made["metadata"]["resourceVersion"]
        async for kind, value in api.watch(WIDGETS, resourceVersion=start, allowWatchBookmarks="true"):
            assert kind == "BOOKMARK"
            assert int(value["metadata"]["resourceVersion"]) > int(start)
            break

    run("fake", test)
