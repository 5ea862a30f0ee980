"""Writes a kubeconfig, so that kubectl and every other client find a server that was just started.

The file holds a token or nothing secret at all, and is readable by its owner alone either way. It appears
complete or not at all: written beside its place and moved there.
"""

from __future__ import annotations

import base64
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

from ...shards.model.errors import KubeconfigError


def kubeconfig_document(
    url: str, *, ca_certificate: bytes | None = None, token: str | None = None, name: str = "shoal"
) -> dict[str, Any]:
    """A kubeconfig with one cluster, one user and one context, all called `name`.

    Args:
        url: ``http://`` or ``https://`` address of the server.
        ca_certificate: PEM of the authority that signed the server's certificate; None where none is needed.
        token: bearer token; None for a server that takes anybody.
        name: what cluster, user and context are called.
    """
    cluster: dict[str, Any] = {"server": url}
    if ca_certificate is not None:
        cluster["certificate-authority-data"] = base64.b64encode(ca_certificate).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {} if token is None else {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
        "current-context": name,
    }


def write_kubeconfig(
    path: str | Path,
    url: str,
    *,
    ca_certificate: bytes | None = None,
    token: str | None = None,
    name: str = "shoal",
) -> Path:
    """Writes the file with mode 0600, replacing one that is there, and returns its path; folders are made.

    Raises:
        KubeconfigError: it cannot be written there; the message says where and why.
    """
    target = Path(path).expanduser()
    document = kubeconfig_document(url, ca_certificate=ca_certificate, token=token, name=name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, yaml.safe_dump(document, sort_keys=False).encode())
    except OSError as error:
        reason = error.strerror or str(error)
        raise KubeconfigError(f"cannot write the kubeconfig {target}: {reason}") from error
    return target


def _replace(target: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # mode is 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
