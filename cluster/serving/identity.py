"""Who asks, what for, and the words in which kube-apiserver says no.

The values of authentication and authorization, shared by the gateway, which asks the API server for verdicts, and
by the embedded server, which reaches them: `User`, `Attributes` (the request info an authorizer sees), the
impersonation a request asks for and the permissions that takes. Pure.

Sources: ``k8s.io/apiserver/pkg/endpoints/request.RequestInfoFactory``, ``endpoints/handlers/responsewriters``
(``ForbiddenStatusError``) and ``endpoints/filters/impersonation``. Of impersonation only the form that every
version has is known here (the verb ``impersonate``); whoever holds nothing but the permissions of constrained
impersonation (KEP-5284) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from ...shards.model.errors import BadRequest, Forbidden
from ...shards.model.selector_tests import echoed
from ...shards.model.selectors import FieldSelector
from .paths import DiscoveryPath, OtherPath, RequestPath, ResourcePath, parse_path

ANONYMOUS_NAME = "system:anonymous"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
MASTERS = "system:masters"
"""The group that kube-apiserver itself allows everything, before any authorizer is asked."""
SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"

_COLLECTION_VERBS = {"GET": "list", "HEAD": "list", "POST": "create", "DELETE": "deletecollection"}
_OBJECT_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "DELETE": "delete"}
_OTHER_VERBS = {"PUT": "update", "PATCH": "patch"}
_NAME_SEGMENT = re.compile(r"\A(?!\.{1,2}\Z)[^/%]*\Z")
"""``path.IsValidPathSegmentName``."""
_DNS_LABEL = re.compile(r"\A[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_DNS_SUBDOMAIN = re.compile(
    r"\A(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z"
)
_EXTRA_PREFIX = "impersonate-extra-"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody, as authentication found them."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def identity(self) -> tuple[object, ...]:
        """All that an authorizer may look at, as something to remember verdicts by."""
        return self.name, self.uid, self.groups, tuple(sorted(self.extra.items()))

    @property
    def anonymous(self) -> bool:
        """Whether nobody said who they are."""
        return self.name == ANONYMOUS_NAME


ANONYMOUS = User(ANONYMOUS_NAME, groups=(UNAUTHENTICATED,))


def authenticated(user: User) -> User:
    """The user in the group of everybody who is known (``group.AuthenticatedGroupAdder``)."""
    if user.anonymous or {AUTHENTICATED, UNAUTHENTICATED} & set(user.groups):
        return user
    return replace(user, groups=(*user.groups, AUTHENTICATED))


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a request is about: a resource, or, with an empty `resource`, a `path`."""

    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    label_selector: str = ""
    """As sent. With one, an authorizer may allow what it would not allow without."""
    field_selector: str = ""

    @property
    def combined(self) -> str:
        """The resource as rules name it: with its subresource."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource

    @property
    def unselected(self) -> Attributes:
        """The same for everything in the collection, whatever the selectors."""
        return replace(self, label_selector="", field_selector="")


def request_attributes(
    method: str, path: str, parameters: Iterable[tuple[str, str]], parsed: RequestPath | None = None
) -> Attributes:
    """What an authorizer is asked about a request; `path` is decoded, without the query. Never fails."""
    parsed = parse_path(path) if parsed is None else parsed
    if isinstance(parsed, DiscoveryPath | OtherPath):
        return Attributes(method.lower(), path=path)
    first: dict[str, str] = {}
    for key, value in parameters:
        first.setdefault(key, value)
    return _resource_attributes(method, path, parsed, first)


def _resource_attributes(
    method: str, path: str, parsed: ResourcePath, first: Mapping[str, str]
) -> Attributes:
    verbs = _OBJECT_VERBS if parsed.name else _COLLECTION_VERBS
    verb = verbs.get(method) or _OTHER_VERBS.get(method, "")
    name = parsed.name or ""
    selecting = not name and verb in ("list", "deletecollection")
    labels = first.get("labelSelector", "") if selecting else ""
    fields = first.get("fieldSelector", "") if selecting else ""
    if verb == "list":
        if first.get("watch", "false").lower() not in ("false", "0"):
            verb = "watch"
        name = _selected_name(fields)
    if parsed.watching:
        verb = "watch"
    return Attributes(
        verb,
        parsed.group,
        parsed.version,
        parsed.resource,
        (parsed.subresource or "").partition("/")[0],
        # ``/namespaces/NAME`` is in that namespace: a Role there may allow to get it.
        parsed.namespace or (name if parsed.resource == "namespaces" and parsed.name else ""),
        name,
        path,
        labels,
        fields,
    )


def _selected_name(fields: str) -> str:
    """The one name a field selector allows; empty if it allows others, or cannot be read (that is 400 later)."""
    try:
        name = FieldSelector.parse(fields).exact("metadata.name") if fields else None
    except BadRequest:
        return ""
    return name if name and _NAME_SEGMENT.match(name) else ""


# -- refusals ------------------------------------------------------------------------------------------------


def forbidden(user: User, attributes: Attributes, reason: str = "") -> Forbidden:
    """The error for what an authorizer does not allow; `reason` is what it says about that, if anything."""
    who, what = quoted(user.name), attributes
    tail = f": {reason}" if reason else ""
    if not what.resource:
        return Forbidden(
            f"forbidden: User {who} cannot {what.verb} path {quoted(what.path)}{tail}", details={}
        )
    scope = f"in the namespace {quoted(what.namespace)}" if what.namespace else "at the cluster scope"
    qualified = echoed(f"{what.resource}.{what.group}" if what.group else what.resource)
    named = f" {quoted(what.name)}" if what.name else ""
    found = {"name": echoed(what.name), "group": echoed(what.group), "kind": echoed(what.resource)}
    return Forbidden(
        f"{qualified}{named} is forbidden: User {who} cannot {what.verb} resource "
        f"{quoted(what.combined)} in API group {quoted(what.group)} {scope}{tail}",
        details={key: value for key, value in found.items() if value},
    )


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\a": "\\a", "\b": "\\b"}
_ESCAPES |= {"\f": "\\f", "\v": "\\v"}


def quoted(text: str) -> str:
    """Text as Go's ``%q`` writes it; a long one is cut short, because it is somebody's to choose."""
    text = echoed(text)
    if text.isprintable() and not _QUOTED_SPECIAL.search(text):
        return f'"{text}"'
    return f'"{"".join(map(_escaped, text))}"'


_QUOTED_SPECIAL = re.compile(r'["\\]')


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# -- impersonation -------------------------------------------------------------------------------------------


def impersonation_asked(fields: Iterable[tuple[str, str]]) -> User | None:
    """Whom a request's headers (lower-case names, one pair each) want to be; None: nobody else.

    The user is as the headers have it; `impersonated` completes it.

    Raises:
        BadRequest: groups, a uid or extra without a user.
    """
    name = uid = ""
    groups: list[str] = []
    extra: dict[str, list[str]] = {}
    seen: set[str] = set()
    for key, raw in fields:
        if not key.startswith("impersonate-"):
            continue
        value = header_text(raw)
        if key == "impersonate-user":
            name = value if key not in seen else name  # the first counts, as in Go's Header.Get
        elif key == "impersonate-uid":
            uid = value if key not in seen else uid
        elif key == "impersonate-group":
            groups.append(value)
        elif key.startswith(_EXTRA_PREFIX):
            extra.setdefault(unquote(header_text(key.removeprefix(_EXTRA_PREFIX))), []).append(value)
        seen.add(key)
    wanted = User(name, uid, tuple(groups), {key: tuple(values) for key, values in extra.items()})
    if name:
        return wanted
    if groups or extra or uid:
        references = [f"{{Group  {echoed(group)}    }}" for group in groups]
        api = "authentication.k8s.io/v1"
        references += [
            f"{{UserExtra  {echoed(value)}  {api}  {echoed(key)}}}"
            for key, all_ in extra.items()
            for value in all_
        ]
        references += [f"{{UID  {echoed(uid)}  {api}  }}"] if uid else []
        raise BadRequest(f"requested [{' '.join(references)}] without impersonating a user")
    return None


def header_text(header: str) -> str:
    """A header's bytes as Go reads them: UTF-8, where HTTP libraries here read Latin-1."""
    return header.encode("latin-1", "replace").decode("utf-8", "replace")


def impersonation_checks(wanted: User) -> list[Attributes]:
    """What the caller must be allowed, in the order kube-apiserver asks."""
    account = service_account(wanted.name)
    if account is not None:
        namespace, name = account
        checks = [_impersonate("", "serviceaccounts", name, namespace=namespace)]
    else:
        checks = [_impersonate("", "users", wanted.name)]
    if wanted.uid:
        checks.append(_impersonate("authentication.k8s.io", "uids", wanted.uid))
    checks += [_impersonate("", "groups", group) for group in wanted.groups]
    checks += [
        _impersonate("authentication.k8s.io", "userextras", value, subresource=key)
        for key, values in wanted.extra.items()
        for value in values
    ]
    return checks


def _impersonate(
    group: str, resource: str, name: str, *, namespace: str = "", subresource: str = ""
) -> Attributes:
    return Attributes("impersonate", group, "v1", resource, subresource, namespace, name)


def impersonated(wanted: User) -> User:
    """The user that somebody who may impersonate `wanted` becomes: with the groups everybody has."""
    groups = wanted.groups
    account = service_account(wanted.name)
    if account is not None and not groups:
        groups = (f"{SERVICE_ACCOUNT_PREFIX.rstrip(':')}s", f"system:serviceaccounts:{account[0]}")
    if wanted.anonymous:
        groups = groups if UNAUTHENTICATED in groups else (*groups, UNAUTHENTICATED)
    elif not {AUTHENTICATED, UNAUTHENTICATED} & set(groups):
        groups = (*groups, AUTHENTICATED)
    return replace(wanted, groups=groups)


def service_account(username: str) -> tuple[str, str] | None:
    """Namespace and name of the service account a user name stands for (``serviceaccount.SplitUsername``)."""
    if not username.startswith(SERVICE_ACCOUNT_PREFIX):
        return None
    namespace, colon, name = username.removeprefix(SERVICE_ACCOUNT_PREFIX).partition(":")
    if not colon or not _DNS_LABEL.match(namespace) or not _DNS_SUBDOMAIN.match(name):
        return None
    return namespace, name
