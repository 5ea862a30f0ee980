"""The gateway monitor from the command line: its demonstration, a real run, and what bad input gets."""

import asyncio
import json
import re
import signal
import sys
from datetime import datetime
from pathlib import Path

import psutil
import pytest
from support.alert_receiver import AlertReceiver
from support.commands import PATIENCE_S, environment

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
MONITOR = (sys.executable, "-m", "examples.gateway_monitor")


class Process:
    """The monitor in a process of its own."""

    def __init__(self, process):
        self._process = process
        self.lines = []
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, folder, *arguments):
        return cls(
            await asyncio.create_subprocess_exec(
                *MONITOR,
                *map(str, arguments),
                cwd=ROOT,
                env=environment(folder),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        )

    @property
    def pid(self):
        return self._process.pid

    @property
    def text(self):
        return "\n".join(self.lines)

    async def _read(self):
        async for line in self._process.stdout:
            self.lines.append(line.decode().rstrip())

    async def says(self, pattern):
        async with asyncio.timeout(PATIENCE_S):
            while not (found := re.search(pattern, self.text)):
                assert self._process.returncode is None, self.text
                await asyncio.sleep(0.05)
        return found

    async def ends(self, how=None, patience_s=PATIENCE_S):
        if how is not None:
            self._process.send_signal(how)
        try:
            async with asyncio.timeout(patience_s):
                await self._reading
                return await self._process.wait()
        finally:
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()


def at(written):
    return datetime.fromisoformat(written)


async def test_the_demonstration_detects_everything_and_tells_others(folder):
    async with AlertReceiver() as receiver:
        demo = await Process.start(
            folder, "demo", "--alertmanager", receiver.url, "--webhook", f"{receiver.url}/hook"
        )
        assert await demo.ends(patience_s=110) == 0, demo.text
        expected, detected, _ = (line.split()[1] for line in demo.lines[-3:])
        assert expected == detected
        assert int(expected) >= 31
        assert "NOT DETECTED" not in demo.text

        down = receiver.alerts("GatewayRouteDown")
        assert {(one["labels"]["namespace"], one["labels"]["name"]) for one in down} == {
            ("payments", "auth-v2")
        }
        assert "CrashLoopBackOff" in down[0]["annotations"]["description"]
        assert len({one["startsAt"] for one in down}) == 1
        # First it lasts beyond now, at last it has ended.
        assert (at(down[0]["endsAt"]) - at(down[0]["startsAt"])).total_seconds() > 50
        assert (at(down[-1]["endsAt"]) - at(down[-1]["startsAt"])).total_seconds() < 50
        assert down[0]["generatorURL"].endswith(
            "/apis/gateway.example.com/v1/namespaces/payments/apiroutes/auth-v2"
        )
        assert receiver.alerts("GatewayPolicyRelaxed")
        put_back = receiver.alerts("GatewayRollbackDone")
        assert {one["labels"]["resource"].partition(".")[0] for one in put_back} == {
            "ratelimitpolicies",
            "authnpolicies",
            "securitypolicies",
        }
        assert "/spec/requestsPerSecond: 100 -&gt; 100000" in "\n".join(receiver.messages())
        assert receiver.alerts("GatewayRollbackSuspended")
        assert receiver.alerts("GatewayProductionRouteRemoved")


async def test_nothing_outlives_a_demonstration_that_is_ended(folder):
    demo = await Process.start(folder, "demo")
    await demo.says("the monitor has seen")
    family = psutil.Process(demo.pid).children(recursive=True)
    assert family
    assert await demo.ends(signal.SIGTERM) == 128 + signal.SIGTERM, demo.text
    _, alive = psutil.wait_procs(family, timeout=15)
    assert alive == []
    assert "Traceback" not in demo.text


async def test_it_runs_until_it_is_told_to_end_and_remembers(folder, source, tmp_path):
    state = tmp_path / "state.json"
    arguments = ("--kubeconfig", source.kubeconfig, "--state-file", state)
    for _ in range(2):
        monitor = await Process.start(folder, "run", *arguments)
        await monitor.says("following resource=securitypolicies.gateway.example.com objects=19")
        await monitor.says("everything is known resources=7")
        assert await monitor.ends(signal.SIGTERM) == 128 + signal.SIGTERM, monitor.text
        assert "Traceback" not in monitor.text
        remembered = json.loads(state.read_text())
        assert len(remembered["states"]) == 63 + 63 + 33 + 19
    assert state.stat().st_mode & 0o777 == 0o600


async def test_it_follows_through_a_shoal(folder, server):
    monitor = await Process.start(folder, "run", "--shoal", server)
    await monitor.says("everything is known resources=7")
    assert await monitor.ends(signal.SIGINT) == 128 + signal.SIGINT, monitor.text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--settings", "none.yaml"), "error: settings file none.yaml: .*No such file"),
        (("--kubeconfig", "none"), "error: no kubeconfig at .*none"),
        (("--state-file", "/"), "error: the state file / cannot be read: Is a directory"),
        (("--enforce", "maybe"), "unexpected extra argument"),
    ],
)
async def test_bad_input_is_an_error_that_says_what(folder, source, arguments, says):
    if "--kubeconfig" not in arguments:
        arguments = ("--kubeconfig", source.kubeconfig, *arguments)
    monitor = await Process.start(folder, "run", *arguments)
    assert await monitor.ends() in (1, 2)
    assert re.search(says, monitor.text), monitor.text
    assert "Traceback" not in monitor.text
