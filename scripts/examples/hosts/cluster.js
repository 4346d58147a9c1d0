// Run by the cluster itself: `disco bootstrap` and `disco apply` send it there, the leader runs it.

import { hosts } from "./hosts.js";

export async function init() {
  const provider = await HostsProvider.init({ name: "home", hosts });
  return new Cluster({ name: "home", provider });
}

export function configure(cluster) {
  cluster.service("beat", {
    command: ["sh", "-c", 'while :; do echo "$DISCO_NODE_NAME is here"; sleep 1; done'],
    replicas: 3,
    memory: "16MiB",
  });
}
