"""Acting as somebody else: the ``Impersonate-*`` headers, as kube-apiserver honours them.

Whom the headers ask for, which permissions that takes and which groups are added is `serving.identity`'s, shared with
the embedded server; here the permissions are asked for. The caller needs the verb ``impersonate`` on the user (or
service account), and on each group, uid and extra value; the first one missing is the 403.
"""

from __future__ import annotations

from ...shards.model.errors import BadRequest
from ..serving.identity import User, impersonated, impersonation_checks
from .authorization import Authorization

CHECKS_MAX = 256
"""Permissions asked for one request. Far beyond what people send; kube-apiserver knows no limit but its header size."""


async def impersonate(caller: User, wanted: User, authorization: Authorization) -> User:
    """The user that `caller` becomes by asking for `wanted`.

    Raises:
        Forbidden: the caller may not impersonate all of it.
        BadRequest: it asks for more than `CHECKS_MAX` names.
        NotReady, TooManyRequests: as `Authorization.require`.
    """
    checks = impersonation_checks(wanted)
    if len(checks) > CHECKS_MAX:
        raise BadRequest(
            f"the request impersonates {len(checks)} users, groups and extras: at most {CHECKS_MAX}"
        )
    for check in checks:
        await authorization.require(caller, check)
    return impersonated(wanted)
