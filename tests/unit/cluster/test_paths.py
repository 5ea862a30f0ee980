"""Paths are read as kube-apiserver's RequestInfoFactory reads them."""

from __future__ import annotations

import pytest

from shoal.cluster.serving.paths import DiscoveryPath, OtherPath, RequestPath, ResourcePath, parse_path
from shoal.shards.model.resources import Resource


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api", DiscoveryPath("api", "")),
        ("/apis/", DiscoveryPath("apis")),
        ("/api/v1", DiscoveryPath("api", "", "v1")),
        ("/apis/apps", DiscoveryPath("apis", "apps")),
        ("/apis/apps/v1", DiscoveryPath("apis", "apps", "v1")),
        ("/api/v1/pods", ResourcePath("", "v1", "pods")),
        ("/api/v1/nodes/n1", ResourcePath("", "v1", "nodes", None, "n1")),
        ("/api/v1/namespaces/a/pods", ResourcePath("", "v1", "pods", "a")),
        ("/api/v1/namespaces/a/pods/p/status", ResourcePath("", "v1", "pods", "a", "p", "status")),
        ("/apis/apps/v1/namespaces/a/deployments/d", ResourcePath("apps", "v1", "deployments", "a", "d")),
        (
            "/api/v1/namespaces/a/services/s/proxy/x/y",
            ResourcePath("", "v1", "services", "a", "s", "proxy/x/y"),
        ),
        ("/version", OtherPath("/version")),
        ("/", OtherPath("/")),
        ("/healthz/etcd", OtherPath("/healthz/etcd")),
    ],
)
def test_what_a_path_asks_for(path: str, expected: RequestPath) -> None:
    assert parse_path(path) == expected


def test_a_namespace_is_an_object_and_not_a_scope_of_itself() -> None:
    assert parse_path("/api/v1/namespaces") == ResourcePath("", "v1", "namespaces")
    assert parse_path("/api/v1/namespaces/a") == ResourcePath("", "v1", "namespaces", None, "a")
    for part in ("status", "finalize"):
        expected = ResourcePath("", "v1", "namespaces", None, "a", part)
        assert parse_path(f"/api/v1/namespaces/a/{part}") == expected


def test_the_deprecated_watch_prefix_is_a_watch() -> None:
    assert parse_path("/api/v1/watch/namespaces/a/pods") == ResourcePath("", "v1", "pods", "a", watching=True)
    assert parse_path("/api/v1/watch") == ResourcePath("", "v1", "watch")


def test_the_identity_is_what_catalogues_are_keyed_by() -> None:
    path = parse_path("/apis/apps/v1/namespaces/a/deployments/d")
    assert isinstance(path, ResourcePath)
    assert path.identity == Resource("apps", "v1", "deployments")
