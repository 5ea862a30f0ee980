"""Keeps a ConfigMap with HTML for each Page (pages.yaml): python controller.py [URL of a running Shoal]."""

import asyncio
import html
import os
import platform
import signal
import sys

import shoal


async def main(gateway: str = "") -> None:
    async with shoal.local() as server, shoal.connect(gateway) if gateway else shoal.local() as source:
        pages = source.informer("example.com/v1/pages", wait=True)
        maps = source.informer("v1/configmaps", label_selector="example.com/page")
        writer = server.writer("v1/configmaps")

        async def reconcile(key: str) -> None:
            page, held = pages.lister.get_by_key(key), maps.lister.get_by_key(key)
            if page is None:
                # What is held here may be behind: before something is deleted, the API server is asked.
                if held and await server.lister("example.com/v1/pages").get(key, default=None) is None:
                    await writer.delete(held, missing_ok=True)
                return
            owner = {"apiVersion": page.apiVersion, "kind": page.kind, "name": page.name, "uid": page.uid}
            head = {"name": page.name, "labels": {"example.com/page": ""}, "ownerReferences": [owner]}
            data = {"index.html": f"<h1>{html.escape(page.spec.title)}</h1>\n"}
            if held is None:
                await writer.create({"metadata": head, "data": data}, page.namespace)
            elif held.get("data") != data or held.get("metadata", "ownerReferences") != [owner]:
                # Of the version that was looked at: whoever wrote in between wins, and is looked at next.
                head["resourceVersion"] = held.resource_version
                await writer.replace({"metadata": head, "data": data}, page.namespace)
            if page.get("status", "observedGeneration") != page.metadata.generation:
                status = {"status": {"observedGeneration": page.metadata.generation}}
                await server.writer("example.com/v1/pages").patch(page, status, subresource="status")

        identity = f"{platform.node()}-{os.getpid()}"
        leader = shoal.LeaderElector(server.connection, namespace="default", name="pages", identity=identity)
        controller = shoal.Controller("pages", reconcile, sources=[pages, maps], leader=leader)
        # How Kubernetes ends a pod: what is under way is finished, and the lease given back.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, controller.stop)
        await controller.run()


if __name__ == "__main__":
    shoal.configure_logging("info")
    asyncio.run(main(*sys.argv[1:]))
