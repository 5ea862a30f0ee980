"""The columns of controllers that make pods: deployments, replica sets, stateful and daemon sets, jobs."""

from __future__ import annotations

from datetime import datetime

import msgspec

from .cells import (
    AGE,
    NAME,
    NONE,
    Cell,
    Column,
    Meta,
    Printer,
    Selector,
    View,
    age,
    created,
    human_duration,
    label_text,
    selector_text,
    yes_no,
)


class _Container(msgspec.Struct, frozen=True):
    name: str = ""
    image: str = ""


class _PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    containers: list[_Container] | None = None
    node_selector: dict[str, str] | None = None


class _TemplateMeta(msgspec.Struct, frozen=True):
    labels: dict[str, str] | None = None


class Template(msgspec.Struct, frozen=True):
    """A pod template."""

    metadata: _TemplateMeta = _TemplateMeta()
    spec: _PodSpec = _PodSpec()

    def names_and_images(self) -> list[Cell]:
        """The Containers and Images cells."""
        containers = self.spec.containers or ()
        return [",".join(c.name for c in containers), ",".join(c.image for c in containers)]


_CONTAINERS = Column("Containers", description="Names of each container in the template.", priority=1)
_IMAGES = Column("Images", description="Images referenced by each container in the template.", priority=1)
_SELECTOR = Column("Selector", description="Label selector for the pods of this object.", priority=1)


# -- deployments, replica sets, stateful sets -----------------------------------------------------------


class _ScaleSpec(msgspec.Struct, frozen=True):
    replicas: int | None = None
    selector: Selector | None = None
    template: Template = Template()


class _ScaleStatus(msgspec.Struct, frozen=True, rename="camel"):
    replicas: int = 0
    ready_replicas: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0


class ScaledView(View, frozen=True):
    """Everything that has ``replicas``."""

    spec: _ScaleSpec = _ScaleSpec()
    status: _ScaleStatus = _ScaleStatus()


def _deployment(view: ScaledView, meta: Meta, now: datetime) -> list[Cell]:
    spec, status = view.spec, view.status
    return [
        meta.name,
        f"{status.ready_replicas}/{spec.replicas or 0}",
        status.updated_replicas,
        status.available_replicas,
        created(meta, now),
        *spec.template.names_and_images(),
        _deployment_selector(spec.selector),
    ]


def _deployment_selector(selector: Selector | None) -> str:
    """As `selector_text`, but kube-apiserver writes a deployment's selector in another way than everybody else's."""
    text = selector_text(selector)
    return {NONE: "", "<error>": "<invalid>"}.get(text, text)


def _replica_set(view: ScaledView, meta: Meta, now: datetime) -> list[Cell]:
    spec, status = view.spec, view.status
    return [
        meta.name,
        spec.replicas or 0,
        status.replicas,
        status.ready_replicas,
        created(meta, now),
        *spec.template.names_and_images(),
        selector_text(spec.selector),
    ]


def _stateful_set(view: ScaledView, meta: Meta, now: datetime) -> list[Cell]:
    ready = f"{view.status.ready_replicas}/{view.spec.replicas or 0}"
    return [meta.name, ready, created(meta, now), *view.spec.template.names_and_images()]


DEPLOYMENTS = Printer(
    (
        NAME,
        Column("Ready", description="Number of the pod with ready state"),
        Column("Up-to-date", description="Pods of the newest template."),
        Column("Available", description="Pods that have been ready for at least minReadySeconds."),
        AGE,
        _CONTAINERS,
        _IMAGES,
        _SELECTOR,
    ),
    ScaledView,
    _deployment,
)
REPLICA_SETS = Printer(
    (
        NAME,
        Column("Desired", "integer", description="Pods wanted."),
        Column("Current", "integer", description="Pods there are."),
        Column("Ready", "integer", description="Pods that are ready."),
        AGE,
        _CONTAINERS,
        _IMAGES,
        _SELECTOR,
    ),
    ScaledView,
    _replica_set,
)
STATEFUL_SETS = Printer(
    (NAME, Column("Ready", description="Number of the pod with ready state"), AGE, _CONTAINERS, _IMAGES),
    ScaledView,
    _stateful_set,
)


# -- replication controllers: like replica sets, with a plain map as selector ---------------------------


class _ControllerSpec(msgspec.Struct, frozen=True):
    replicas: int | None = None
    selector: dict[str, str] | None = None
    template: Template = Template()


class ReplicationControllerView(View, frozen=True):
    """The fields of a replication controller that its cells rest on."""

    spec: _ControllerSpec = _ControllerSpec()
    status: _ScaleStatus = _ScaleStatus()


def _replication_controller(view: ReplicationControllerView, meta: Meta, now: datetime) -> list[Cell]:
    return [
        meta.name,
        view.spec.replicas or 0,
        view.status.replicas,
        view.status.ready_replicas,
        created(meta, now),
        *view.spec.template.names_and_images(),
        label_text(view.spec.selector),
    ]


REPLICATION_CONTROLLERS = Printer(REPLICA_SETS.columns, ReplicationControllerView, _replication_controller)


# -- daemon sets ----------------------------------------------------------------------------------------


class _DaemonSpec(msgspec.Struct, frozen=True):
    selector: Selector | None = None
    template: Template = Template()


class _DaemonStatus(msgspec.Struct, frozen=True, rename="camel"):
    desired_number_scheduled: int = 0
    current_number_scheduled: int = 0
    number_ready: int = 0
    updated_number_scheduled: int = 0
    number_available: int = 0


class DaemonSetView(View, frozen=True):
    """The fields of a daemon set that its cells rest on."""

    spec: _DaemonSpec = _DaemonSpec()
    status: _DaemonStatus = _DaemonStatus()


def _daemon_set(view: DaemonSetView, meta: Meta, now: datetime) -> list[Cell]:
    spec, status = view.spec, view.status
    return [
        meta.name,
        status.desired_number_scheduled,
        status.current_number_scheduled,
        status.number_ready,
        status.updated_number_scheduled,
        status.number_available,
        label_text(spec.template.spec.node_selector),
        created(meta, now),
        *spec.template.names_and_images(),
        selector_text(spec.selector),
    ]


DAEMON_SETS = Printer(
    (
        NAME,
        Column("Desired", "integer", description="Nodes that should run the pod."),
        Column("Current", "integer", description="Nodes that run the pod and should."),
        Column("Ready", "integer", description="Nodes that should run the pod and have it ready."),
        Column("Up-to-date", "integer", description="Nodes that run the pod of the newest template."),
        Column("Available", "integer", description="Nodes that should run the pod and have it available."),
        Column("Node Selector", description="Labels a node must have for the pod to fit on it."),
        AGE,
        _CONTAINERS,
        _IMAGES,
        _SELECTOR,
    ),
    DaemonSetView,
    _daemon_set,
)


# -- jobs -----------------------------------------------------------------------------------------------


class _Condition(msgspec.Struct, frozen=True):
    type: str
    status: str = ""


class _JobSpec(msgspec.Struct, frozen=True):
    completions: int | None = None
    parallelism: int | None = None
    selector: Selector | None = None
    template: Template = Template()


class _JobStatus(msgspec.Struct, frozen=True, rename="camel"):
    succeeded: int = 0
    start_time: str | None = None
    completion_time: str | None = None
    conditions: list[_Condition] | None = None


class JobView(View, frozen=True):
    """The fields of a job that its cells rest on."""

    spec: _JobSpec = _JobSpec()
    status: _JobStatus = _JobStatus()


def _job(view: JobView, meta: Meta, now: datetime) -> list[Cell]:
    return [
        meta.name,
        _job_status(view, meta),
        _completions(view),
        _job_duration(view.status, now),
        created(meta, now),
        *view.spec.template.names_and_images(),
        selector_text(view.spec.selector),
    ]


def _job_status(view: JobView, meta: Meta) -> str:
    held = {condition.type for condition in view.status.conditions or () if condition.status == "True"}
    if "Complete" in held:
        return "Complete"
    if "Failed" in held:
        return "Failed"
    if meta.deletion_timestamp is not None:
        return "Terminating"
    return next(
        (name for name in ("Suspended", "FailureTarget", "SuccessCriteriaMet") if name in held), "Running"
    )


def _completions(view: JobView) -> str:
    spec, succeeded = view.spec, view.status.succeeded
    if spec.completions is not None:
        return f"{succeeded}/{spec.completions}"
    parallelism = spec.parallelism or 0
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def _job_duration(status: _JobStatus, now: datetime) -> str:
    if not status.start_time:
        return ""
    end = datetime.fromisoformat(status.completion_time) if status.completion_time else now
    return human_duration(end - datetime.fromisoformat(status.start_time))


JOBS = Printer(
    (
        NAME,
        Column("Status", description="Status of the job."),
        Column("Completions", description="Pods that succeeded, of those wanted."),
        Column("Duration", description="Time required to complete the job."),
        AGE,
        _CONTAINERS,
        _IMAGES,
        _SELECTOR,
    ),
    JobView,
    _job,
)


# -- cron jobs ------------------------------------------------------------------------------------------


class _JobTemplate(msgspec.Struct, frozen=True):
    spec: _JobSpec = _JobSpec()


class _CronSpec(msgspec.Struct, frozen=True, rename="camel"):
    schedule: str = ""
    time_zone: str | None = None
    suspend: bool | None = None
    job_template: _JobTemplate = _JobTemplate()


class _CronStatus(msgspec.Struct, frozen=True, rename="camel"):
    active: list[msgspec.Raw] | None = None
    last_schedule_time: str | None = None


class CronJobView(View, frozen=True):
    """The fields of a cron job that its cells rest on."""

    spec: _CronSpec = _CronSpec()
    status: _CronStatus = _CronStatus()


def _cron_job(view: CronJobView, meta: Meta, now: datetime) -> list[Cell]:
    spec, status = view.spec, view.status
    return [
        meta.name,
        spec.schedule,
        spec.time_zone or NONE,
        yes_no(spec.suspend),
        len(status.active or ()),
        age(status.last_schedule_time, now) if status.last_schedule_time else NONE,
        created(meta, now),
        *spec.job_template.spec.template.names_and_images(),
        selector_text(spec.job_template.spec.selector),
    ]


CRON_JOBS = Printer(
    (
        NAME,
        Column("Schedule", description="When jobs are started, in Cron format."),
        Column("Timezone", description="Time zone of the schedule."),
        Column("Suspend", "boolean", description="No further jobs are started."),
        Column("Active", "integer", description="Jobs that are running."),
        Column("Last Schedule", description="When a job was last started."),
        AGE,
        _CONTAINERS,
        _IMAGES,
        _SELECTOR,
    ),
    CronJobView,
    _cron_job,
)
