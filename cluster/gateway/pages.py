"""The gateway's own pages: version, health, metrics, status, and the list of what there is."""

from __future__ import annotations

import msgspec

from ... import __version__
from ...shards.model.errors import NotReady
from ..query.routing import Routing
from ..serving.checks import Check, render_checks
from . import description
from .delegation import Delegation
from .http import JSON, Answer, Request, text_answer
from .metrics import GatewayMetrics
from .readiness import readiness
from .self_reviews import SELF_REVIEWS
from .status import InstallationStatus, Reports

HEALTH = ("/healthz", "/livez", "/readyz")
PINGS = tuple(f"{page}/ping" for page in HEALTH)
"""The one check of each that can be asked for alone: this process answers."""
METRICS = "/metrics"
REVIEWS = "reviews"
"""The check of Shoal's own permission to ask who may read, where anybody is asked who they are."""
OPENAPI = ("/openapi/v2", "/openapi/v3")
PAGES = (
    *HEALTH,
    *PINGS,
    METRICS,
    "/shoal/v1/count",
    "/shoal/v1/explain",
    "/shoal/v1/openapi.json",
    "/shoal/v1/status",
    "/version",
)
"""Besides discovery, OpenAPI and resources."""


class Pages:
    """Answers for what is neither a resource nor about resources."""

    def __init__(
        self,
        routing: Routing,
        reports: Reports,
        metrics: GatewayMetrics,
        *,
        delegation: Delegation | None = None,
        openapi: bool = False,
        overlook_refused: bool,
    ) -> None:
        """Without `delegation` nobody is asked who they are; `openapi` says whether there is any."""
        self._routing = routing
        self._reports = reports
        self._metrics = metrics
        self._delegation = delegation
        self._openapi = openapi
        self._overlook_refused = overlook_refused

    async def health(self, path: str, request: Request) -> Answer:
        """``/livez``, ``/healthz`` or ``/readyz``, or one of `PINGS`."""
        if path in PINGS:
            return text_answer("ok")
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
                return Answer(200, JSON, msgspec.json.encode(await self.status()) + b"\n")
            case description.PATH:
                return description.answer(request)
            case _:
                return None

    def _paths(self) -> Answer:
        offered = [known.resource for known in (*self._routing.table.catalogue, *SELF_REVIEWS)]
        groups = {f"/apis/{resource.group}" for resource in offered if resource.group}
        versions = {resource.root for resource in offered}
        openapi = OPENAPI if self._openapi else ()
        paths = sorted({*groups, *versions, "/api", "/apis", *openapi, *PAGES})
        return Answer(200, JSON, msgspec.json.encode({"paths": paths}) + b"\n")

    async def _checks(self) -> list[Check]:
        checks = readiness(
            self._routing.table,
            await self._reports.latest(),
            problem=self._routing.problem,
            overlook_refused=self._overlook_refused,
        )
        if self._delegation is None:
            return checks
        return [*checks, Check(REVIEWS, await self._delegation.problem())]

    async def status(self) -> InstallationStatus:
        """What the installation reports about itself."""
        checks = await self._checks()
        waiting_for = tuple(f"{check.name} {check.problem}" for check in checks if check.problem)
        return InstallationStatus(
            shoal_version=__version__,
            ready=not waiting_for,
            waiting_for=waiting_for,
            cannot_review="".join(check.problem for check in checks if check.name == REVIEWS),
            report=await self._reports.latest(),
        )
