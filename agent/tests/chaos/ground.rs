//! Where the nodes stand: each in a network namespace of its own, wherever this machine lets us make some.
//!
//! The test starts itself again inside fresh network, mount and process namespaces: whatever happens to it, nothing of
//! it stays on the machine, because the kernel ends and unmounts all of it with the first process. In there, nodes are
//! joined by a bridge, and a cut is a filter rule: the packet vanishes and nobody is told, as with a pulled cable.
//! Where that is not allowed the nodes stand on loopback, and faults that need more are left out, aloud.

use crate::{NODES, relay::Relay};
use std::{
    collections::BTreeSet,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

const INSIDE: &str = "DISCO_CHAOS_INSIDE";
/// Nodes from this one on are reached through a relay, which can be slow.
const RELAYED_FROM: usize = NODES - 2;
/// What one node needs, and little more: enough for two copies of its store while it compacts.
const SMALL_DISK: &str = "size=16m,mode=700";

/// Runs this program inside namespaces and says how that ended, or `None` if this is the inside, or there is none.
pub fn enter() -> Option<ExitCode> {
    if std::env::var_os(INSIDE).is_some() {
        return None;
    }
    let flags = flags();
    // All that will be needed, tried once.
    let probe =
        "ip link add one type veth peer name two && iptables -t mangle -S && iptables -S && mount -t tmpfs none /run && ip netns add n";
    match unshared(&flags).args(["sh", "-ec", probe]).stdout(Stdio::null()).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => return say_loopback(String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => return say_loopback(&error.to_string()),
    }
    // The shell is the namespace's first process, to which Ctrl-C would mean nothing; the test dies of it as usual.
    let me = std::env::current_exe().expect("Linux knows our name");
    let status =
        unshared(&flags).args(["sh", "-c", "\"$0\" \"$@\"; exit $?"]).arg(me).args(std::env::args().skip(1)).env(INSIDE, "1").status();
    Some(match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("error: unshare worked a moment ago and does not now: {error}");
            ExitCode::from(2)
        }
    })
}

fn say_loopback(why: &str) -> Option<ExitCode> {
    println!("no namespaces here, so the nodes stand on loopback: no partitions and no full disks ({why})");
    None
}

fn flags() -> Vec<&'static str> {
    let mut flags = vec!["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    if !root {
        flags.push("--map-root-user");
    }
    flags
}

fn unshared(flags: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(flags).arg("--");
    command
}

/// Who does not hear whom: `(from, to)`.
pub type Cuts = BTreeSet<(usize, usize)>;

pub struct Ground {
    namespaces: bool,
    /// The first three numbers of every address.
    net: String,
    relays: Vec<Relay>,
}

impl Ground {
    pub fn prepare() -> Ground {
        let namespaces = std::env::var_os(INSIDE).is_some();
        let net = if namespaces { "10.77.0".to_owned() } else { loopback_net() };
        if namespaces {
            build(&net);
        }
        let mut ground = Ground { namespaces, net, relays: Vec::new() };
        ground.relays = (RELAYED_FROM..NODES).map(|node| Relay::start(&ground.advertised(node), &ground.address(node))).collect();
        ground
    }

    /// Whether links can be cut and disks be filled.
    pub fn has_namespaces(&self) -> bool {
        self.namespaces
    }

    /// Where the node listens.
    pub fn address(&self, node: usize) -> String {
        format!("{}.{}:5080", self.net, node + 1)
    }

    /// Where the others look for it.
    pub fn advertised(&self, node: usize) -> String {
        if node < RELAYED_FROM { self.address(node) } else { format!("{}.{}:5080", self.net, node + 101) }
    }

    pub fn namespace(&self, node: usize) -> Option<PathBuf> {
        self.namespaces.then(|| Path::new("/run/netns").join(name(node)))
    }

    /// Nodes whose way in can be slow.
    pub fn relayed(&self) -> std::ops::Range<usize> {
        RELAYED_FROM..NODES
    }

    /// Every byte to the node, and every answer on the same connections, takes so much longer.
    pub fn delay(&self, node: usize, ms: u64) {
        self.relays[node - RELAYED_FROM].delay(ms);
    }

    /// A small disk of its own.
    pub fn mount_disk(&self, at: &Path) {
        run(Command::new("mount").args(["-t", "tmpfs", "-o", SMALL_DISK, "disco-chaos"]).arg(at));
    }

    pub fn unmount_disk(&self, at: &Path) {
        // Lazily: what still has a file open there is on its way out.
        run(Command::new("umount").arg("-l").arg(at));
    }

    /// From now on exactly these cuts are in force.
    pub fn cut(&self, cuts: &Cuts) {
        if !self.namespaces {
            assert!(cuts.is_empty(), "nothing can be cut on loopback");
            return;
        }
        for node in 0..NODES {
            // A node is two addresses: its own, and the one it is reached at.
            let rules = |chain: &str, flag: &str, others: &mut dyn Iterator<Item = usize>| -> String {
                let both = others.flat_map(|other| [node_ip(&self.address(other)), node_ip(&self.advertised(other))]);
                both.collect::<BTreeSet<String>>().iter().map(|ip| format!("-A {chain} {flag} {ip} -j DROP\n")).collect()
            };
            let outward = rules("OUTPUT", "-d", &mut cuts.iter().filter(|(from, _)| *from == node).map(|(_, to)| *to));
            let inward = rules("INPUT", "-s", &mut cuts.iter().filter(|(_, to)| *to == node).map(|(from, _)| *from));
            let table = format!("*filter\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n{outward}{inward}COMMIT\n");
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{}", name(node))).arg("iptables-restore");
            let mut child = command.stdin(Stdio::piped()).spawn().expect("nsenter starts");
            child.stdin.take().expect("a pipe").write_all(table.as_bytes()).expect("it reads");
            assert!(child.wait().expect("it is our child").success(), "iptables-restore refused:\n{table}");
        }
    }
}

fn name(node: usize) -> String {
    format!("n{}", node + 1)
}

fn node_ip(address: &str) -> String {
    address.split(':').next().expect("split gives one at least").to_owned()
}

/// A net of this process's own: 127.64 and up belong to the local provider's instances, 127.2 to other tests.
fn loopback_net() -> String {
    let pid = std::process::id();
    format!("127.1.{}", pid % 256)
}

fn build(net: &str) {
    let mut lines = vec![
        // `ip netns` keeps its names there: ours are ours alone.
        "mount -t tmpfs -o mode=755 none /run".to_owned(),
        "ip link set lo up".to_owned(),
        "ip link add hub type bridge".to_owned(),
        "ip link set hub up".to_owned(),
        format!("ip address add {net}.254/24 dev hub"),
    ];
    for node in RELAYED_FROM..NODES {
        lines.push(format!("ip address add {net}.{}/24 dev hub", node + 101));
    }
    for node in 0..NODES {
        let (name, host) = (name(node), node + 1);
        lines.push(format!("ip netns add {name}"));
        lines.push(format!("ip link add h{host} type veth peer name eth0 netns {name}"));
        lines.push(format!("ip link set h{host} master hub up"));
        lines.push(format!("ip -n {name} address add {net}.{host}/24 dev eth0"));
        lines.push(format!("ip -n {name} link set eth0 up"));
        lines.push(format!("ip -n {name} link set lo up"));
    }
    run(Command::new("sh").args(["-ec", &lines.join("\n")]));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
