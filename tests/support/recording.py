"""The recorded exchanges of ``tests/wire`` and the server they were recorded from, state by state.

The recording tells the story of one cluster; `Scene` names its moments in order, and `bring_to` leads an
embedded server through them with the recorded objects, uids and versions. One other, restarted server
answered three exchanges (`RESTARTED`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from shoal.cluster.simulator.app import ApiServerApp
from shoal.shards.api.requests import ApiRequest
from shoal.shards.model.resources import Resource

WIRE = Path(__file__).parent.parent / "wire"
CONFIG_MAPS = Resource("", "v1", "configmaps")
PODS = Resource("", "v1", "pods")
NAMESPACES = Resource("", "v1", "namespaces")
WIDGETS = Resource("example.com", "v1", "widgets")


@dataclass(frozen=True)
class Recorded:
    """One exchange."""

    name: str
    request: ApiRequest
    status: int
    headers: dict[str, str]
    """Of the answer, names in lower case."""
    body: str | None
    lines: tuple[str, ...] | None
    """Of a watch; then there is no `body`."""
    times: tuple[float, ...]
    """Seconds after the request, one for each line."""

    @property
    def document(self) -> Any:
        return json.loads(self.body or "null")


def load(name: str) -> Recorded:
    """The exchange in ``NAME.json``."""
    recorded = json.loads((WIRE / f"{name}.json").read_text())
    asked, answered = recorded["request"], recorded["response"]
    path, _, query = asked["path"].partition("?")
    body = asked.get("body")
    lines = answered.get("lines")
    return Recorded(
        name,
        ApiRequest(
            asked["method"],
            unquote(path),
            tuple(parse_qsl(query, keep_blank_values=True)),
            tuple((asked.get("headers") or {}).items()),
            b"" if body is None else json.dumps(body, separators=(",", ":")).encode(),
            stream=lines is not None,
        ),
        answered["status"],
        {key.lower(): value for key, value in answered["headers"].items()},
        answered.get("body"),
        None if lines is None else tuple(entry["line"] for entry in lines),
        () if lines is None else tuple(entry["t"] for entry in lines),
    )


def names() -> list[str]:
    """Every exchange there is."""
    return sorted(path.stem for path in WIRE.glob("*.json"))


class Scene(IntEnum):
    """Moments of the recording, in order."""

    FILLED = 74
    """Five config maps and six pods in two namespaces."""
    CONSISTENT = 220
    """Other writes have moved the revision on."""
    CREATED = 221
    UPDATED = 222
    PATCHED = 223
    DELETED = 224
    CHURNED = 229
    IDLE = 235
    CHURNED_AGAIN = 240
    SHARDED = 243
    BEFORE_DEFINITION = 246
    DEFINED = 250
    WIDGETS = 252
    WIDGETS_LATER = 253
    UNDEFINED = 257


def _objects_of_list(name: str) -> list[bytes]:
    document = load(name).document
    kind = document["kind"].removesuffix("List")
    return [
        _encode({"kind": kind, "apiVersion": document["apiVersion"], **item}) for item in document["items"]
    ]


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _version(body: bytes) -> int:
    return int(json.loads(body)["metadata"]["resourceVersion"])


def _pods() -> list[bytes]:
    """All six; ``web-0`` is recorded as a Table row only, but it is of the same make as ``db-0``."""
    events = [json.loads(line) for line in load("watch-namespaces-excluded").lines or ()]
    pods = [_encode(event["object"]) for event in events if event["type"] == "ADDED"]
    pods += _objects_of_list("list-field-selector-pods")
    row = load("list-table-pods").document["rows"][0]["object"]
    pods.append(_encode({**json.loads(pods[0]), "metadata": row["metadata"]}))
    return sorted(pods, key=_version)


class Story:
    """Leads one server from scene to scene; objects come from the recording with uid and version."""

    def __init__(self, app: ApiServerApp) -> None:
        self.app = app
        verbs = app.verbs
        namespaces = verbs.served(NAMESPACES)
        for name in ("alpha", "beta"):
            verbs.create(namespaces, None, {"metadata": {"name": name}})

    def bring_to(self, scene: Scene) -> None:
        """Everything that happened up to `scene`, that moment included."""
        self._filled()
        steps = {
            Scene.CONSISTENT: lambda: self.app.storage.advance(220),
            Scene.CREATED: lambda: self._put(CONFIG_MAPS, load("create").body),
            Scene.UPDATED: lambda: self._put(CONFIG_MAPS, load("update").body),
            Scene.PATCHED: lambda: self._put(CONFIG_MAPS, load("patch-merge").body),
            Scene.DELETED: lambda: self._delete(CONFIG_MAPS, "alpha", "cm-new"),
            Scene.CHURNED: lambda: self.play("watch-churn"),
            Scene.IDLE: lambda: self.app.storage.advance(235),
            Scene.CHURNED_AGAIN: lambda: self.play("watchlist"),
            Scene.SHARDED: lambda: self.app.storage.advance(243),
            Scene.BEFORE_DEFINITION: lambda: self.app.storage.advance(246),
            Scene.DEFINED: self._define,
            Scene.WIDGETS: lambda: self.play("crd-deleted-while-watched", WIDGETS),
            Scene.WIDGETS_LATER: lambda: self.app.storage.advance(253),
            Scene.UNDEFINED: self.undefine,
        }
        for moment, step in steps.items():
            if moment <= scene:
                step()

    def play(self, name: str, resource: Resource = CONFIG_MAPS) -> None:
        """Repeats what a recorded watch saw happen after the present revision, up to the first foreign
        deletion.
        """
        for line in load(name).lines or ():
            event = json.loads(line)
            version = int(event["object"]["metadata"]["resourceVersion"])
            if version <= self.app.storage.revision or event["type"] == "BOOKMARK":
                continue
            metadata = event["object"]["metadata"]
            if event["type"] == "DELETED":
                if version != self.app.storage.revision + 1:
                    return
                self._delete(resource, metadata["namespace"], metadata["name"])
            else:
                self._put(resource, _encode(event["object"]))

    def undefine(self) -> None:
        self._delete(
            Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions"), None, "widgets.example.com"
        )

    def _filled(self) -> None:
        objects = [(CONFIG_MAPS, body) for body in _objects_of_list("list-full")]
        objects += [(PODS, body) for body in _pods()]
        for resource, body in sorted(objects, key=lambda entry: _version(entry[1])):
            self._put(resource, body)

    def _define(self) -> None:
        verbs = self.app.verbs
        served = verbs.served(Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions"))
        verbs.create(served, None, json.loads(load("crd-create").request.body))
        self.app.storage.advance(Scene.DEFINED)

    def _put(self, resource: Resource, body: str | bytes | None) -> None:
        raw = (body or "").encode() if not isinstance(body, bytes) else body
        self.app.verbs.restore(self.app.verbs.served(resource), raw.strip(), keep_version=True)

    def _delete(self, resource: Resource, namespace: str | None, name: str) -> None:
        self.app.verbs.delete(self.app.verbs.served(resource), namespace, name)


def restarted(app: ApiServerApp) -> None:
    """The state of the other server: what it held when it came back and forgot its past at version 266."""
    story = Story(app)
    objects = [
        _encode(event["object"])
        for event in map(json.loads, load("watchlist-old-rv").lines or ())
        if event["type"] == "ADDED"
    ]
    for body in sorted(objects, key=_version):
        story._put(CONFIG_MAPS, body)
    app.storage.advance(266)
    app.storage.restart()
