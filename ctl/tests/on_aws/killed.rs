//! A leader that dies while it launches: the one moment at which a machine could be bought twice.

use crate::cloud::{Cloud, Project};
use std::{collections::BTreeSet, time::Duration};

const SOON: Duration = Duration::from_secs(90);

#[test]
fn a_leader_that_dies_between_a_launch_and_its_answer_makes_no_machine_too_many() {
    let cloud = Cloud::start();
    let project = Project::new(&cloud);
    let text = project.read("cluster.js").replace("provider });", "provider, max_launches_per_hour: 1000 });");
    project.write("cluster.js", &text);
    project.ok(&["bootstrap", "--yes"]);
    // What was launched is not seen for a while: then only the client token keeps the next leader from another one.
    cloud.order("POST", "/settings", r#"{"lag": 5}"#);
    let rounds: usize = std::env::var("DISCO_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    for round in 1..=rounds {
        cloud.order("DELETE", "/log", "");
        cloud.order("POST", "/faults", r#"{"action": "RunInstances", "kind": "late", "seconds": 3}"#);
        let leader = project.leader().expect("it was healthy");
        let victim = cloud.instances().into_iter().find(|instance| !instance.state.is_gone() && instance.id != leader);
        cloud.client().terminate_instances(&[victim.expect("there are three").id]).expect("EC2 ends it");
        project.until("the leader launches another one", SOON, || cloud.seen("RunInstances").iter().any(|seen| seen["fault"] == "late"));
        cloud.kill_daemon(&project.leader().unwrap_or(leader));
        project.until("three are ready again", SOON, || {
            cloud.instances().iter().filter(|instance| !instance.state.is_gone()).count() == 3 && project.ready() == 3
        });
        let seen = cloud.seen("RunInstances");
        let different: BTreeSet<&str> = seen.iter().filter_map(|seen| seen["form"].as_str()).collect();
        println!("round {round}: asked {} times for the same machine", seen.len());
        assert_eq!((different.len(), cloud.instances().len()), (1, 3 + round), "{}", project.tell());
    }
    cloud.order("POST", "/settings", r#"{"lag": 0}"#);
    project.ok(&["destroy", "--yes"]);
    assert!(cloud.instances().iter().all(|instance| instance.state.is_gone()));
}
