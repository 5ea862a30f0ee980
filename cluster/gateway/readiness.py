"""Whether everything that is followed is there: one check a resource, in kube-apiserver's own form.

Ready means that a list of any followed resource is complete. A resource is not ready while any of its
partitions has not been listed, is refused by the API server (401, 403), is not held by the shard the routes
name, or that shard does not answer. A refused resource counts as not ready, because a client that waits for
readiness would find it missing; where that is known and accepted, the probe leaves the check out with
``?exclude=v1/secrets``, as with kube-apiserver's own checks, or the gateway is told to overlook refusals. A
resource that vanished is about to leave the catalogue and holds nobody up.

Pure: judges a route table and a report.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...coordinator.routes import Route, RouteTable
from ...shards.model.partitions import PartitionId, ShardId
from ...shards.model.queries import PartitionStatistics
from ...shards.model.resources import Resource
from ..serving.checks import Check
from .status import Report


def readiness(
    table: RouteTable, report: Report, *, problem: str = "", overlook_refused: bool = False
) -> list[Check]:
    """All checks; `problem` says why there are no routes yet."""
    if table.epoch == 0:
        return [Check("ping"), Check("routes", f"not published: {problem or 'the coordinator is starting'}")]
    partitions = {
        (shard, partition.partition): partition
        for shard, statistics in report.statistics().items()
        for partition in statistics.partitions
    }
    silent = {shard.shard: shard.problem for shard in report.shards if shard.statistics is None}
    routes: dict[Resource, list[Route]] = {}
    for route in table.routes:
        routes.setdefault(route.partition.resource, []).append(route)
    checks = [Check("ping"), Check("routes")]
    for known in table.catalogue:
        placed = routes.get(known.resource, [])
        problems = list(_problems(placed, partitions, silent, overlook_refused=overlook_refused))
        checks.append(Check(str(known.resource), _sentence(problems, len(placed))))
    return checks


def _problems(
    placed: list[Route],
    partitions: dict[tuple[ShardId, PartitionId], PartitionStatistics],
    silent: dict[ShardId, str],
    *,
    overlook_refused: bool,
) -> Iterator[str]:
    if not placed:
        yield "with no shard yet"
    for route in placed:
        partition = partitions.get((route.shard, route.partition.id))
        where = f"{route.partition.id} on {route.shard}"
        if route.shard in silent:
            yield f"{where}: {silent[route.shard]}"
        elif partition is None:
            yield f"{where}: not held yet"
        elif partition.state == "refused" and overlook_refused:
            continue
        elif partition.state not in ("synced", "gone"):
            yield f"{where}: {partition.state}{', ' if partition.message else ''}{partition.message}"


def _sentence(problems: list[str], partitions: int) -> str:
    if not problems:
        return ""
    many = f"{len(problems)} of {partitions} partitions, " if partitions > 1 else ""
    return f"not synced: {many}{'; '.join(problems)}"
