//! The verbs of client.js for machines that exist: `disco` itself installs a node on each over SSH.
//!
//! The first listed host originates the cluster, once; from then on every host without a node gets a token and joins. What
//! is on a host is asked each time, so a bootstrap that was cut off goes on, and a host that lost its disk is installed anew.

use super::admission::{self, FIRST_NODE_MAX, LOOK_AGAIN};
use super::inventory::{Entry, Inventory};
use super::options::Options;
use super::project::Project;
use super::whose;
use crate::client::{Patience, mismatched};
use crate::commands::scale;
use crate::install::machine::{Found, Installed, Machine};
use crate::install::session::Target;
use crate::message::Failure;
use agent::drivers::provider::unit::{Beginning, NodeConfig, Table};
use agent::model::ids::ClusterId;
use proto::v1::{self, write_reply, write_request};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub const KIND: &str = "hosts";
/// A join token is used at once.
const TOKEN_TTL_MS: u64 = 15 * 60_000;
/// A node that only was started again is back sooner.
const COME_BACK_MAX: Duration = Duration::from_secs(20);

pub fn is_meant(project: &Project) -> bool {
    project.site.as_ref().is_some_and(|site| site.cluster.provider == KIND)
}

/// `cluster.set_key_pair({ private, public })`: with which key we get in.
pub fn set_key_pair(project: &mut Project, private: &str) -> Result<Value, Failure> {
    let mut inventory = Inventory::read(&project.context)?;
    inventory.key = Some(project.context.private_key(private)?);
    inventory.write(&project.context)?;
    Ok(Value::Null)
}

/// `cluster.start_instance()`: hosts run already; whether we get onto the first one is worth knowing early.
pub async fn start_instance(project: &mut Project) -> Result<Value, Failure> {
    let first = first_of(&Inventory::read(&project.context)?)?;
    if project.client()?.is_none() {
        connect(project, &first).await?;
        project.progress.line(format!("host {} lets us in", first.address));
    }
    Ok(json!({ "id": first.id(), "address": first.address, "private_address": first.address, "state": "running" }))
}

/// The address of the first host.
pub fn first_address(project: &Project) -> Result<String, Failure> {
    first_of(&Inventory::read(&project.context)?).map(|entry| entry.address)
}

fn first_of(inventory: &Inventory) -> Result<Entry, Failure> {
    inventory.listed().into_iter().next().ok_or_else(|| Failure::broke("client.js lists no hosts"))
}

/// `cluster.ssh_install()`: the first host originates the cluster, unless this folder was admitted to it before.
pub async fn ssh_install(project: &mut Project) -> Result<(), Failure> {
    if project.client()?.is_some() {
        return Ok(());
    }
    project.begin("ssh_install")?;
    let outcome = install_first(project).await;
    project.end("ssh_install", outcome, |()| String::new())
}

async fn install_first(project: &mut Project) -> Result<(), Failure> {
    let first = first_of(&Inventory::read(&project.context)?)?;
    let (cluster, name) = cluster_of(project)?;
    // A lost certificate looks like a cluster that was never made: what is out there decides, not what is here.
    let carriers = carriers(project, cluster).await?;
    if !carriers.is_empty() {
        return readmit(project, carriers).await;
    }
    let machine = connect(project, &first).await?;
    let found = look(&machine).await?;
    whose::check_owner(&first, &found, cluster)?;
    whose::check_user(&first, &found)?;
    let config = NodeConfig {
        name: &first.node_name(),
        instance: "",
        address: &first.node_address(),
        cluster,
        cluster_name: &name,
        beginning: Beginning::Originate,
        provider: Table::new(),
    };
    let config = found.cluster.is_none().then(|| config.text());
    install(project, &first, &machine, &found, config).await?;
    admit(project, &first, &machine).await
}

async fn admit(project: &mut Project, entry: &Entry, machine: &Machine) -> Result<(), Failure> {
    admission::through(project, machine, &format!("host {}", entry.address), None, &entry.node_address()).await
}

/// Hosts that have a node of this cluster, although this folder holds no certificate of it. A second cluster of the same id
/// would take their nodes for strangers, and wipe them: so every host we were on is looked at, and one that stays silent
/// may be one of them.
async fn carriers(project: &Project, cluster: ClusterId) -> Result<Vec<Visit>, Failure> {
    let inventory = Inventory::read(&project.context)?;
    let touched = inventory.hosts.iter().filter(|entry| entry.touched);
    let visits: Vec<_> = touched.map(|entry| project.spawner.0.spawn(visit(entry.clone(), inventory.target(entry)))).collect();
    let (mut carriers, mut silent) = (Vec::new(), None);
    for visit in visits {
        match visit.await {
            Ok(visit) if visit.found.cluster.as_ref() == Some(&cluster.to_string()) => carriers.push(visit),
            Ok(_) => {}
            Err(failure) => silent = Some(failure),
        }
    }
    let Some(failure) = silent.filter(|_| carriers.is_empty()) else { return Ok(carriers) };
    Err(Failure::no("cannot tell whether this cluster runs already").because(failure.in_one_line()).hint(format!(
        "run `disco bootstrap` again when it can be reached; a machine that is gone for good is taken out of {}",
        project.context.file("hosts.json").display()
    )))
}

/// Starts these nodes, and goes through the first one that lets us in again.
async fn readmit(project: &mut Project, carriers: Vec<Visit>) -> Result<(), Failure> {
    for Visit { entry, machine, found } in &carriers {
        project.progress.line(format!("host {} has a node of this cluster; this folder has no certificate", entry.address));
        if let Err(failure) = install(project, entry, machine, found, None).await {
            project.progress.line(failure.in_one_line());
        }
    }
    let mut admitted = Ok(());
    for Visit { entry, machine, .. } in &carriers {
        admitted = admit(project, entry, machine).await;
        if admitted.is_ok() {
            break;
        }
    }
    admitted
}

fn cluster_of(project: &mut Project) -> Result<(ClusterId, String), Failure> {
    let site = project.site()?;
    let id = site.cluster.cluster_id().expect("the journal's id was parsed before it was taken");
    Ok((id, site.cluster.name.clone()))
}

async fn connect(project: &Project, entry: &Entry) -> Result<Machine, Failure> {
    greet(entry, Inventory::read(&project.context)?.target(entry)).await
}

async fn greet(entry: &Entry, target: Target) -> Result<Machine, Failure> {
    Machine::greet(target, Duration::ZERO).await.map_err(|e| e.failure(format!("cannot get onto host {}", entry.address)))
}

async fn look(machine: &Machine) -> Result<Found, Failure> {
    machine.look().await.map_err(|e| e.failure("cannot see what is installed"))
}

async fn install(project: &Project, entry: &Entry, machine: &Machine, found: &Found, config: Option<String>) -> Result<(), Failure> {
    touch(project, entry)?;
    let installed = machine.install(&project.context.places(), found, config).await?;
    tell(project, entry, machine, installed);
    Ok(())
}

/// From here on something of ours may be on it.
fn touch(project: &Project, entry: &Entry) -> Result<(), Failure> {
    let mut inventory = Inventory::read(&project.context)?;
    inventory.hosts.iter_mut().filter(|known| known.ordinal == entry.ordinal).for_each(|known| known.touched = true);
    inventory.write(&project.context)
}

fn tell(project: &Project, entry: &Entry, machine: &Machine, installed: Installed) {
    let program = match installed.sent {
        None => "discod was there".to_owned(),
        Some((path, bytes)) => format!("{} sent ({:.1} MB)", path.display(), bytes as f64 / 1e6),
    };
    let what = if installed.configured { "installed" } else { "started" };
    project.progress.line(format!("host {} ({}): {program}, {what}", entry.address, machine.arch));
}

/// `cluster.scale(nodes)`: the first `nodes` listed hosts are nodes, the others are not.
///
/// # Errors
/// client.js lists fewer, a host cannot be made a node, or the cluster does not come to so many.
pub async fn scale(project: &mut Project, options: Option<&Options>, nodes: u32) -> Result<v1::WriteReply, Failure> {
    let listed = Inventory::read(&project.context)?.listed();
    if listed.len() < nodes as usize {
        return Err(Failure::no(format!("cannot scale to {nodes}: client.js lists {} hosts", listed.len())).hint("add machines to `hosts`"));
    }
    ssh_install(project).await?;
    let client = project.cluster_client()?;
    if let Some(options) = options {
        let configured = client.write(write_request::Op::Configure(options.configure())).await;
        configured.map_err(|e| e.failure("the cluster does not take its options"))?;
    }
    let refused = format!("cannot scale to {nodes}");
    let reply = scale::set(client, nodes).await.map_err(|e| e.failure(refused))?;
    let (wanted, surplus) = listed.split_at(nodes as usize);
    ensure(project, wanted).await?;
    let known = Inventory::read(&project.context)?;
    let unlisted = known.hosts.iter().filter(|entry| !entry.listed && entry.touched);
    for entry in surplus.iter().chain(unlisted) {
        dismiss(project, entry).await?;
    }
    let progress = project.progress;
    let reached = scale::until_ready(project.cluster_client()?, nodes, |words| progress.line(words)).await;
    project.remember(&reached.map_err(|e| e.failure(nodes))?)?;
    Ok(reply)
}

/// A host we are on, with what it has.
struct Visit {
    entry: Entry,
    machine: Machine,
    found: Found,
}

/// Makes every one of these hosts a node that is ready or on its way to it. What takes long is done on all at once, and one
/// that cannot be reached keeps nobody else from being mended.
async fn ensure(project: &mut Project, wanted: &[Entry]) -> Result<(), Failure> {
    let mut visits = Vec::new();
    for entry in wanted {
        let nodes = nodes_at(project, entry).await?;
        if nodes.len() == 1 && matches!(nodes[0].state.as_str(), "ready" | "draining") {
            continue;
        }
        let target = Inventory::read(&project.context)?.target(entry);
        let entry = entry.clone();
        visits.push(project.spawner.0.spawn(visit(entry, target)));
    }
    let mut failures = Vec::new();
    let mut installs = Vec::new();
    for visit in visits {
        match visit.await {
            Ok(visit) => match begin(project, visit).await {
                Ok(install) => installs.push(install),
                Err(failure) => failures.push(failure),
            },
            Err(failure) => failures.push(failure),
        }
    }
    let mut joining = Vec::new();
    for install in installs {
        match install.work.await {
            Ok(installed) => {
                tell(project, &install.entry, &install.machine, installed);
                joining.extend(install.joins.then_some((install.entry, install.machine)));
            }
            Err(failure) => failures.push(failure),
        }
    }
    for (entry, machine) in joining {
        failures.extend(joined(project, &entry, &machine).await.err());
    }
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else { return Ok(()) };
    failures.for_each(|other| project.progress.line(other.in_one_line()));
    Err(first)
}

/// An installation under way.
struct Install {
    entry: Entry,
    machine: Machine,
    joins: bool,
    work: smol::Task<Result<Installed, Failure>>,
}

async fn begin(project: &mut Project, visit: Visit) -> Result<Install, Failure> {
    let Visit { entry, machine, found } = visit;
    let (found, config) = prepare(project, &entry, &machine, found).await?;
    touch(project, &entry)?;
    let (places, joins, host) = (project.context.places(), config.is_some(), machine.clone());
    let work = project.spawner.0.spawn(async move { host.install(&places, &found, config).await });
    Ok(Install { entry, machine, joins, work })
}

async fn visit(entry: Entry, target: Target) -> Result<Visit, Failure> {
    let machine = greet(&entry, target).await?;
    let found = look(&machine).await?;
    Ok(Visit { entry, machine, found })
}

/// What the host has once nothing is in the way of its node, and the configuration it needs, if it has to join.
async fn prepare(project: &mut Project, entry: &Entry, machine: &Machine, mut found: Found) -> Result<(Found, Option<String>), Failure> {
    let (cluster, name) = cluster_of(project)?;
    whose::check_owner(entry, &found, cluster)?;
    whose::check_user(entry, &found)?;
    if is_member(project, entry, &found).await? {
        return Ok((found, None));
    }
    if found.configured {
        // It may be joining right now: in the list before its identity is on its disk. Stopped, both tell the truth.
        machine.halt().await.map_err(|e| e.failure(format!("cannot stop the node on host {}", entry.address)))?;
        found = look(machine).await?;
        if is_member(project, entry, &found).await? {
            return Ok((found, None));
        }
    }
    // Its identity is gone or was refused: a node that was here never comes back, and the machine begins anew.
    for node in nodes_at(project, entry).await? {
        remove(project, &node).await?;
    }
    if found.cluster.is_some() {
        machine.uninstall().await.map_err(|e| e.failure(format!("cannot clean host {}", entry.address)))?;
        found = look(machine).await?;
    } else if found.configured {
        machine.forget().await.map_err(|e| e.failure(format!("cannot clean host {}", entry.address)))?;
    }
    let token = token(project).await?;
    let seeds = seeds(project).await?;
    let config = NodeConfig {
        name: &entry.node_name(),
        instance: "",
        address: &entry.node_address(),
        cluster,
        cluster_name: &name,
        beginning: Beginning::Join { seeds: &seeds, token: &token },
        provider: Table::new(),
    };
    Ok((found, Some(config.text())))
}

/// Until the cluster knows the node; whether it is ready is the scale's business.
async fn joined(project: &mut Project, entry: &Entry, machine: &Machine) -> Result<(), Failure> {
    let started = Instant::now();
    while nodes_at(project, entry).await?.is_empty() {
        if started.elapsed() > FIRST_NODE_MAX {
            let failure = Failure::broke(format!("the node on host {} does not join", entry.address));
            let last = machine.last_words().await;
            let failure = if last.is_empty() { failure } else { failure.because(format!("it said last:\n{last}")) };
            return Err(failure.hint(format!("can it reach {}?", seeds(project).await?.join(", "))));
        }
        async_io::Timer::after(LOOK_AGAIN).await;
    }
    Ok(())
}

async fn status(project: &mut Project) -> Result<v1::Status, Failure> {
    project.cluster_client()?.status(false).await.map_err(|e| e.failure("the cluster does not tell its status"))
}

/// What the cluster has at the host's address: one node, or what is left of former ones.
async fn nodes_at(project: &mut Project, entry: &Entry) -> Result<Vec<v1::Node>, Failure> {
    Ok(status(project).await?.nodes.into_iter().filter(|node| whose::is_at(entry, node)).collect())
}

/// Whether the host's identity is that of a node of the cluster. Others at its address are ghosts, and taken out. A node
/// that the cluster knows by another address is an error.
async fn is_member(project: &mut Project, entry: &Entry, found: &Found) -> Result<bool, Failure> {
    let nodes = status(project).await?.nodes;
    whose::check_name(&nodes, entry, found)?;
    let here = nodes.into_iter().filter(|node| whose::is_at(entry, node));
    let (own, ghosts): (Vec<_>, Vec<_>) = here.partition(|node| found.node.as_ref() == Some(&node.id));
    if own.is_empty() {
        return Ok(false);
    }
    for ghost in ghosts {
        remove(project, &ghost).await?;
    }
    Ok(true)
}

async fn seeds(project: &mut Project) -> Result<Vec<String>, Failure> {
    let mut seeds = crate::commands::addresses(&status(project).await?);
    seeds.truncate(agent::model::limits::SEEDS_MAX);
    Ok(seeds)
}

async fn token(project: &mut Project) -> Result<String, Failure> {
    let what = "cannot create a join token";
    let op = write_request::Op::TokenCreate(v1::TokenCreate { role: "manager".into(), ttl_ms: TOKEN_TTL_MS, uses: 1 });
    let reply = project.cluster_client()?.write(op).await.map_err(|e| e.failure(what))?;
    match reply.result {
        Some(write_reply::Result::TokenCreated(created)) => Ok(created.token),
        _ => Err(mismatched().failure(what)),
    }
}

async fn remove(project: &mut Project, node: &v1::Node) -> Result<(), Failure> {
    let op = write_request::Op::NodeRemove(v1::NodeRemove { node: node.id.clone() });
    let what = format!("cannot remove node {}", node.name);
    project.cluster_client()?.write(op).await.map_err(|e| e.failure(what))?;
    project.progress.line(format!("node {} ({}) is taken out of the cluster", node.name, node.address));
    let started = Instant::now();
    while status(project).await?.nodes.iter().any(|n| n.id == node.id && n.state != "left") {
        if started.elapsed() > FIRST_NODE_MAX {
            return Err(Failure::no(format!("node {} does not leave", node.name)).hint("`disco status` says what it waits for"));
        }
        async_io::Timer::after(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Takes a node off a host that is no longer wanted.
async fn dismiss(project: &mut Project, entry: &Entry) -> Result<(), Failure> {
    for node in nodes_at(project, entry).await? {
        remove(project, &node).await?;
    }
    if !entry.touched {
        return Ok(());
    }
    let staying = status(project).await?.nodes;
    // The cluster is rid of it. A machine that died for good must not stand in the way of every later scale.
    if let Err(failure) = uninstall(project, entry, &staying).await {
        project.progress.line(format!("{}; something of ours may be left on it", failure.in_one_line()));
    }
    Ok(())
}

/// Leaves a machine alone that is one of the nodes `staying`, under another address: then only this entry ends.
async fn uninstall(project: &mut Project, entry: &Entry, staying: &[v1::Node]) -> Result<(), Failure> {
    let machine = connect(project, entry).await?;
    let found = look(&machine).await?;
    let (cluster, _) = cluster_of(project)?;
    if let Some(node) = whose::known_elsewhere(staying, entry, &found) {
        project.progress.line(format!("host {} is left as it is: it is node {}, at {}", entry.address, node.name, node.address));
    } else if whose::check_owner(entry, &found, cluster).is_ok() {
        // Another cluster's node is not ours to end.
        machine.uninstall().await.map_err(|e| e.failure(format!("cannot uninstall from host {}", entry.address)))?;
        project.progress.line(format!("host {} has no node any more", entry.address));
    }
    let mut inventory = Inventory::read(&project.context)?;
    inventory.hosts.iter_mut().filter(|known| known.ordinal == entry.ordinal).for_each(|known| known.touched = false);
    inventory.hosts.retain(|known| known.listed || known.touched);
    inventory.write(&project.context)
}

/// When nobody answers: starts the nodes of hosts whose node does not listen.
pub async fn revive(project: &mut Project) -> Result<(), Failure> {
    let patience = Patience { answered: Duration::from_secs(4), unreached: Duration::from_secs(1) };
    if project.client()?.is_none() || project.status(patience).await?.is_some() {
        return Ok(());
    }
    let (cluster, _) = cluster_of(project)?;
    let mut failures = Vec::new();
    for entry in Inventory::read(&project.context)?.hosts.into_iter().filter(|entry| entry.touched) {
        let started = async {
            let machine = connect(project, &entry).await?;
            let found = look(&machine).await?;
            whose::check_owner(&entry, &found, cluster)?;
            // Without its identity it can only join anew, and for that somebody has to answer.
            if found.cluster.is_none() { Ok(()) } else { install(project, &entry, &machine, &found, None).await }
        };
        if let Err(failure) = started.await {
            project.progress.line(failure.in_one_line());
            failures.push(failure);
        }
    }
    if project.status(Patience::both(COME_BACK_MAX)).await?.is_some() {
        project.progress.line("the cluster answers");
        return Ok(());
    }
    let failure = Failure::no("the cluster does not answer").because(format!("no leader within {} s", COME_BACK_MAX.as_secs()));
    let failure = failures.into_iter().fold(failure, |all, one| all.because(one.in_one_line()));
    Err(failure.hint("`disco recover` goes on without a majority of managers that is lost for good"))
}

/// Ends every node, on every host that may have one.
pub async fn destroy(project: &mut Project) -> Result<(), Failure> {
    let touched: Vec<Entry> = Inventory::read(&project.context)?.hosts.into_iter().filter(|entry| entry.touched).collect();
    let mut failures = Vec::new();
    for entry in touched {
        if let Err(failure) = uninstall(project, &entry, &[]).await {
            project.progress.line(failure.in_one_line());
            failures.push((entry, failure));
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    let addresses: Vec<&str> = failures.iter().map(|(entry, _)| entry.address.as_str()).collect();
    let failure = Failure::no(format!("nodes may be left on {}", addresses.join(", ")));
    let failure = failures.iter().fold(failure, |all, (_, one)| all.because(one.in_one_line()));
    Err(failure.hint(format!(
        "run `disco destroy` again; a machine that is gone for good is taken out of {}",
        project.context.file("hosts.json").display()
    )))
}
