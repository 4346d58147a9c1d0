//! Five daemons that all vote, what one can do to them, and what being well means.

use crate::{
    NODES,
    common::{Daemon, until},
    ground::{Cuts, Ground},
    wire,
};
use proto::v1;
use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

/// What the README promises after the last heal.
pub const HEALTHY_WITHIN: Duration = Duration::from_secs(10);
/// One question to one node: a node that is well answers in milliseconds.
const PATIENCE: Duration = Duration::from_millis(500);
/// Nodes whose disk is small enough to be filled.
pub const SMALL_DISKS: [usize; 2] = [1, 2];
const FILLER: &str = "filler";
/// Copies of the service that is not on every node.
const SOME: usize = 3;

/// Two services that do nothing, and whose processes can be told from everybody else's: by how long they sleep.
fn cluster_js(managers: usize) -> String {
    let marker = marker();
    format!(
        "export async function init() {{
            return new Cluster({{ name: 'chaos', provider: await LocalProvider.init({{ name: 'l' }}), managers: {managers} }});
        }}
        export function configure(cluster) {{
            cluster.service('everywhere', {{ command: ['sleep', '{marker}1'], replicas: 'every-node' }});
            cluster.service('some', {{ command: ['sleep', '{marker}2'], replicas: {SOME} }});
        }}"
    )
}

fn marker() -> String {
    format!("{}", 10_000_000 + std::process::id())
}

/// Processes with an argument that begins like this.
fn processes(argument: &str) -> BTreeSet<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is there").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1).is_some_and(|word| word.starts_with(argument.as_bytes()))
    };
    pids.filter(has).collect()
}

pub struct Cluster {
    pub ground: Ground,
    /// How many of the five vote; the others are workers.
    managers: usize,
    nodes: Vec<Daemon>,
    stopped: Vec<bool>,
    mounted: Vec<PathBuf>,
}

impl Cluster {
    /// Five nodes, so many of them managers; well.
    pub fn form(ground: Ground, managers: usize) -> Cluster {
        let mut cluster = Cluster { ground, managers, nodes: Vec::new(), stopped: vec![false; NODES], mounted: Vec::new() };
        cluster.add("originate = true\ncluster_name = \"chaos\"\n");
        cluster.nodes[0].until("it leads", |status| status.leader.is_some());
        let seats = v1::ConfigureRequest { managers: Some(managers as u32), ..Default::default() };
        cluster.nodes[0].write(v1::write_request::Op::Configure(seats)).expect("it leads");
        for _ in 1..NODES {
            let (token, seed) = (cluster.nodes[0].token("manager"), cluster.ground.advertised(0));
            cluster.add(&format!("token = \"{token}\"\nseeds = [\"{seed}\"]\n"));
        }
        let whole = |status: &v1::Status| status.nodes.iter().filter(|n| n.state == "ready").count() == NODES;
        cluster.nodes[0]
            .until("all vote that should", |status| whole(status) && status.voters.len() == managers && status.learners.is_empty());
        let files = [("cluster.js".to_owned(), cluster_js(managers))].into();
        cluster.nodes[0].write(v1::write_request::Op::ModulesPut(v1::ModulesPut { files })).expect("it leads");
        cluster.nodes[0]
            .until("the tasks run", |status| status.services.len() == 2 && status.services.iter().all(|s| s.running == s.desired));
        cluster
    }

    /// The processes of all tasks: their ids, whichever node they are on.
    pub fn copies(&self) -> BTreeSet<u32> {
        processes(&marker())
    }

    /// No copy too many and none too few: one of one service on each node, three of the other.
    ///
    /// # Errors
    /// How many there are instead.
    pub fn until_each_task_runs_once(&self) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let (everywhere, some) = (processes(&format!("{}1", marker())).len(), processes(&format!("{}2", marker())).len());
            if (everywhere, some) == (NODES, SOME) {
                return Ok(());
            }
            if began.elapsed() > HEALTHY_WITHIN {
                return Err(format!("{everywhere} of {NODES} and {some} of {SOME} tasks run {HEALTHY_WITHIN:?} after all was well"));
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn add(&mut self, config: &str) {
        let node = self.nodes.len();
        let (address, advertised) = (self.ground.address(node), self.ground.advertised(node));
        let config = format!("name = \"{}\"\n{config}", Cluster::name(node));
        let mut daemon = Daemon::placed(&address, &advertised, self.ground.namespace(node), &config);
        if self.ground.has_namespaces() && SMALL_DISKS.contains(&node) {
            std::fs::create_dir(daemon.data()).expect("the folder is new");
            self.ground.mount_disk(&daemon.data());
            self.mounted.push(daemon.data());
        }
        daemon.start();
        self.nodes.push(daemon);
    }

    pub fn managers(&self) -> usize {
        self.managers
    }

    pub fn name(node: usize) -> String {
        format!("n{}", node + 1)
    }

    /// The door for people on the node's own machine: no partition cuts it.
    pub fn door(&self, node: usize) -> PathBuf {
        self.nodes[node].data().join("control.sock")
    }

    pub fn log(&self, node: usize) -> String {
        self.nodes[node].log()
    }

    /// Whoever leads, by the word of a majority.
    pub fn leader(&self) -> usize {
        until("a leader", HEALTHY_WITHIN, || (0..NODES).find_map(|node| self.leader_by(node)))
    }

    /// The leader by this node's word, which a majority confirmed.
    pub fn leader_by(&self, node: usize) -> Option<usize> {
        let status = wire::status(&self.door(node), PATIENCE).ok()?;
        let leader = status.nodes.iter().find(|n| n.leader)?;
        (0..NODES).find(|node| Cluster::name(*node) == leader.name)
    }

    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    pub fn write(&self, node: usize, op: v1::write_request::Op) {
        self.nodes[node].write(op).expect("a majority is there");
    }

    /// SIGTERM.
    pub fn ask_to_end(&mut self, node: usize) {
        let status = self.nodes[node].stop();
        assert!(status.success(), "{} was asked to stop and {status}:\n{}", Cluster::name(node), self.log(node));
    }

    pub fn is_running(&mut self, node: usize) -> bool {
        self.nodes[node].is_running()
    }

    /// SIGSTOP, and SIGCONT when healed.
    pub fn stop(&mut self, node: usize) {
        self.signal(node, "-STOP");
        self.stopped[node] = true;
    }

    pub fn resume(&mut self, node: usize) {
        if std::mem::take(&mut self.stopped[node]) {
            self.signal(node, "-CONT");
        }
    }

    fn signal(&self, node: usize, signal: &str) {
        let status = Command::new("kill").args([signal, &self.nodes[node].pid().to_string()]).status().expect("kill is there");
        assert!(status.success(), "kill {signal} of our own child");
    }

    /// Leaves not one byte on the node's disk.
    pub fn fill_disk(&self, node: usize) {
        use std::io::Write;
        let mut filler = std::fs::File::create(self.nodes[node].data().join(FILLER)).expect("a name costs nothing there");
        for block in [64 * 1024, 512, 1] {
            while filler.write_all(&vec![7; block]).is_ok() {}
        }
    }

    pub fn free_disk(&self, node: usize) {
        // It may never have been filled.
        let _ = std::fs::remove_file(self.nodes[node].data().join(FILLER));
    }

    /// Starts it if it ended, as its machine's service manager would.
    pub fn start(&mut self, node: usize) {
        if !self.nodes[node].is_running() {
            self.nodes[node].kill();
            self.nodes[node].start();
        }
    }

    /// Undoes whatever was done; from the end of it on the time to being well counts.
    pub fn heal(&mut self) {
        self.ground.cut(&Cuts::new());
        for node in self.ground.relayed() {
            self.ground.delay(node, 0);
        }
        for node in 0..NODES {
            self.free_disk(node);
            self.resume(node);
            self.start(node);
        }
    }

    /// How long after now all was well: every node answers for a majority, all are ready, all vote, nothing is amiss.
    ///
    /// # Errors
    /// What was amiss when it was to be well.
    pub fn until_healthy(&self) -> Result<Duration, String> {
        let began = Instant::now();
        for node in 0..NODES {
            while let Err(why) = self.is_well(node) {
                if began.elapsed() > HEALTHY_WITHIN {
                    return Err(format!("not healthy {HEALTHY_WITHIN:?} after the last heal: {} says {why}", Cluster::name(node)));
                }
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
        Ok(began.elapsed())
    }

    fn is_well(&self, node: usize) -> Result<(), String> {
        let status = match wire::status(&self.door(node), PATIENCE) {
            Ok(status) => status,
            // It knows that it is one, and who leads; the others say whether it is ready.
            Err(refused) if self.managers < NODES && refused.message().contains("this node is a worker; ask node") => return Ok(()),
            Err(refused) => return Err(refused.to_string()),
        };
        let unready: Vec<String> =
            status.nodes.iter().filter(|n| n.state != "ready").map(|n| format!("{} is {}", n.name, n.state)).collect();
        if status.leader.is_none() || !unready.is_empty() || !status.problems.is_empty() {
            return Err(format!("leader {:?}, {unready:?}, {:?}", status.leader, status.problems));
        }
        if status.nodes.len() != NODES || status.voters.len() != self.managers || !status.learners.is_empty() {
            return Err(format!("{} nodes, {} voters, {} learners", status.nodes.len(), status.voters.len(), status.learners.len()));
        }
        Ok(())
    }

    /// All managers have applied the same entries and hold the same state. Nobody may write meanwhile.
    ///
    /// # Errors
    /// Two states at one index, or no common index within the promise.
    pub fn agree(&self) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let members: Vec<v1::Member> = (0..NODES)
                .filter_map(|node| wire::member(&self.door(node), PATIENCE).ok())
                .filter(|member| member.role != "none")
                .collect();
            let at = |m: &v1::Member| (m.applied, m.digest);
            for (this, that) in members.iter().zip(members.iter().skip(1)) {
                if this.applied == that.applied && this.digest != that.digest {
                    return Err(format!("two states at index {}: {members:?}", this.applied));
                }
            }
            if members.len() == self.managers && members.iter().all(|member| at(member) == at(&members[0])) {
                return Ok(());
            }
            if began.elapsed() > HEALTHY_WITHIN {
                return Err(format!("no common index within {HEALTHY_WITHIN:?}: {members:?}"));
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for daemon in &mut self.nodes {
            daemon.kill();
        }
        for disk in &self.mounted {
            self.ground.unmount_disk(disk);
        }
    }
}
