"""Stand-ins for Alertmanager and a chat, for the demonstration: they take what the real ones take, and remember it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web

ALERTS, HOOK = "/api/v2/alerts", "/hook"


class _Alert(msgspec.Struct):
    """What Alertmanager asks for of an alert (``postableAlert``)."""

    labels: dict[str, str]
    annotations: dict[str, str]
    startsAt: datetime  # noqa: N815 - Alertmanager's name
    endsAt: datetime  # noqa: N815
    generatorURL: str = ""  # noqa: N815


_ALERTS = msgspec.json.Decoder(list[_Alert])


class Received:
    """What has arrived. `news` is called when there is more."""

    def __init__(self, news: Callable[[], None]) -> None:
        self._news = news
        self._alerts: dict[tuple[str, str], _Alert] = {}
        self._messages: list[str] = []

    def firing(self, alert: str, name: str) -> bool:
        """Alertmanager has this alert about an object of that name, and it is not over."""
        found = self._alerts.get((alert, name))
        return found is not None and found.endsAt > datetime.now(UTC)

    def over(self, alert: str, name: str) -> bool:
        """Alertmanager was told that it is over."""
        found = self._alerts.get((alert, name))
        return found is not None and found.endsAt <= datetime.now(UTC)

    def message(self, text: str) -> bool:
        """Some message has this in it."""
        return any(text in message for message in self._messages)

    async def take_alerts(self, request: web.Request) -> web.Response:
        """``POST /api/v2/alerts``; 400 for what Alertmanager would not take."""
        try:
            alerts = _ALERTS.decode(await request.read())
        except msgspec.MsgspecError as error:
            return web.json_response(str(error), status=400)
        for alert in alerts:
            self._alerts[alert.labels["alertname"], alert.labels["name"]] = alert
        self._news()
        return web.Response()

    async def take_message(self, request: web.Request) -> web.Response:
        """A webhook; 400 ``no_text`` without one, as Slack has it."""
        message: Any = await request.json()
        if not isinstance(message, dict) or not message.get("text"):
            return web.Response(status=400, text="no_text")
        self._messages.append(msgspec.json.encode(message).decode())
        self._news()
        return web.Response(text="ok")


@asynccontextmanager
async def listening(received: Received) -> AsyncIterator[str]:
    """Serves both on a free port of this machine; yields the base of their URLs."""
    app = web.Application()
    app.router.add_post(ALERTS, received.take_alerts)
    app.router.add_post(HOOK, received.take_message)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
