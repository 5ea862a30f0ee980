"""Whether a policy became laxer: each rule of the settings looks at one field, before and now. Pure.

Changes that make a policy stricter, or neither, give nothing here; they are still differences from the last good state.
What cannot be understood (a limit that is no number any more) is taken as relaxed: the gateway may not understand it
either.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, assert_never

import msgspec

from .documents import ABSENT, Document, dig, number, parts, plain
from .secrets import is_secret_field, redacted
from .settings import Rule

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

OFF = frozenset({"false", "off", "disabled", "none", "no", "0", "disable"})
OPTIONAL = frozenset({"true", "optional", "yes", "on", "1", "permissive"})


class Relaxed(msgspec.Struct, frozen=True):
    """A field by which a policy became laxer."""

    path: tuple[str, ...]
    why: str


def relaxed(rules: Iterable[Rule], good: Document, now: Document, limit_factor: float) -> tuple[Relaxed, ...]:
    """Every rule that the present state is laxer by than the good one."""
    rules = tuple(rules)
    found = []
    for rule in rules:
        path = parts(rule.path)
        before, after = dig(good, *path), dig(now, *path)
        others = [parts(other.path) for other in rules if other is not rule]
        why = _judged(rule, path=path, before=before, after=after, limit_factor=limit_factor, others=others)
        if why and any(map(is_secret_field, path)):
            why = "became laxer; its values are not shown"
        if why:
            found.append(Relaxed(path, f"{rule.path} {why}"))
    return tuple(found)


def _judged(
    rule: Rule,
    *,
    path: tuple[str, ...],
    before: Any,
    after: Any,
    limit_factor: float,
    others: Sequence[tuple[str, ...]],
) -> str:
    """Why it is laxer, or ""."""
    match rule.sort:
        case "limit":
            return _limit(before, after, limit_factor)
        case "required":
            return _required(path, before, after, others)
        case "off":
            return _became(before, after, OFF, "was turned off")
        case "optional":
            return _became(before, after, OPTIONAL, "was made optional")
        case "ordered":
            return _ordered(before, after, rule.order)
        case "deny":
            return _deny(before, after)
        case "allow":
            return _allow(before, after)
        case "accept":
            return _accept(before, after)
        case _ as never:
            assert_never(never)


def _limit(before: Any, after: Any, factor: float) -> str:
    old, new = number(before), number(after)
    if old is None:
        return ""
    if after is ABSENT or after is None:
        return f"was taken away: it was {plain(old)}"
    if new is None:
        return f"is no number any more: it was {plain(old)}"
    if new <= old * factor or new <= old:
        return ""
    times = f", {plain(round(new / old, 1))} times as much" if old > 0 else ""
    return f"was raised from {plain(old)} to {plain(new)}{times}"


def _required(path: tuple[str, ...], before: Any, after: Any, others: Sequence[tuple[str, ...]]) -> str:
    if _empty(before):
        return ""
    if _empty(after):
        return "was taken away"
    inner = [other[len(path) :] for other in others if len(other) > len(path) and other[: len(path)] == path]
    if inner and isinstance(before, dict) and isinstance(after, dict):
        own = {name for name in (*before, *after) if (name,) not in {other[:1] for other in inner}}
        changed = sorted(name for name in own if before.get(name, ABSENT) != after.get(name, ABSENT))
        return f"was changed in {', '.join(changed)}" if changed else ""
    return "" if before == after else f"was changed from {_shown(before)} to {_shown(after)}"


def _empty(value: Any) -> bool:
    return value is ABSENT or value is None or value in ("", [], {})


def _became(before: Any, after: Any, words: frozenset[str], what: str) -> str:
    if _word(after) not in words or _word(before) in words:
        return ""
    return what


def _word(value: Any) -> str:
    return str(value).strip().lower() if isinstance(value, bool | str | int) else ""


def _ordered(before: Any, after: Any, order: Sequence[str]) -> str:
    places = {name.strip().lower(): place for place, name in enumerate(order)}
    old = places.get(_word(before))
    if old is None or old == 0:
        return ""
    if after is ABSENT or after is None:
        return f"was taken away: it was {_word(before)}"
    new = places.get(_word(after))
    if new is None:
        return f"became {_shown(after)}, which is none of {', '.join(order)}: it was {_word(before)}"
    return f"went from {_word(before)} down to {_word(after)}" if new < old else ""


def _deny(before: Any, after: Any) -> str:
    missing = _uncovered(_listed(before), _listed(after))
    return f"no longer denies {', '.join(missing)}" if missing else ""


def _allow(before: Any, after: Any) -> str:
    if _empty(before):
        return ""
    if _empty(after):
        return "was taken away: it allowed only what it named"
    added = _uncovered(_listed(after), _listed(before))
    return f"also allows {', '.join(added)}" if added else ""


def _accept(before: Any, after: Any) -> str:
    if _empty(before):
        return ""
    if _empty(after):
        return "was taken away: only what it named was accepted"
    known = _listed(before)
    added = [name for one, name in _listed(after).items() if one not in known]
    return f"also accepts {', '.join(added)}" if added else ""


def _listed(value: Any) -> dict[str, str]:
    """The elements as text, each with what may be shown of it; a single value is a list of one."""
    found = value if isinstance(value, list) else [] if _empty(value) else [value]
    shown = redacted(found)
    return {
        one if isinstance(one, str) else msgspec.json.encode(one, order="sorted").decode(): (
            str(name) if isinstance(one, str) else _shown(name)
        )
        for one, name in zip(found, shown, strict=True)
    }


def _uncovered(wanted: Mapping[str, str], there: Collection[str]) -> list[str]:
    """Those of `wanted` that `there` does not cover: networks by their addresses, other texts by being the same."""
    networks = [network for one in there if (network := _network(one)) is not None]
    return [
        name for one, name in wanted.items() if one not in there and not _covered(_network(one), networks)
    ]


def _covered(network: Network | None, by: Sequence[Network]) -> bool:
    if network is None:
        return False
    # Two halves cover the whole.
    if isinstance(network, ipaddress.IPv4Network):
        four = ipaddress.collapse_addresses(one for one in by if isinstance(one, ipaddress.IPv4Network))
        return any(network.subnet_of(one) for one in four)
    six = ipaddress.collapse_addresses(one for one in by if isinstance(one, ipaddress.IPv6Network))
    return any(network.subnet_of(one) for one in six)


def _network(written: str) -> Network | None:
    try:
        return ipaddress.ip_network(written.strip(), strict=False)
    except ValueError:
        return None


def _shown(value: Any) -> str:
    text = msgspec.json.encode(redacted(value)).decode()
    return text if len(text) <= 100 else f"{text[:99]}…"
