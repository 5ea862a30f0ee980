"""Where the API server is and who we are: kubeconfig files and in-cluster service accounts.

`load_kubeconfig` and `in_cluster` check what can be checked without asking anybody and return an `Access`: a
small value that says where to look, not what was found, so that it can travel to other processes and what is
rotated there is found there. `Access.connect` makes a connection whose credentials are read again every
`reloading.RELOAD_S` (token files, client certificates and authorities are replaced while we run) and when the
server rejects them.

Reading and merging is done by the `kubernetes` package (``kubernetes.aio.config``), the only module that
imports it. What is added here: messages that say what is wrong where and list what there is; kubectl's rules
where the package differs (the first ``current-context`` counts, a token file wins over a token, users that do
not exist are errors); exec plug-ins with a time limit and an error instead of a log line (`api.plugin`);
impersonation; and no client keys left behind in ``/tmp``. Neither environment nor arguments are read here,
except the two variables every pod has.
"""

from __future__ import annotations

import dataclasses
import ssl
import tempfile
from pathlib import Path
from typing import Any, Self

import msgspec
import yaml

from ..model.errors import KubeconfigError
from ..settings import ApiSettings
from .client import Credentials, Endpoint, HttpConnection
from .contexts import TlsContexts
from .plugin import PluginCredentials, run_plugin
from .reloading import Found, ReloadedCredentials, TokenGone
from .requests import Pairs
from .tokens import NoToken, read_token

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


class Access(msgspec.Struct, frozen=True):
    """Where to find the API server's address and our credentials."""

    paths: str = ""
    """Kubeconfig files, absolute, separated by colons; empty for in-cluster."""
    context: str = ""
    service_account: str = ""
    """Folder of token and authority of a pod; empty for kubeconfig files."""
    nobody: bool = False
    """Only the server and what proves it to be the right one: no token, certificate, plug-in or impersonation."""

    def anonymous(self) -> Access:
        """The same server without our credentials: what others' requests are passed on over."""
        return msgspec.structs.replace(self, nobody=True)

    def credentials(self, *, server: str | None = None, ca: str | None = None) -> Credentials:
        """What proves who we are, read again as it is rotated; nothing is read before it is asked.

        Args:
            server: URL of the server to be asked in the place of the one that is named.
            ca: file of authorities that the server's certificate may be of as well, PEM.
        """
        return ReloadedCredentials(_Reader(self, server, TlsContexts(trusted=ca)).read)

    def connect(self, settings: ApiSettings | None = None) -> HttpConnection:
        """A connection; nothing is sent and no credentials are read before its first request."""
        return HttpConnection(self.credentials(), settings)

    def told_to(self) -> tuple[str, bool]:
        """The server a kubeconfig names, empty for a service account; and whether a token or password is known that
        is sent to it. A plug-in's is not, before it has run. Raises KubeconfigError as `load_kubeconfig`.
        """
        if self.service_account:
            return "", not self.nobody
        loaded = _Loaded(self.paths, self.context, nobody=self.nobody)
        return str(loaded.cluster.get("server")), loaded.tells

    def __str__(self) -> str:
        where = f"context {self.context} of {self.paths}" if self.paths else "the service account of this pod"
        return f"the server of {where}" if self.nobody else where


def load_kubeconfig(path: str | None = None, context: str | None = None) -> Access:
    """Checks one or more kubeconfig files and chooses a context.

    Args:
        path: a file, or several separated by colons, of which those that exist are merged; None for
            ``~/.kube/config``.
        context: name of a context; None for the current one.

    Raises:
        KubeconfigError: no such file, not a kubeconfig, or it does not hold what it or the caller names.
    """
    files = [Path(part).expanduser().absolute() for part in (path or "~/.kube/config").split(":") if part]
    present = [file for file in files if file.is_file()]
    if not present:
        names = " or ".join(map(str, files)) or "(an empty path)"
        raise KubeconfigError(
            f"no kubeconfig at {names}: name one with --kubeconfig, or use --in-cluster inside a pod"
        )
    documents = [_read(file) for file in present]
    paths = ":".join(map(str, present))
    chosen = context or next(
        (name for document in documents if (name := document.get("current-context"))), None
    )
    known = [str(entry["name"]) for document in documents for entry in document.get("contexts") or ()]
    listing = f"it has {', '.join(known)}" if known else "it has none"
    if not chosen:
        raise KubeconfigError(
            f"kubeconfig {paths} has no current context: choose one with --context; {listing}"
        )
    if chosen not in known:
        raise KubeconfigError(f"kubeconfig {paths} has no context {chosen!r}; {listing}")
    _Loaded(paths, str(chosen)).check()
    return Access(paths=paths, context=str(chosen))


def in_cluster(folder: str = SERVICE_ACCOUNT) -> Access:
    """The service account Kubernetes gives every pod.

    Raises:
        KubeconfigError: this is not a pod, or it was given no service account.
    """
    access = Access(service_account=folder)
    _service_account(folder)
    return access


def _read(file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise KubeconfigError(f"kubeconfig {file} cannot be read: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise KubeconfigError(f"kubeconfig {file}{place} is not YAML: {problem}") from error
    if not isinstance(document, dict):
        raise KubeconfigError(
            f"kubeconfig {file} is empty or no mapping: expected clusters, contexts and users"
        )
    for section in ("clusters", "contexts", "users"):
        _check_section(file, section, document.get(section) or [])
    return document


def _check_section(file: Path, section: str, entries: Any) -> None:
    inner = section.removesuffix("s")
    if not isinstance(entries, list):
        raise KubeconfigError(f"kubeconfig {file}: {section} is not a list")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not entry.get("name"):
            raise KubeconfigError(f"kubeconfig {file}: {section}[{number}] has no name")
        if not isinstance(entry.get(inner), dict):
            if inner == "user" and entry.get(inner) is None:
                entry[inner] = {}
                continue
            raise KubeconfigError(f"kubeconfig {file}: {section}[{number}] ({entry['name']}) has no {inner}")


class _Loaded:
    """One reading of kubeconfig files, in the package's own representation."""

    def __init__(self, paths: str, context: str, *, nobody: bool = False) -> None:
        self._where = f"kubeconfig {paths}, context {context}"
        self._nobody = nobody
        self._paths = paths
        self._context_name = context
        self._merged = _package().KubeConfigMerger(paths).config
        entry = self._merged["contexts"].get_with_name(context)
        self._context: dict[str, Any] = entry.value["context"]
        self.cluster, self.folder = self._entry("cluster")
        self.user, _ = self._entry("user") if self._context.get("user") and not nobody else ({}, "")

    def _entry(self, kind: str) -> tuple[dict[str, Any], str]:
        name = self._context.get(kind)
        entries = {entry.value["name"]: entry for entry in self._merged.value[f"{kind}s"]}
        if name not in entries:
            known = ", ".join(map(str, entries)) or "none"
            raise KubeconfigError(f"{self._where} names {kind} {name!r}, which is not there; known: {known}")
        node = entries[name]
        return node.value[kind] or {}, str(Path(node.path).parent)

    def check(self) -> None:
        """Raises KubeconfigError for what no request could succeed with."""
        server = self.cluster.get("server")
        if not isinstance(server, str) or not server.startswith(("http://", "https://")):
            raise KubeconfigError(
                f"{self._where}: the cluster's server is {server!r}, expected an http:// or https:// address"
            )
        files = [(self.cluster, "certificate-authority", "certificate-authority-data")]
        files += [(self.user, "client-certificate", "client-certificate-data")]
        files += [(self.user, "client-key", "client-key-data")]
        for section, key, data in files:
            if section.get(key) and not section.get(data):
                file = Path(self.folder, str(section[key]))
                if not file.is_file():
                    raise KubeconfigError(f"{self._where}: the {key} {file} is not there")
        self._token()

    def _token(self) -> str | None:
        """What the token file holds; None where there is none."""
        if not self.user.get("tokenFile"):
            return None
        file = Path(self.folder, str(self.user["tokenFile"]))
        try:
            return read_token(file)
        except NoToken as error:
            problem = error if file.is_file() else "is not there"
            raise TokenGone(f"{self._where}: the tokenFile {file} {problem}") from error

    @property
    def tells(self) -> bool:
        """There is a token or a password."""
        user = self.user
        return bool(
            user.get("token") or user.get("tokenFile") or (user.get("username") and user.get("password"))
        )

    @property
    def renewable(self) -> bool:
        """The credentials may be different when they are asked for again."""
        return bool(
            {"exec", "auth-provider", "tokenFile", "client-certificate", "client-key"} & self.user.keys()
        )

    async def found(self, tls: TlsContexts, plugin: PluginCredentials | None, server: str | None) -> Found:
        """Reads everything; runs the exec plug-in unless `plugin` is still good."""
        if "exec" in self.user and (plugin is None or plugin.expired):
            plugin = await run_plugin(
                self.user["exec"], folder=self.folder, cluster=self.cluster, where=self._where
            )
        try:
            return Found(await self._load(tls, plugin, server), plugin, self.renewable)
        except KubeconfigError:
            raise
        except Exception as error:  # the package has no common root of its errors, and passes many on
            raise KubeconfigError(f"{self._where}: {error}") from error

    async def _load(self, tls: TlsContexts, plugin: PluginCredentials | None, server: str | None) -> Endpoint:
        package = _package()
        # A token file wins, as in client-go, and is read each time: that is how tokens are rotated.
        if (token := self._token()) is not None:
            self.user["token"] = token

        async def plugged() -> bool:
            if plugin is not None and plugin.token:
                loader.token = f"Bearer {plugin.token}"
            return plugin is not None

        with _Folder() as folder:
            loader = package.KubeConfigLoader(
                self._merged,
                active_context=self._context_name,
                config_base_path=None,
                temp_file_path=folder.name,
            )
            loader.load_from_exec_plugin = plugged
            # The package fails on a context without a user, and would take the credentials of one with.
            if loader._user is None or self._nobody:  # noqa: SLF001
                loader._user = package.ConfigNode("no user", {}, self._paths)  # noqa: SLF001
            if plugin is not None and plugin.certificate:
                loader.cert_file = folder.write("plugin.crt", plugin.certificate)
                loader.key_file = folder.write("plugin.key", plugin.key)
            configuration = package.Configuration()
            await loader.load_and_set(configuration)
            _redirect(configuration, server)
            context = tls.of(configuration, self._where)
        return _endpoint(configuration, context, _impersonation(self.user))


def _package() -> Any:
    """The package's module. Imported late: that takes half a second and 50 MB, and many need none."""
    from kubernetes.aio.config import kube_config

    return kube_config


class _Folder:
    """A folder for the files that OpenSSL insists on; gone, with the package's memory of them, when left."""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="shoal-")
        self.name = self._folder.name
        return self

    def write(self, name: str, content: str) -> str:
        """The path of a new file, readable by its owner alone as the folder is."""
        path = Path(self.name, name)
        path.write_text(content, encoding="utf-8")
        return str(path)

    def __exit__(self, *_: object) -> None:
        # The package remembers what it wrote, and would hand out the path of a deleted file.
        written = _package()._temp_files  # noqa: SLF001
        for content in [key for key, path in written.items() if path.startswith(self.name)]:
            del written[content]
        self._folder.cleanup()


def _service_account(folder: str) -> Any:
    from kubernetes.aio.config import incluster_config

    package: Any = incluster_config
    configuration = package.Configuration()
    loader = package.InClusterConfigLoader(
        token_filename=f"{folder}/token", cert_filename=f"{folder}/ca.crt", try_refresh_token=False
    )
    try:
        loader.load_and_set(configuration)
        configuration.api_key["BearerToken"] = f"Bearer {read_token(Path(folder, 'token'))}"
    except (package.ConfigException, OSError, NoToken) as error:
        problem = f"the token {error}" if isinstance(error, NoToken) else error
        raise TokenGone(
            f"no in-cluster access: {problem} (looked in {folder} and at KUBERNETES_SERVICE_HOST); "
            "outside of a pod name a kubeconfig"
        ) from error
    return configuration


# -- from the package's configuration to ours ----------------------------------------------------------------


def _endpoint(configuration: Any, tls: ssl.SSLContext | None, headers: Pairs) -> Endpoint:
    token = (configuration.api_key.get("BearerToken") or "").strip()
    if token:
        headers = (("Authorization", token), *headers)
    return Endpoint(
        server=str(configuration.host).rstrip("/"),
        tls=tls,
        headers=headers,
        server_name=configuration.tls_server_name,
        proxy=configuration.proxy,
    )


def _redirect(configuration: Any, server: str | None) -> None:
    if server is not None:
        # The certificate's name is that of the kubeconfig's server, as in kubectl's --server.
        configuration.host, configuration.tls_server_name = server, None


def _bare(endpoint: Endpoint) -> Endpoint:
    """An endpoint with nothing in it that says who we are, wherever it may have come from."""
    scheme, separator, rest = endpoint.server.partition("://")
    host, slash, path = rest.partition("/")
    server = f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"
    return dataclasses.replace(endpoint, server=server, headers=())


def _impersonation(user: dict[str, Any]) -> Pairs:
    headers: list[tuple[str, str]] = []
    if user.get("as"):
        headers.append(("Impersonate-User", str(user["as"])))
    if user.get("as-uid"):
        headers.append(("Impersonate-Uid", str(user["as-uid"])))
    headers += [("Impersonate-Group", str(group)) for group in user.get("as-groups") or ()]
    for key, values in (user.get("as-user-extra") or {}).items():
        headers += [(f"Impersonate-Extra-{key}", str(value)) for value in values]
    return tuple(headers)


class _Reader:
    """Reads what an access names, each time anew."""

    def __init__(self, access: Access, server: str | None, tls: TlsContexts) -> None:
        self._access = access
        self._server = server
        self._tls = tls

    async def read(self, plugin: PluginCredentials | None) -> Found:
        """What there is now; `plugin` is used again while it is good.

        Raises:
            KubeconfigError: it cannot be used.
        """
        try:
            found = await self._read(plugin)
        except KubeconfigError:
            raise
        except Exception as error:  # the package's, about what is half written
            raise KubeconfigError(f"{self._access} cannot be read: {error!r}") from error
        return dataclasses.replace(found, endpoint=_bare(found.endpoint)) if self._access.nobody else found

    async def _read(self, plugin: PluginCredentials | None) -> Found:
        access = self._access
        if access.service_account:
            configuration = _service_account(access.service_account)
            _redirect(configuration, self._server)
            endpoint = _endpoint(configuration, self._tls.of(configuration, str(access)), ())
            return Found(endpoint, renewable=not access.nobody)
        # Files are checked again: what was good when Shoal started may be gone, and the message should say
        # so.
        load_kubeconfig(access.paths, access.context)
        loaded = _Loaded(access.paths, access.context, nobody=access.nobody)
        return await loaded.found(self._tls, plugin, self._server)
