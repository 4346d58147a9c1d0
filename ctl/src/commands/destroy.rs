//! `disco destroy`: ends the cluster, also when nothing of it answers any more.

use crate::args::Global;
use crate::bootstrap::{
    aws,
    ops::{Ops, ask},
    project::Project,
    script::Script,
    steps,
};
use crate::context::Context;
use crate::message::{Exit, Failure};
use crate::out::Out;
use proto::Spawner;

pub async fn run(global: &Global, out: Out, spawner: &Spawner, yes: bool) -> Result<Exit, Failure> {
    let context = Context::new(global)?;
    if !context.disco().exists() {
        out.say(format!("there is no cluster in {}: nothing to destroy", context.folder.display()));
        return Ok(Exit::Done);
    }
    let project = Project::open(context.clone(), out, spawner)?;
    let name = project.site.as_ref().map(|site| site.cluster.name.clone());
    if let Some(name) = &name
        && !ask(out, yes, &format!("Destroy cluster `{name}` in {}, every instance and all data?", context.folder.display())).await?
    {
        return Err(Failure::no("nothing was destroyed"));
    }
    let ops = Ops::new(project, yes);
    if name.is_some() {
        aws::must_be_in_sight(&mut *ops.project().await).await?;
        run_hook(&context, &ops).await?;
    }
    steps::destroy(&mut *ops.project().await).await?;
    let project = ops.into_project();
    let progress = project.progress;
    project.remove()?;
    if let Some(name) = name {
        progress.line(format!("cluster {name} is destroyed"));
    }
    Ok(Exit::Done)
}

/// `destroy(cluster)` of client.js, if it is there. If it fails nothing is ended yet: what it cleans up would be lost.
async fn run_hook(context: &Context, ops: &Ops) -> Result<(), Failure> {
    if !Script::is_there(context) {
        return Ok(());
    }
    let hint = "mend it, or move client.js away to destroy without its hook";
    let mut script = Script::load(context, ops).await.map_err(|f| f.hint(hint))?;
    if !script.has("destroy") {
        return Ok(());
    }
    script.init(ops).await.map_err(|f| f.hint(hint))?;
    script.call("destroy", ops).await.map_err(|f| f.hint(hint))
}
