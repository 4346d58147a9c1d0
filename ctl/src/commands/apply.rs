//! `disco apply`: loads cluster.js and waits until what it declares runs.

use super::{Desk, plan, rollout};
use crate::bootstrap::aws;
use crate::bootstrap::ops::ask;
use crate::bootstrap::project::Progress;
use crate::message::{Exit, Failure};
use crate::modules::Modules;
use crate::render::{Paint, json, plan as difference};
use proto::v1::{self, write_request};

const CANNOT: &str = "cannot apply";

pub async fn run(mut desk: Desk, yes: bool, wait: bool) -> Result<Exit, Failure> {
    let modules = Modules::collect(&desk.context)?;
    let changes = plan::ask(&mut desk.client, modules.request()).await?;
    let drift = aws::drift_or_warning(&desk.context, desk.out);
    drift.iter().for_each(|line| desk.out.say(format!("drift: {line}")));
    if changes.is_empty() {
        desk.out.say("nothing to change; the script is loaded anew");
    } else {
        desk.out.say(difference::lines(&changes, Paint::stderr()).trim_end());
        let question = format!("Apply {}?", difference::summary(&changes));
        if !ask(desk.out, yes, &question).await? {
            return Err(Failure::no("nothing was applied"));
        }
    }
    let op = write_request::Op::ModulesPut(v1::ModulesPut { files: modules.files() });
    let reply = desk.client.write(op).await.map_err(|e| e.failure(CANNOT))?;
    desk.note_pushed(&modules);
    let document = serde_json::json!({ "index": reply.index, "changes": changes.iter().map(json::planned).collect::<Vec<_>>() });
    if !wait {
        aws::repair_or_warning(&desk.context, desk.out);
        return done(&desk, &document, &format!("gave {} to the cluster", modules.summary()));
    }
    let progress = Progress::new(desk.out);
    let status = rollout::until_loaded(&mut desk.client, reply.index).await?;
    progress.line(format!("loaded {}", modules.summary()));
    let rolled = rollout::until_rolled(&mut desk.client, &awaited(&changes, &status), |words| progress.line(words)).await;
    // What the cluster runs comes first; what stands around it is put right however that went.
    aws::repair_or_warning(&desk.context, desk.out);
    rolled?;
    done(&desk, &document, "applied")
}

/// What changes now, and what an earlier apply left unfinished: an update that stopped is no success the second time.
fn awaited(changes: &[v1::PlannedChange], status: &v1::Status) -> Vec<String> {
    let mut names = difference::services(changes);
    let unfinished = status.services.iter().filter(|s| s.roll != "done" && !names.contains(&s.name)).map(|s| s.name.clone());
    let unfinished: Vec<String> = unfinished.collect();
    names.extend(unfinished);
    names
}

/// Back to the modules that were in force before.
pub async fn rollback(mut desk: Desk, yes: bool, wait: bool) -> Result<Exit, Failure> {
    let what = "cannot go back";
    let before = desk.client.status(false).await.map_err(|e| e.failure(what))?;
    if before.script_version == 0 {
        return Err(Failure::no(what).because("no modules were ever applied to this cluster"));
    }
    let asked = v1::PlanRequest { rollback: true, ..Default::default() };
    let reply = desk.client.plan(asked).await.map_err(|e| e.failure(what).into_no())?;
    if reply.error.is_empty() {
        desk.out.say(match reply.changes.is_empty() {
            true => "nothing that is declared changes".to_owned(),
            false => difference::lines(&reply.changes, Paint::stderr()).trim_end().to_owned(),
        });
    } else {
        // Whoever goes back has trouble already: what the step changes they may have to find out by taking it.
        desk.out.say(format!("warning: what changes cannot be said: {}", crate::render::plain(&reply.error)));
    }
    let question = format!("Go back to the modules before version {}?", before.script_version);
    if !ask(desk.out, yes, &question).await? {
        return Err(Failure::no("nothing was changed"));
    }
    let op = write_request::Op::ModulesRollback(v1::ModulesRollback {});
    let written = desk.client.write(op).await.map_err(|e| e.failure(what))?;
    let document = serde_json::json!({ "index": written.index, "changes": reply.changes.iter().map(json::planned).collect::<Vec<_>>() });
    if !wait {
        return done(&desk, &document, "the modules before are in force again");
    }
    let progress = Progress::new(desk.out);
    let version = desk.client.status(false).await.map_err(|e| e.failure(what))?.script_version;
    let status = rollout::until_loaded(&mut desk.client, version).await?;
    progress.line(format!("loaded version {version} again"));
    let names: Vec<String> = status.services.into_iter().map(|s| s.name).collect();
    rollout::until_rolled(&mut desk.client, &names, |words| progress.line(words)).await?;
    done(&desk, &document, "the modules before are in force again")
}

fn done(desk: &Desk, document: &serde_json::Value, words: &str) -> Result<Exit, Failure> {
    if desk.out.json {
        desk.out.document(document)?;
    } else {
        desk.out.say(words);
    }
    Ok(Exit::Done)
}
