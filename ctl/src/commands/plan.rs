//! `disco plan`: what applying this folder's cluster.js would change.

use super::Desk;
use crate::bootstrap::aws;
use crate::client::Client;
use crate::message::{Exit, Failure};
use crate::modules::Modules;
use crate::render::{json, plan as difference};
use proto::v1;

pub async fn run(mut desk: Desk) -> Result<Exit, Failure> {
    let modules = Modules::collect(&desk.context)?;
    let changes = ask(&mut desk.client, modules.request()).await?;
    if desk.out.json {
        desk.out.document(&changes.iter().map(json::planned).collect())?;
    } else {
        desk.out.data(difference::lines(&changes, desk.out.paint))?;
    }
    let drift = aws::drift(&desk.context)?;
    for line in &drift {
        desk.out.say(format!("drift: {line}"));
    }
    if changes.is_empty() && drift.is_empty() {
        desk.out.say("nothing to change");
        return Ok(Exit::Done);
    }
    if !changes.is_empty() {
        desk.out.say(difference::summary(&changes));
    }
    Ok(Exit::Changes)
}

/// What the leader says would change.
///
/// # Errors
/// The script fails, or nobody answers.
pub async fn ask(client: &mut Client, asked: v1::PlanRequest) -> Result<Vec<v1::PlannedChange>, Failure> {
    // Whoever reads exit 2 as "changes" must not read it where there is no plan.
    let reply = client.plan(asked).await.map_err(|e| e.failure("cannot plan").into_no())?;
    if reply.error.is_empty() {
        return Ok(reply.changes);
    }
    Err(Failure::no("the script failed").because(reply.error).hint("nothing was changed"))
}
