//! Nodes that form a cluster from their config files alone.

mod common;

use agent::drivers::pki::{self, Authority, ImageFiles, JoinToken};
use agent::model::ids::ClusterId;
use common::{BOUND, Daemon, until};
use proto::v1;
use std::{fs, net::TcpListener, path::Path};

/// Half a second apart at least: several times `originate_after`.
const LOOKS: usize = 8;

fn bake(folder: &Path) {
    let authority = Authority::create(ClusterId(77), 1_700_000_000_000);
    let token = JoinToken { ca_digest: pki::ca_digest(authority.certificate()), secret: "i0123456789".into() };
    ImageFiles::new(folder).write(&authority.key(), authority.certificate(), &token.to_string()).expect("the disk works");
}

fn config(node: &Daemon, more: &str) {
    let path = node.folder().join("disco.toml");
    let text = fs::read_to_string(&path).expect("it was written");
    fs::write(path, text + more).expect("the disk works");
}

#[test]
fn three_nodes_of_one_image_that_start_at_the_same_moment_make_one_cluster() {
    let image = tempfile::tempdir().expect("a temporary folder");
    bake(image.path());
    let mut nodes: Vec<Daemon> = ["n1", "n2", "n3"].iter().map(|name| Daemon::new(&format!("name = \"{name}\"\n"))).collect();
    let list = image.path().join("seeds");
    let addresses: String = nodes.iter().map(|node| format!("{}\n", node.address)).collect();
    fs::write(&list, format!("# all three\n{addresses}")).expect("the disk works");
    for node in &nodes {
        let more = format!(
            "originate = true\noriginate_after = \"2s\"\nimage = {:?}\nseeds = [\"file://{}\"]\n",
            image.path().display().to_string(),
            list.display()
        );
        config(node, &more);
    }
    nodes.iter_mut().for_each(Daemon::start);
    let whole = |status: &v1::Status| status.nodes.len() == 3 && status.nodes.iter().all(|n| n.state == "ready");
    until("one of them leads all three", BOUND, || nodes.iter().find_map(|node| node.status().ok().filter(|status| whole(status))));
    let statuses: Vec<v1::Status> = nodes.iter().filter_map(|node| node.status().ok()).collect();
    assert!(statuses.iter().all(|status| status.cluster_id == ClusterId(77).to_string()), "{statuses:?}");
    let leader = nodes.iter().find(|node| node.status().is_ok_and(|status| whole(&status))).expect("seen right above");
    let lowest = leader.status().expect("it leads").nodes.into_iter().min_by(|a, b| a.id.cmp(&b.id)).expect("there are three");
    assert!(lowest.leader, "the lowest id originated");

    // They came as workers; a person makes managers of them.
    let workers: Vec<String> = leader.status().expect("it leads").nodes.into_iter().filter(|n| !n.leader).map(|n| n.id).collect();
    for worker in workers {
        let op = v1::NodePrefer { node: worker, role: "manager".into() };
        until("somebody makes room", BOUND, || leader.write(v1::write_request::Op::NodePrefer(op.clone())).ok());
    }
    until("three managers", BOUND, || {
        nodes.iter().find_map(|node| node.status().ok().filter(|status| status.voters.len() == 3 && status.learners.is_empty()))
    });
}

#[test]
fn a_node_of_an_image_that_finds_the_cluster_of_others_makes_none() {
    let others = Daemon::originate();
    others.until("it leads", |status| status.leader.is_some());
    let image = tempfile::tempdir().expect("a temporary folder");
    bake(image.path());
    let baked = |seeds: &[&str]| {
        let mut node = Daemon::new("name = \"n1\"\n");
        let image = image.path().display().to_string();
        config(&node, &format!("originate = true\noriginate_after = \"1s\"\nimage = {image:?}\nseeds = {seeds:?}\n"));
        node.start();
        node
    };
    let mut lost = baked(&[&others.address]);
    assert_eq!(lost.ended().code(), Some(2));
    assert!(lost.log().contains("each shows another CA"), "{}", lost.log());

    // Where one of its own is as well it goes there, and where nobody is it is the first.
    let first = baked(&[&common::address()]);
    first.until("it originates", |status| status.leader.is_some());
    let _second = baked(&[&others.address, &first.address]);
    let status = first.until("it joined its own", |status| status.nodes.len() == 2);
    assert_eq!(status.cluster_id, ClusterId(77).to_string());
    assert_eq!(others.status().expect("it leads").nodes.len(), 1);
}

#[test]
fn a_node_with_seeds_joins_what_it_finds_and_originates_only_where_nobody_is() {
    let first = Daemon::originate();
    first.until("it leads", |status| status.leader.is_some());
    let token = first.token("manager");
    let config =
        |token: &str, seed: &str| format!("name = \"n2\"\noriginate = true\noriginate_after = \"1s\"\nseeds = [\"{seed}\"]\n{token}");
    let mut second = Daemon::new(&config(&format!("token = \"{token}\"\n"), &first.address));
    second.start();
    let status = first.until("it joined", |status| status.nodes.len() == 2);
    second.until("it is in the same cluster", |seen| seen.cluster_id == status.cluster_id);

    // A cluster is there, and this node has no token of it.
    let mut third = Daemon::new(&config("", &first.address));
    third.start();
    assert_eq!(third.ended().code(), Some(2));
    assert!(third.log().contains("each shows another CA"), "{}", third.log());

    let mut alone = Daemon::new(&config("", &common::address()));
    alone.start();
    let other = alone.until("nobody is there, so it originates", |status| status.leader.is_some());
    assert_ne!(other.cluster_id, status.cluster_id);

    // Two clusters never merge: whatever the seeds say, a node stays what it is.
    alone.stop();
    let path = alone.folder().join("disco.toml");
    let text = fs::read_to_string(&path).expect("it was written");
    let line = text.lines().find(|line| line.starts_with("seeds")).expect("it has seeds").to_owned();
    let token = first.token("manager");
    fs::write(&path, text.replace(&line, &format!("seeds = [\"{}\"]\ntoken = \"{token}\"", first.address))).expect("the disk works");
    alone.start();
    let still = alone.until("it leads again", |status| status.leader.is_some());
    assert_eq!((still.cluster_id, still.nodes.len()), (other.cluster_id, 1));
    assert_eq!(first.status().expect("it leads").nodes.len(), 2);
}

#[test]
fn a_cluster_without_a_majority_is_waited_for_and_no_other_one_begun() {
    let mut nodes = vec![Daemon::originate()];
    nodes[0].until("it leads", |status| status.leader.is_some());
    for name in ["n2", "n3"] {
        nodes.push(Daemon::join(name, &nodes[0].token("manager"), &[&nodes[0].address]));
    }
    let cluster = nodes[0].until("three managers", |status| status.voters.len() == 3).cluster_id;
    let token = nodes[0].token("manager");
    nodes[1].kill();
    nodes[2].kill();

    // A seed that counts how often the node has looked around.
    let counter = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let seeds = [nodes[0].address.clone(), counter.local_addr().expect("it listens").to_string()];
    let mut late =
        Daemon::new(&format!("name = \"n4\"\noriginate = true\noriginate_after = \"1s\"\ntoken = \"{token}\"\nseeds = {seeds:?}\n"));
    late.start();
    counter.set_nonblocking(true).expect("the system works");
    (0..LOOKS).for_each(|_| until("it looks around", BOUND, || counter.accept().is_ok().then_some(())));
    assert!(late.log().contains("cannot join yet"), "{}", late.log());

    nodes[1].start();
    nodes[2].start();
    let status = nodes[0].until("it joined", |status| status.nodes.iter().filter(|n| n.state == "ready").count() == 4);
    assert_eq!(status.cluster_id, cluster);
    assert!(late.is_running(), "{}", late.log());
}

#[test]
fn a_seed_may_be_a_name_and_one_that_nobody_knows_keeps_nobody_out() {
    // Names lead to 127.0.0.1, where no other test listens at a port that the system chose.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let address = format!("127.0.0.1:{port}");
    let mut first = Daemon::placed(&address, &address, None, "originate = true\ncluster_name = \"test\"\nname = \"n1\"\n");
    first.start();
    first.until("it leads", |status| status.leader.is_some());
    let seeds = ["no-such-host.invalid".to_owned(), format!("localhost:{port}")];
    let second = Daemon::join("n2", &first.token("manager"), &[&seeds[0], &seeds[1]]);
    let cluster = first.until("it joined", |status| status.nodes.iter().filter(|n| n.state == "ready").count() == 2).cluster_id;
    second.until("it is in the same cluster", |seen| seen.cluster_id == cluster);
}
