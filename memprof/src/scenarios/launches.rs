//! A leader that launches three machines at once from EC2: what it says and hears, and three nodes that join.

use super::{Outcome, ScenarioError, at_rest, spoilt, while_scaling};
use crate::{
    cluster::Cluster,
    ec2::{self, Ec2},
    load::{self, Identity},
    sampler::INTERVAL,
};
use proto::v1::{ConfigureRequest, write_request::Op};
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

pub(super) const PHASE: &str = "launches";

const NODES: usize = 4;
const STARTS_WITHIN: Duration = Duration::from_secs(10);
/// What `disco bootstrap` would have found out and made.
const LAUNCH: [(&str, &str); 9] = [
    ("region", "eu-central-1"),
    ("image", "ami-0123456789abcdef0"),
    ("architecture", "arm64"),
    ("instance_type", "t4g.micro"),
    ("root_device", "/dev/sda1"),
    ("key_name", "disco-example"),
    ("security_group", "sg-0123456789abcdef0"),
    ("instance_profile", "disco-example"),
    ("discod.aarch64", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
];

pub(super) fn run(bin_dir: &Path) -> Result<Vec<Outcome>, ScenarioError> {
    let cluster = Cluster::init_for_one(bin_dir)?;
    cluster.disco(&["bootstrap", "--yes"])?;
    cluster.wait_for("its one node", |now| now.has_ready(1))?;
    let first = cluster.leader()?;
    let instance = first.instance.clone().unwrap_or_default();
    let folder = cluster.dir().join(".disco/instances").join(&instance);
    let ec2 = Ec2::with(&folder).map_err(|error| spoilt("be EC2 for", &folder, &error))?;

    // The node goes on as one of a machine that EC2 knows.
    cluster.kill(cluster.process_of(&first)?);
    let path = folder.join("disco.toml");
    let text = fs::read_to_string(&path).map_err(|error| spoilt("read", &path, &error))?;
    let text = text.split("[provider]").next().unwrap_or_default();
    let provider = format!("[provider]\nkind = \"aws\"\nregion = \"eu-central-1\"\nendpoint = \"{}\"\n", ec2.endpoint());
    fs::write(&path, format!("{text}{provider}")).map_err(|error| spoilt("write", &path, &error))?;
    let began = Instant::now();
    // The folder is free again only when the last thread of the killed process is gone.
    while let Err(error) = ec2::start(&folder) {
        if began.elapsed() > STARTS_WITHIN {
            return Err(spoilt("start the node of", &folder, &error));
        }
        thread::sleep(INTERVAL);
    }
    cluster.wait_for("the node to lead again", |now| now.has_ready(1))?;

    let mut launch: Vec<(String, String)> = LAUNCH.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    launch.push(("endpoint".to_owned(), ec2.endpoint()));
    let configure = ConfigureRequest { launch: launch.into_iter().collect(), ..ConfigureRequest::default() };
    let [ca, certificate, key] = cluster.admin_files()?;
    load::write(&first.address, &Identity { ca, certificate, key }, Op::Configure(configure))?;
    at_rest(&cluster)?;

    let seen = while_scaling(&cluster, NODES)?;
    if ec2.launched() != NODES {
        return Err(ScenarioError::Spoilt(format!("{} machines were asked for, not {NODES}", ec2.launched())));
    }
    let leader = seen.into_iter().filter(|(who, _, _)| *who == instance);
    let note = format!("{} machines at once", NODES - 1);
    Ok(leader.map(|(who, _, measured)| Outcome { phase: PHASE, who, measured, note: note.clone() }).collect())
}
