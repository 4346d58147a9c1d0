//! `disco bootstrap`: from a folder with client.js to a cluster, or on from where it stopped.

use crate::args::Global;
use crate::bootstrap::{aws, load, ops::Ops, project::Project, revive, script::Script};
use crate::context::Context;
use crate::message::{Exit, Failure};
use crate::modules::Modules;
use crate::out::{Out, now_ms};
use crate::render::{Paint, json, status as screen};
use proto::Spawner;

pub async fn run(global: &Global, out: Out, spawner: &Spawner, yes: bool) -> Result<Exit, Failure> {
    let context = Context::new(global)?;
    // Before anything is made, the lock included.
    Script::must_be_there(&context)?;
    let ops = Ops::new(Project::open(context.clone(), out, spawner)?, yes);
    let outcome = work(&context, &ops).await;
    let mut project = ops.into_project();
    if let Err(failure) = outcome {
        project.leave_no_trace();
        return Err(failure);
    }
    let Some(status) = project.status_if_any().await? else {
        project.progress.line("client.js is done; it made no cluster");
        return Ok(Exit::Done);
    };
    project.remember(&status)?;
    if out.json {
        out.document(&json::status(&status))?;
    } else {
        project.progress.line(screen::screen(&status, now_ms(), Paint::off()).lines().next().unwrap_or_default());
    }
    Ok(Exit::Done)
}

/// The scripts are read, and client.js asked for its cluster, before anything is made: a mistake in it changes nothing.
async fn work(context: &Context, ops: &Ops) -> Result<(), Failure> {
    let modules = if Modules::are_there(context) { Some(Modules::collect(context)?) } else { None };
    let mut script = Script::load(context, ops).await?;
    script.require("bootstrap", "export async function bootstrap(cluster) { … }")?;
    let options = script.init(ops).await?;
    {
        let mut project = ops.project().await;
        let before = aws::Notes::read(context)?;
        project.take_options(&options)?;
        aws::pick_up(&mut project, before).await?;
        revive::run(&mut project).await?;
    }
    script.call("bootstrap", ops).await?;
    match &modules {
        Some(modules) => load::run(&mut *ops.project().await, modules).await,
        None => Ok(()),
    }
}
