//! The first machine becomes a node: over SSH, through a port that is open only for this.

use super::{KIND, Notes, failed, host, provider};
use crate::bootstrap::admission;
use crate::bootstrap::project::Project;
use crate::install::machine::Machine;
use crate::install::session::{Keys, Target};
use crate::install::trust::Trust;
use crate::message::Failure;
use agent::drivers::provider::aws::{parameter, section};
use agent::drivers::provider::unit::{Beginning, NodeConfig};
use agent::model::instance::InstanceSeen;
use proto::v1::{self, write_request};
use std::time::Duration;

/// From a machine that runs to one whose sshd answers.
const BOOT_MAX: Duration = Duration::from_secs(240);
const ARCHITECTURES: [(&str, &str); 2] = [("aarch64", parameter::PROGRAM_ARM64), ("x86_64", parameter::PROGRAM_X86_64)];

/// `cluster.ssh_install()`: the first machine originates the cluster, unless this folder was admitted to it before.
pub async fn ssh_install(project: &mut Project) -> Result<(), Failure> {
    let group = Notes::read(&project.context)?.parameters.get(parameter::GROUP).cloned();
    let Some(group) = group else {
        return Err(Failure::broke("no instance was started yet").hint("call `await cluster.start_instance()` first"));
    };
    let mut installed = Ok(());
    if project.client()?.is_none() {
        project.begin("ssh_install")?;
        let outcome = install(project, &group).await;
        installed = project.end("ssh_install", outcome, |()| String::new());
    }
    // Whatever came of it, and also after a run that was cut off between the two.
    let closed = provider(project).and_then(|aws| aws.close_ssh(&group).map_err(failed("cannot close port 22")));
    if let (Err(_), Err(open)) = (&installed, &closed) {
        project.progress.line(open.in_one_line());
    }
    installed.and(closed)
}

async fn install(project: &mut Project, group: &str) -> Result<(), Failure> {
    let aws = provider(project)?;
    let notes = Notes::read(&project.context)?;
    let first = first_instance(project, &notes)?;
    let allow = super::callers(&aws, &notes)?;
    aws.open_ssh(group, &allow).map_err(failed("cannot open port 22"))?;
    project.progress.line(format!("port 22 is open to {} while the first node is installed", allow.join(", ")));
    let address = super::primary_ip(project)?;
    let target = target(&notes, address);
    let shown = target.shown();
    let machine = Machine::greet(target, BOOT_MAX).await.map_err(|e| e.failure(format!("cannot get onto {shown}")))?;
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
    let digests = keep_programs(project, &machine).await?;
    let reached = format!("{}:{}", super::primary_ip(project)?, first.address.rsplit(':').next().unwrap_or_default());
    admission::through(project, &machine, &first.id, Some(&reached), &first.address).await?;
    let notes = Notes::change(&project.context, |notes| notes.parameters.extend(digests))?;
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
