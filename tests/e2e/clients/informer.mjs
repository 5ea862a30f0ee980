// What the JavaScript client's informer holds of one resource, all the time.
//
//   node informer.mjs SERVER RESOURCE [LABEL_SELECTOR]
//
// RESOURCE is pods, configmaps or nodes. For every line on standard input it prints one line of JSON: the objects held,
// {"namespace/name": "resourceVersion"}, what was noticed, and the errors that the informer reported. Informers of this
// client stop when a connection breaks; the client's documentation says to start them again, which happens here.

import { createInterface } from 'node:readline';
import { CoreV1Api, KubeConfig, makeInformer } from '@kubernetes/client-node';

const RESTART_MS = 200;
const [server, resource, labelSelector] = process.argv.slice(2);

const config = new KubeConfig();
config.loadFromOptions({
    // Of http this client wants to hear that nothing is verified.
    clusters: [{ name: 'shoal', server, skipTLSVerify: server.startsWith('http:') }],
    users: [{ name: 'nobody' }],
    contexts: [{ name: 'shoal', cluster: 'shoal', user: 'nobody' }],
    currentContext: 'shoal',
});
const core = config.makeApiClient(CoreV1Api);
const lists = {
    configmaps: () => core.listConfigMapForAllNamespaces({ labelSelector }),
    nodes: () => core.listNode({ labelSelector }),
    pods: () => core.listPodForAllNamespaces({ labelSelector }),
};

const noticed = { add: 0, update: 0, delete: 0, error: 0, back: 0 };
const errors = [];
const newest = new Map();
const informer = makeInformer(config, `/api/v1/${resource}`, lists[resource], labelSelector);

function keyOf(object) {
    const { namespace, name } = object.metadata;
    return namespace ? `${namespace}/${name}` : name;
}

for (const verb of ['add', 'update', 'delete']) {
    informer.on(verb, (object) => {
        noticed[verb] += 1;
        const version = Number(object.metadata.resourceVersion);
        if (version < (newest.get(keyOf(object)) ?? 0)) {
            noticed.back += 1;
        }
        newest.set(keyOf(object), version);
    });
}
informer.on('error', (error) => {
    noticed.error += 1;
    errors.push(String(error?.message ?? error).slice(0, 300));
    setTimeout(() => informer.start(), RESTART_MS);
});
await informer.start();

for await (const _ of createInterface({ input: process.stdin })) {
    const objects = Object.fromEntries(
        informer.list().map((object) => [keyOf(object), object.metadata.resourceVersion]),
    );
    console.log(JSON.stringify({ objects, noticed, errors: errors.slice(-5) }));
}
process.exit(0);
