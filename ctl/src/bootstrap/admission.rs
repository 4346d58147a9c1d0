//! A node that originated a cluster admits this folder: it is asked for a certificate over its own door.

use super::project::Project;
use crate::client::{Client, Patience};
use crate::context::Identity;
use crate::identity;
use crate::install::machine::Machine;
use crate::message::Failure;
use std::path::Path;
use std::time::{Duration, Instant};

/// From a started service to its control.sock and its first leader.
pub const FIRST_NODE_MAX: Duration = Duration::from_secs(30);
pub const LOOK_AGAIN: Duration = Duration::from_millis(100);
const KNOCK_AGAIN: Duration = Duration::from_millis(20);

/// `node` is what a person calls the machine. Nodes are found at `reached`, if that is given, else where they say they are.
///
/// # Errors
/// The node does not come up, with the last it said; or the disk fails.
pub async fn through(project: &mut Project, machine: &Machine, node: &str, reached: Option<&str>, fallback: &str) -> Result<(), Failure> {
    let door = machine.door(&project.context.disco()).await?;
    let (identity, mut addresses) = match knock(project, door.socket(), Duration::from_secs(2), |_| Ok(false)).await {
        Ok(issued) => issued,
        Err(failure) => {
            let last = machine.last_words().await;
            let told = Failure::broke(format!("the node on {node} does not come up")).because(failure.in_one_line());
            let told = if last.is_empty() { told } else { told.because(format!("it said last:\n{last}")) };
            return Err(told.hint("`journalctl -u disco` there says more; run `disco bootstrap` again to try again"));
        }
    };
    match reached {
        Some(address) => addresses = vec![address.to_owned()],
        None if addresses.is_empty() => addresses.push(fallback.to_owned()),
        None => {}
    }
    take(project, &identity, &addresses)
}

/// Asks a node at its own door for a certificate until it is up: the certificate, and where nodes are.
///
/// # Errors
/// What it answered last, once it is late or `gone`.
pub async fn knock(
    project: &mut Project,
    socket: &Path,
    patience: Duration,
    gone: impl Fn(&mut Project) -> Result<bool, Failure>,
) -> Result<(Identity, Vec<String>), Failure> {
    let started = Instant::now();
    loop {
        let mut client = Client::through_socket(socket.to_owned(), &project.spawner).with_patience(Patience::both(patience));
        match identity::issue(&project.context, &mut client).await {
            Err(failure) if started.elapsed() > FIRST_NODE_MAX || gone(project)? => return Err(failure),
            Err(_) => async_io::Timer::after(KNOCK_AGAIN).await,
            issued => return issued,
        };
    }
}

/// From now on this folder gets in.
///
/// # Errors
/// The disk's.
pub fn take(project: &mut Project, identity: &Identity, addresses: &[String]) -> Result<(), Failure> {
    project.context.write_addresses(addresses)?;
    project.context.write_identity(identity)?;
    project.forget_client();
    project.progress.line("the cluster has originated and admits us");
    Ok(())
}
