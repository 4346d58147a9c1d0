// Run by the cluster itself: `disco bootstrap` and `disco apply` send it there, the leader runs it.

import { server } from "./server.js";

export async function init() {
  const provider = await LocalProvider.init({ name: "local" });
  return new Cluster({ name: "example", provider });
}

// What shall run. Change something and say `disco apply`: it shows the difference first, then rolls it out.
export function configure(cluster) {
  cluster.service("hello", {
    command: ["perl", "-e", server],
    env: { GREETING: "hello" },
    replicas: 3,
    ports: [8080], // the name of the port: each node assigns a free one and passes it as PORT
    memory: "64MiB",
  });
}
