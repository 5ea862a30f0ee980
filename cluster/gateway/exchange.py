"""One request being answered: what it is about, what was sent, and what is counted about it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..query.answers import Provenance
from .compression import compressed
from .http import Answer, ClientStalled, Headers, Request, Send, send_answer
from .metrics import GatewayMetrics
from .provenance import provenance_headers

log = logging.getLogger("shoal.cluster.gateway")


class Exchange:
    """A request and its answer."""

    def __init__(self, metrics: GatewayMetrics, method: str, send: Send, now: Callable[[], float]) -> None:
        self.metrics = metrics
        self.head_only = method == "HEAD"
        """The answer's body stays here."""
        self.request: Request | None = None
        """None as long as it has not been read."""
        self.verb = "other"
        self.resource = ""
        """Of those that are followed; everything else has none, so that made-up names make no time series."""
        self.code = 0
        """Status sent; 0 as long as none was."""
        self.compresses = True
        """Whether a long answer may be sent in gzip."""
        self.stalled = False
        """The client did not take the answer."""
        self._send = send
        self._now = now
        self._began = now()

    def rests_on(self, provenance: Provenance) -> Headers:
        """The headers that say so; a partial answer is counted."""
        if provenance.partial:
            self.metrics.partial_answers.labels(self.verb).inc()
        return provenance_headers(provenance)

    async def send(self, answer: Answer) -> None:
        """Sends the answer, once, in gzip where that is wanted. A client that does not take it is counted, and is
        nobody's problem.
        """
        if self.compresses and not self.head_only and self.request is not None:
            answer = await compressed(answer, self.request.headers.get("accept-encoding"))
        self.code = answer.status
        try:
            sent = await send_answer(self._send, answer, head_only=self.head_only)
        except ClientStalled:
            self.stalled = True
            self.metrics.aborted.labels("client stalled").inc()
            log.info("answer not taken", extra={"verb": self.verb, "resource": self.resource})
            return
        self.metrics.response_bytes.labels(self.verb).inc(sent)

    def finish(self) -> None:
        """Counts it. A watch's time is its client's choice and says nothing."""
        self.metrics.requests.labels(self.verb, self.resource, str(self.code)).inc()
        if self.verb != "watch" or self.code != 200:
            self.metrics.query_seconds.labels(self.verb).observe(self._now() - self._began)
