// Run by `disco bootstrap` on your machine: from an empty AWS account to a healthy cluster.
// Credentials come from where Amazon's own tools look: the environment, ~/.aws, or this machine's role.

export async function init() {
  const provider = await AwsProvider.init({
    name: "aws",
    region: ENV.AWS_REGION ?? "eu-central-1",
    endpoint: ENV.AWS_ENDPOINT_URL_EC2, // unset: Amazon itself
  });
  return new Cluster({ name: "example", provider });
}

export async function bootstrap(cluster) {
  if (await cluster.healthy()) {
    console.log(`cluster ${cluster.name} is healthy already`);
  } else {
    // Each step is done once: run `disco bootstrap` again and it continues where it stopped.
    const key = ENV.SSH_KEY ?? "~/.ssh/id_ed25519";
    await cluster.set_key_pair({ private: key, public: `${key}.pub` });
    await cluster.start_instance({ instance_type: "t4g.micro" }); // the newest Ubuntu LTS for ARM
    const ip = await cluster.attach_ip();
    console.log(`the cluster is at ${ip}`);
    await cluster.ssh_install();
  }
  // From here on the leader keeps it at three: it launches the other two itself, and they install themselves.
  await cluster.scale(3);
}
