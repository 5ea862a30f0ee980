"""How a command reaches a running Shoal, and as whom: options named like kubectl's, defined once for all commands.

Either an address with a token or a client certificate, or a context of a kubeconfig, which may have all that
kubeconfigs have (exec plug-ins, names of certificates, proxies). $KUBECONFIG alone chooses nothing: it usually names
the API server that Shoal follows. A token is held by `Target` and in no text: not in messages, not in its repr.
"""

from __future__ import annotations

import functools
import os
import ssl
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

import click
from click.core import ParameterSource

from ...shards.api.client import Endpoint, HttpConnection
from ...shards.api.kubeconfig import Access, load_kubeconfig
from ...shards.model.errors import BadRequest, SettingsError
from ..gateway.tls import is_loopback, no_password, tls_problem
from ..settings import DEFAULT_LISTEN

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--server",
        envvar="SHOAL_SERVER",
        default=f"http://{DEFAULT_LISTEN}",
        show_default=True,
        help="URL of a running Shoal; also $SHOAL_SERVER.",
    ),
    click.option(
        "--token",
        envvar="SHOAL_TOKEN",
        help="Bearer token of the cluster. Better in $SHOAL_TOKEN: other users of a machine see arguments.",
    ),
    click.option(
        "--certificate-authority",
        envvar="SHOAL_CERTIFICATE_AUTHORITY",
        metavar="FILE",
        help="Authority of the server's certificate, PEM; default: those of the system; "
        "also $SHOAL_CERTIFICATE_AUTHORITY.",
    ),
    click.option("--client-certificate", metavar="FILE", help="Client certificate, PEM."),
    click.option("--client-key", metavar="FILE", help="Key of the client certificate, PEM."),
    click.option(
        "--insecure-skip-tls-verify",
        is_flag=True,
        help="Believe any server. Whoever is between reads the token and the answers.",
    ),
    click.option(
        "--kubeconfig",
        metavar="FILE",
        help="Take address and credentials of Shoal from this kubeconfig instead.",
    ),
    click.option(
        "--context", help="Context of that kubeconfig; alone: of $KUBECONFIG or ~/.kube/config, instead."
    ),
)
_NAMES = (
    *("server", "token", "certificate_authority", "client_certificate", "client_key"),
    *("insecure_skip_tls_verify", "kubeconfig", "context"),
)


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options; it is called with all of them as one `server`, a `Target`."""

    @functools.wraps(command)
    def gathered(**options: Any) -> None:
        chosen = {name: options.pop(name) for name in _NAMES}
        context = click.get_current_context()
        typed = {name for name in _NAMES if context.get_parameter_source(name) == ParameterSource.COMMANDLINE}
        command(server=choose(typed=typed, **chosen), **options)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered


def choose(
    *,
    typed: set[str],
    server: str,
    token: str | None,
    certificate_authority: str | None,
    client_certificate: str | None,
    client_key: str | None,
    insecure_skip_tls_verify: bool,
    kubeconfig: str | None,
    context: str | None,
) -> Target:
    """Which Shoal the options mean; `typed` are those that do not come from the environment.

    Raises:
        BadRequest: they contradict each other, or the URL is none.
        KubeconfigError: the kubeconfig does not hold what is named.
    """
    if kubeconfig or context:
        others = [f"--{name.replace('_', '-')}" for name in _NAMES[:-2] if name in typed]
        if others:
            raise BadRequest(f"{others[0]} goes neither with --kubeconfig nor with --context, which name it")
        access = load_kubeconfig(kubeconfig or os.environ.get("KUBECONFIG") or None, context)
        return Target(str(access), access=access)
    if insecure_skip_tls_verify and "certificate_authority" not in typed:
        certificate_authority = None
    return Target(
        server,
        token=_token(token),
        certificate_authority=certificate_authority,
        client_certificate=client_certificate,
        client_key=client_key,
        insecure=insecure_skip_tls_verify,
    )


def _token(given: str | None) -> str:
    token = (given or "").strip()
    if any(not "!" <= letter <= "~" for letter in token):
        raise BadRequest("the token (--token, $SHOAL_TOKEN) has characters that no token has, such as blanks")
    return token


@dataclass(frozen=True, slots=True)
class Target:
    """A Shoal to ask, and who asks."""

    where: str
    """Its URL, or the context that names it."""
    _: KW_ONLY
    token: str = field(default="", repr=False)
    certificate_authority: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    insecure: bool = False
    """Any certificate of the server will do."""
    access: Access | None = None
    """A context of a kubeconfig, which then says everything."""

    def __post_init__(self) -> None:
        """Raises BadRequest for what no request could succeed with, or what would give a token away."""
        if self.access is not None:
            return
        parts = _checked(self.where)
        if (self.client_certificate is None) != (self.client_key is None):
            raise BadRequest("--client-certificate and --client-key go together")
        if self.insecure and self.certificate_authority is not None:
            raise BadRequest("--insecure-skip-tls-verify and --certificate-authority exclude each other")
        if self.token and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise BadRequest(
                f"server {self.where!r}: a token is not sent over http to another machine, where everybody between "
                "could read it; name an https URL"
            )

    @property
    def known(self) -> bool:
        """Whether anything says who asks."""
        return bool(self.token or self.client_certificate or self.access)

    def connect(self) -> HttpConnection:
        """A connection; nothing is sent before its first request.

        Raises:
            SettingsError: a file cannot be read or used.
        """
        if self.access is not None:
            return self.access.connect()
        tls = self._tls() if self.where.startswith("https:") else None
        headers = (("Authorization", f"Bearer {self.token}"),) if self.token else ()
        return HttpConnection(_Fixed(Endpoint(self.where.rstrip("/"), tls, headers)))

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.certificate_authority)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"--certificate-authority {self.certificate_authority} cannot be used: {tls_problem(error)}"
            ) from error
        # As for API servers (`shards.api.kubeconfig`): authorities of clusters lack what Python 3.13 wants of them.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.set_alpn_protocols(["http/1.1"])
        if self.client_certificate is not None:
            try:
                context.load_cert_chain(self.client_certificate, self.client_key, password=no_password)
            except (OSError, ValueError) as error:
                raise SettingsError(
                    f"--client-certificate {self.client_certificate} and --client-key {self.client_key} cannot be "
                    f"used: {tls_problem(error)}"
                ) from error
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class _Fixed:
    """`Credentials` that stay what they are."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def endpoint(self) -> Endpoint:
        return self._endpoint

    def rejected(self, endpoint: Endpoint, *, again: bool = False) -> bool:  # noqa: ARG002 - one signature for all
        return False

    def doubted(self, endpoint: Endpoint) -> bool:  # noqa: ARG002 - one signature for all credentials
        return False


def _checked(url: str) -> SplitResult:
    parts = urlsplit("")
    try:
        parts = urlsplit(url)
        # NB: reading the port raises if it is no number.
        good = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and parts.netloc[-1] != ":"
        )
    except ValueError:
        good = False
    if not good:
        raise BadRequest(f"server {url!r}: expected a URL such as http://{DEFAULT_LISTEN}")
    if parts.username is not None or parts.password is not None:
        raise BadRequest("--server: a URL with a user name or a password in it is not taken; see --token")
    return parts
