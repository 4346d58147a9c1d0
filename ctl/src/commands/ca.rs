//! `disco ca rotate`: a new certificate authority takes the place of the one in force, while everything goes on.
//!
//! The cluster does each stage when every node is ready for it, and this command leads from one to the next, so that it can
//! get its own certificate before the old authority is dropped. Interrupted, it is run again and goes on where it was.

use super::Desk;
use crate::bootstrap::ops::ask;
use crate::bootstrap::project::Progress;
use crate::client::Client;
use crate::identity;
use crate::message::{Exit, Failure};
use proto::{
    Spawner,
    v1::{self, write_request::Op},
};
use std::time::{Duration, Instant};

const WHAT: &str = "cannot replace the certificate authority";
/// For all nodes to be ready for the next stage: those that are there take seconds.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(250);

pub async fn rotate(mut desk: Desk, spawner: &Spawner, force: bool, yes: bool) -> Result<Exit, Failure> {
    let status = desk.client.status(false).await.map_err(|e| e.failure(WHAT))?;
    if status.ca.is_none() {
        let question = format!("Replace the certificate authority of cluster {}? Tokens that are out end with it.", status.cluster);
        if !ask(desk.out, yes, &question)? {
            return Err(Failure::no("nothing was changed"));
        }
        desk.client.write(Op::CaRotate(v1::CaRotate {})).await.map_err(|e| e.failure(WHAT))?;
    }
    let progress = Progress::new(desk.out);
    progress.line("every manager holds the new keys");
    let index = lead(&mut desk, spawner, &progress, force).await?;
    // Once more: only now is the new authority the only one.
    certify(&mut desk, spawner).await?;
    desk.changed(
        &v1::WriteReply { index, ..Default::default() },
        "only the new certificate authority is believed; other administrators need new certificates (`disco --socket D/control.sock` works for them)",
    )
}

/// From stage to stage, until there is no change under way.
async fn lead(desk: &mut Desk, spawner: &Spawner, progress: &Progress, force: bool) -> Result<u64, Failure> {
    let (mut began, mut told, mut index) = (Instant::now(), String::new(), 0);
    loop {
        let status = desk.client.status(false).await.map_err(|e| e.failure(WHAT))?;
        let Some(change) = status.ca else { return Ok(index) };
        let waits = change.waits_for.join(", ");
        let late = began.elapsed() > PATIENCE;
        if waits.is_empty() || force && late {
            match change.stage.as_str() {
                "introduced" => progress.line("every node believes the new authority"),
                "certifying" => {
                    certify(desk, spawner).await?;
                    progress.line("every node has a new certificate, and so has this folder");
                }
                _ => progress.line("every node shows its new certificate"),
            }
            let advance = v1::CaAdvance { from: change.stage, force: force && late };
            index = desk.client.write(Op::CaAdvance(advance)).await.map_err(|e| e.failure(WHAT))?.index;
            began = Instant::now();
        } else if late {
            return Err(Failure::no("the certificate authority is not replaced yet")
                .because(format!(
                    "{waits} {} not ready; everything works meanwhile",
                    if change.waits_for.len() == 1 { "is" } else { "are" }
                ))
                .hint("start what is missing, or take it out with `disco node rm`, and run this again; --force leaves it behind"));
        } else if waits != told {
            progress.line(format!("waiting for {waits}"));
            told = waits;
        }
        async_io::Timer::after(LOOK).await;
    }
}

/// A certificate for this folder from the newest authority that signs.
async fn certify(desk: &mut Desk, spawner: &Spawner) -> Result<(), Failure> {
    if desk.context.socket.is_some() {
        return Ok(());
    }
    let (identity, _) = identity::issue(&desk.context, &mut desk.client).await?;
    desk.context.write_identity(&identity)?;
    desk.client = Client::open(&desk.context, spawner)?;
    Ok(())
}
