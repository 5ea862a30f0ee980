"""Exec plug-ins of a kubeconfig: programs that print credentials (``aws eks get-token``, ``kubelogin``).

The protocol is
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins. The
library's own runner has no time limit and leaves the program running when it is given up; nobody sits in
front of a shard, so here a program that asks a question or opens a browser is ended after `PLUGIN_TIMEOUT_S`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from ..model.errors import KubeconfigError

PLUGIN_TIMEOUT_S = 60.0
"""Cloud plug-ins take one to ten seconds, more when they have to log in themselves."""
EXPIRY_MARGIN = timedelta(seconds=60)
"""Credentials are renewed this long before they expire, so that a request does not overtake their end."""
STDERR_CHARS = 500
CLUSTER_EXTENSION = "client.authentication.k8s.io/exec"
"""Name of the extension of a cluster whose contents plug-ins are given as ``config``."""
_CLUSTER_FIELDS = (
    "tls-server-name",
    "insecure-skip-tls-verify",
    "certificate-authority-data",
    "proxy-url",
    "disable-compression",
)
"""Of a kubeconfig's cluster and, under the same names, of what plug-ins are told (client-go's
``pkg/apis/clientauthentication/v1``)."""


@dataclass(frozen=True, slots=True)
class PluginCredentials:
    """What a plug-in printed: a token, a client certificate, or both."""

    token: str = ""
    certificate: str = ""
    """PEM, as is the key."""
    key: str = ""
    expires: datetime | None = None
    """None: until the API server rejects them."""

    @property
    def expired(self) -> bool:
        """So old that they are to be renewed."""
        return self.expires is not None and datetime.now(UTC) + EXPIRY_MARGIN >= self.expires

    @property
    def ended(self) -> bool:
        """Too old to be used for another request."""
        return self.expires is not None and datetime.now(UTC) >= self.expires


class _Status(msgspec.Struct):
    token: str = ""
    certificate: str = msgspec.field(name="clientCertificateData", default="")
    key: str = msgspec.field(name="clientKeyData", default="")
    expires: datetime | None = msgspec.field(name="expirationTimestamp", default=None)


class _Credential(msgspec.Struct):
    api_version: str = msgspec.field(name="apiVersion")
    status: _Status


async def run_plugin(
    section: Mapping[str, Any], *, folder: str, cluster: Mapping[str, Any], where: str
) -> PluginCredentials:
    """Runs the plug-in of an ``exec`` section.

    Args:
        section: the section, as parsed.
        folder: of the kubeconfig; a relative path to the program starts there.
        cluster: the ``cluster`` section; what plug-ins may know of it is passed on if this one wants it.
        where: what error messages call the section.

    Raises:
        KubeconfigError: the section, the program or what it printed is wrong.
    """
    command, api_version = section.get("command"), section.get("apiVersion")
    if not isinstance(command, str) or not command or not isinstance(api_version, str):
        raise KubeconfigError(f"{where}: an exec plug-in needs a command and an apiVersion")
    if os.sep in command:
        command = str(Path(folder, command))
    arguments = [str(argument) for argument in section.get("args") or ()]
    environment = dict(os.environ)
    for number, pair in enumerate(section.get("env") or ()):
        if not isinstance(pair, dict) or not pair.get("name") or pair.get("value") is None:
            raise KubeconfigError(f"{where}: env[{number}] of the exec plug-in needs a name and a value")
        environment[str(pair["name"])] = str(pair["value"])
    spec: dict[str, Any] = {"interactive": False}
    if section.get("provideClusterInfo"):
        spec["cluster"] = _cluster(cluster, folder, where)
    # Dates are YAML's alone: JSON has them as text.
    environment["KUBERNETES_EXEC_INFO"] = json.dumps(
        {"apiVersion": api_version, "kind": "ExecCredential", "spec": spec}, default=str
    )
    output = await _output(command, arguments, environment, f"{where}: exec plug-in {command}")
    return _credentials(output, api_version, f"{where}: exec plug-in {command}")


def _cluster(section: Mapping[str, Any], folder: str, where: str) -> dict[str, Any]:
    """The ``Cluster`` of an ExecCredential: without paths, since a plug-in has no folder, and with one extension."""
    told: dict[str, Any] = {"server": section.get("server")}
    told |= {name: section[name] for name in _CLUSTER_FIELDS if section.get(name)}
    authority = section.get("certificate-authority")
    if authority and "certificate-authority-data" not in told:
        file = Path(folder, str(authority))
        try:
            told["certificate-authority-data"] = base64.b64encode(file.read_bytes()).decode()
        except OSError as error:
            raise KubeconfigError(
                f"{where}: the certificate-authority {file} cannot be read: {error.strerror or error}"
            ) from error
    for entry in section.get("extensions") or ():
        if isinstance(entry, dict) and entry.get("name") == CLUSTER_EXTENSION:
            told["config"] = entry.get("extension")
    return told


async def _output(command: str, arguments: list[str], environment: dict[str, str], what: str) -> bytes:
    try:
        process = await asyncio.create_subprocess_exec(
            command,
            *arguments,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise KubeconfigError(f"{what} is not installed on this machine, or not in its PATH") from error
    except OSError as error:
        raise KubeconfigError(f"{what} cannot be started: {error.strerror or error}") from error
    try:
        async with asyncio.timeout(PLUGIN_TIMEOUT_S):
            output, complaint = await process.communicate()
    except TimeoutError as error:
        raise KubeconfigError(
            f"{what} was not done after {PLUGIN_TIMEOUT_S:g} s; can it log in alone?"
        ) from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        text = complaint.decode(errors="replace").strip()[-STDERR_CHARS:]
        raise KubeconfigError(f"{what} failed with status {process.returncode}: {text or 'it says nothing'}")
    return output


def _credentials(output: bytes, api_version: str, what: str) -> PluginCredentials:
    try:
        printed = msgspec.json.decode(output, type=_Credential)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise KubeconfigError(f"{what} did not print an ExecCredential: {error}") from error
    if printed.api_version != api_version:
        raise KubeconfigError(
            f"{what} printed apiVersion {printed.api_version}, the kubeconfig expects {api_version}"
        )
    status = printed.status
    if not status.token and not (status.certificate and status.key):
        raise KubeconfigError(f"{what} printed neither a token nor a client certificate with its key")
    expires = status.expires
    if expires is not None and expires.tzinfo is None:
        expires = expires.replace(tzinfo=UTC)
    if expires is not None and expires.year == 1:
        expires = None  # Go's zero time, which plug-ins print for "never": client-go takes it so
    return PluginCredentials(status.token, status.certificate, status.key, expires)
