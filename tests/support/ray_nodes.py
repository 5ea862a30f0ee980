"""A Ray cluster of several nodes on this machine, whose nodes can be lost, and hang, as machines do.

Ray's own `ray.cluster_utils` starts them; Ray is configured by the environment, which each of its processes reads when
it starts. What a node runs are the descendants of its raylet.
"""

import contextlib
import os
import signal

import psutil

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    # A node that is lost or hangs is found out in seconds.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


class Nodes:
    """A head without room for shards, and nodes that have some. To be entered before use."""

    def __init__(self, nodes, *, cpus, head_cpus):
        self._count = nodes
        self._cpus = cpus
        self._head_cpus = head_cpus
        self._before = {}
        self._cluster = None
        self.running = []

    def __enter__(self):
        self._before = {name: os.environ.get(name) for name in ENVIRONMENT}
        os.environ.update(ENVIRONMENT)
        from ray.cluster_utils import Cluster

        head = {"num_cpus": self._head_cpus, "object_store_memory": 100 << 20, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, connect=False, head_node_args=head)
        for _ in range(self._count):
            self.add()
        return self

    def __exit__(self, *_):
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
        self._cluster.shutdown()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    @property
    def address(self):
        """Of the head, for ``--ray-address``."""
        return self._cluster.address

    def add(self):
        """Another node."""
        self.running.append(self._cluster.add_node(num_cpus=self._cpus, object_store_memory=100 << 20))

    def lose(self, node):
        """The node's machine is gone, at once and without a word."""
        self.running.remove(node)
        processes = self.processes_of(node)
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        # A raylet that nobody has waited for keeps its workers alive.
        node.all_processes["raylet"][0].process.wait()
        self._cluster.remove_node(node, allow_graceful=False)

    def hang(self, node):
        """The node stands still: nothing of it answers, and nothing of it ends."""
        for process in self.processes_of(node):
            with contextlib.suppress(psutil.Error):
                process.suspend()

    def wake(self, node):
        """It goes on where it stood."""
        for process in self.processes_of(node):
            with contextlib.suppress(psutil.Error):
                process.resume()

    def processes_of(self, node):
        """The raylet and what it runs."""
        with contextlib.suppress(psutil.Error):
            raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
            return [raylet, *raylet.children(recursive=True)]
        return []

    def processes(self):
        """Of all nodes but the head."""
        return [process for node in self.running for process in self.processes_of(node)]

    def actors(self, name):
        """Processes of the actors of that class, on any node."""
        found = []
        for node in (self._cluster.head_node, *self.running):
            for process in self.processes_of(node):
                with contextlib.suppress(psutil.Error):
                    line = process.cmdline()
                    if line and line[0].startswith(f"ray::{name}"):
                        found.append(process)
        return found
