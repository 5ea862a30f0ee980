"""The URL of the API server, for links in alerts: read from where the client finds it as well.

It is for people alone: what cannot be read gives no links, and the client says what is wrong with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from .documents import Document, items, text


def server_of(kubeconfig: str | None, context: str | None) -> str:
    """Of a kubeconfig's context, without credentials; without one, of this pod's cluster; "" if none is found."""
    named = kubeconfig or os.environ.get("KUBECONFIG") or ""
    paths = named.split(os.pathsep) if named else [str(Path.home() / ".kube" / "config")]
    documents = [document for path in paths if path for document in _read(path)]
    if documents:
        wanted = context or next(filter(None, (text(one, "current-context") for one in documents)), "")
        cluster = text(_named(documents, "contexts", wanted), "context", "cluster")
        return bare(text(_named(documents, "clusters", cluster), "cluster", "server"))
    host, port = (
        os.environ.get("KUBERNETES_SERVICE_HOST", ""),
        os.environ.get("KUBERNETES_SERVICE_PORT", "443"),
    )
    if not host or named:
        return ""
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def bare(url: str) -> str:
    """A URL as it may be shown: without a user, a password and a query."""
    found = urlsplit(url)
    host = found.netloc.rpartition("@")[2]
    return f"{found.scheme}://{host}{found.path.rstrip('/')}" if found.scheme and host else ""


def _read(path: str) -> Iterator[Document]:
    try:
        document: Any = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return
    if isinstance(document, dict):
        yield document


def _named(documents: list[Document], field: str, name: str) -> Any:
    """The first of that name, as kubectl merges."""
    return next(
        (one for document in documents for one in items(document, field) if text(one, "name") == name), {}
    )
