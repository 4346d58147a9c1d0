//! After a reboot, or when everything was killed: starts what ran before.
//!
//! While a leader answers, repair is its work. Only when none does are instances started from here: those a person
//! stopped stay stopped, unless the others alone get no majority.

use super::hosts;
use super::project::Project;
use super::steps::host_of;
use crate::client::Patience;
use crate::message::Failure;
use agent::model::instance::InstanceState;
use std::time::Duration;

/// Long enough for a vote, short enough not to be in the way.
const ASK: Patience = Patience { answered: Duration::from_secs(4), unreached: Duration::from_millis(300) };
/// From the start of processes to a leader.
const COME_BACK_MAX: Duration = Duration::from_secs(20);

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
    for round in [wanted, left] {
        for instance in &round {
            if !super::aws::is_meant(project) {
                project.context.discod()?;
            }
            let started = project.site()?.provider.start(&instance.id);
            started.map_err(|e| Failure::broke(format!("cannot start instance {} again", instance.id)).caused_by(&e))?;
            project.progress.line(format!("instance {} started again ({})", instance.id, host_of(&instance.address)));
        }
        if let Some(status) = project.status(Patience::both(COME_BACK_MAX)).await? {
            let leader = status.nodes.iter().find(|n| n.leader).map_or("nobody", |n| n.name.as_str());
            project.progress.line(format!("the cluster answers, {leader} leads"));
            return project.remember(&status);
        }
    }
    Err(Failure::no("the instances run, but the cluster does not answer")
        .because(format!("no leader within {} s", COME_BACK_MAX.as_secs()))
        .hint("each instance's discod.log under .disco/instances says what it waits for"))
}
