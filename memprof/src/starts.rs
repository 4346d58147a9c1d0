//! How long it takes from asking for a task to its program's first line, on an idle cluster.
//!
//! Asked over one standing connection, as `disco` or a script would; the program writes down when it began. So the
//! figure holds everything: the write through the consensus of three, the plan, the order, the durable record, fork, exec.

use crate::{
    cluster::{Cluster, ClusterError},
    load::{self, Identity, LoadError},
};
use proto::{
    Channel, ChannelLimits, Spawner,
    v1::{ServiceScale, WriteRequest, disco_client::DiscoClient, write_request::Op},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The program is its own clock, and nothing else comes before it: no shell.
const STAMP_JS: &str = r#"
export function configure(cluster) {
    cluster.service("stamp", { command: ["date", "+%s%N"], replicas: 0, restart: { policy: "never" } });
}
"#;

const PATIENCE: Duration = Duration::from_secs(10);
/// The cluster is idle again.
const PAUSE: Duration = Duration::from_millis(1500);

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum StartsError {
    /// The cluster did not do its part.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The administrator's files.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A request was refused, or nothing came of it.
    #[error("{0}")]
    Failed(String),
}

/// Milliseconds from request to running, one for each of `count` starts, in order of size.
///
/// # Errors
/// The cluster cannot be made, or a task does not start within 10 s.
pub fn measure(bin_dir: &Path, count: usize) -> Result<Vec<f64>, StartsError> {
    let cluster = Cluster::bootstrap(bin_dir)?;
    cluster.apply(STAMP_JS)?;
    let leader = cluster.leader()?;
    let [ca, certificate, key] = cluster.admin_files()?;
    let tls = load::tls(&Identity { ca, certificate, key })?;
    let executor = Arc::new(smol::Executor::new());
    let channel = Channel::tcp(Spawner(executor.clone()), leader.address.clone(), tls, ChannelLimits::default());
    let mut client = DiscoClient::new(channel);
    let mut sequence = 0;
    let mut scale = |replicas: u32| {
        sequence += 1;
        let op = Some(Op::ServiceScale(ServiceScale { name: "stamp".into(), replicas }));
        let request = WriteRequest { client: u64::from(std::process::id()), sequence, op };
        let asked = smol::block_on(executor.run(client.write(request)));
        asked.map(drop).map_err(|status| StartsError::Failed(format!("the cluster refuses to scale: {status}")))
    };
    let mut took = Vec::new();
    for _ in 0..count {
        thread::sleep(PAUSE);
        let asked_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        scale(1)?;
        let began_at = wait_for(|| stamps(&cluster).into_iter().find(|at| *at > asked_at))?;
        took.push((began_at - asked_at).as_secs_f64() * 1000.0);
        scale(0)?;
        wait_for(|| stamps(&cluster).is_empty().then_some(()))?;
    }
    took.sort_by(f64::total_cmp);
    Ok(took)
}

/// What tasks wrote into their logs: since 1970, as their program saw the clock.
fn stamps(cluster: &Cluster) -> Vec<Duration> {
    let folders = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let tasks = folders(cluster.dir().join(".disco/instances")).flat_map(|instance| folders(instance.join("data/tasks")));
    let stamp = |task: PathBuf| fs::read_to_string(task.join("log")).ok()?.trim().parse().ok().map(Duration::from_nanos);
    tasks.filter_map(stamp).collect()
}

fn wait_for<T>(mut wanted: impl FnMut() -> Option<T>) -> Result<T, StartsError> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = wanted() {
            return Ok(found);
        }
        if Instant::now() > until {
            return Err(StartsError::Failed(format!("a task neither began nor ended within {} s", PATIENCE.as_secs())));
        }
        thread::sleep(Duration::from_millis(1));
    }
}
