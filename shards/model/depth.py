"""Decoding objects that are nested deeper than Python's recursion limit allows. Pure.

kube-apiserver takes objects nested up to 10 000 levels (``json: exceeded max depth``); msgspec stops at Python's
recursion limit, usually 1 000. One such object must not keep its whole resource from being followed or watched. From
Python 3.12 on msgspec has a limit of its own that is high enough.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, TypeVar

A = TypeVar("A")
R = TypeVar("R")

DEPTH_MAX: Final = 12_000
"""Recursion limit for objects nested too deeply for the usual one."""


def at_any_depth(decode: Callable[[A], R], argument: A) -> R:
    """What `decode` makes of `argument`, however deeply it is nested."""
    try:
        return decode(argument)
    except RecursionError:
        usual = sys.getrecursionlimit()
        sys.setrecursionlimit(max(usual, DEPTH_MAX))
        try:
            return decode(argument)
        finally:
            sys.setrecursionlimit(usual)
