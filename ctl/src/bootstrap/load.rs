//! The last step of a bootstrap: cluster.js goes to the cluster, and what it declares runs.
//!
//! Only when this folder's modules are not those it gave last: a second bootstrap undoes neither a rollback nor what
//! was changed by hand.

use super::project::Project;
use crate::commands::rollout;
use crate::message::Failure;
use crate::modules::Modules;
use proto::v1::{self, write_request};

const STEP: &str = "load cluster.js";

/// # Errors
/// The script fails, naming file and line, or what it declares does not run. The cluster stays.
pub async fn run(project: &mut Project, modules: &Modules) -> Result<(), Failure> {
    let Some(status) = project.status_if_any().await.map_err(|failure| failure.because("cluster.js is not loaded"))? else { return Ok(()) };
    let known = status.script_version != 0 && project.context.pushed()?.as_deref() == Some(modules.digest().as_str());
    if !known {
        project.begin(STEP)?;
        let outcome = push(project, modules).await;
        project.end(STEP, outcome, |version| version.to_string())?;
    }
    let loaded = wait(project, modules, !known).await;
    loaded.map_err(|failure| failure.hint("the cluster stays; mend cluster.js and run `disco apply`"))
}

async fn push(project: &mut Project, modules: &Modules) -> Result<u64, Failure> {
    let op = write_request::Op::ModulesPut(v1::ModulesPut { files: modules.files() });
    let reply = project.cluster_client()?.write(op).await.map_err(|e| e.failure("the cluster does not take cluster.js"))?;
    project.context.write_pushed(&modules.digest())?;
    Ok(reply.index)
}

/// `new`: the modules were given just now, so whatever goes wrong is theirs.
async fn wait(project: &mut Project, modules: &Modules, new: bool) -> Result<(), Failure> {
    let progress = project.progress;
    let client = project.cluster_client()?;
    let version = client.status(false).await.map_err(|e| e.failure("the cluster does not tell its status"))?.script_version;
    let status = rollout::until_loaded(client, version).await?;
    if new {
        progress.line(format!("loaded {}", modules.summary()));
    }
    let awaited = |service: &&v1::Service| new || service.roll != "stopped";
    let names: Vec<String> = status.services.iter().filter(awaited).map(|s| s.name.clone()).collect();
    match rollout::until_rolled(client, &names, |words| progress.line(words)).await {
        Err(failure) if !new => progress.line(failure.in_one_line()),
        rolled => rolled?,
    }
    Ok(())
}
