"""What is not to be shown to anybody: values that look like secrets are replaced by a few words. Pure.

A value is a secret by the name of its field, by the name beside it (``{name: Authorization, value: …}``), by the name
in front of it in the same text (``TOKEN=…``, ``?client_secret=…``, ``--password …``), or by its own form. It is meant
to hide too much rather than too little: the whole is in the cluster, for those who may read it there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

_SECRET_FIELD = re.compile(
    r"secret|token|passw(or)?d|passphrase|passcode|credential|authorization|cookie|bearer|basic[-_]?auth|"
    r"x[-_]?auth|hmac|signature|private[-_]?key|api[-_]?key|signing[-_]?key|\bpsk\b",
    re.IGNORECASE,
)
"""Anywhere in a name."""
_SECRET_WORDS = frozenset({"pwd", "salt", "psk", "sig"})
_LAST_WORDS = frozenset({"pass", "key", "keys"})
_KEY = re.compile(r"(access|shared|session|client|master|encryption|account|storage|ssh|tls|aes)keys?$")
"""Written in one word; other words may end like that."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_NO_SECRET = re.compile(
    r"(ref|name|namespace|url|endpoint|issuer|ttl|seconds|lifetime|expiry|public[-_]?keys?)$", re.IGNORECASE
)
"""Fields about a secret that are none: ``tokenUrl``, ``secretRef``, ``secretName``."""
_SECRET_VALUE = re.compile(
    r"-----BEGIN [A-Z ]+-----|\beyJ[\w-]{10,}\.|\b(Bearer|Basic) +\S{8,}|://[^/\s@?#]+@|"
    r"\b(AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_\w{20,}|\bxox[a-z]-[\w-]{10,}|hooks\.slack\.com/services/",
    re.IGNORECASE,
)
"""A PEM block, a JSON web token, an Authorization header, a URL with a user, keys of well-known services."""
_NAMED_VALUE = re.compile(r"""([\w.-]{1,100})["']?\s*(?:=|:(?!//))\s*["']?[^\s"'&]""")
_ASSIGNED = re.compile(r"([\w.-]{1,100})=\S")
_OPTION_VALUE = re.compile(r"--?([A-Za-z][\w.-]{0,100})\s+\S")
_OPTION = re.compile(r"--?([A-Za-z][\w.-]*)")

_NAMES, _VALUES = ("name", "key", "header", "headerName"), ("value", "values")

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)("|$)|' + r"(?<!\w)'((?:[^'\\]|\\.)*)('|$)|`([^`]*)(`|$)", re.DOTALL)
_UNQUOTED = re.compile(r"\b(value: ?)(?!\(redacted\))[^\s:,;\]]+", re.IGNORECASE)


def is_secret_field(name: str) -> bool:
    """What is in a field of this name is not to be shown."""
    if _NO_SECRET.search(name):
        return False
    words = [word.lower() for word in _WORD.findall(name)]
    return bool(
        _SECRET_FIELD.search(name)
        or _SECRET_WORDS.intersection(words)
        or (words and (words[-1] in _LAST_WORDS or _KEY.search(words[-1])))
    )


def named_secret(document: Any) -> frozenset[str]:
    """Fields of a mapping that the name beside them makes secrets: of ``{name: Authorization, value: …}``, value."""
    if not isinstance(document, Mapping):
        return frozenset()
    names = (document.get(name) for name in _NAMES)
    if any(isinstance(name, str) and is_secret_field(name) for name in names):
        return frozenset(value for value in _VALUES if value in document)
    return frozenset()


def is_only_a_name(document: Any, field: str) -> bool:
    """The field ``key`` of ``{key: Accept, value: …}`` is a name and no key."""
    return field == "key" and isinstance(document, Mapping) and any(value in document for value in _VALUES)


def redacted(value: Any, *, secret: bool = False) -> Any:
    """A copy of a document in which whatever looks like a secret is replaced by its length; `secret`: all of it."""
    if isinstance(value, Mapping):
        named = named_secret(value)
        return {
            name: redacted(
                inner,
                secret=secret
                or name in named
                or (is_secret_field(str(name)) and not is_only_a_name(value, str(name))),
            )
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return list(_elements(value, secret=secret))
    if isinstance(value, str) and (secret or is_secret_text(value)):
        return f"(redacted, {len(value)} characters)"
    if secret and value is not None and not isinstance(value, bool):
        return "(redacted)"
    return value


def _elements(values: Sequence[Any], *, secret: bool) -> Iterator[Any]:
    before: Any = None
    for value in values:
        option = _OPTION.fullmatch(before) if isinstance(before, str) else None
        follows = option is not None and isinstance(value, str) and is_secret_field(option[1])
        yield redacted(value, secret=secret or follows)
        before = value


def is_secret_text(text: str) -> bool:
    """There is a secret in a text, by its form or by the name in front of it."""
    for form in {text, unquote(text)}:
        if _SECRET_VALUE.search(form):
            return True
        found = (*_NAMED_VALUE.finditer(form), *_OPTION_VALUE.finditer(form))
        if any(is_secret_field(one[1].strip("-.")) for one in found):
            return True
    return False


def unquoted(message: str, known: Collection[str]) -> str:
    """What a server says, without what it quotes: that may be any value of the object. Names that are `known` stay."""

    def replaced(found: re.Match[str]) -> str:
        said = next((one for one in found.group(1, 3, 5) if one is not None), "")
        return found[0] if said in known else '"(redacted)"'

    without = _UNQUOTED.sub(r"\1(redacted)", _QUOTED.sub(replaced, message))
    # Names of fields are in every such message, with a colon behind them.
    named = (
        one[1] for one in _ASSIGNED.finditer(without.replace('"(redacted)"', "").replace("(redacted)", ""))
    )
    return "(redacted)" if _SECRET_VALUE.search(without) or any(map(is_secret_field, named)) else without
