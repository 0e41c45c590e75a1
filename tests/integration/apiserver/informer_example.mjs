// An informer as people write them with @kubernetes/client-node: prints one line for each event it is told of.
// Arguments: the kubeconfig, a namespace. Lines on stdin are commands: create NAME, change NAME, delete NAME, fail.
import { createInterface } from 'node:readline';
const k8s = await import(process.env.CLIENT_NODE);

const [kubeconfig, namespace] = process.argv.slice(2);
const config = new k8s.KubeConfig();
config.loadFromFile(kubeconfig);
const api = config.makeApiClient(k8s.CoreV1Api);
const list = () => api.listNamespacedConfigMap({ namespace });
const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list);
for (const verb of ['add', 'update', 'delete']) {
    informer.on(verb, (object) => console.log(verb, object.metadata.name, object.data?.k ?? ''));
}
informer.on('connect', (error) => error || console.log('connected'));
informer.on('error', () => setTimeout(() => informer.start(), 50)); // a lost watch: begin again
await informer.start();

const merge = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch);
const commands = {
    create: (name) => api.createNamespacedConfigMap({ namespace, body: { metadata: { name }, data: { k: '1' } } }),
    change: (name) => api.patchNamespacedConfigMap({ namespace, name, body: { data: { k: '2' } } }, merge),
    delete: (name) => api.deleteNamespacedConfigMap({ namespace, name }),
    fail: () => api.readNamespacedConfigMap({ namespace, name: 'none' }),
};
for await (const line of createInterface({ input: process.stdin })) {
    const [command, name] = line.split(' ');
    try {
        await commands[command](name);
    } catch (error) {
        console.log('error', error.code, JSON.parse(error.body).reason);
    }
}
process.exit(0);
