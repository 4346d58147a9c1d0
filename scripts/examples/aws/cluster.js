// Run by the cluster itself: `disco bootstrap` and `disco apply` send it there, the leader runs it.

export async function init() {
  const provider = await AwsProvider.init({ name: "aws", region: "eu-central-1" });
  return new Cluster({ name: "example", provider });
}

export function configure(cluster) {
  cluster.service("beat", {
    command: ["sh", "-c", 'while :; do echo "$DISCO_NODE_NAME is here"; sleep 1; done'],
    replicas: 3,
    memory: "16MiB",
  });
}
