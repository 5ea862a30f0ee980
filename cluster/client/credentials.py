"""Which server, and as whom: what `connect` and `local` are given, as `Credentials` for one connection.

Who asks is said by a kubeconfig, by the service account of a pod, or by a token and a client certificate given one by
one; all of them are read again as they are rotated. The server is the kubeconfig's, or a URL that takes its place (then
the kubeconfig still says who asks, and its authority is trusted), or a gateway that Ray knows (`ray_address`).

What it keeps true: a token is never sent over plain HTTP to another machine, whatever says that it should be.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from ...shards.api.client import Credentials, Endpoint
from ...shards.api.contexts import BadCertificate, BadTls, TlsContexts, TlsFiles
from ...shards.api.kubeconfig import SERVICE_ACCOUNT, Access, in_cluster, load_kubeconfig
from ...shards.api.reloading import RELOAD_S
from ...shards.api.requests import Pairs
from ...shards.api.tokens import AGAIN_S, NoToken, is_token, read_token
from ...shards.model.errors import BadRequest, KubeconfigError, SettingsError
from ..gateway.tls import is_loopback
from ..settings import DEFAULT_LISTEN

log = logging.getLogger("shoal.cluster.client")

DEFAULT_URL: Final = f"http://{DEFAULT_LISTEN}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, and which servers are believed."""

    _: KW_ONLY
    kubeconfig: str | None = None
    """A file, or several separated by colons."""
    context: str | None = None
    in_cluster: bool = False
    """The service account of the pod."""
    token: str | None = field(default=None, repr=False)
    token_file: str | None = None
    ca: str | None = None
    """File with authorities that servers' certificates may be of, PEM; beyond those of the kubeconfig."""
    client_certificate: str | None = None
    client_key: str | None = None
    insecure_skip_tls_verify: bool = False

    def __post_init__(self) -> None:
        """Raises BadRequest where one contradicts another."""
        given = {
            "token": self.token,
            "token_file": self.token_file,
            "client_certificate": self.client_certificate,
            "client_key": self.client_key,
            "insecure_skip_tls_verify": self.insecure_skip_tls_verify or None,
        }
        single = [name for name, value in given.items() if value is not None]
        whole = "in_cluster" if self.in_cluster else "kubeconfig or context" if self.named else ""
        if self.in_cluster and self.named:
            raise BadRequest("in_cluster goes neither with kubeconfig nor with context: both say who asks")
        if whole and single:
            raise BadRequest(f"{single[0]} does not go with {whole}, which says who asks")
        if self.token is not None and self.token_file is not None:
            raise BadRequest("token and token_file exclude each other")
        if (self.client_certificate is None) != (self.client_key is None):
            raise BadRequest("client_certificate and client_key go together")
        if self.insecure_skip_tls_verify and self.ca is not None:
            raise BadRequest("insecure_skip_tls_verify and ca exclude each other")

    @property
    def named(self) -> bool:
        """Whether a kubeconfig is named."""
        return self.kubeconfig is not None or self.context is not None

    def access(self) -> Access | None:
        """The kubeconfig or service account, if one of them says who asks.

        Raises:
            KubeconfigError: it is not there, or cannot be used.
        """
        if self.in_cluster:
            return in_cluster(SERVICE_ACCOUNT)
        if self.named:
            return load_kubeconfig(self.kubeconfig or os.environ.get("KUBECONFIG") or None, self.context)
        return None


def found_access() -> Access:
    """Where client-go looks if nobody says: $KUBECONFIG, ``~/.kube/config``, then the pod's service account.

    Raises:
        KubeconfigError: there is none of them, or the first that is there cannot be used.
    """
    paths = os.environ.get("KUBECONFIG") or "~/.kube/config"
    if any(Path(part).expanduser().is_file() for part in paths.split(":") if part):
        return load_kubeconfig(paths)
    if os.environ.get("KUBERNETES_SERVICE_HOST") and Path(SERVICE_ACCOUNT, "token").is_file():
        return in_cluster(SERVICE_ACCOUNT)
    raise KubeconfigError(
        f"no API server is known: there is no kubeconfig at {paths}, and this is no pod with a service account; name "
        "a kubeconfig, or a url"
    )


def credentials_for(url: str | None, identity: Identity, access: Access | None) -> Credentials:
    """The credentials of a connection to `url`, or to the server that `access` names.

    Raises:
        BadRequest: the URL is none, or a token would be sent in the clear.
        SettingsError: a file cannot be read or used.
    """
    if url is not None:
        check_url(url)
    if access is not None:
        server, tells = access.told_to()
        if tells:
            _check_clear(url or server)
        if identity.ca is not None:
            _context(TlsContexts(), TlsFiles(trusted=identity.ca))  # one that cannot be used is told at once
        return _Guarded(access.credentials(server=url, ca=identity.ca))
    assert url is not None
    return _Guarded(_Given(url, identity))


def check_url(url: str) -> SplitResult:
    """The parts of a server's URL.

    Raises:
        BadRequest: it is none.
    """
    parts = urlsplit("")
    try:
        parts = urlsplit(url)
        # NB: reading the port raises if it is no number.
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment:
        raise BadRequest(f"url {url!r}: expected the URL of a server, such as {DEFAULT_URL}")
    if parts.username is not None or parts.password is not None:
        raise BadRequest("url: one with a user name or a password in it is not taken; give a token")
    return parts


class _Guarded:
    """`Credentials` that give no token away."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        if isinstance(credentials, _Given):
            _check_endpoint(credentials.first)

    async def endpoint(self) -> Endpoint:
        endpoint = await self._credentials.endpoint()
        _check_endpoint(endpoint)
        return endpoint

    def rejected(self, endpoint: Endpoint, *, again: bool = False) -> bool:
        return self._credentials.rejected(endpoint, again=again)

    def doubted(self, endpoint: Endpoint) -> bool:
        return self._credentials.doubted(endpoint)


def _check_endpoint(endpoint: Endpoint) -> None:
    if any(name == "Authorization" for name, _ in endpoint.headers):
        _check_clear(endpoint.server)


def _check_clear(server: str) -> None:
    """Refuses a server that no token may be sent to."""
    parts = urlsplit(server)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise BadRequest(
            f"{server}: a token is not sent over http to another machine, where everybody between could read "
            "it; name an https url"
        )


class _Given:
    """`Credentials` made of single values. Files are read again every minute, after a 401 and when TLS fails; as long
    as one holds nothing that can be used, the last is kept and they are read again every `AGAIN_S`.
    """

    def __init__(self, url: str, identity: Identity) -> None:
        self._file = None if identity.token_file is None else Path(identity.token_file).expanduser()
        self._files = _files(identity) if _is_tls(url) else None
        self._contexts = TlsContexts()
        self._rotates = any((self._file, identity.ca, identity.client_certificate))
        self._read_after = float("-inf")
        self._problems: dict[str, str] = {}
        token = (identity.token or "").strip()
        if not is_token(token):
            raise BadRequest("the token has characters that no token has, such as blanks")
        self.first = self._endpoint = Endpoint(url.rstrip("/"), self._tls(), _bearer(self._token() or token))

    async def endpoint(self) -> Endpoint:
        now = asyncio.get_running_loop().time()
        if self._rotates and now >= self._read_after:
            found, complete = self._look()
            self._read_after = now + (RELOAD_S if complete else AGAIN_S)
            # Kept while it is the same: connections know an endpoint by its identity.
            if found != self._endpoint:
                self._endpoint = found
        return self._endpoint

    def rejected(self, endpoint: Endpoint, *, again: bool = False) -> bool:  # noqa: ARG002 - nothing is started
        if not self._rotates:
            return False
        self._read_after = float("-inf")
        # Asked again only if the files hold something else by now.
        found, _ = self._look()
        return found != endpoint

    def doubted(self, endpoint: Endpoint) -> bool:
        return self.rejected(endpoint)

    def _look(self) -> tuple[Endpoint, bool]:
        """What the files say now, with the last of what says nothing; and whether all of them say something. What is
        wrong is logged once.
        """
        headers, tls = self._endpoint.headers, self._endpoint.tls
        problems = {}
        try:
            headers = _bearer(token) if (token := self._token()) else headers
        except SettingsError as error:
            problems["token file"] = error.message
        try:
            tls = self._tls()
        except SettingsError as error:
            problems["TLS files"] = error.message
        for what, problem in problems.items():
            if self._problems.get(what) != problem:
                log.warning(
                    "credentials cannot be read again, the last ones are kept",
                    extra={"what": what, "problem": problem},
                )
        self._problems = problems
        return replace(self._endpoint, headers=headers, tls=tls), not problems

    def _token(self) -> str:
        """What the token file holds; empty if there is none.

        Raises:
            SettingsError: it holds no token.
        """
        try:
            return "" if self._file is None else read_token(self._file)
        except NoToken as error:
            raise SettingsError(f"token_file {self._file} {error}") from error

    def _tls(self) -> ssl.SSLContext | None:
        """The context of the files as they are now; None for plain HTTP.

        Raises:
            SettingsError: they make none.
        """
        return None if self._files is None else _context(self._contexts, self._files)


def _bearer(token: str) -> Pairs:
    return (("Authorization", f"Bearer {token}"),) if token else ()


def _is_tls(url: str) -> bool:
    # NB: schemes are the same in capital letters.
    return urlsplit(url).scheme == "https"


def _files(identity: Identity) -> TlsFiles:
    return TlsFiles(
        trusted=identity.ca,
        certificate=identity.client_certificate,
        key=identity.client_key,
        verify=not identity.insecure_skip_tls_verify,
    )


def _context(contexts: TlsContexts, files: TlsFiles) -> ssl.SSLContext:
    try:
        return contexts.made_of(files)
    except BadCertificate as error:
        raise SettingsError(
            f"client_certificate {files.certificate} and client_key {files.key} cannot be used: {error}"
        ) from error
    except BadTls as error:
        raise SettingsError(f"ca {files.trusted} cannot be used: {error}") from error
