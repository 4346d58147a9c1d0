//! The first machine becomes a node: over SSH, through a port that is open only for this.

use super::{KIND, Notes, failed, host, provider};
use crate::bootstrap::admission;
use crate::bootstrap::project::Project;
use crate::install::machine::Machine;
use crate::install::session::{Keys, Target};
use crate::install::trust::Trust;
use crate::message::Failure;
use agent::drivers::provider::AwsProvider;
use agent::drivers::provider::aws::{parameter, section};
use agent::drivers::provider::unit::{Beginning, NodeConfig};
use agent::model::instance::{InstanceSeen, parameter as shared};
use proto::v1::{self, write_request};
use std::time::Duration;

/// From a machine that runs to one whose sshd answers.
const BOOT_MAX: Duration = Duration::from_secs(240);
/// In the journal.
const STEP: &str = "ssh_install";
const ARCHITECTURES: [(&str, &str); 2] = [("aarch64", parameter::PROGRAM_ARM64), ("x86_64", parameter::PROGRAM_X86_64)];

/// `cluster.ssh_install()`: the first machine originates the cluster, unless this folder was admitted to it before.
pub async fn ssh_install(project: &mut Project) -> Result<(), Failure> {
    let group = Notes::read(&project.context)?.parameters.get(parameter::GROUP).cloned();
    let Some(group) = group else {
        return Err(Failure::broke("no instance was started yet").hint("call `await cluster.start_instance()` first"));
    };
    project.begin(STEP)?;
    let installed = if project.client()?.is_none() { install(project, &group).await } else { Ok(()) };
    // Whatever came of it. It is done only when the port is closed.
    let closed = close(project, &group);
    if let (Err(_), Err(open)) = (&installed, &closed) {
        project.progress.line(open.in_one_line());
    }
    project.end(STEP, installed.and(closed), |()| String::new())
}

fn close(project: &mut Project, group: &str) -> Result<(), Failure> {
    provider(project)?.close_ssh(group).map_err(failed("cannot close port 22"))
}

/// Closes the port after an installation that was cut off: client.js asks for none once the cluster is healthy.
pub fn close_after_cut(project: &mut Project) -> Result<(), Failure> {
    let group = Notes::read(&project.context)?.parameters.get(parameter::GROUP).cloned();
    let Some(group) = group.filter(|_| project.site.as_ref().is_some_and(|site| site.journal.is_unfinished(STEP))) else {
        return Ok(());
    };
    let closed = close(project, &group);
    // Without a certificate it is taken again.
    if project.client()?.is_some() { project.end(STEP, closed, |()| String::new()) } else { closed }
}

async fn install(project: &mut Project, group: &str) -> Result<(), Failure> {
    let aws = provider(project)?;
    let notes = Notes::read(&project.context)?;
    let first = first_instance(project, &notes)?;
    // Of this machine alone; where nobody tells its address, of those that may reach the nodes.
    let from = aws.own_address().map(|own| vec![own]).or_else(|_| super::callers(&aws, &notes))?;
    aws.open_ssh(group, &from).map_err(failed("cannot open port 22"))?;
    let from = from.join(", ");
    project.progress.line(format!("port 22 is open to {from} while the first node is installed"));
    let address = reached(&aws, &notes, &first)?;
    let target = target(&notes, address.clone());
    let shown = target.shown();
    let machine = Machine::greet(target, BOOT_MAX).await.map_err(|e| {
        let failure = e.failure(format!("cannot get onto {shown}"));
        let outside = "if SSH leaves this network from another address (a proxy, a VPN), run disco where it does not";
        if e.may_pass() { failure.because(format!("port 22 is open to {from} only")).hint(outside) } else { failure }
    })?;
    exchange_host_key(project, &machine).await?;
    let found = machine.look().await.map_err(|e| e.failure("cannot see what is installed"))?;
    let site = project.site()?;
    let id = site.cluster.cluster_id().expect("the journal's id was parsed before it was taken");
    let name = site.cluster.name.clone();
    let config = NodeConfig {
        name: "n1",
        instance: &first.id,
        address: &first.address,
        cluster: id,
        cluster_name: &name,
        beginning: Beginning::Originate,
        provider: section(&notes.region, notes.endpoint.as_deref().unwrap_or_default()),
    };
    let config = found.cluster.is_none().then(|| config.text());
    let places = project.context.places();
    let installed = machine.install(&places, &found, config).await?;
    let sent = installed
        .sent
        .map_or("discod was there".to_owned(), |(path, bytes)| format!("{} sent ({:.1} MB)", path.display(), bytes as f64 / 1e6));
    project.progress.line(format!("{} ({}): {sent}, installed", first.id, machine.arch));
    // Before the certificate: who has that is not asked to install again, and launches need the digests.
    let digests = keep_programs(project, &machine).await?;
    let notes = Notes::change(&project.context, |notes| notes.parameters.extend(digests))?;
    let door = format!("{address}:{}", first.address.rsplit(':').next().unwrap_or_default());
    admission::through(project, &machine, &first.id, Some(&door), &first.address).await?;
    let configure = v1::ConfigureRequest { launch: notes.parameters.into_iter().collect(), ..Default::default() };
    let told = project.cluster_client()?.write(write_request::Op::Configure(configure)).await;
    told.map(drop).map_err(|e| e.failure("the cluster does not take what launches are made of"))
}

fn first_instance(project: &mut Project, notes: &Notes) -> Result<InstanceSeen, Failure> {
    let seen = project.seen()?;
    let first = seen.into_iter().find(|seen| Some(&seen.id) == notes.first.as_ref());
    first.ok_or_else(|| {
        Failure::broke(format!("the first instance of this {KIND} cluster is not to be seen"))
            .hint("call `await cluster.start_instance()` first")
    })
}

/// Where the first instance is: the cluster's address while that leads to it, for its own may not be listed anew yet; its own
/// once another node leads.
fn reached(aws: &AwsProvider, notes: &Notes, first: &InstanceSeen) -> Result<String, Failure> {
    if notes.parameters.contains_key(shared::ADDRESS) {
        let address = aws.ensure_address().map_err(failed("cannot look for the public address"))?;
        if address.instance.as_ref() == Some(&first.id) {
            return Ok(address.ip.to_string());
        }
    }
    Ok(host(if first.public_address.is_empty() { &first.address } else { &first.public_address }).to_owned())
}

fn target(notes: &Notes, address: String) -> Target {
    // Image names say whose they are; the first user's name follows from that (EC2 User Guide, "default user name").
    let user = notes.parameters.get(parameter::USER).cloned().unwrap_or_else(|| "ubuntu".into());
    let keys = Keys::of_this_user(notes.key.clone());
    Target { host: host(&address).to_owned(), port: 22, user, trust: Trust::Given(notes.pinned.clone()), keys }
}

/// The key that came by user-data gives way to one that was made on the machine. Cut off anywhere, one of the two is shown,
/// and both are expected.
async fn exchange_host_key(project: &Project, machine: &Machine) -> Result<(), Failure> {
    if Notes::read(&project.context)?.host_key.is_none() {
        return Ok(());
    }
    let wrong = |e: crate::install::error::SshError| e.failure("cannot exchange the host key");
    let new = machine.prepare_host_key().await.map_err(wrong)?;
    Notes::change(&project.context, |notes| {
        if !notes.pinned.contains(&new) {
            notes.pinned.push(new.clone());
        }
    })?;
    machine.take_host_key().await.map_err(wrong)?;
    Notes::change(&project.context, |notes| {
        notes.pinned = vec![new];
        notes.host_key = None;
    })?;
    project.progress.line("the host key was exchanged for one made on the machine");
    Ok(())
}

/// The node gives other machines its own program; those for other architectures it keeps for them.
async fn keep_programs(project: &Project, machine: &Machine) -> Result<Vec<(String, String)>, Failure> {
    let places = project.context.places();
    let mut digests = Vec::new();
    for (arch, name) in ARCHITECTURES {
        let Ok(program) = places.find(arch) else { continue };
        digests.push((name.to_owned(), program.sha256.clone()));
        if machine.arch != arch {
            machine.keep(&program).await.map_err(|e| e.failure(format!("cannot leave the program for {arch} on the first node")))?;
        }
    }
    Ok(digests)
}
