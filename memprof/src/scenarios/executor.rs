//! `disco` while a client.js runs: the command and its script executor together.

use super::{Outcome, ScenarioError};
use crate::{Measured, Sampler, cluster::Cluster};
use std::{fs, path::Path, process::Stdio, time::Duration};

pub(super) const PHASE: &str = "disco-with-executor";

/// Builds a few thousand objects, then waits inside the script: long enough to be measured.
const CLIENT_JS: &str = r#"
export async function init() {
    const provider = await LocalProvider.init({ name: "local" });
    return new Cluster({ name: "example", provider });
}

export async function bootstrap(cluster) {
    const seen = [];
    for (let i = 0; i < 2000; i++) seen.push({ i, text: `entry ${i}` });
    await delay(5000);
    console.log(seen.length);
}
"#;

/// From the start of `disco` to its executor's being there.
const APPEARS: Duration = Duration::from_secs(10);

pub(super) fn run(bin_dir: &Path) -> Result<Vec<Outcome>, ScenarioError> {
    let cluster = Cluster::init(bin_dir)?;
    let script = cluster.dir().join("client.js");
    fs::write(&script, CLIENT_JS).map_err(|error| ScenarioError::Spoilt(format!("cannot write {}: {error}", script.display())))?;
    let mut command = cluster.command(&["bootstrap", "--yes"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.map_err(|error| ScenarioError::Spoilt(format!("cannot run `disco`: {error}")))?;
    let sampler = Sampler::start(child.id());
    let appeared = sampler.wait_for(APPEARS, |sample| sample.processes > 1).is_some();
    // The script ends by itself; `disco` has no way to outlive its executor's deadline.
    let output = child.wait_with_output().map_err(|error| ScenarioError::Spoilt(format!("cannot wait for `disco`: {error}")))?;
    let samples = sampler.finish();
    if !appeared || !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(ScenarioError::Spoilt(format!("`disco bootstrap` ended with {}: {}", output.status, said.trim())));
    }
    let measured = Measured::of(&samples);
    Ok(vec![Outcome { phase: PHASE, who: "disco".to_owned(), measured, note: String::new() }])
}
