//! Real daemons whose roles change: by hand, by loss, by coming and going.

mod common;

use agent::drivers::pki::{Authority, Identity, KeyFiles};
use common::{BOUND, Daemon, until};
use proto::v1::{self, write_request::Op};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tonic::Code;

fn managers(status: &v1::Status) -> Vec<&str> {
    let mut names: Vec<&str> = status.nodes.iter().filter(|n| n.role == "manager").map(|n| n.name.as_str()).collect();
    names.sort_unstable();
    names
}

fn prefer(node: &str, role: &str) -> Op {
    Op::NodePrefer(v1::NodePrefer { node: node.into(), role: role.into() })
}

/// n1, which originated, and two managers that joined it.
fn three_nodes() -> Vec<Daemon> {
    let mut nodes = vec![Daemon::originate()];
    nodes[0].until("it leads", |status| status.leader.is_some());
    for name in ["n2", "n3"] {
        let node = Daemon::join(name, &nodes[0].token("manager"), &[&nodes[0].address]);
        nodes.push(node);
    }
    nodes
}

#[test]
fn promotion_and_demotion_by_hand_are_swaps_or_are_refused() {
    let first = Daemon::originate();
    first.until("it leads", |status| status.leader.is_some());
    let refused = first.write(prefer("n1", "worker")).expect_err("there is nobody else");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("no node can take the seat of n1"), "{}", refused.message());

    let join = |name: &str, role: &str| Daemon::join(name, &first.token(role), &[&first.address]);
    let mut others = vec![join("n2", "manager"), join("n3", "manager")];
    first.until("three managers", |status| status.voters.len() == 3);
    others.push(join("n4", "manager"));
    others.push(join("n5", "worker"));
    first.until("five ready nodes", |status| status.nodes.iter().filter(|n| n.state == "ready").count() == 5);

    first.write(prefer("n4", "manager")).expect("somebody gives way");
    first.until("n4 votes", |status| status.voters.len() == 3 && managers(status).contains(&"n4"));
    first.write(prefer("n4", "worker")).expect("somebody takes over");
    first.until("n4 votes no more", |status| managers(status) == ["n1", "n2", "n3"] && status.learners.is_empty());
    let keyring = others[2].data().join("keyring");
    common::until("the demoted node has no keyring", common::BOUND, || (!keyring.exists()).then_some(()));

    // Its token never makes it a manager; a person may.
    first.write(prefer("n5", "manager")).expect("somebody gives way");
    first.until("n5 votes", |status| status.voters.len() == 3 && managers(status).contains(&"n5"));
    first.write(prefer("n5", "worker")).expect("somebody takes over");
    first.until("n5 votes no more", |status| status.voters.len() == 3 && !managers(status).contains(&"n5"));

    // The leader goes too: it hands on first.
    first.write(prefer("n4", "manager")).expect("somebody gives way again");
    let leader = first.status().expect("it answers").leader.expect("it leads");
    first.write(prefer(&leader, "worker")).expect("who gave way takes over");
    let demoted = |status: &v1::Status| status.nodes.iter().any(|n| n.id == leader && n.role == "worker" && !n.leader);
    others[0].until("another leads and the old one is a worker", |status| demoted(status) && status.voters.len() == 3);
    others[0].set("k", "v").expect("the cluster writes");
}

/// A service on every node, which runs or does not: the states of its tasks.
fn tasks(status: &v1::Status) -> Vec<(&str, u32)> {
    status.services.iter().flat_map(|s| &s.tasks).map(|t| (t.state.as_str(), t.pid)).collect()
}

#[test]
fn below_the_minimum_services_stop_stand_still_or_are_kept_and_at_it_they_go_on() {
    let first = Daemon::originate();
    first.until("it leads", |status| status.leader.is_some());
    // It never votes: the leader goes on without it.
    let mut second = Daemon::join("n2", &first.token("worker"), &[&first.address]);
    first.until("two nodes", |status| status.nodes.iter().filter(|n| n.state == "ready").count() == 2);
    let below = |policy: &str| {
        let change = v1::ConfigureRequest { min_nodes: Some(2), below_min: Some(policy.into()), ..Default::default() };
        first.write(Op::Configure(change)).expect("it leads");
    };
    below("stop");
    let script = "export async function init() {
        return new Cluster({ name: 'test', provider: await LocalProvider.init({ name: 'l' }) });
    }
    export function configure(cluster) { cluster.service('web', { command: ['sleep', '1000'], replicas: 'every-node' }); }";
    first.write(Op::ModulesPut(v1::ModulesPut { files: [("cluster.js".to_owned(), script.to_owned())].into() })).expect("it leads");
    let both = |status: &v1::Status| tasks(status).iter().filter(|(state, _)| *state == "running").count() == 2;
    first.until("both run", both);

    let alive = |pid: u32| agent::drivers::syscall::process_started(pid).is_some();
    let pid_of = |status: &v1::Status, node: &str| {
        let id = &status.nodes.iter().find(|n| n.name == node).expect("it is there").id;
        status.services[0].tasks.iter().find(|t| &t.node == id).expect("it has a task").pid
    };
    let pid = pid_of(&first.status().expect("it leads"), "n1");
    second.kill();
    let status = first.until("what runs there stops", |status| tasks(status).iter().any(|(state, _)| *state == "held") && !alive(pid));
    assert!(status.problems.iter().any(|p| p.starts_with("1 of at least 2 nodes live: services are stopped")), "{:?}", status.problems);
    assert!(status.events.iter().any(|e| e.name == "cluster.below_min"), "{:?}", status.events);
    second.start();
    let status = first.until("both run again", both);
    assert!(status.events.iter().any(|e| e.name == "cluster.at_min"), "{:?}", status.events);

    below("pause");
    let pid = pid_of(&status, "n1");
    second.kill();
    first.until("what runs there stands still", |status| tasks(status).contains(&("paused", pid)));
    assert!(alive(pid));
    second.start();
    let status = first.until("both go on", both);
    assert_eq!(pid_of(&status, "n1"), pid, "the same process");

    below("keep");
    second.kill();
    let lost = |status: &v1::Status| status.nodes.iter().any(|n| n.name == "n2" && n.state == "lost");
    let status = first.until("too few are there, and it is said", |status| {
        lost(status) && status.problems.iter().any(|p| p.starts_with("1 of at least 2 nodes live"))
    });
    assert!(tasks(&status).contains(&("running", pid)) && alive(pid), "{:?}", tasks(&status));
    let web = first.write(Op::ServiceRestart(v1::ServiceName { name: "web".into() }));
    web.expect("whoever keeps its services may change them");
    first.until("it is another process", |status| tasks(status).iter().any(|(state, new)| *state == "running" && *new != pid));
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

/// Gives a stopped node the certificate it would have if it had been issued so long ago.
fn age_certificate(node: &Daemon, authority: &Authority, days: u64) {
    let (files, shown) = (KeyFiles::new(&node.data()), identity(node));
    let agent::drivers::pki::Subject::Node(id) = shown.subject else { panic!("a node's certificate") };
    let then = wall_ms() - Duration::from_secs(days * 24 * 3600).as_millis() as u64;
    files.save_own(&[authority.sign_node(id, &shown.public_key, then).expect("a good key")]).expect("the disk works");
}

fn authority_of(node: &Daemon) -> Authority {
    let files = KeyFiles::new(&node.data());
    let keyring = files.keyring().expect("the disk works").expect("a manager has one");
    Authority::open(&keyring.ca_key, &files.certificates().expect("it has them").1).expect("a pair")
}

fn identity(node: &Daemon) -> Identity {
    Identity::read(&KeyFiles::new(&node.data()).certificates().expect("it has them").0).expect("a good certificate")
}

fn until_renewed(node: &Daemon) {
    let renewed = || (identity(node).not_after_ms > wall_ms() + Duration::from_secs(28 * 24 * 3600).as_millis() as u64).then_some(());
    until(&format!("a fresh certificate; the log: {}", node.log()), BOUND, renewed);
}

#[test]
fn a_certificate_past_two_thirds_of_its_life_is_renewed_and_no_connection_breaks() {
    let first = Daemon::originate();
    first.until("it leads", |status| status.leader.is_some());
    let mut second = Daemon::join("n2", &first.token("manager"), &[&first.address]);
    let mut worker = Daemon::join("w", &first.token("worker"), &[&first.address]);
    let all_there = |status: &v1::Status| status.nodes.len() == 3 && status.nodes.iter().all(|n| n.state == "ready");
    first.until("a voter, a learner and a worker", |status| all_there(status) && status.learners.len() == 1);
    let authority = authority_of(&first);
    for node in [&mut second, &mut worker] {
        node.stop();
        age_certificate(node, &authority, 22);
        node.start();
    }
    let breaks = || first.log().matches("broke").count();
    first.until("all are back", all_there);
    let before = breaks();
    until_renewed(&second);
    until_renewed(&worker);
    for turn in 0..20 {
        first.set("k", &turn.to_string()).expect("it leads");
    }
    first.until("all are there", all_there);
    assert_eq!(breaks(), before, "{}", first.log());
}

#[test]
fn a_cluster_that_was_off_for_sixty_days_starts_with_every_certificate_expired() {
    let mut first = Daemon::originate();
    first.until("it leads", |status| status.leader.is_some());
    let join = |name: &str, role: &str| Daemon::join(name, &first.token(role), &[&first.address]);
    let mut others = [join("n2", "manager"), join("n3", "manager"), join("w", "worker")];
    let whole = |status: &v1::Status| status.voters.len() == 3 && status.nodes.iter().filter(|n| n.state == "ready").count() == 4;
    first.until("three voters and a worker", whole);
    first.set("k", "v").expect("it leads");
    let authority = authority_of(&first);
    for node in others.iter_mut().chain([&mut first]) {
        node.stop();
        age_certificate(node, &authority, 60);
        assert!(identity(node).not_after_ms < wall_ms(), "expired for a month");
    }
    for node in others.iter_mut().chain([&mut first]) {
        node.start();
    }
    first.until("all are back", |status| whole(status) && status.leader.is_some());
    assert_eq!(first.value("k").expect("a majority is there").as_deref(), Some("v"));
    for node in others.iter().chain([&first]) {
        until_renewed(node);
    }
}

/// Whether the kernel may give this process transparent huge pages; none if it knows of none.
fn huge_pages(pid: u32) -> Option<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    status.lines().find_map(|line| line.strip_prefix("THP_enabled:")).map(|allowed| allowed.trim() == "1")
}

#[test]
fn asked_to_stop_a_node_leaves_its_tasks_or_ends_them_and_comes_back_as_it_was() {
    for (on_stop, outlive) in [("keep", true), ("stop", false)] {
        let mut node = Daemon::new(&format!("originate = true\ncluster_name = \"test\"\nname = \"n1\"\non_stop = \"{on_stop}\"\n"));
        node.start();
        node.until("it leads", |status| status.leader.is_some());
        let script = "export async function init() {
            return new Cluster({ name: 'test', provider: await LocalProvider.init({ name: 'l' }) });
        }
        export function configure(cluster) { cluster.service('web', { command: ['sleep', '1000'] }); }";
        node.write(Op::ModulesPut(v1::ModulesPut { files: [("cluster.js".to_owned(), script.to_owned())].into() })).expect("it leads");
        let runs = |status: &v1::Status| tasks(status).iter().any(|(state, pid)| *state == "running" && *pid != 0);
        let before = node.until("it runs", runs);
        let pid = tasks(&before)[0].1;
        let ours = huge_pages(std::process::id());
        assert_eq!((huge_pages(node.pid()), huge_pages(pid)), (ours.map(|_| false), ours), "a node does without, its tasks need not");
        let lives = || agent::drivers::syscall::process_started(pid).is_some();
        assert_eq!(node.stop().code(), Some(0), "{}", node.log());
        assert_eq!(lives(), outlive, "{on_stop}");
        node.start();
        let running = |status: &v1::Status| runs(status) && status.leader == before.leader && (tasks(status)[0].1 == pid) == outlive;
        node.until("it is back, with its task", running);
        node.write(Op::ServiceRemove(v1::ServiceName { name: "web".into() })).expect("it leads");
        node.until("it ends", |status| status.services.is_empty() && !lives());
    }
}

#[test]
fn the_leader_can_be_removed_and_a_new_node_takes_its_old_address() {
    let mut nodes = three_nodes();
    nodes[0].until("three managers", |status| status.voters.len() == 3);
    nodes[0].set("k", "v").expect("it leads");
    let token = nodes[0].token("manager");
    // A leader hands on first: the request is to be repeated, as `disco` does.
    let remove = || nodes[1].write(Op::NodeRemove(v1::NodeRemove { node: "n1".into() })).ok();
    until("the leader is on its way out", BOUND, remove);
    nodes[1].until("it is gone", |status| status.nodes.len() == 2 && status.leader.is_some());
    let mut old = nodes.remove(0);
    assert_eq!(old.ended().code(), Some(2), "{}", old.log());

    let seeds: Vec<&str> = nodes.iter().map(|node| node.address.as_str()).collect();
    let mut new = Daemon::new(&format!("name = \"n4\"\ntoken = \"{token}\"\nseeds = {seeds:?}\n"));
    let config = std::fs::read_to_string(new.folder().join("disco.toml")).expect("it was written");
    std::fs::write(new.folder().join("disco.toml"), config.replace(&new.address, &old.address)).expect("the disk works");
    new.start();
    let status = nodes[0].until("the new node votes at the old address", |status| status.voters.len() == 3);
    let found = status.nodes.iter().find(|n| n.name == "n4").expect("it is in");
    assert_eq!((found.address.as_str(), found.state.as_str()), (old.address.as_str(), "ready"));
    assert_eq!(new.value("k").expect("it is answered").as_deref(), Some("v"));
}

#[test]
fn the_leader_is_removed_again_and_again_until_one_node_is_left() {
    let nodes = three_nodes();
    nodes[0].until("three managers", |status| status.voters.len() == 3);
    nodes[0].set("k", "v").expect("it leads");
    let remove = |by: &Daemon, node: &str| by.write(Op::NodeRemove(v1::NodeRemove { node: node.into() }));
    let mut left: Vec<&Daemon> = nodes.iter().collect();
    for (count, voters) in [(3, 3), (2, 1)] {
        let status = left[0].until("they are at rest", |status| {
            let ready = status.nodes.iter().filter(|n| n.state == "ready").count();
            (ready, status.voters.len()) == (count, voters) && status.leader.is_some()
        });
        let leader = status.nodes.iter().find(|n| Some(&n.id) == status.leader.as_ref()).expect("it is a node");
        left.retain(|node| node.address != leader.address);
        // Of two nodes one votes: the other has to become a manager before it can take over.
        until("the leader is on its way out", BOUND, || remove(left[0], &leader.id).ok());
        left[0].until("it is gone", |status| status.nodes.len() == left.len() && status.leader.is_some());
    }
    assert_eq!(left[0].value("k").expect("it is answered").as_deref(), Some("v"));
    let last = left[0].until("it leads", |status| status.leader.is_some()).leader.expect("just seen");
    let refused = remove(left[0], &last).expect_err("nobody would be left");
    assert!(refused.message().contains("`disco destroy` ends the cluster"), "{}", refused.message());
}

#[test]
fn a_leader_that_is_asked_to_stop_hands_on_before_it_goes() {
    let mut nodes = three_nodes();
    let whole = |status: &v1::Status| status.voters.len() == 3 && status.nodes.iter().all(|n| n.state == "ready");
    for _ in 0..2 {
        let status = nodes[0].until("three managers", |status| whole(status) && status.leader.is_some());
        let old = status.nodes.iter().find(|n| n.leader).expect("one leads").name.clone();
        let term = nodes[0].member().term;
        let place = ["n1", "n2", "n3"].iter().position(|name| *name == old).expect("it is one of these");
        assert_eq!(nodes[place].stop().code(), Some(0), "{}", nodes[place].log());
        // Nobody had to notice anything: when it is gone, its heir has been elected, in the very next term.
        let next = &nodes[(place + 1) % 3];
        let heirs: Vec<v1::Member> = nodes.iter().enumerate().filter(|(n, _)| *n != place).map(|(_, node)| node.member()).collect();
        assert!(heirs.iter().all(|heir| heir.term == term + 1), "{old} stopped in term {term}: {heirs:?}");
        next.set("k", &old).expect("the heir writes");
        nodes[place].start();
    }
    let back = nodes[0].until("all are back", whole);
    assert_eq!(back.nodes.len(), 3, "membership and identity stayed");
}
