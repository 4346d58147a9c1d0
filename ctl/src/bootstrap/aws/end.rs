//! The end of all that a cluster has at AWS, which is found by its tags alone.
//!
//! Another account's credentials, or another endpoint, find nothing, which looks just like "all is gone": machines would be
//! forgotten and go on costing, or bought a second time. So what the folder knows to be made must be seen before anything is
//! done. Machines end first, and their security group goes last: cut off anywhere before, one of the two is to be seen.

use super::{LOOK_AGAIN, Notes, failed, is_meant, provider};
use crate::bootstrap::project::Project;
use crate::message::Failure;
use std::time::{Duration, Instant};

/// Machines that end hold their security group for a minute or two.
const RAZED_MAX: Duration = Duration::from_secs(600);
/// What was just made is listed a moment later.
const LISTED_MAX: Duration = Duration::from_secs(5);

/// That we look where the cluster is.
///
/// # Errors
/// Something was made, and nothing is to be seen; or AWS refuses.
pub async fn must_be_in_sight(project: &mut Project) -> Result<(), Failure> {
    if !is_meant(project) {
        return Ok(());
    }
    let notes = Notes::read(&project.context)?;
    let made = notes.made();
    if notes.ended || made.is_empty() {
        return Ok(());
    }
    let aws = provider(project)?;
    let started = Instant::now();
    while !aws.sees_anything().map_err(failed("cannot look for what the cluster has at AWS"))? {
        if started.elapsed() > LISTED_MAX {
            let whom = notes.profile.map(|profile| format!(" of profile {profile}")).unwrap_or_default();
            let place = format!("in {} at {}", notes.region, aws.client().endpoint());
            return Err(Failure::no(format!("nothing of this cluster is to be seen with the credentials{whom} {place}"))
                .because(format!("it has {}", made.join(", ")))
                .hint("use those of the account that it is in; if all of it was removed by hand, remove .disco"));
        }
        async_io::Timer::after(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Ends the machines, then gives back and removes everything that bears the cluster's tag.
///
/// # Errors
/// AWS refuses, or machines do not end within ten minutes.
pub async fn destroy(project: &mut Project) -> Result<(), Failure> {
    let aws = provider(project)?;
    let names_role = Notes::read(&project.context)?.role.is_some();
    let progress = project.progress;
    let started = Instant::now();
    let wrong = |e| failed("cannot remove everything")(e).hint("run `disco destroy` again");
    loop {
        let mut tell = |line| progress.line(line);
        if aws.raze(names_role, &mut tell).map_err(wrong)? {
            // Before the last thing by which the cluster is known goes.
            Notes::change(&project.context, |notes| notes.ended = true)?;
            // A machine that was being launched, and is listed only now, holds its group: then all is looked through again.
            if aws.remove_groups(&mut tell).map_err(wrong)? {
                return Ok(());
            }
        }
        if started.elapsed() > RAZED_MAX {
            return Err(Failure::no("not everything is gone yet").because("machines are still ending").hint("run `disco destroy` again"));
        }
        async_io::Timer::after(LOOK_AGAIN).await;
    }
}
