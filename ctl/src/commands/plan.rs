//! `disco plan`: what applying this folder's cluster.js would change.

use super::Desk;
use crate::args::Global;
use crate::bootstrap::{aws, rehearsal, script::Script};
use crate::client::Client;
use crate::context::Context;
use crate::message::{Exit, Failure};
use crate::modules::Modules;
use crate::out::Out;
use crate::render::{json, plan as difference};
use proto::Spawner;
use proto::v1;

/// Before there is a cluster: what bootstrap would make of this folder.
pub async fn before_or_after(global: &Global, out: Out, spawner: &Spawner) -> Result<Exit, Failure> {
    let context = Context::new(global)?;
    if context.socket.is_none() && context.cluster()?.is_none() && Script::is_there(&context) {
        return rehearsal::run(&context, out).await;
    }
    run(Desk::open(global, out, spawner)?).await
}

async fn run(mut desk: Desk) -> Result<Exit, Failure> {
    let modules = Modules::collect(&desk.context)?;
    let changes = ask(&mut desk.client, modules.request()).await?;
    let drift = aws::drift_or_warning(&desk.context, desk.out);
    if desk.out.json {
        let drift = drift.iter().map(|line| json::drift(line));
        desk.out.document(&changes.iter().map(json::planned).chain(drift).collect())?;
    } else {
        desk.out.data(difference::lines(&changes, desk.out.paint))?;
        drift.iter().for_each(|line| desk.out.say(format!("drift: {line}")));
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
