"""The story of a machine: its last steps as text, for whoever has to find out why it is where it is. Pure."""

from __future__ import annotations

from collections import deque

from .states import State
from .steps import Event, Step

STEPS = 64
"""A few failures with everything around them; a reflector makes some steps an hour while all is well."""


class Story:
    """Remembers the last `STEPS` steps."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, Event, State, Step]] = deque(maxlen=STEPS)

    def add(self, now: float, event: Event, state: State, step: Step) -> None:
        """At `now`, `event` led to `state`, in which `step` is to be done."""
        self._steps.append((now, event, state, step))

    def __str__(self) -> str:
        """Oldest first, one step a line."""
        return "\n".join(
            f"{now:.3f} {event} -> {state}: "
            + ", ".join([*(type(effect).__name__ for effect in step.effects), str(step.activity)])
            for now, event, state, step in self._steps
        )
