"""Whether somebody may: the API server's verdict on every verb, resource, namespace and name, kept for a while.

Nothing is decided here and nobody has a short cut, ``system:masters`` included: each question goes to the API server
as a SubjectAccessReview (`reviews`), and its verdict counts for a bounded time (`verdicts`). While the API server is
away, verdicts live to their end; after that the answer is 503. It is never "allowed".

A question with selectors is asked without them first, because whoever may read everything may read what is selected
and that verdict serves all selectors; only if that is refused, once more with them (the node authorizer lets a kubelet
list the pods of its own node that way). Verdicts on one namespace are not concluded from those on all: that would be
exact for RBAC and for no other authorizer.

How soon a withdrawn permission works: for a new request within `allowed_life_s` (10 s); an open watch asks again every
`recheck_s` (30 s) and so ends within `recheck_s` + `allowed_life_s` (40 s), or, for a token that is not good any
more, `recheck_s` + `token_life_s` (40 s), plus the time the API server takes to answer (`review_timeout_s` at most). A
refusal is forgotten after `denied_life_s` (5 s).
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import astuple
from typing import Protocol, runtime_checkable

from ...shards.model.errors import Forbidden, NotReady, ShoalError, Unauthorized
from ..serving.identity import Attributes, User, forbidden
from .reviews import AccessVerdict, Reviewer
from .settings import AuthorizationSettings
from .verdicts import Verdicts, digest

REMEMBERED_CHARS = 8 << 10
"""A question that is longer is asked each time: its like is not seen again, and nobody may fill what is remembered
with it."""
RECHECK_JITTER = 0.1
"""Watches that began together ask up to this part earlier, so that they do not ask together for ever."""


@runtime_checkable
class Renewable(Protocol):
    """A user whose credentials can be looked at again (`authentication.Caller`)."""

    async def renew(self) -> User:
        """Who they are now. Raises Unauthorized, Forbidden or NotReady."""


class Authorization(Protocol):
    """What the gateway asks."""

    async def require(self, user: User, attributes: Attributes) -> None:
        """Returns if the user may.

        Raises:
            Forbidden: they may not; text and details are the API server's.
            NotReady: the API server cannot be asked.
            TooManyRequests: too many questions are waiting.
        """

    async def verdict(self, user: User, attributes: Attributes) -> AccessVerdict:
        """Whether the user may, in the API server's words.

        Raises:
            NotReady, TooManyRequests: as `require`.
        """

    async def revoked(self, user: User, attributes: Attributes) -> ShoalError:
        """Returns once the user may not any more, with the reason: what an open watch waits on."""

    async def aclose(self) -> None:
        """Ends what is being asked."""


class Authorizer:
    """`Authorization` by the API server."""

    def __init__(
        self, reviewer: Reviewer, settings: AuthorizationSettings, *, rng: random.Random | None = None
    ) -> None:
        self._reviewer = reviewer
        self._settings = settings
        self._rng = rng or random.Random()
        self._verdicts: Verdicts[bytes, AccessVerdict] = Verdicts(
            "permissions",
            good_life_s=settings.allowed_life_s,
            bad_life_s=settings.denied_life_s,
            remembered=settings.remembered,
            at_once=settings.reviews_at_once,
            waiting=settings.reviews_waiting,
            timeout_s=settings.review_timeout_s,
        )

    async def require(self, user: User, attributes: Attributes) -> None:
        """As `Authorization.require`."""
        verdict = await self.verdict(user, attributes)
        if not verdict.allowed:
            raise forbidden(user, attributes, verdict.reason)

    async def verdict(self, user: User, attributes: Attributes) -> AccessVerdict:
        """As `Authorization.verdict`."""
        whole = attributes.unselected
        verdict = await self._verdict(user, whole)
        if not verdict.allowed and whole != attributes:
            verdict = await self._verdict(user, attributes)
        return verdict

    async def revoked(self, user: User, attributes: Attributes) -> ShoalError:
        """As `Authorization.revoked`; how soon is said at the top of this module.

        The user's credentials are looked at again too: a token that was revoked or has expired ends the watch, and one
        that now stands for other groups is judged by those. While the API server cannot be asked, the watch goes on for
        `unproven_s` after it was last found allowed, and then ends.
        """
        loop = asyncio.get_running_loop()
        proven_at = loop.time()
        while True:
            await asyncio.sleep(self._settings.recheck_s * (1 - RECHECK_JITTER * self._rng.random()))
            asked_at = loop.time()
            try:
                await self.require(await user.renew() if isinstance(user, Renewable) else user, attributes)
            except (Forbidden, Unauthorized) as error:
                return error
            except ShoalError as error:
                if asked_at - proven_at >= self._settings.unproven_s:
                    return NotReady(
                        f"the permission could not be confirmed for {loop.time() - proven_at:.0f} s: {error.message}",
                        retry_after_s=1,
                    )
            else:
                proven_at = asked_at

    async def aclose(self) -> None:
        """As `Authorization.aclose`."""
        await self._verdicts.aclose()

    async def _verdict(self, user: User, attributes: Attributes) -> AccessVerdict:
        long = sum(map(len, astuple(attributes))) > REMEMBERED_CHARS
        return await self._verdicts.of(
            digest((user.identity, attributes)),
            lambda: self._reviewer.access(user, attributes),
            remember=not long,
        )


class EverythingAllowed:
    """`Authorization` of a gateway that asks nobody who they are."""

    async def require(self, user: User, attributes: Attributes) -> None:
        """Always."""

    async def verdict(self, user: User, attributes: Attributes) -> AccessVerdict:  # noqa: ARG002 - one signature
        """They may."""
        return AccessVerdict(allowed=True)

    async def revoked(self, user: User, attributes: Attributes) -> ShoalError:  # noqa: ARG002 - one signature
        """Never."""
        never: asyncio.Future[ShoalError] = asyncio.get_running_loop().create_future()
        return await never

    async def aclose(self) -> None:
        """There is nothing to end."""
