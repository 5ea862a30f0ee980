"""Role-based access control over the roles and bindings that are stored, as kube-apiserver's RBAC authorizer does it.

A request is allowed by the first rule that matches it among the roles bound to its user: ClusterRoleBindings first,
then, for a request in a namespace, that namespace's RoleBindings. A binding to a role that does not exist allows
nothing and is named in the refusal. ``system:masters`` may do everything, before any role is looked at. Sources:
``plugin/pkg/auth/authorizer/rbac/rbac.go``, ``pkg/registry/rbac/validation/rule.go``, ``evaluation_helpers.go`` of
``pkg/apis/rbac/v1``, and, for the roles every cluster begins with, ``bootstrappolicy/policy.go``, of which the
essential ones are here.

Left out: ``aggregationRule`` (a ClusterRole has the rules that are written in it), and with it the aggregated roles
``admin``, ``edit`` and ``view``; the checks against escalation when a role or binding is written. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from ...shards.model.refs import key_of
from ...shards.model.resources import Resource
from ...shards.model.versions import Version
from ..serving.identity import MASTERS, SERVICE_ACCOUNT_PREFIX, Attributes, User, quoted
from .storage import Collection, Storage

GROUP: Final = "rbac.authorization.k8s.io"
CLUSTER_ROLES: Final = Resource(GROUP, "v1", "clusterroles")
CLUSTER_ROLE_BINDINGS: Final = Resource(GROUP, "v1", "clusterrolebindings")
_COLLECTIONS: Final = tuple(
    f"{name}.{GROUP}" for name in ("clusterroles", "clusterrolebindings", "roles", "rolebindings")
)


class Verdict(NamedTuple):
    """What an authorizer says."""

    allowed: bool
    reason: str = ""


class _Rule(msgspec.Struct, frozen=True, rename="camel"):
    verbs: tuple[str, ...] = ()
    api_groups: tuple[str, ...] | None = None
    resources: tuple[str, ...] | None = None
    resource_names: tuple[str, ...] | None = None
    non_resource_urls: tuple[str, ...] | None = msgspec.field(default=None, name="nonResourceURLs")

    def allows(self, what: Attributes) -> bool:
        """``RuleAllows``."""
        if "*" not in self.verbs and what.verb not in self.verbs:
            return False
        if not what.resource:
            return any(_covers_path(url, what.path) for url in self.non_resource_urls or ())
        groups = self.api_groups or ()
        return (
            ("*" in groups or what.group in groups)
            and any(_covers_resource(resource, what) for resource in self.resources or ())
            and (not self.resource_names or what.name in self.resource_names)
        )


def _covers_path(url: str, path: str) -> bool:
    return url in ("*", path) or (url.endswith("*") and path.startswith(url.rstrip("*")))


def _covers_resource(resource: str, what: Attributes) -> bool:
    if resource in ("*", what.combined):
        return True
    return bool(what.subresource) and resource == f"*/{what.subresource}"


class _Subject(msgspec.Struct, frozen=True):
    kind: str = ""
    name: str = ""
    namespace: str = ""

    def applies_to(self, user: User, namespace: str) -> bool:
        match self.kind:
            case "User":
                return user.name == self.name
            case "Group":
                return self.name in user.groups
            case "ServiceAccount":
                account = self.namespace or namespace
                return bool(account) and user.name == f"{SERVICE_ACCOUNT_PREFIX}{account}:{self.name}"
            case _:
                return False

    def described(self, namespace: str) -> str:
        """``describeSubject``."""
        name = f"{self.name}/{self.namespace or namespace}" if self.kind == "ServiceAccount" else self.name
        return f"{self.kind} {quoted(name)}"


class _Reference(msgspec.Struct, frozen=True):
    kind: str = ""
    name: str = ""


class _Metadata(msgspec.Struct, frozen=True):
    name: str = ""
    namespace: str = ""


class _Role(msgspec.Struct, frozen=True):
    metadata: _Metadata
    rules: tuple[_Rule, ...] | None = None


class _Binding(msgspec.Struct, frozen=True, rename="camel"):
    metadata: _Metadata
    role_ref: _Reference
    subjects: tuple[_Subject, ...] | None = None

    def described(self, subject: _Subject) -> str:
        """``roleBindingDescriber``, ``clusterRoleBindingDescriber``."""
        mine = self.metadata
        name = f"{mine.name}/{mine.namespace}" if mine.namespace else mine.name
        kind = "RoleBinding" if mine.namespace else "ClusterRoleBinding"
        role = f"{self.role_ref.kind} {quoted(self.role_ref.name)}"
        return f"{kind} {quoted(name)} of {role} to {subject.described(mine.namespace)}"


@dataclass(frozen=True, slots=True)
class _Policy:
    """Everything stored, read once for each state of the four collections."""

    roles: Mapping[str, tuple[_Rule, ...]]
    """By key; a ClusterRole's is its name."""
    everywhere: tuple[_Binding, ...]
    by_namespace: Mapping[str, tuple[_Binding, ...]]


class RoleBasedAccess:
    """Decides from what is stored now."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._read_at: tuple[tuple[Collection, Version], ...] = ()
        self._policy = _Policy({}, (), {})

    def verdict(self, user: User, what: Attributes) -> Verdict:
        """Whether the user may, and why (or, of a refusal, what was wrong with the roles)."""
        if MASTERS in user.groups:
            return Verdict(allowed=True)
        policy = self._present()
        problems: dict[str, None] = {}
        for binding in (*policy.everywhere, *policy.by_namespace.get(what.namespace, ())):
            home = binding.metadata.namespace
            subject = next((one for one in binding.subjects or () if one.applies_to(user, home)), None)
            if subject is None:
                continue
            rules = policy.roles.get(_role_key(binding))
            if rules is None:
                kind = binding.role_ref.kind.lower()
                problems[f"{kind}.{GROUP} {quoted(binding.role_ref.name)} not found"] = None
            elif any(rule.allows(what) for rule in rules):
                return Verdict(allowed=True, reason=f"RBAC: allowed by {binding.described(subject)}")
        if not problems:
            return Verdict(allowed=False)
        listed = ", ".join(problems)
        return Verdict(allowed=False, reason=f"RBAC: [{listed}]" if len(problems) > 1 else f"RBAC: {listed}")

    def _present(self) -> _Policy:
        collections = [self._storage.collection(name) for name in _COLLECTIONS]
        read_at = tuple((collection, collection.last) for collection in collections)
        if read_at != self._read_at:
            cluster_roles, cluster_bindings, roles, bindings = (
                [stored.body for stored in collection.objects.values()] for collection in collections
            )
            by_namespace: dict[str, list[_Binding]] = {}
            for binding in _decoded(bindings, _Binding):
                by_namespace.setdefault(binding.metadata.namespace, []).append(binding)
            found = (*_decoded(cluster_roles, _Role), *_decoded(roles, _Role))
            self._policy = _Policy(
                {key_of(role.metadata.namespace, role.metadata.name): role.rules or () for role in found},
                tuple(_decoded(cluster_bindings, _Binding)),
                {namespace: tuple(held) for namespace, held in by_namespace.items()},
            )
            self._read_at = read_at
        return self._policy


def _role_key(binding: _Binding) -> str:
    if binding.role_ref.kind == "Role":
        return key_of(binding.metadata.namespace, binding.role_ref.name)
    return binding.role_ref.name


def _decoded(bodies: Iterable[bytes], kind: type[Any]) -> Iterator[Any]:
    """The objects that are what they say; others (a fault, a test) give nobody anything."""
    for body in bodies:
        try:
            yield msgspec.json.decode(body, type=kind)
        except msgspec.MsgspecError:
            continue


# -- what every cluster begins with --------------------------------------------------------------------------

_AUTHENTICATED = "system:authenticated"
_UNAUTHENTICATED = "system:unauthenticated"
_PUBLIC = ("/healthz", "/livez", "/readyz", "/version", "/version/")
_DISCOVERY = ("/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*")


def _rule(group: str, *resources: str, verbs: tuple[str, ...] = ("create",)) -> dict[str, Any]:
    return {"verbs": list(verbs), "apiGroups": [group], "resources": list(resources)}


def _paths(*urls: str, verbs: tuple[str, ...] = ("get",)) -> dict[str, Any]:
    return {"verbs": list(verbs), "nonResourceURLs": list(urls)}


_REVIEWS, _PEOPLE = "authorization.k8s.io", "authentication.k8s.io"
_BOOTSTRAP: tuple[tuple[str, list[dict[str, Any]], tuple[str, ...]], ...] = (
    ("cluster-admin", [_rule("*", "*", verbs=("*",)), _paths("*", verbs=("*",))], (MASTERS,)),
    ("system:discovery", [_paths(*sorted((*_PUBLIC, *_DISCOVERY)))], (_AUTHENTICATED,)),
    ("system:public-info-viewer", [_paths(*_PUBLIC)], (_AUTHENTICATED, _UNAUTHENTICATED)),
    (
        "system:basic-user",
        [
            _rule(_REVIEWS, "selfsubjectaccessreviews", "selfsubjectrulesreviews"),
            _rule(_PEOPLE, "selfsubjectreviews"),
        ],
        (_AUTHENTICATED,),
    ),
    ("system:auth-delegator", [_rule(_PEOPLE, "tokenreviews"), _rule(_REVIEWS, "subjectaccessreviews")], ()),
)


def bootstrap_objects() -> Iterator[tuple[Resource, dict[str, Any]]]:
    """The cluster roles and bindings a cluster begins with, as documents to create."""
    for name, rules, groups in _BOOTSTRAP:
        metadata = {
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        }
        yield CLUSTER_ROLES, {"metadata": metadata, "rules": rules}
        if groups:
            reference = {"apiGroup": GROUP, "kind": "ClusterRole", "name": name}
            subjects = [{"apiGroup": GROUP, "kind": "Group", "name": group} for group in groups]
            yield CLUSTER_ROLE_BINDINGS, {"metadata": metadata, "roleRef": reference, "subjects": subjects}
