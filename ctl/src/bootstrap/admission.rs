//! A node that originated a cluster over SSH admits this folder: it is asked for a certificate over its own door.

use super::project::Project;
use crate::client::{Client, Patience};
use crate::identity;
use crate::install::machine::Machine;
use crate::message::Failure;
use std::time::{Duration, Instant};

/// From a started service to its control.sock and its first leader.
pub const FIRST_NODE_MAX: Duration = Duration::from_secs(30);
pub const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// `node` is what a person calls the machine. Nodes are found at `reached`, if that is given, else where they say they are.
///
/// # Errors
/// The node does not come up, with the last it said; or the disk fails.
pub async fn through(project: &mut Project, machine: &Machine, node: &str, reached: Option<&str>, fallback: &str) -> Result<(), Failure> {
    let started = Instant::now();
    let door = machine.door(&project.context.disco()).await?;
    let (identity, mut addresses) = loop {
        let client = Client::through_socket(door.socket().to_owned(), &project.spawner);
        let mut client = client.with_patience(Patience::both(Duration::from_secs(2)));
        match identity::issue(&project.context, &mut client).await {
            Ok(issued) => break issued,
            Err(failure) if started.elapsed() > FIRST_NODE_MAX => {
                let last = machine.last_words().await;
                let told = Failure::broke(format!("the node on {node} does not come up")).because(failure.in_one_line());
                let told = if last.is_empty() { told } else { told.because(format!("it said last:\n{last}")) };
                return Err(told.hint("`journalctl -u disco` there says more; run `disco bootstrap` again to try again"));
            }
            Err(_) => async_io::Timer::after(LOOK_AGAIN).await,
        };
    };
    match reached {
        Some(address) => addresses = vec![address.to_owned()],
        None if addresses.is_empty() => addresses.push(fallback.to_owned()),
        None => {}
    }
    project.context.write_addresses(&addresses)?;
    project.context.write_identity(&identity)?;
    project.forget_client();
    project.progress.line("the cluster has originated and admits us");
    Ok(())
}
