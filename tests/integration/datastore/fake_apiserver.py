"""The smallest HTTP server that speaks the Kubernetes API's list, watch, patch and delete semantics as the real one does.

    async with FakeApiServer() as server:
        server.url, server.kubeconfig()

What a test may do to it: `store.compact()`, `cut_watches()`, `faults`, `users`, `page_limit`, and stop() and start() again
on the same port with everything still stored.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import re
import ssl
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.integration.datastore.api_patches import json_patch, merge_patch, strategic_merge_patch
from tests.integration.datastore.api_schema import admitted, check_name, invalid
from tests.integration.datastore.api_store import (
    ApiFailure,
    Object,
    Path,
    ResourceType,
    Store,
    field_selector,
    label_selector,
    watch_event,
)

BUILT_IN = [
    ResourceType("", "v1", "namespaces", "Namespace", namespaced=False, has_status=True),
    ResourceType("", "v1", "nodes", "Node", namespaced=False, has_status=True),
    ResourceType("", "v1", "pods", "Pod", namespaced=True, has_status=True),
    ResourceType("", "v1", "services", "Service", namespaced=True, has_status=True),
    ResourceType("", "v1", "secrets", "Secret", namespaced=True),
    ResourceType("", "v1", "serviceaccounts", "ServiceAccount", namespaced=True),
    ResourceType("", "v1", "configmaps", "ConfigMap", namespaced=True),
    ResourceType("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", namespaced=True),
    ResourceType("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", namespaced=True),
    ResourceType(
        "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
    ),
]
DEFINITIONS = ("apiextensions.k8s.io", "customresourcedefinitions")
ADMIN = "admin-token"
PATCHES: dict[str, Callable[[Any, Any], Any]] = {
    "application/merge-patch+json": merge_patch,
    "application/strategic-merge-patch+json": strategic_merge_patch,
    "application/json-patch+json": json_patch,
}


@dataclass
class User:
    name: str
    # What it may do, as (verb, qualified resource); None: everything.
    allowed: set[tuple[str, str]] | None = None


@dataclass
class Fault:
    """What the next `times` requests that fit get instead of an answer; status 0 closes the connection."""

    status: int
    times: int = 1
    method: str = ""
    path: str = ""
    query: str = ""
    watch: bool | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def fits(self, request: web.Request) -> bool:
        return (
            self.times > 0
            and self.method in ("", request.method)
            and self.path in request.path
            and self.query in request.query_string
            and self.watch in (None, _is_watch(request))
        )


@dataclass(frozen=True)
class Target:
    """What a request's path names."""

    type: ResourceType
    namespace: str
    name: str
    subresource: str

    @property
    def path(self) -> Path:
        return Path(self.type.group, self.type.plural, self.namespace, self.name)

    def details(self) -> Object:
        return {"name": self.name, "group": self.type.group, "kind": self.type.plural}


class FakeApiServer:
    def __init__(self, *, tls: ssl.SSLContext | None = None, bookmark_every_s: float = 60.0) -> None:
        self.store = Store()
        self.types = list(BUILT_IN)
        self.users = {ADMIN: User("admin")}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.patch_types: list[str] = []
        self.bookmark_every_s = bookmark_every_s
        self.port = 0
        self._tls = tls
        self._changed = asyncio.Event()
        self._watches: set[web.StreamResponse] = set()
        self._runner: web.AppRunner | None = None
        for name in ("default", "kube-system"):
            self._store_new(Target(BUILT_IN[0], "", name, ""), {"metadata": {"name": name}})

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def kubeconfig(self, token: str = ADMIN, **cluster: Any) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": self.url, **cluster}}],
            "users": [{"name": "me", "user": {"token": token}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "me"}}],
            "current-context": "fake",
        }

    async def start(self) -> None:
        app = web.Application(client_max_size=16 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self.cut_watches()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def cut_watches(self) -> None:
        """Close every watch's connection, in the middle of the stream."""
        for response in list(self._watches):
            payload = response._payload_writer
            transport = getattr(payload, "transport", None)
            if transport is not None:
                transport.abort()

    @property
    def watching(self) -> int:
        return len(self._watches)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs))
        for fault in self.faults:
            if fault.fits(request):
                fault.times -= 1
                if fault.status:
                    failure = ApiFailure(fault.status, "TestOrder", "as the test ordered")
                    return _json(failure.status, fault.status, fault.headers)
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
        try:
            return await self._dispatch(request)
        except ApiFailure as failure:
            return _json(failure.status, failure.code, failure.headers)

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        user = self._user(request)
        if (found := self._discovery(request.path.rstrip("/"))) is not None:
            return _json(found)
        target = self._target(request.path)
        if target is None:
            # Discovery is everybody's; whether a collection is there is nobody's business who may not read it.
            if user.allowed is not None and re.match(r"/api(s/[^/]+)?/[^/]+/.", request.path):
                raise ApiFailure(403, "Forbidden", f'forbidden: User "{user.name}" cannot use "{request.path}"')
            return web.Response(status=404, text="404 page not found\n")
        watch = _is_watch(request)
        verbs = {"GET": "get" if target.name else "watch" if watch else "list", "POST": "create", "PUT": "update"}
        verb = {**verbs, "PATCH": "patch", "DELETE": "delete"}.get(request.method, "")
        _authorize(user, verb, target)
        if verb == "watch":
            return await self._watch(request, target)
        actions: dict[str, Callable[[web.Request, Target], Awaitable[Object]]] = {
            "get": self._get,
            "list": self._list,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
        }
        if bool(target.name) != (verb in ("get", "update", "patch", "delete")) and verb != "list":
            raise ApiFailure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        return _json(await actions[verb](request, target), 201 if verb == "create" else 200)

    def _user(self, request: web.Request) -> User:
        _, _, token = request.headers.get("Authorization", "").partition(" ")
        if token.strip() not in self.users:
            raise ApiFailure(401, "Unauthorized", "Unauthorized")
        return self.users[token.strip()]

    def _discovery(self, path: str) -> Object | None:
        groups = sorted({(each.group, each.version) for each in self.types})
        if path in ("/readyz", "/livez"):
            return {}
        if path == "/version":
            return {"major": "1", "minor": "fake", "gitVersion": "v1.0.0-fake"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*each) for each in groups if each[0]]}
        for group, version in groups:
            if group and path == f"/apis/{group}":
                return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, version)}
            if path == (f"/apis/{group}/{version}" if group else f"/api/{version}"):
                members = [each for each in self.types if (each.group, each.version) == (group, version)]
                return {
                    "kind": "APIResourceList",
                    "apiVersion": "v1",
                    "groupVersion": f"{group}/{version}".lstrip("/"),
                    "resources": [
                        {"name": each.plural, "namespaced": each.namespaced, "kind": each.kind} for each in members
                    ],
                }
        return None

    def _target(self, path: str) -> Target | None:
        parts = path.strip("/").split("/")
        if parts[0] == "api" and len(parts) >= 3:
            group, version, rest = "", parts[1], parts[2:]
        elif parts[0] == "apis" and len(parts) >= 4:
            group, version, rest = parts[1], parts[2], parts[3:]
        else:
            return None
        namespace = ""
        if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] != "status":
            namespace, rest = rest[1], rest[2:]
        plural, name, subresource = [*rest, "", ""][:3]
        for each in self.types:
            if (each.group, each.version, each.plural) != (group, version, plural) or len(rest) > 3:
                continue
            if subresource not in ("", "status") or (subresource and not each.has_status):
                return None
            if each.namespaced != bool(namespace) and (name or namespace):
                return None
            return Target(each, namespace, name, subresource)
        return None

    # Reading

    def _found(self, target: Target) -> Object:
        value = self.store.objects.get(target.path)
        if value is None:
            raise ApiFailure(404, "NotFound", f'{target.type.qualified} "{target.name}" not found', target.details())
        return copy.deepcopy(value)

    async def _get(self, request: web.Request, target: Target) -> Object:
        return self._found(target)

    async def _list(self, request: web.Request, target: Target) -> Object:
        query = request.query
        limit, start, revision = int(query.get("limit") or 0), "", self.store.revision
        if query.get("continue"):
            start, revision = self._continued(query["continue"])
        elif query.get("resourceVersion") not in (None, "", "0"):
            wanted = _revision(query["resourceVersion"])
            if wanted > self.store.revision:
                raise _too_large(wanted, self.store.revision)
            if query.get("resourceVersionMatch") == "Exact":
                if wanted < self.store.compacted:
                    raise ApiFailure(410, "Expired", "The resourceVersion for the provided list is too old.")
                revision = wanted
        selected = _selection(request)
        items: list[tuple[Path, Object]] = [
            (path, value)
            for path, value in sorted(self.store.at(revision).items())
            if path.is_in(target.type.group, target.type.plural, target.namespace) and selected(value)
        ]
        waiting = [item for item in items if not start or _continue_key(item[0]) > start]
        page = waiting[:limit] if limit else waiting
        metadata: Object = {"resourceVersion": str(revision)}
        if len(page) < len(waiting):
            token = json.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": _continue_key(page[-1][0])})
            metadata["continue"] = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
            metadata["remainingItemCount"] = len(waiting) - len(page)
        return {
            "kind": f"{target.type.kind}List",
            "apiVersion": target.type.api_version,
            "metadata": metadata,
            # Items of built-in lists have no kind and apiVersion of their own; those of custom resources do.
            "items": [value if target.type.is_custom else _without_type(value) for _, value in page],
        }

    def _continued(self, text: str) -> tuple[str, int]:
        try:
            token = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            start, revision = str(token["start"]), int(token["rv"])
        except (ValueError, KeyError) as error:
            raise ApiFailure(400, "BadRequest", "continue key is not valid") from error
        if revision < self.store.compacted:
            message = (
                "The provided continue parameter is too old to display a consistent list result. You can start a new "
                "list without the continue parameter."
            )
            raise ApiFailure(410, "Expired", message)
        return start, revision

    async def _watch(self, request: web.Request, target: Target) -> web.StreamResponse:
        query, selected = request.query, _selection(request)
        seen = _revision(query.get("resourceVersion") or "0")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        ends_at = _now() + float(query.get("timeoutSeconds") or 1800)
        await response.prepare(request)
        self._watches.add(response)
        try:
            if seen == 0:
                seen = self.store.revision
                for path, value in sorted(self.store.at(seen).items()):
                    if path.is_in(target.type.group, target.type.plural, target.namespace) and selected(value):
                        await _send(response, "ADDED", value)
            elif seen < self.store.compacted:
                message = f"too old resource version: {seen} ({self.store.compacted})"
                await _send(response, "ERROR", ApiFailure(410, "Expired", message).status)
                return response
            with_bookmarks = query.get("allowWatchBookmarks") in ("1", "true")
            await self._follow(response, target, selected, seen, ends_at, with_bookmarks=with_bookmarks)
        except ConnectionError:
            pass
        finally:
            self._watches.discard(response)
        return response

    async def _follow(
        self,
        response: web.StreamResponse,
        target: Target,
        selected: Callable[[Object], bool],
        seen: int,
        ends_at: float,
        *,
        with_bookmarks: bool,
    ) -> None:
        bookmark_at = _now() + self.bookmark_every_s
        while True:
            changed = self._changed
            for change in list(self.store.since(seen)):
                event = watch_event(change, target.type.group, target.type.plural, target.namespace, selected)
                if event:
                    await _send(response, *event)
            seen = self.store.revision
            now = _now()
            if with_bookmarks and now >= bookmark_at:
                await _send(response, "BOOKMARK", _bookmark(target.type, seen))
                bookmark_at = now + self.bookmark_every_s
            if now >= ends_at:
                return
            try:
                async with asyncio.timeout(max(0.0, min(ends_at, bookmark_at) - now)):
                    await changed.wait()
            except TimeoutError:
                pass

    # Writing

    def _commit(self, path: Path, value: Object | None) -> Object:
        written = self.store.write(path, value)
        if (path.group, path.plural) == DEFINITIONS:
            self._define()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        return written

    def _define(self) -> None:
        """Serve the custom resources that are defined now."""
        self.types = [each for each in self.types if not each.is_custom]
        for path, value in sorted(self.store.objects.items()):
            if (path.group, path.plural) == DEFINITIONS:
                spec = value["spec"]
                self.types += [
                    ResourceType(
                        spec["group"],
                        version["name"],
                        spec["names"]["plural"],
                        spec["names"]["kind"],
                        namespaced=spec["scope"] == "Namespaced",
                        has_status="status" in version.get("subresources", {}),
                        is_custom=True,
                        schema=version["schema"]["openAPIV3Schema"],
                    )
                    for version in spec["versions"]
                    if version["served"]
                ]

    async def _create(self, request: web.Request, target: Target) -> Object:
        value = await _body(request, target.type)
        metadata = value.setdefault("metadata", {})
        if metadata.get("resourceVersion"):
            raise ApiFailure(500, "InternalError", "resourceVersion should not be set on objects to be created")
        name = metadata.get("name") or f"{metadata['generateName']}{uuid.uuid4().hex[:5]}"
        target = Target(target.type, target.namespace, name, "")
        check_name(target.type.qualified, name)
        if metadata.get("namespace", target.namespace) != target.namespace:
            message = "the namespace of the provided object does not match the namespace sent on the request"
            raise ApiFailure(400, "BadRequest", message)
        if target.namespace and Path("", "namespaces", "", target.namespace) not in self.store.objects:
            details = {"name": target.namespace, "kind": "namespaces"}
            raise ApiFailure(404, "NotFound", f'namespaces "{target.namespace}" not found', details)
        if target.path in self.store.objects:
            message = f'{target.type.qualified} "{name}" already exists'
            raise ApiFailure(409, "AlreadyExists", message, target.details())
        if target.type.is_custom and target.type.has_status:
            value.pop("status", None)
        return self._store_new(target, value)

    def _store_new(self, target: Target, value: Object) -> Object:
        metadata = {
            **value["metadata"],
            "name": target.name,
            "uid": str(uuid.uuid4()),
            "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            **({"namespace": target.namespace} if target.namespace else {}),
            **({"generation": 1} if target.type.is_custom else {}),
        }
        metadata.pop("deletionTimestamp", None)
        type_meta = {"apiVersion": target.type.api_version, "kind": target.type.kind}
        value = {**type_meta, **value, **type_meta, "metadata": metadata}
        return self._commit(target.path, _admitted(target, value))

    async def _update(self, request: web.Request, target: Target) -> Object:
        value = await _body(request, target.type)
        metadata = value.setdefault("metadata", {})
        if metadata.get("name", target.name) != target.name:
            message = f"the name of the object ({metadata['name']}) does not match the name on the URL ({target.name})"
            raise ApiFailure(400, "BadRequest", message)
        current = self._found(target)
        if target.type.is_custom and not metadata.get("resourceVersion"):
            message = (
                f'{target.type.kind}.{target.type.group} "{target.name}" is invalid: metadata.resourceVersion: '
                "Invalid value: 0x0: must be specified for an update"
            )
            raise ApiFailure(422, "Invalid", message, target.details())
        return self._replace(target, current, value)

    async def _patch(self, request: web.Request, target: Target) -> Object:
        media = request.content_type
        self.patch_types.append(media)
        known = list(PATCHES)[:: 2 if target.type.is_custom else 1]
        if media not in known:
            message = "the body of the request was in an unknown format - accepted media types include: "
            raise ApiFailure(415, "UnsupportedMediaType", message + ", ".join(known))
        current = self._found(target)
        patched = PATCHES[media](current, json.loads(await request.read()))
        return self._replace(target, current, patched, is_patch=True)

    def _replace(self, target: Target, current: Object, value: Object, *, is_patch: bool = False) -> Object:
        wanted, held = value.setdefault("metadata", {}), current["metadata"]
        if wanted.get("uid", held["uid"]) != held["uid"] and is_patch:
            raise invalid(target.type.kind, target.name, [("metadata.uid", "field is immutable")])
        if wanted.get("uid", held["uid"]) != held["uid"]:
            raise _conflict(
                target, f"Precondition failed: UID in precondition: {wanted['uid']}, UID in object meta: {held['uid']}"
            )
        if not (wanted.get("resourceVersion") or "0").isdigit():
            raise ApiFailure(500, "", f'strconv.ParseUint: parsing "{wanted["resourceVersion"]}": invalid syntax')
        if wanted.get("resourceVersion") not in (None, "", held["resourceVersion"]):
            raise _conflict(
                target, "the object has been modified; please apply your changes to the latest version and try again"
            )
        fixed = {name: held[name] for name in FIXED_METADATA if name in held}
        value = {**value, "apiVersion": current["apiVersion"], "kind": current["kind"]}
        value["metadata"] = {**wanted, **fixed}
        if target.subresource == "status":
            kept = ("status",) if target.type.is_custom else ("status", "metadata")
            value = {**current, **{name: value[name] for name in kept if name in value}}
        elif target.type.has_status:
            value.pop("status", None)
            value |= {"status": current["status"]} if "status" in current else {}
        value = _admitted(target, value)
        if value == current:
            return current
        if target.type.is_custom and _specified(value) != _specified(current):
            value["metadata"]["generation"] = held.get("generation", 0) + 1
        if held.get("deletionTimestamp") and not value["metadata"].get("finalizers"):
            return self._commit(target.path, None)
        return self._commit(target.path, value)

    async def _delete(self, request: web.Request, target: Target) -> Object:
        options = json.loads(await request.read() or b"{}")
        current = self._found(target)
        for name, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            wanted = (options.get("preconditions") or {}).get(name)
            held = current["metadata"][name]
            if wanted and wanted != held:
                raise _conflict(
                    target, f"Precondition failed: {label} in precondition: {wanted}, {label} in object meta: {held}"
                )
        grace = options.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))
        lingers = target.type.plural == "pods" and current.get("spec", {}).get("nodeName") and str(grace) != "0"
        if current["metadata"].get("finalizers") or lingers:
            current["metadata"].setdefault("deletionTimestamp", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
            return self._commit(target.path, current)
        gone = self._commit(target.path, None)
        if target.type.plural == "pods":
            return gone
        details = {**target.details(), "uid": current["metadata"]["uid"]}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


# What nobody can change by an update.
FIXED_METADATA = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "resourceVersion",
    "generation",
    "deletionTimestamp",
)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _admitted(target: Target, value: Object) -> Object:
    return admitted(value, target.type.schema, target.type.qualified) if target.type.schema else value


def _is_watch(request: web.Request) -> bool:
    return request.query.get("watch") in ("1", "true")


def _json(value: Object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(text=json.dumps(value), status=status, headers=headers, content_type="application/json")


def _group(group: str, version: str) -> Object:
    served = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [served], "preferredVersion": served}


def _authorize(user: User, verb: str, target: Target) -> None:
    resource = target.type.plural + (f"/{target.subresource}" if target.subresource else "")
    qualified = f"{resource}.{target.type.group}" if target.type.group else resource
    if user.allowed is not None and (verb, qualified) not in user.allowed:
        where = f'in the namespace "{target.namespace}"' if target.namespace else "at the cluster scope"
        name = f' "{target.name}"' if target.name else ""
        message = (
            f'{qualified}{name} is forbidden: User "{user.name}" cannot {verb} resource "{resource}" '
            f'in API group "{target.type.group}" {where}'
        )
        raise ApiFailure(403, "Forbidden", message, {**target.details(), "kind": target.type.plural})


def _revision(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ApiFailure(500, "", f'resourceVersion: Invalid value: "{text}"') from None


def _too_large(wanted: int, current: int) -> ApiFailure:
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    message = f"Timeout: Too large resource version: {wanted}, current: {current}"
    return ApiFailure(504, "Timeout", message, {"causes": causes, "retryAfterSeconds": 1})


def _conflict(target: Target, why: str) -> ApiFailure:
    message = f'Operation cannot be fulfilled on {target.type.qualified} "{target.name}": {why}'
    return ApiFailure(409, "Conflict", message, target.details())


def _selection(request: web.Request) -> Callable[[Object], bool]:
    labels = label_selector(request.query.get("labelSelector", ""))
    fields = field_selector(request.query.get("fieldSelector", ""))
    return lambda value: labels(value) and fields(value)


def _continue_key(path: Path) -> str:
    return f"{path.namespace}/{path.name}\0"


def _without_type(value: Object) -> Object:
    return {name: part for name, part in value.items() if name not in ("kind", "apiVersion")}


def _specified(value: Object) -> Object:
    return {name: part for name, part in value.items() if name not in ("metadata", "status")}


def _bookmark(kind: ResourceType, revision: int) -> Object:
    metadata = {"resourceVersion": str(revision), "creationTimestamp": None}
    return {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}


async def _send(response: web.StreamResponse, kind: str, value: Object) -> None:
    await response.write(json.dumps({"type": kind, "object": value}).encode() + b"\n")


async def _body(request: web.Request, kind: ResourceType) -> Object:
    try:
        value = json.loads(await request.read())
    except ValueError as error:
        raise ApiFailure(400, "BadRequest", f"the object provided is unrecognized: {error}") from error
    if not isinstance(value, dict):
        raise ApiFailure(400, "BadRequest", "the object provided is no object")
    if kind.is_custom and value.get("kind", kind.kind) != kind.kind:
        name = str((value.get("metadata") or {}).get("name", ""))
        raise invalid(f"{value['kind']}.{kind.group}", name, [("kind", f"must be {kind.kind}")])
    sent = (value.get("apiVersion", kind.api_version), value.get("kind", kind.kind))
    if sent != (kind.api_version, kind.kind) or (kind.is_custom and "kind" not in value):
        message = (
            f"the API version in the data ({sent[0]}) does not match the expected API version ({kind.api_version})"
        )
        raise ApiFailure(400, "BadRequest", message)
    return value
