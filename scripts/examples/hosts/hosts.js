// The machines, for client.js and cluster.js alike. `host_key` is what the machine's own screen shows for
// `cat /etc/ssh/ssh_host_ed25519_key.pub`; without it the machine has to be in known_hosts. Nothing is trusted at first sight.
export const hosts = [
  { address: "10.0.0.11", user: "admin", host_key: "ssh-ed25519 AAAA…" },
  { address: "10.0.0.12", user: "admin", host_key: "ssh-ed25519 AAAA…" },
  { address: "10.0.0.13", user: "admin", host_key: "ssh-ed25519 AAAA…" },
];
