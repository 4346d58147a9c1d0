//! After a reboot, or when everything was killed: starts what ran before.
//!
//! While a leader answers, repair is its work. Only when none does are instances started from here: those a person
//! stopped stay stopped, unless the others alone get no majority.

use super::aws;
use super::hosts;
use super::project::Project;
use super::steps::host_of;
use crate::client::Patience;
use crate::message::Failure;
use agent::model::instance::{InstanceSeen, InstanceState};
use std::time::Duration;

/// Long enough for a vote, short enough not to be in the way.
const ASK: Patience = Patience { answered: Duration::from_secs(4), unreached: Duration::from_millis(300) };
/// From the start of processes to a leader.
const COME_BACK_MAX: Duration = Duration::from_secs(20);
/// From machines that run to one, booted: their operating systems come first.
const BOOT_MAX: Duration = Duration::from_secs(180);

/// # Errors
/// An instance does not start, or all run and none leads.
pub async fn run(project: &mut Project) -> Result<(), Failure> {
    if hosts::is_meant(project) {
        return hosts::revive(project).await;
    }
    let seen = project.seen()?;
    if seen.iter().all(|i| i.state == InstanceState::Running) || project.client()?.is_none() {
        return Ok(());
    }
    if project.status(ASK).await?.is_some() {
        return Ok(());
    }
    let stopped = project.context.wanted_stopped()?;
    let (left, wanted): (Vec<_>, Vec<_>) =
        seen.into_iter().filter(|i| i.state != InstanceState::Running).partition(|i| stopped.contains(&i.id));
    let on_aws = aws::is_meant(project);
    for round in [wanted, left] {
        start(project, &round).await?;
        let patience = if on_aws && !round.is_empty() { BOOT_MAX } else { COME_BACK_MAX };
        if let Some(status) = project.status(Patience::both(patience)).await? {
            let leader = status.nodes.iter().find(|n| n.leader).map_or("nobody", |n| n.name.as_str());
            project.progress.line(format!("the cluster answers, {leader} leads"));
            return project.remember(&status);
        }
    }
    Err(Failure::no("the instances run, but the cluster does not answer").because("no leader in time").hint(match on_aws {
        true => "EC2's console output of an instance says how far it is; `disco recover` goes on without managers that are lost for good",
        false => "each instance's discod.log under .disco/instances says what it waits for",
    }))
}

async fn start(project: &mut Project, round: &[InstanceSeen]) -> Result<(), Failure> {
    if aws::is_meant(project) {
        aws::let_us_in(project)?;
        return aws::start(project, round).await;
    }
    for instance in round {
        project.context.discod()?;
        let started = project.site()?.provider.start(&instance.id);
        started.map_err(|e| Failure::broke(format!("cannot start instance {} again", instance.id)).caused_by(&e))?;
        project.progress.line(format!("instance {} started again ({})", instance.id, host_of(&instance.address)));
    }
    Ok(())
}
