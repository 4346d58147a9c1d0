// For the nodes themselves. In this version `disco bootstrap` does not send it to them yet:
// the hooks that run on the leader (configure, leader, follower) come with the next one.

export async function init() {
  const provider = await LocalProvider.init({ name: "local" });
  return new Cluster({ name: "example", provider });
}
