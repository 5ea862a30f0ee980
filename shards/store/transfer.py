"""A partition on its way from one store to another: what there is to it, for those who move one.

At the source, and in the same process:

    part = extract(store, cover)

Between processes, frame by frame, and each as it comes:

    for frame in part.frames(max_bytes): ...
    arrival.take(frame)
    part = arrival.finish()

At the destination, of one or several:

    store.restore(join([part.aged(seconds), ...], cover))

`extracts` has what travels, `sending`, `frames` and `arrival` how, `joining` makes one of several, `moving` and
`restoring` make it answer again.
"""

from __future__ import annotations

from ..model.partitions import Cover
from .arrival import Arrival
from .extracts import Extract, finished
from .joining import join
from .moving import MovableObjects

__all__ = ["Arrival", "Extract", "extract", "finished", "join"]


def extract(store: MovableObjects, cover: Cover) -> Extract:
    """What a store holds of `cover`, now.

    Costs 0.2 us an object where all of it is wanted, and up to 5 us where each uid has to be hashed; then
    ``store.extract().restricting(cover)`` does the same in steps.

    Raises:
        NotReady: no list was complete yet.
    """
    return store.extract().restricted(cover)
