// The machines, for client.js and cluster.js alike. `host_key` is what the machine's own screen shows for
// `cat /etc/ssh/ssh_host_ed25519_key.pub`; without it the machine has to be in known_hosts. Nothing is trusted at first sight.
export const hosts = [
  { address: "127.41.0.1", user: "admin", host_key: "HOST_KEY_1" },
  { address: "127.41.0.2", user: "admin", host_key: "HOST_KEY_2" },
  { address: "127.41.0.3", user: "admin", host_key: "HOST_KEY_3" },
];
