// Run by `disco bootstrap` on your machine: makes the first node, then lets the cluster grow itself.

export async function init() {
  const provider = await LocalProvider.init({ name: "local" });
  return new Cluster({ name: "example", provider });
}

export async function bootstrap(cluster) {
  if (await cluster.healthy()) {
    console.log(`cluster ${cluster.name} is healthy already`);
  } else {
    // Each step is done once: run `disco bootstrap` again and it continues where it stopped.
    await cluster.start_instance();
    const ip = await cluster.attach_ip();
    console.log(`the first node is at ${ip}`);
    await cluster.ssh_install();
  }
  // From here on the leader keeps it at three, starting the other two itself.
  await cluster.scale(3);
}
