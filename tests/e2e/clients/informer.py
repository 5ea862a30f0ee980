"""What the Python client holds of one resource, all the time, in one of the ways it offers.

    python informer.py informer|watch|dynamic SERVER pods|configmaps|nodes [LABEL_SELECTOR]

For every line on standard input it prints one line of JSON: the objects held, {"namespace/name": "resourceVersion"},
what was noticed, and the last errors. ``informer`` is `kubernetes.informer`; ``watch`` and ``dynamic`` list and watch
as the client's examples do: on from where the watch ended, and with a new list after 410.
"""

import json
import logging
import sys
import threading
import time
from collections import Counter

from kubernetes import client, watch
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import DynamicApiError
from kubernetes.informer import SharedInformer

RETRY_S = 0.2
KINDS = {"pods": "Pod", "configmaps": "ConfigMap", "nodes": "Node"}


class Held:
    """Objects by key, and how often one went back."""

    def __init__(self):
        self.objects = {}
        self.noticed = Counter()
        self.errors = []
        self._newest = {}

    def takes(self, kind, metadata):
        namespace, name, version = (
            metadata.get("namespace"),
            metadata["name"],
            int(metadata["resourceVersion"]),
        )
        key = f"{namespace}/{name}" if namespace else name
        self.noticed[kind.lower()] += 1
        self.noticed["back"] += version < self._newest.get(key, 0)
        self._newest[key] = version
        if kind == "DELETED":
            self.objects.pop(key, None)
        else:
            self.objects[key] = str(version)

    def fails(self, error):
        self.noticed["error"] += 1
        self.errors = [*self.errors[-4:], f"{type(error).__name__}: {error}"[:300]]


def plain(metadata):
    return {
        "namespace": metadata.namespace,
        "name": metadata.name,
        "resourceVersion": metadata.resource_version,
    }


def informed(held, listing, selector):
    informer = SharedInformer(listing, label_selector=selector)
    for kind in ("ADDED", "MODIFIED", "DELETED"):
        informer.add_event_handler(kind, lambda found, kind=kind: held.takes(kind, plain(found.metadata)))
    informer.add_event_handler("ERROR", held.fails)
    informer.start()

    def objects():
        return {
            "/".join(
                filter(None, (found.metadata.namespace, found.metadata.name))
            ): found.metadata.resource_version
            for found in informer.cache.list()
        }

    return objects


def followed(held, lists, watches):
    """Lists and watches for ever. `lists` gives metadata and a version, `watches` events after a version."""
    version = None
    while True:
        try:
            if version is None:
                found, version = lists()
                for key in held.objects.keys() - {
                    "/".join(filter(None, (one["namespace"], one["name"]))) for one in found
                }:
                    del held.objects[key]
                for one in found:
                    held.takes("LISTED", one)
            for kind, metadata in watches(version):
                if kind != "BOOKMARK":
                    held.takes(kind, metadata)
                version = metadata["resourceVersion"]
        except (client.ApiException, DynamicApiError) as error:
            held.fails(error)
            if error.status == 410:
                version = None
            time.sleep(RETRY_S)
        except Exception as error:  # noqa: BLE001 - whatever the client makes of a broken connection
            held.fails(error)
            time.sleep(RETRY_S)


def watched(held, listing, selector):
    chosen = {"label_selector": selector} if selector else {}

    def lists():
        found = listing(**chosen)
        return [plain(item.metadata) for item in found.items], found.metadata.resource_version

    def watches(version):
        stream = watch.Watch().stream(
            listing, resource_version=version, allow_watch_bookmarks=True, timeout_seconds=20, **chosen
        )
        for event in stream:
            yield event["type"], event["raw_object"]["metadata"]

    followed(held, lists, watches)


def dynamic(held, api, resource, selector):
    kind = DynamicClient(api).resources.get(api_version="v1", kind=KINDS[resource])
    chosen = {"label_selector": selector} if selector else {}

    def lists():
        found = kind.get(**chosen)
        return [plain(_Attributes(item.metadata)) for item in found.items], found.metadata.resourceVersion

    def watches(version):
        for event in kind.watch(resource_version=version, timeout=20, **chosen):
            yield event["type"], event["raw_object"]["metadata"]

    followed(held, lists, watches)


class _Attributes:
    """Metadata of the dynamic client under the names of the typed one."""

    def __init__(self, metadata):
        self.namespace, self.name = metadata.namespace, metadata.name
        self.resource_version = metadata.resourceVersion


def main():
    way, server, resource, *selector = sys.argv[1:]
    logging.disable()
    configuration = client.Configuration()
    configuration.host = server
    api = client.ApiClient(configuration)
    core = client.CoreV1Api(api)
    listing = {
        "pods": core.list_pod_for_all_namespaces,
        "configmaps": core.list_config_map_for_all_namespaces,
        "nodes": core.list_node,
    }[resource]
    chosen, held = selector[0] if selector else None, Held()
    objects = lambda: held.objects  # noqa: E731
    if way == "informer":
        objects = informed(held, listing, chosen)
    else:
        arguments = (held, listing, chosen) if way == "watch" else (held, api, resource, chosen)
        threading.Thread(target=watched if way == "watch" else dynamic, args=arguments, daemon=True).start()
    for _ in sys.stdin:
        print(
            json.dumps({"objects": dict(objects()), "noticed": held.noticed, "errors": held.errors}),
            flush=True,
        )


if __name__ == "__main__":
    main()
