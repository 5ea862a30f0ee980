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
from ...shards.api.kubeconfig import RELOAD_S, SERVICE_ACCOUNT, Access, in_cluster, load_kubeconfig
from ...shards.api.tokens import AGAIN_S, NoToken, is_token, read_token
from ...shards.model.errors import BadRequest, KubeconfigError, SettingsError
from ..gateway.tls import is_loopback, no_password, tls_problem
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
            _check_endpoint(credentials.first)

    async def endpoint(self) -> Endpoint:
        endpoint = await self._credentials.endpoint()
        _check_endpoint(endpoint)
        return endpoint

    def rejected(self, endpoint: Endpoint) -> bool:
        return self._credentials.rejected(endpoint)


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
    """`Credentials` made of single values. A token file is read again every minute, and after a 401; as long as it
    holds no token, the last one is kept and the file read again every `AGAIN_S`.
    """

    def __init__(self, url: str, identity: Identity) -> None:
        self._file = None if identity.token_file is None else Path(identity.token_file).expanduser()
        self._bare = Endpoint(url.rstrip("/"), _context(identity) if _is_tls(url) else None)
        self._read_after = float("-inf")
        self._problem = ""
        token = (identity.token or "").strip()
        if not is_token(token):
            raise BadRequest("the token has characters that no token has, such as blanks")
        try:
            token = token if self._file is None else read_token(self._file)
        except NoToken as error:
            raise SettingsError(f"token_file {self._file} {error}") from error
        self.first = self._with(token)
        self._endpoint = self.first

    async def endpoint(self) -> Endpoint:
        if self._file is None:
            return self._endpoint
        now = asyncio.get_running_loop().time()
        if now >= self._read_after:
            found = self._read(self._file)
            self._read_after = now + (AGAIN_S if found is None else RELOAD_S)
            # Kept while the token is: connections know an endpoint by its identity.
            if found is not None and found.headers != self._endpoint.headers:
                self._endpoint = found
        return self._endpoint

    def rejected(self, endpoint: Endpoint) -> bool:
        if self._file is None:
            return False
        self._read_after = float("-inf")
        # Asked again only if the file holds another token by now.
        found = self._read(self._file)
        return found is not None and found.headers != endpoint.headers

    def _read(self, file: Path) -> Endpoint | None:
        """What the file says; None if it says nothing now, which is logged once."""
        try:
            found = self._with(read_token(file))
        except NoToken as error:
            problem = f"token_file {file} {error}"
            if problem != self._problem:
                log.warning("token file cannot be used, the last token is kept", extra={"problem": problem})
            self._problem = problem
            return None
        self._problem = ""
        return found

    def _with(self, token: str) -> Endpoint:
        return replace(self._bare, headers=(("Authorization", f"Bearer {token}"),)) if token else self._bare


def _is_tls(url: str) -> bool:
    # NB: schemes are the same in capital letters.
    return urlsplit(url).scheme == "https"


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
            if not _is_tls(self._url):
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
