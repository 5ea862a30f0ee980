"""Health checks in kube-apiserver's own form: one line a check, ``?verbose``, ``?exclude=``. Pure.

Answered by the gateway about what its installation follows, and by programs about their informers and controllers.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple


class Check(NamedTuple):
    """One line of the answer."""

    name: str
    problem: str = ""
    """Empty if all is well."""

    def __str__(self) -> str:
        return f"[-]{self.name} {self.problem}" if self.problem else f"[+]{self.name} ok"


def render_checks(
    checks: list[Check], name: str, *, exclude: Collection[str] = (), verbose: bool = False
) -> tuple[bool, str]:
    """Whether all is well, and the text kube-apiserver would send; `name` is ``readyz`` or ``livez``."""
    wanted = [check for check in checks if check.name not in exclude]
    lines = [str(check) for check in wanted]
    lines.extend(f"[+]{check.name} excluded: ok" for check in checks if check.name in exclude)
    unknown = sorted(set(exclude) - {check.name for check in checks})
    if unknown:
        lines.append(
            f"warn: some health checks cannot be excluded: no matches for {', '.join(map(repr, unknown))}"
        )
    if any(check.problem for check in wanted):
        return False, "\n".join([*lines, f"{name} check failed", ""])
    if verbose:
        return True, "\n".join([*lines, f"{name} check passed", ""])
    return True, "ok"
