"""Which server, and as whom: what `connect` and `local` are given, as `Credentials` for one connection.

Who asks is said by a kubeconfig, by the service account of a pod, or by a token and a client certificate given one by
one; all of them are read again as they are rotated. The server is the kubeconfig's, or a URL that takes its place (then
the kubeconfig still says who asks, and its authority is trusted), or a gateway that Ray knows (`ray_address`).

What it keeps true: a token is never sent over plain HTTP to another machine, whatever says that it should be.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from ...shards.api.client import Credentials, Endpoint
from ...shards.api.kubeconfig import RELOAD_S, SERVICE_ACCOUNT, Access, in_cluster, load_kubeconfig
from ...shards.model.errors import BadRequest, KubeconfigError, SettingsError
from ..gateway.tls import is_loopback, no_password, tls_problem
from ..settings import DEFAULT_LISTEN

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
        return _Guarded(_Kept(access.credentials(), url, identity.ca))
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
            _check_clear(credentials.first)

    async def endpoint(self) -> Endpoint:
        endpoint = await self._credentials.endpoint()
        _check_clear(endpoint)
        return endpoint

    def rejected(self, endpoint: Endpoint) -> bool:
        return self._credentials.rejected(endpoint)


def _check_clear(endpoint: Endpoint) -> None:
    if not any(name == "Authorization" for name, _ in endpoint.headers):
        return
    parts = urlsplit(endpoint.server)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise BadRequest(
            f"{endpoint.server}: a token is not sent over http to another machine, where everybody between could read "
            "it; name an https url"
        )


class _Given:
    """`Credentials` made of single values. A token file is read again every minute, and after a 401."""

    def __init__(self, url: str, identity: Identity) -> None:
        self._token_file = identity.token_file
        tls = _context(identity) if url.startswith("https:") else None
        self._bare = Endpoint(url.rstrip("/"), tls)
        self._read_at = float("-inf")
        token = identity.token if self._token_file is None else _read_token(self._token_file)
        self.first = self._with(token)
        self._endpoint = self.first

    async def endpoint(self) -> Endpoint:
        if self._token_file is None:
            return self._endpoint
        now = asyncio.get_running_loop().time()
        if now - self._read_at >= RELOAD_S:
            # Kept while the token is: connections know an endpoint by its identity.
            found = self._with(_read_token(self._token_file))
            if found.headers != self._endpoint.headers:
                self._endpoint = found
            self._read_at = now
        return self._endpoint

    def rejected(self, endpoint: Endpoint) -> bool:
        if self._token_file is None:
            return False
        self._read_at = float("-inf")
        # Asked again only if the file holds another token by now; a file that is gone is reported by `endpoint`.
        try:
            return self._with(_read_token(self._token_file)).headers != endpoint.headers
        except SettingsError:
            return True

    def _with(self, token: str | None) -> Endpoint:
        text = (token or "").strip()
        if any(not "!" <= letter <= "~" for letter in text):
            raise BadRequest("the token has characters that no token has, such as blanks")
        return replace(self._bare, headers=(("Authorization", f"Bearer {text}"),)) if text else self._bare


def _read_token(file: str) -> str:
    try:
        return Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"token_file {file} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error


class _Kept:
    """`Credentials` of a kubeconfig for the server of a URL, or for its own."""

    def __init__(self, credentials: Credentials, url: str | None, ca: str | None) -> None:
        self._credentials = credentials
        self._url = None if url is None else url.rstrip("/")
        self._ca = ca
        self._of: Endpoint | None = None
        self._made: Endpoint | None = None
        self._own: ssl.SSLContext | None = None
        self._trusting: ssl.SSLContext | None = None
        if ca is not None:
            _trust(ssl.create_default_context(), ca)  # a file that cannot be used is told at once

    async def endpoint(self) -> Endpoint:
        found = await self._credentials.endpoint()
        if self._made is None or found is not self._of:
            self._of, self._made = found, self._made_of(found)
        return self._made

    def rejected(self, endpoint: Endpoint) -> bool:
        if self._of is None or endpoint is not self._made:
            return True  # it was renewed meanwhile
        return self._credentials.rejected(self._of)

    def _made_of(self, found: Endpoint) -> Endpoint:
        made = found
        if self._url is not None:
            # The certificate's name is that of the kubeconfig's server, as in kubectl's --server.
            made = replace(found, server=self._url, server_name=None)
            if not self._url.startswith("https:"):
                return replace(made, tls=None)
            if made.tls is None:
                # One for good: kept-alive connections belong to a context.
                self._own = self._own or _client_context()
                made = replace(made, tls=self._own)
        if self._ca is not None and made.tls is not None and made.tls is not self._trusting:
            self._trusting = _trust(made.tls, self._ca)
        return made


def _client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    # As for API servers (`shards.api.kubeconfig`): authorities of clusters lack what Python 3.13 wants of them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    return context


def _trust(context: ssl.SSLContext, ca: str) -> ssl.SSLContext:
    try:
        context.load_verify_locations(cafile=ca)
    except (OSError, ValueError) as error:
        raise SettingsError(f"ca {ca} cannot be used: {tls_problem(error)}") from error
    return context


def _context(identity: Identity) -> ssl.SSLContext:
    context = _client_context()
    if identity.ca is not None:
        _trust(context, identity.ca)
    if identity.client_certificate is not None:
        try:
            context.load_cert_chain(identity.client_certificate, identity.client_key, password=no_password)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"client_certificate {identity.client_certificate} and client_key {identity.client_key} cannot be "
                f"used: {tls_problem(error)}"
            ) from error
    if identity.insecure_skip_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Sought:
    """`Credentials` for a server whose address is found out first, when it is needed.

    Args:
        find: Gives its URL.
        make: Gives the credentials for it.
    """

    def __init__(self, find: Callable[[], Awaitable[str]], make: Callable[[str], Credentials]) -> None:
        self._find = find
        self._make = make
        self._lock = asyncio.Lock()
        self._found: Credentials | None = None

    async def endpoint(self) -> Endpoint:
        """As `Credentials.endpoint`.

        Raises:
            ShoalError: there is no such server.
        """
        async with self._lock:
            if self._found is None:
                self._found = self._make(await self._find())
        return await self._found.endpoint()

    def rejected(self, endpoint: Endpoint) -> bool:
        """As `Credentials.rejected`."""
        return self._found is not None and self._found.rejected(endpoint)
