"""The columns of configuration and rules: config maps, secrets, accounts, RBAC, autoscalers, budgets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from .cells import (
    AGE,
    NAME,
    NONE,
    UNKNOWN,
    UNSET,
    Cell,
    Column,
    Meta,
    Printer,
    View,
    created,
    cut_short,
)

# -- config maps, secrets, service accounts -------------------------------------------------------------


class ConfigMapView(View, frozen=True):
    """The fields of a config map that its cells rest on: values are not decoded."""

    data: dict[str, msgspec.Raw] | None = None
    binary_data: dict[str, msgspec.Raw] | None = None


def _config_map(view: ConfigMapView, meta: Meta, now: datetime) -> list[Cell]:
    return [meta.name, len(view.data or ()) + len(view.binary_data or ()), created(meta, now)]


CONFIG_MAPS = Printer(
    (
        NAME,
        Column(
            "Data",
            description="Data contains the configuration data. Each key must consist of alphanumeric "
            "characters, "
            "'-', '_' or '.'. Values with non-UTF-8 byte sequences must use the BinaryData field. "
            "The keys stored "
            "in Data must not overlap with the keys in the BinaryData field, this is enforced during "
            "validation "
            "process.",
        ),
        AGE,
    ),
    ConfigMapView,
    _config_map,
)


class SecretView(View, frozen=True):
    """The fields of a secret that its cells rest on: values are not decoded."""

    type: str = ""
    data: dict[str, msgspec.Raw] | None = None


def _secret(view: SecretView, meta: Meta, now: datetime) -> list[Cell]:
    return [meta.name, view.type, len(view.data or ()), created(meta, now)]


SECRETS = Printer(
    (
        NAME,
        Column("Type", description="What the secret is for."),
        Column("Data", description="Number of keys."),
        AGE,
    ),
    SecretView,
    _secret,
)


class ServiceAccountView(View, frozen=True):
    """The fields of a service account that its cells rest on."""

    secrets: list[msgspec.Raw] | None = None


def _service_account(view: ServiceAccountView, meta: Meta, now: datetime) -> list[Cell]:
    return [meta.name, len(view.secrets or ()), created(meta, now)]


SERVICE_ACCOUNTS = Printer(
    (NAME, Column("Secrets", description="Number of secrets the account may mount."), AGE),
    ServiceAccountView,
    _service_account,
)


# -- role bindings --------------------------------------------------------------------------------------


class _RoleRef(msgspec.Struct, frozen=True):
    kind: str = ""
    name: str = ""


class _Subject(msgspec.Struct, frozen=True):
    kind: str = ""
    name: str = ""
    namespace: str = ""


class RoleBindingView(View, frozen=True):
    """The fields of a role binding, cluster-wide or not, that its cells rest on."""

    role_ref: _RoleRef = _RoleRef()
    subjects: list[_Subject] | None = None


def _role_binding(view: RoleBindingView, meta: Meta, now: datetime) -> list[Cell]:
    subjects = view.subjects or ()
    return [
        meta.name,
        f"{view.role_ref.kind}/{view.role_ref.name}",
        created(meta, now),
        ", ".join(subject.name for subject in subjects if subject.kind == "User"),
        ", ".join(subject.name for subject in subjects if subject.kind == "Group"),
        ", ".join(f"{s.namespace}/{s.name}" for s in subjects if s.kind == "ServiceAccount"),
    ]


def _bound_columns(kind: str) -> tuple[Column, ...]:
    subjects = ("Users", "Groups", "ServiceAccounts")
    return (
        NAME,
        Column("Role", description="The role that is granted."),
        AGE,
        *(Column(name, description=f"{name} in the {kind}", priority=1) for name in subjects),
    )


ROLE_BINDINGS = Printer(_bound_columns("roleBinding"), RoleBindingView, _role_binding)
CLUSTER_ROLE_BINDINGS = Printer(_bound_columns("clusterRoleBinding"), RoleBindingView, _role_binding)


# -- budgets --------------------------------------------------------------------------------------------


class _BudgetSpec(msgspec.Struct, frozen=True, rename="camel"):
    min_available: int | str | None = None
    max_unavailable: int | str | None = None


class _BudgetStatus(msgspec.Struct, frozen=True, rename="camel"):
    disruptions_allowed: int = 0


class BudgetView(View, frozen=True):
    """The fields of a disruption budget that its cells rest on."""

    spec: _BudgetSpec = _BudgetSpec()
    status: _BudgetStatus = _BudgetStatus()


def _budget(view: BudgetView, meta: Meta, now: datetime) -> list[Cell]:
    least, most = view.spec.min_available, view.spec.max_unavailable
    return [
        meta.name,
        "N/A" if least is None else str(least),
        "N/A" if most is None else str(most),
        view.status.disruptions_allowed,
        created(meta, now),
    ]


BUDGETS = Printer(
    (
        NAME,
        Column("Min Available", description="The minimum number of pods that must be available."),
        Column("Max Unavailable", description="The maximum number of pods that may be unavailable."),
        Column(
            "Allowed Disruptions",
            "integer",
            description="Calculated number of pods that may be disrupted at this time.",
        ),
        AGE,
    ),
    BudgetView,
    _budget,
)


# -- autoscalers ----------------------------------------------------------------------------------------


class _Target(msgspec.Struct, frozen=True, rename="camel"):
    value: str | None = None
    average_value: str | None = None
    average_utilization: int | None = None


class _Source(msgspec.Struct, frozen=True):
    """One metric's source, as the spec (`target`) or the status (`current`) has it."""

    name: str = ""
    target: _Target = _Target()
    current: _Target = _Target()


class _Metric(msgspec.Struct, frozen=True, rename="camel"):
    type: str = ""
    resource: _Source | None = None
    container_resource: _Source | None = None
    pods: _Source | None = None
    object: _Source | None = None
    external: _Source | None = None

    def source(self) -> _Source | None:
        match self.type:
            case "Resource":
                return self.resource
            case "ContainerResource":
                return self.container_resource
            case "Pods":
                return self.pods
            case "Object":
                return self.object
            case "External":
                return self.external
            case _:
                return None


class _ScaleTarget(msgspec.Struct, frozen=True):
    kind: str = ""
    name: str = ""


class _AutoscalerSpec(msgspec.Struct, frozen=True, rename="camel"):
    scale_target_ref: _ScaleTarget = _ScaleTarget()
    min_replicas: int | None = None
    max_replicas: int = 0
    metrics: list[_Metric] | None = None
    target_cpu: int | None = msgspec.field(name="targetCPUUtilizationPercentage", default=None)
    """autoscaling/v1's only metric."""


class _AutoscalerStatus(msgspec.Struct, frozen=True, rename="camel"):
    current_replicas: int = 0
    current_metrics: list[_Metric] | None = None
    current_cpu: int | None = msgspec.field(name="currentCPUUtilizationPercentage", default=None)


class AutoscalerView(View, frozen=True):
    """The fields of a horizontal pod autoscaler, of v1 or v2, that its cells rest on."""

    spec: _AutoscalerSpec = _AutoscalerSpec()
    status: _AutoscalerStatus = _AutoscalerStatus()


_METRICS_SHOWN = 2


def _autoscaler(view: AutoscalerView, meta: Meta, now: datetime) -> list[Cell]:
    spec = view.spec
    return [
        meta.name,
        f"{spec.scale_target_ref.kind}/{spec.scale_target_ref.name}",
        _targets(view),
        UNSET if spec.min_replicas is None else str(spec.min_replicas),
        spec.max_replicas,
        view.status.current_replicas,
        created(meta, now),
    ]


def _targets(view: AutoscalerView) -> str:
    spec, status = view.spec, view.status
    wanted, current = list(spec.metrics or ()), list(status.current_metrics or ())
    if not wanted and spec.target_cpu is not None:
        target, now_at = (
            _Target(average_utilization=spec.target_cpu),
            _Target(average_utilization=status.current_cpu),
        )
        wanted = [_Metric("Resource", resource=_Source("cpu", target=target))]
        current = [_Metric("Resource", resource=_Source("cpu", current=now_at))]
    texts = [_metric_text(metric, current[at : at + 1]) for at, metric in enumerate(wanted)]
    return cut_short(texts, most=_METRICS_SHOWN, empty=NONE, separator=", ")


def _metric_text(metric: _Metric, at_place: Sequence[_Metric]) -> str:
    """``current/target`` of one metric; `at_place` is the status at the same place, if there is one."""
    source = metric.source()
    if source is None:
        return "<unknown type>"
    status = at_place[0].source() if at_place and at_place[0].type == metric.type else None
    current, target = (status.current if status is not None else _Target()), source.target
    if metric.type in ("Resource", "ContainerResource"):
        if target.average_value is not None:
            return f"{source.name}: {current.average_value or UNKNOWN}/{target.average_value}"
        wanted = "<auto>" if target.average_utilization is None else f"{target.average_utilization}%"
        used = UNKNOWN if current.average_utilization is None else f"{current.average_utilization}%"
        return f"{source.name}: {used}/{wanted}"
    if target.average_value is not None:
        average = "" if metric.type == "Pods" else " (avg)"
        return f"{current.average_value or UNKNOWN}/{target.average_value}{average}"
    return f"{current.value or UNKNOWN}/{target.value or UNKNOWN}"


AUTOSCALERS = Printer(
    (
        NAME,
        Column("Reference", description="What is scaled."),
        Column("Targets", description="Metrics that scaling rests on, each as current and wanted value."),
        Column("MinPods", description="Never fewer replicas than this."),
        Column("MaxPods", description="Never more replicas than this."),
        Column("Replicas", description="Replicas there are, as the autoscaler saw them last."),
        AGE,
    ),
    AutoscalerView,
    _autoscaler,
)
