"""Alertmanager or a chat, for tests: an HTTP server that remembers what it is sent, and answers as it is told."""

from aiohttp import web


class AlertReceiver:
    """Answers as it is told, and remembers what it was sent."""

    def __init__(self):
        self.answers = []
        self.text = "told you"
        self.bodies = []

    async def __aenter__(self):
        async def serve(request):
            self.bodies.append((request.path, await request.json()))
            status, headers = self.answers.pop(0) if self.answers else (200, {})
            return web.Response(status=status, headers=headers, text=self.text)

        app = web.Application()
        app.router.add_post("/{path:.*}", serve)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
        return self

    def alerts(self, name):
        """Alerts with this name that Alertmanager was sent, in order."""
        return [
            alert
            for path, body in self.bodies
            if path == "/api/v2/alerts"
            for alert in body
            if alert["labels"]["alertname"] == name
        ]

    def messages(self):
        """Texts of all blocks that a webhook was sent."""
        return [
            block["text"]["text"]
            for path, body in self.bodies
            if path == "/hook"
            for block in body["blocks"]
            if "text" in block
        ]

    async def __aexit__(self, *_):
        await self.runner.cleanup()
