"""What Ray reads from the environment, set before Ray is imported: its core reads it while it is loaded.

A variable that is set already is left alone. Processes that Ray starts inherit all of it.
"""

from __future__ import annotations

import os
import secrets


def prepare(*, starts_cluster: bool) -> None:
    """Sets the variables; to be called before anything imports Ray.

    Args:
        starts_cluster: a Ray cluster is to be started on this machine, rather than connected to.
    """
    # Workers import the installed package. Ray's habit of shipping the folder of a `uv run` program would give
    # them a second copy of it.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Two choices Ray warns about at every start otherwise; its own future defaults.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not starts_cluster:
        # How often Ray asks an address that does not answer as a cluster would: each time takes it 40 s.
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
    else:
        # A token of this process alone: without one Ray writes ~/.ray/auth_token, which fails where HOME is not
        # writable, and with no authentication any local user could run code in the cluster.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if os.environ["RAY_AUTH_MODE"] == "token":
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
