"""How much is being answered, and for whom: a place for every request, or 429 with a Retry-After.

Two kinds of places: for requests, which end by themselves soon, and for watches, which stay (kube-apiserver's
``--max-requests-inflight`` leaves those out as well). Either is limited in total and for each user, so that nobody
takes them all. While the API server is asked who somebody is, a request has a place of a third kind: those who turn
out to be nobody have taken nothing from those who are known. Health is asked without a place: whoever has to decide
whether to end this process must get an answer when it is busiest.

Pure accounting; nothing waits here. What is forgotten with its last place is the user's name, so made-up names cost
nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ...shards.model.errors import TooManyRequests
from ..settings import LimitSettings

TOO_MANY = "Too many requests, please try again later."
"""kube-apiserver's words."""
CONNECTIONS = "connections"
"""The limit whose refusal also ends the connection."""
RETRY_AFTER_S = 1
"""kube-apiserver's too; clients add their own backoff."""


class Overloaded(TooManyRequests):
    """No place is left; `limit` is the setting that says so."""

    def __init__(self, limit: str) -> None:
        super().__init__(TOO_MANY, retry_after_s=RETRY_AFTER_S)
        self.limit = limit


class Protection:
    """The places of one gateway."""

    def __init__(self, limits: LimitSettings, *, refused: Callable[[str], object] | None = None) -> None:
        """`refused` is called with the name of the limit whenever one is reached."""
        self.limits = limits
        self.requests = 0
        self.watches = 0
        self.unidentified = 0
        self._refused = refused
        self._requests_of: Counter[str] = Counter()
        self._watches_of: Counter[str] = Counter()

    @property
    def users(self) -> int:
        """Users with a request or watch under way."""
        return len(self._requests_of.keys() | self._watches_of.keys())

    def enter(self, *, counted: bool = True, known: bool = True) -> Place:
        """A request's place; to be left in any case. One that is not `counted` is there however many there are.

        `known`: who asks is known, or need not be asked of anybody else. Requests of which that has yet to be found out
        have places of their own, so that made-up tokens take none from anybody.

        Raises:
            Overloaded: there are too many.
        """
        if not known:
            if counted and self.unidentified >= self.limits.unidentified:
                raise self.refusal("unidentified")
            self.unidentified += 1
            return Place(self, counted=counted, known=False)
        self._enter(counted=counted)
        return Place(self, counted=counted)

    def _enter(self, *, counted: bool) -> None:
        if counted and self.requests >= self.limits.requests:
            raise self.refusal("requests")
        self.requests += 1

    def refusal(self, limit: str) -> Overloaded:
        """The error for a limit, counted."""
        if self._refused is not None:
            self._refused(limit)
        return Overloaded(limit)

    def _admit(self, user: str) -> None:
        if self._requests_of[user] >= self.limits.requests_per_user:
            _tidy(self._requests_of, user)
            raise self.refusal("requests_per_user")
        self._requests_of[user] += 1

    def _leave(self, user: str | None) -> None:
        self.requests -= 1
        if user is not None:
            self._requests_of[user] -= 1
            _tidy(self._requests_of, user)

    def _admit_watch(self, user: str) -> None:
        if self.watches >= self.limits.watches:
            raise self.refusal("watches")
        if self._watches_of[user] >= self.limits.watches_per_user:
            _tidy(self._watches_of, user)
            raise self.refusal("watches_per_user")
        self.watches += 1
        self._watches_of[user] += 1

    def _leave_watch(self, user: str) -> None:
        self.watches -= 1
        self._watches_of[user] -= 1
        _tidy(self._watches_of, user)


class Place:
    """One request's."""

    __slots__ = ("_counted", "_kind", "_protection", "_user")

    def __init__(self, protection: Protection, *, counted: bool = True, known: bool = True) -> None:
        self._protection = protection
        self._user: str | None = None
        self._counted = counted
        self._kind = "request" if known else "unidentified"

    def belongs_to(self, user: str) -> None:
        """Counts it as this user's.

        Raises:
            Overloaded: there are too many, or the user has too many.
        """
        if self._kind == "unidentified":
            self._protection._enter(counted=self._counted)  # noqa: SLF001
            self._protection.unidentified -= 1
            self._kind = "request"
        self._protection._admit(user)  # noqa: SLF001 - two halves of one accounting
        self._user = user

    def becomes_watch(self) -> None:
        """Gives the request's place back and takes a watch's.

        Raises:
            Overloaded: there are too many, or the user has; the request keeps its place.
        """
        protection, user = self._protection, self._user
        assert user is not None
        assert self._kind == "request"
        protection._admit_watch(user)  # noqa: SLF001
        protection._leave(user)  # noqa: SLF001
        self._kind = "watch"

    def leave(self) -> None:
        """Gives it back; safe to repeat."""
        match self._kind:
            case "unidentified":
                self._protection.unidentified -= 1
            case "request":
                self._protection._leave(self._user)  # noqa: SLF001
            case "watch":
                assert self._user is not None
                self._protection._leave_watch(self._user)  # noqa: SLF001
        self._kind = "left"


def _tidy(counts: Counter[str], user: str) -> None:
    if not counts[user]:
        del counts[user]
