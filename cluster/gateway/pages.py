"""The gateway's own pages: version, health, metrics, status, and the list of what there is."""

from __future__ import annotations

import msgspec

from ... import __version__
from ...shards.model.errors import NotReady
from ..query.routing import Routing
from . import description
from .http import JSON, Answer, Request, text_answer
from .metrics import GatewayMetrics
from .readiness import Check, readiness, render_checks
from .status import InstallationStatus, Reports

HEALTH = ("/healthz", "/livez", "/readyz")
METRICS = "/metrics"
PAGES = (
    *HEALTH,
    METRICS,
    "/shoal/v1/count",
    "/shoal/v1/openapi.json",
    "/shoal/v1/status",
    "/version",
)
"""Besides discovery, OpenAPI and resources."""


class Pages:
    """Answers for what is neither a resource nor about resources."""

    def __init__(
        self, routing: Routing, reports: Reports, metrics: GatewayMetrics, *, overlook_refused: bool
    ) -> None:
        self._routing = routing
        self._reports = reports
        self._metrics = metrics
        self._overlook_refused = overlook_refused

    async def health(self, path: str, request: Request) -> Answer:
        """``/livez``, ``/healthz`` or ``/readyz``."""
        name = path.strip("/")
        checks = await self._checks() if name == "readyz" else [Check("ping")]
        excluded = [value for key, value in request.parameters if key == "exclude"]
        verbose = request.parameter("verbose") is not None
        well, text = render_checks(checks, name, exclude=excluded, verbose=verbose)
        return text_answer(text, 200 if well else 503)

    async def answer(self, path: str, request: Request) -> Answer | None:
        """The page at a path without its last slash; None if there is none.

        Raises:
            NotReady: the API server's version is not known yet.
        """
        match path:
            case "":
                return self._paths()
            case "/version":
                if not self._routing.table.server_version:
                    raise NotReady("the API server's version is not known yet", retry_after_s=1)
                return Answer(200, JSON, self._routing.table.server_version)
            case "/metrics":
                report = await self._reports.latest()
                accept = request.headers.get("accept", "")
                body, content_type = self._metrics.scrape(self._routing.table, report, accept)
                return Answer(200, content_type, body)
            case "/shoal/v1/status":
                return await self._status()
            case description.PATH:
                return description.answer(request)
            case _:
                return None

    def _paths(self) -> Answer:
        groups = {known.resource.root for known in self._routing.table.catalogue}
        paths = sorted({*groups, "/api", "/apis", *PAGES})
        return Answer(200, JSON, msgspec.json.encode({"paths": paths}) + b"\n")

    async def _checks(self) -> list[Check]:
        return readiness(
            self._routing.table,
            await self._reports.latest(),
            problem=self._routing.problem,
            overlook_refused=self._overlook_refused,
        )

    async def _status(self) -> Answer:
        checks = await self._checks()
        waiting_for = tuple(f"{check.name} {check.problem}" for check in checks if check.problem)
        status = InstallationStatus(
            shoal_version=__version__,
            ready=not waiting_for,
            waiting_for=waiting_for,
            report=await self._reports.latest(),
        )
        return Answer(200, JSON, msgspec.json.encode(status) + b"\n")
