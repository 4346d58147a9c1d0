//! The verbs of client.js on the local provider. Every one may be taken again and again.

use super::admission;
use super::aws;
use super::hosts;
use super::options::Options;
use super::project::Project;
use super::revive;
use crate::client::Patience;
use crate::commands::scale::{self, NotReady};
use crate::message::Failure;
use agent::drivers::provider::{First, ProviderError};
use agent::model::instance::{InstanceSeen, InstanceState};
use proto::v1::write_request;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Lines of a dead daemon's log that go into the error.
const LAST_WORDS: usize = 3;
/// In the journal.
const SCALE: &str = "scale";
/// How often a scale starts dead instances again before it gives up.
const REVIVALS_MAX: usize = 3;

/// An answer from a leader, and all desired nodes ready.
pub async fn healthy(project: &mut Project) -> Result<bool, Failure> {
    let patience = Patience { answered: Duration::from_secs(3), unreached: Duration::from_millis(500) };
    let Some(status) = project.status(patience).await? else { return Ok(false) };
    Ok(scale::is_whole(&status))
}

/// Makes sure that the first instance was launched, that it runs unless the cluster says otherwise, and that this folder
/// holds an administrator's certificate.
pub async fn start_instance(project: &mut Project) -> Result<Value, Failure> {
    if hosts::is_meant(project) {
        return hosts::start_instance(project).await;
    }
    project.begin("start_instance")?;
    let outcome = start_first(project).await;
    let seen = project.end("start_instance", outcome, |seen| seen.id.clone())?;
    let host = host_of(&seen.address);
    Ok(json!({ "id": seen.id, "address": host, "private_address": host, "state": seen.state.as_str() }))
}

async fn start_first(project: &mut Project) -> Result<InstanceSeen, Failure> {
    let patience = Patience { answered: Duration::from_secs(3), unreached: Duration::from_millis(300) };
    if project.status(patience).await?.is_some() {
        return project.first_instance();
    }
    let ran = running(project)?;
    project.context.discod()?;
    match project.site()?.provider.launch_first(&First::default()) {
        Ok(launched) if !ran.contains(&launched.id) => {
            project.progress.line(format!("instance {} started ({})", launched.id, host_of(&launched.address)));
        }
        // The first one had its day: others carry the cluster.
        Ok(_) | Err(ProviderError::Terminated { .. }) => {}
        Err(error) => return Err(Failure::broke("cannot start the first instance").caused_by(&error)),
    }
    let first = project.first_instance()?;
    if project.client()?.is_none() {
        admit(project, &first).await?;
    }
    Ok(first)
}

fn running(project: &mut Project) -> Result<Vec<String>, Failure> {
    Ok(project.seen()?.into_iter().filter(|i| i.state == InstanceState::Running).map(|i| i.id).collect())
}

/// Asks over the instance's own door for a certificate.
async fn admit(project: &mut Project, first: &InstanceSeen) -> Result<(), Failure> {
    let socket = control_socket(project, &first.id);
    let gone = |project: &mut Project| Ok(!running(project)?.contains(&first.id));
    let asked = admission::knock(project, &socket, Duration::from_millis(500), gone).await;
    let (identity, mut addresses) = asked.map_err(|failure| with_last_words(project, &first.id, failure))?;
    if addresses.is_empty() {
        addresses.push(first.address.clone());
    }
    admission::take(project, &identity, &addresses)
}

fn instance_file(project: &Project, id: &str, name: &str) -> PathBuf {
    project.context.file("instances").join(id).join(name)
}

fn control_socket(project: &Project, id: &str) -> PathBuf {
    instance_file(project, id, "data").join("control.sock")
}

/// A node that does not come up has said why in its log.
fn with_last_words(project: &Project, id: &str, failure: Failure) -> Failure {
    let path = instance_file(project, id, "discod.log");
    let text = std::fs::read(&path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n");
    let told = Failure::broke(format!("instance {id} does not come up")).because(failure.in_one_line());
    let told = if last.is_empty() { told } else { told.because(format!("it said last:\n{last}")) };
    told.hint(format!("its log is {}; run `disco bootstrap` again to try again", path.display()))
}

/// On the local provider an address needs no attaching: it is the loopback address the first instance has.
pub fn first_address(project: &mut Project) -> Result<String, Failure> {
    if hosts::is_meant(project) {
        return hosts::first_address(project);
    }
    Ok(host_of(&project.first_instance()?.address).to_owned())
}

pub fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// Replicates what client.js says and how many nodes are wanted; then the leader works and we watch.
pub async fn scale(project: &mut Project, options: &Options, nodes: u32) -> Result<(), Failure> {
    // One step, whatever the number: a scale to three that was cut off is over once there was one to two.
    project.begin(SCALE)?;
    let outcome = match (hosts::is_meant(project), aws::is_meant(project)) {
        (true, _) => hosts::scale(project, Some(options), nodes).await.map(drop),
        (_, true) => aws::scale(project, options, nodes).await,
        _ => scale_and_wait(project, options, nodes).await,
    };
    project.end(SCALE, outcome, |()| nodes.to_string())
}

async fn scale_and_wait(project: &mut Project, options: &Options, nodes: u32) -> Result<(), Failure> {
    let mut revivals = 0;
    loop {
        let progress = project.progress;
        let client = project.cluster_client()?;
        let attempt = async {
            client.write(write_request::Op::Configure(options.configure())).await.map_err(NotReady::Call)?;
            scale::set(client, nodes).await.map_err(NotReady::Call)?;
            scale::until_ready(client, nodes, |words| progress.line(words)).await
        };
        match attempt.await {
            Ok(status) => return project.remember(&status),
            Err(NotReady::Call(error)) if error.is_unanswered() && revivals < REVIVALS_MAX => {
                revivals += 1;
                revive::run(project).await?;
            }
            Err(other) => return Err(other.failure(nodes)),
        }
    }
}

/// Ends every instance. The cluster is told first, if it answers, so that it does not repair what is ended.
pub async fn destroy(project: &mut Project) -> Result<(), Failure> {
    if project.site.is_none() {
        return Ok(());
    }
    project.begin("destroy")?;
    let outcome = end_all(project).await;
    project.end("destroy", outcome, |()| String::new())
}

async fn end_all(project: &mut Project) -> Result<(), Failure> {
    let progress = project.progress;
    if !hosts::is_meant(project) && !aws::is_meant(project) && project.seen()?.is_empty() {
        return Ok(());
    }
    if let Some(client) = project.client()? {
        client.set_patience(Patience { answered: Duration::from_secs(5), unreached: Duration::from_millis(300) });
        match client.write(write_request::Op::Destroy(proto::v1::Destroy {})).await {
            Ok(_) => progress.line("the cluster launches and repairs nothing any more"),
            Err(error) => progress
                .line(format!("the cluster is not told ({}); ending its instances anyway", error.failure("no answer").in_one_line())),
        }
    }
    if hosts::is_meant(project) {
        return hosts::destroy(project).await;
    }
    if aws::is_meant(project) {
        return aws::destroy(project).await;
    }
    // A launch that was under way may still appear: look until there is none.
    loop {
        let seen = project.seen()?;
        if seen.is_empty() {
            return Ok(());
        }
        for instance in seen {
            let ended = project.site()?.provider.terminate(&instance.id);
            ended.map_err(|e| {
                Failure::broke(format!("cannot end instance {}", instance.id)).caused_by(&e).hint("run `disco destroy` again")
            })?;
            progress.line(format!("instance {} is gone", instance.id));
        }
    }
}
