"""Whether a shard lives: answers and failures in, a verdict out, with hysteresis. Pure; time is passed in.

::

    starting --answer--> healthy --suspect_after failures--> suspect --silent for dead_after_s--> dead
       |                    ^                                   |                                   |
       |                    +------ healthy_after answers ------+-----------------------------------+
       +--silent for start_timeout_s--> dead

A suspect shard keeps what it has and gets nothing new; a dead one loses what it has. A *new incarnation* that
answers is healthy at once: it is another process, and what its predecessor did says nothing about it.
"""

from __future__ import annotations

from .settings import LivenessSettings
from .status import ShardState


class Liveness:
    """The verdict on one shard."""

    def __init__(self, settings: LivenessSettings, *, since: float) -> None:
        self._settings = settings
        self._state: ShardState = "starting"
        self._failures = 0
        self._answers = 0
        self._incarnation = ""
        self._last_answer = since
        self.message = ""

    @property
    def state(self) -> ShardState:
        """The verdict of the last answer or failure."""
        return self._state

    def answered(self, incarnation: str, now: float) -> bool:
        """Takes an answer in; True if it came from another process than the one before."""
        renewed = incarnation != self._incarnation
        restarted = renewed and bool(self._incarnation)
        self._incarnation = incarnation
        self._last_answer = now
        self._failures = 0
        self._answers = self._answers + 1
        if renewed or self._answers >= self._settings.healthy_after:
            self._state = "healthy"
            self.message = ""
        return restarted

    def failed(self, why: str, now: float) -> None:
        """Takes a failure in: an error, or no answer in time."""
        self._answers = 0
        self._failures += 1
        self.message = why
        if self._state == "healthy" and self._failures >= self._settings.suspect_after:
            self._state = "suspect"
        self.waited(now)

    def waited(self, now: float) -> None:
        """Takes in that time has passed, also while a question is still open."""
        silent_s = now - self._last_answer
        if (self._state == "suspect" and silent_s >= self._settings.dead_after_s) or (
            self._state == "starting" and silent_s >= self._settings.start_timeout_s
        ):
            self._state = "dead"
            self.message = self.message or f"no answer for {silent_s:.0f} s"
