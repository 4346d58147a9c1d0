//! `disco ca issue`: another folder may ask too. `disco ca rotate`: a new certificate authority takes the place of the one in force, while everything goes on.
//!
//! The cluster does each stage when every node is ready for it, and this command leads from one to the next, so that it can
//! get its own certificate before the old authority is dropped. Interrupted, it is run again and goes on where it was.

use super::Desk;
use crate::args::Global;
use crate::bootstrap::ops::ask;
use crate::bootstrap::project::Progress;
use crate::client::Client;
use crate::context::{ClusterFile, Context};
use crate::identity;
use crate::message::{Exit, Failure};
use proto::{
    Spawner,
    v1::{self, write_request::Op},
};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const WHAT: &str = "cannot replace the certificate authority";
/// What a node that is there may take for a stage, at most.
const SLOW_MAX: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(250);

/// For whom to wait at each stage, and how long: nodes that are there take seconds.
pub struct Wait {
    patience: Duration,
    force: bool,
    /// Those that were waited for once: nobody waits for them at the next stage.
    left_behind: Vec<String>,
}

impl Wait {
    pub fn new(wait_ms: u64, force: bool) -> Wait {
        Wait { patience: Duration::from_millis(wait_ms), force, left_behind: Vec::new() }
    }

    fn is_over(&self, began: Instant, missing: &[String]) -> bool {
        began.elapsed() > self.patience || missing.iter().all(|node| self.left_behind.contains(node))
    }
}

pub async fn rotate(mut desk: Desk, spawner: &Spawner, wait: Wait, yes: bool) -> Result<Exit, Failure> {
    let status = desk.client.status(false).await.map_err(|e| e.failure(WHAT))?;
    if status.ca.is_none() {
        if believes_two(&desk)? {
            // An earlier run was cut off before its last step: the change is over, and only this folder does not know.
            certify(&mut desk, spawner).await?;
            let done = "the change before is over, and now this folder believes only the new authority, too";
            return desk.changed(&v1::WriteReply::default(), format!("{done}; run this again to replace that one"));
        }
        let question = format!("Replace the certificate authority of cluster {}? Tokens that are out end with it.", status.cluster);
        if !ask(desk.out, yes, &question).await? {
            return Err(Failure::no("nothing was changed"));
        }
        desk.client.write(Op::CaRotate(v1::CaRotate {})).await.map_err(|e| e.failure(WHAT))?;
    }
    let progress = Progress::new(desk.out);
    progress.line("every manager holds the new keys");
    let index = lead(&mut desk, spawner, &progress, wait).await?;
    // Once more: only now is the new authority the only one.
    certify(&mut desk, spawner).await?;
    desk.changed(
        &v1::WriteReply { index, ..Default::default() },
        "only the new certificate authority is believed; other administrators' folders get new certificates by `disco ca issue DIR`",
    )
}

/// Lets another folder in: its own key if it has one, so that it can be done again.
pub async fn issue(mut desk: Desk, folder: String) -> Result<Exit, Failure> {
    let cluster = desk.client.status(true).await.map_err(|e| e.failure(identity::CANNOT_ISSUE))?;
    std::fs::create_dir_all(&folder).map_err(|e| Failure::broke(format!("cannot make the folder {folder}")).caused_by(&e))?;
    let other = Context::new(&Global { dir: Some(PathBuf::from(folder)), ..Global::default() })?;
    other.make_disco()?;
    let (identity, told) = identity::issue(&other, &mut desk.client).await?;
    let known = desk.client.addresses();
    // Last, because a folder with `cluster.json` counts as one that has the rest.
    other.write_identity(&identity)?;
    other.write_addresses(if desk.context.socket.is_some() { &told } else { &known })?;
    if other.cluster()?.is_none() {
        let provider = if desk.context.socket.is_some() { None } else { desk.context.cluster()? }.map(|here| here.provider);
        other.write_cluster(&ClusterFile {
            id: cluster.cluster_id,
            name: cluster.cluster.clone(),
            provider: provider.unwrap_or_default(),
        })?;
    }
    let shown = other.folder.display();
    if desk.out.json {
        desk.out.document(&serde_json::json!({ "folder": shown.to_string(), "cluster": cluster.cluster }))?;
    } else {
        desk.out.say(format!(
            "{shown} administers cluster {}: `disco --dir {shown} status`; keep its .disco as you keep a password",
            cluster.cluster
        ));
    }
    Ok(Exit::Done)
}

/// Whether this folder still believes an authority that gave way to another one.
fn believes_two(desk: &Desk) -> Result<bool, Failure> {
    if desk.context.socket.is_some() {
        return Ok(false);
    }
    let Some(identity) = desk.context.identity()? else { return Ok(false) };
    Ok(identity::authorities(&identity)?.len() > 1)
}

/// From stage to stage, until there is no change under way.
async fn lead(desk: &mut Desk, spawner: &Spawner, progress: &Progress, mut wait: Wait) -> Result<u64, Failure> {
    let (mut began, mut told, mut index) = (Instant::now(), String::new(), 0);
    loop {
        let status = desk.client.status(false).await.map_err(|e| e.failure(WHAT))?;
        let Some(change) = status.ca else { return Ok(index) };
        let waits = change.waits_for.join(", ");
        let late = wait.is_over(began, &change.waits_for);
        // Who is there is only slow, and is never left behind.
        let lost = |name: &String| status.nodes.iter().any(|node| node.name == *name && node.state == "lost");
        let all_lost = change.waits_for.iter().all(lost);
        if waits.is_empty() || wait.force && late && all_lost {
            if change.waits_for.iter().any(|node| !wait.left_behind.contains(node)) {
                progress.line(format!("leaving {waits} behind"));
                wait.left_behind.extend(change.waits_for.iter().cloned());
            }
            match change.stage.as_str() {
                "introduced" => progress.line("every node believes the new authority"),
                "certifying" => {
                    certify(desk, spawner).await?;
                    progress.line("every node has a new certificate, and so has this folder");
                }
                _ => progress.line("every node shows its new certificate"),
            }
            let advance = v1::CaAdvance { from: change.stage, force: !waits.is_empty() };
            index = desk.client.write(Op::CaAdvance(advance)).await.map_err(|e| e.failure(WHAT))?.index;
            began = Instant::now();
        } else if late && (!wait.force || began.elapsed() > wait.patience + SLOW_MAX) {
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
