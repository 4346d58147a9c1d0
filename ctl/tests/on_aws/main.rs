//! From an empty account to a healthy cluster and back, in the test cloud: each running instance is a machine with an sshd
//! and a user-data runner. Needs root.

mod cloud;
mod killed;
mod launches;
#[path = "../../../sigv4-ec2/tests/cloud/running.rs"]
mod running;

use cloud::{Cloud, Project};
use sigv4_ec2::{Filter, Peer, Rule};
use std::{
    process::Stdio,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(90);

#[test]
fn a_cluster_comes_heals_shrinks_and_leaves_nothing_behind() {
    let cloud = Cloud::start();
    let project = Project::new(&cloud);
    let said = project.ok(&["bootstrap", "--yes"]);
    println!("{said}");
    assert_eq!((project.ready(), project.possessions()), (3, [3, 1, 1, 1]), "{said}");
    assert!(!project.is_open_for_ssh(), "port 22 is for the installation only");
    let again = project.ok(&["bootstrap", "--yes"]);
    assert_eq!(project.possessions(), [3, 1, 1, 1], "{again}");

    // Every node keeps the program for the other kind of machine, whoever launched it.
    let kept = "sha256sum /var/lib/disco/artifacts/*";
    for instance in project.instances() {
        let listed = cloud.prints(&instance.id, kept);
        let (digest, path) = listed.split_once("  ").expect("it keeps one");
        assert!(listed.lines().count() == 1 && path.trim().ends_with(digest), "{}: {listed}", instance.id);
    }

    // A machine vanishes: nobody asked the cluster.
    let leader = project.leader().expect("it was healthy");
    let victim = project.instances().into_iter().find(|instance| instance.id != leader).expect("there are three");
    cloud.client().terminate_instances(std::slice::from_ref(&victim.id)).expect("EC2 ends it");
    project.until("another one in its place", SOON, || {
        let ids: Vec<String> = project.instances().into_iter().map(|instance| instance.id).collect();
        ids.len() == 3 && !ids.contains(&victim.id) && project.ready_managers() == 3
    });

    // The leader's machine stops: the address follows the next leader, and the machine is started again.
    assert_eq!(project.addresses()[0].instance.as_ref(), Some(&leader));
    cloud.client().stop_instances(std::slice::from_ref(&leader)).expect("EC2 stops it");
    project.until("the address leads to the new leader", SOON, || {
        let at = project.addresses().remove(0).instance;
        at.is_some() && at.as_ref() != Some(&leader) && at == project.leader()
    });
    project.until("all three are back", SOON, || project.ready_managers() == 3);
    assert_eq!(project.possessions(), [3, 1, 1, 1], "repaired, not replaced");

    // Somebody opens a port by hand.
    let group = project.instances()[0].security_groups[0].clone();
    let anybody = Rule::tcp(22, Peer::Ipv4("0.0.0.0/0".into()));
    cloud.client().authorize_ingress(&group, &[anybody]).expect("EC2 opens it");
    let planned = project.command(&["plan"]).output().expect("disco starts");
    let said = String::from_utf8_lossy(&planned.stderr).into_owned();
    assert!(planned.status.code() == Some(2) && said.contains(&format!("drift: security group {group} lets port 22 be reached")), "{said}");
    project.ok(&["apply", "--yes"]);
    assert!(!project.is_open_for_ssh() && project.ok(&["plan"]).contains("nothing to change"));

    project.ok(&["scale", "1"]);
    assert_eq!(project.possessions(), [1, 1, 1, 1]);
    let client = cloud.client();
    let before = project.ok(&["destroy", "--yes"]);
    let tag = [Filter::new("tag-key", ["disco:cluster-id"])];
    let left = client.describe_instances(&[], &tag).expect("EC2 answers").into_iter().filter(|i| !i.state.is_gone()).count();
    assert_eq!(left, 0, "{before}");
    assert!(client.describe_addresses(&tag).expect("EC2 answers").is_empty(), "{before}");
    assert!(client.describe_security_groups(&[], &tag).expect("EC2 answers").is_empty(), "{before}");
    assert!(client.describe_key_pairs(&[], &tag).expect("EC2 answers").is_empty(), "{before}");
    assert!(!project.disco_folder().exists());
}

#[test]
fn machines_that_were_all_stopped_are_started_again_and_none_is_launched() {
    let cloud = Cloud::start();
    let project = Project::new(&cloud);
    project.ok(&["bootstrap", "--yes"]);
    let ids = |project: &Project| {
        let mut ids: Vec<String> = project.instances().into_iter().map(|instance| instance.id).collect();
        ids.sort();
        ids
    };
    let before = ids(&project);
    cloud.client().stop_instances(&before).expect("EC2 stops them");
    project.until("none of them answers", SOON, || project.status().is_none());
    let said = project.ok(&["bootstrap", "--yes"]);
    assert!(said.contains("runs again (") && said.contains("the cluster answers"), "{said}");
    assert_eq!((project.ready(), ids(&project)), (3, before), "{said}");
    project.ok(&["destroy", "--yes"]);
}

#[test]
fn with_another_account_nothing_is_forgotten_and_nothing_is_bought() {
    let (cloud, elsewhere) = (Cloud::start(), Cloud::without_machines());
    let project = Project::new(&cloud);
    project.write("client.js", &project.read("client.js").replace("scale(3)", "scale(1)"));
    project.ok(&["bootstrap", "--yes"]);
    let nothing = "nothing of this cluster is to be seen";

    let project = project.at(&elsewhere);
    let notes = project.read(".disco/aws.json");
    let said = project.refused(&["bootstrap", "--yes"]);
    assert!(said.contains(nothing) && project.read(".disco/aws.json") == notes, "{said}");
    project.write(".disco/aws.json", &notes.replace(cloud.endpoint(), elsewhere.endpoint()));
    let said = project.refused(&["destroy", "--yes"]);
    assert!(said.contains(nothing) && said.contains("it has security group sg-"), "{said}");
    assert!(elsewhere.instances().is_empty());
    project.write(".disco/aws.json", &notes);

    let project = project.at(&cloud);
    assert_eq!((project.ready(), project.possessions()), (1, [1, 1, 1, 1]));
    project.ok(&["destroy", "--yes"]);
    assert!(!project.disco_folder().exists());
}

#[test]
fn a_bootstrap_killed_at_any_moment_and_run_again_makes_one_of_each_and_three_machines() {
    let cloud = Cloud::start();
    let rounds: u64 = std::env::var("DISCO_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let mut longest = Duration::from_secs(20);
    for round in 0..rounds {
        let project = Project::new(&cloud);
        let began = Instant::now();
        // Spread over the whole of it, in an order that has nothing to do with the round's number.
        let moment = longest.mul_f64(((round * 7 + 3) % rounds.max(3)) as f64 / rounds.max(3) as f64);
        let mut first = project.command(&["bootstrap", "--yes"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("disco starts");
        let admitted = project.disco_folder().join("admin.crt");
        // The first is killed while the port for the installation is open and client.js would not ask for it again.
        while if round == 0 { !admitted.exists() } else { began.elapsed() < moment } {
            assert!(began.elapsed() < SOON, "it is never admitted");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        first.kill().and_then(|()| first.wait()).expect("it is our child");
        let killed = began.elapsed();
        let said = project.ok(&["bootstrap", "--yes"]);
        longest = longest.max(began.elapsed());
        assert_eq!((project.ready(), project.possessions()), (3, [3, 1, 1, 1]), "killed after {killed:?}:\n{said}");
        assert!(!project.is_open_for_ssh(), "killed after {killed:?}:\n{said}");
        println!("round {round}: killed after {killed:?}, whole after {:.1?}", began.elapsed());
        project.ok(&["destroy", "--yes"]);
    }
}
