// Run by `disco bootstrap` on your machine: installs discod on machines that exist, over SSH.

import { hosts } from "./hosts.js";

export async function init() {
  const provider = await HostsProvider.init({ name: "home", hosts });
  return new Cluster({ name: "home", provider });
}

export async function bootstrap(cluster) {
  if (await cluster.healthy()) {
    console.log(`cluster ${cluster.name} is healthy already`);
  } else {
    // Without a key pair, `disco` shows what your SSH agent and ~/.ssh hold.
    if (ENV.SSH_KEY) await cluster.set_key_pair({ private: ENV.SSH_KEY, public: `${ENV.SSH_KEY}.pub` });
    await cluster.start_instance();
    const ip = await cluster.attach_ip();
    console.log(`the first node is at ${ip}`);
    await cluster.ssh_install();
  }
  // The others join it; run `disco bootstrap` again and a host that lost its node gets one again.
  await cluster.scale(hosts.length);
}
