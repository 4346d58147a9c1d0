//! The verbs of client.js on AWS. Every one may be taken again and again: what it makes is found by its tags.
//!
//! `disco` makes the first machine and what stands around it, and installs it over SSH; that port is open only for this. All
//! later machines are the leader's business. `notes` is what the folder remembers, `first` the first machine, `end` the end of
//! all, and what keeps the wrong account from being taken for it.

mod end;
mod first;
mod notes;

pub use end::{destroy, must_be_in_sight};
pub use first::ssh_install;
pub use notes::Notes;

use super::options::Options;
use super::project::Project;
use crate::client::Patience;
use crate::commands::scale as ready;
use crate::context::{Context, read_small};
use crate::message::Failure;
use crate::out::Out;
use agent::drivers::provider::{AwsProvider, First, Launched, Provider as _, ProviderError, aws::parameter, aws::site, aws::site::Wish};
use agent::model::instance::{InstanceSeen, InstanceState, parameter as shared};
use proto::v1::write_request;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub const KIND: &str = "aws";

/// From RunInstances to a machine with an address.
const RUNNING_MAX: Duration = Duration::from_secs(300);
/// A role is known everywhere only some seconds after it was made.
const ROLE_MAX: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const GIB: u64 = 1024 * 1024 * 1024;

pub fn is_meant(project: &Project) -> bool {
    project.site.as_ref().is_some_and(|site| site.cluster.provider == KIND)
}

/// # Errors
/// There is no cluster yet, or the region or endpoint is none.
pub fn provider(project: &mut Project) -> Result<AwsProvider, Failure> {
    let config = Notes::read(&project.context)?.config();
    let site = project.site()?;
    let id = site.cluster.cluster_id().expect("the journal's id was parsed before it was taken");
    AwsProvider::new(&config, id, site.cluster.name.clone()).map_err(|e| Failure::broke("cannot use AWS").caused_by(&e))
}

/// The same without the folder's lock, for who only looks; none in a folder of another provider.
fn of_folder(context: &Context) -> Result<Option<(AwsProvider, Notes)>, Failure> {
    let Some((cluster, id)) =
        context.own_cluster()?.filter(|cluster| cluster.provider == KIND).and_then(|c| Some((c.clone(), c.cluster_id()?)))
    else {
        return Ok(None);
    };
    let notes = Notes::read(context)?;
    let aws = AwsProvider::new(&notes.config(), id, cluster.name).map_err(|e| Failure::broke("cannot use AWS").caused_by(&e))?;
    Ok(Some((aws, notes)))
}

/// What was changed behind the cluster's back, one line each. What AWS does not tell is a warning: the cluster's own plan
/// does not depend on it.
pub fn drift_or_warning(context: &Context, out: Out) -> Vec<String> {
    drift(context).unwrap_or_else(|failure| warned(out, &failure))
}

/// Puts right what can be, and says what that was. What cannot be is a warning.
pub fn repair_or_warning(context: &Context, out: Out) {
    let repaired = repair(context).unwrap_or_else(|failure| warned(out, &failure));
    repaired.iter().for_each(|line| out.say(format!("put right: {line}")));
}

fn warned(out: Out, failure: &Failure) -> Vec<String> {
    out.say(format!("warning: {}", failure.in_one_line()));
    Vec::new()
}

fn drift(context: &Context) -> Result<Vec<String>, Failure> {
    let Some((aws, notes)) = of_folder(context)? else { return Ok(Vec::new()) };
    let found = aws.drift(&notes.parameters).map_err(failed("cannot see what was changed at AWS"))?;
    Ok(found.into_iter().map(|drift| format!("{} {}", drift.what, drift.detail)).collect())
}

fn repair(context: &Context) -> Result<Vec<String>, Failure> {
    let Some((aws, notes)) = of_folder(context)? else { return Ok(Vec::new()) };
    let repaired = site::repair(&aws, &notes.parameters).map_err(failed("cannot put right what was changed at AWS"))?;
    Ok(repaired.into_iter().map(|drift| format!("{} {}", drift.what, drift.detail)).collect())
}

fn failed(what: impl Into<String>) -> impl FnOnce(ProviderError) -> Failure {
    let what = what.into();
    move |error| {
        let failure = Failure::broke(what).caused_by(&error);
        let denied = matches!(&error, ProviderError::Cloud { source, .. } if source.code().is_some_and(|code| code.is_denied()));
        if denied { failure.hint("README.md has the policy that the account needs") } else { failure }
    }
}

/// `cluster.set_key_pair({ private, public })`: the private key's file, and the public one's file or text.
pub fn set_key_pair(project: &mut Project, private: &str, public: &str) -> Result<(), Failure> {
    let key = project.context.private_key(private)?;
    let line = match public.starts_with("ssh-") {
        true => public.to_owned(),
        false => {
            let path = project.context.place(public);
            read_small(&path)?.ok_or_else(|| Failure::broke(format!("there is no public key {}", path.display())))?
        }
    };
    let aws = provider(project)?;
    project.begin("set_key_pair")?;
    let outcome = aws.ensure_key_pair(line.trim()).map_err(failed("cannot let EC2 know the key pair"));
    let name = project.end("set_key_pair", outcome, String::clone)?;
    Notes::change(&project.context, |notes| {
        notes.key = Some(key);
        notes.parameters.insert(parameter::KEY_NAME.into(), name.clone());
    })?;
    project.progress.line(format!("key pair {name} is known to EC2"));
    Ok(())
}

/// `cluster.start_instance({ … })`: the group, the role, and the first machine, until it has an address.
pub async fn start_instance(project: &mut Project, args: &Value) -> Result<Value, Failure> {
    project.begin("start_instance")?;
    let outcome = start_first(project, args).await;
    let seen = project.end("start_instance", outcome, |seen| seen.id.clone())?;
    let (public, private) = (host(&seen.public_address), host(&seen.address));
    let address = if public.is_empty() { private } else { public };
    Ok(json!({ "id": seen.id, "address": address, "private_address": private, "state": seen.state.as_str() }))
}

async fn start_first(project: &mut Project, args: &Value) -> Result<InstanceSeen, Failure> {
    let patience = Patience { answered: Duration::from_secs(3), unreached: Duration::from_secs(1) };
    if project.status(patience).await?.is_some() {
        return project.first_instance();
    }
    let aws = provider(project)?;
    if project.client()?.is_some() {
        // It was made and does not answer. Another first machine would not mend that: perhaps we only are somewhere else.
        let first = first_left(project)?;
        let_us_in(project)?;
        return Ok(first);
    }
    let progress = project.progress;
    let notes = settle(project, &aws, args)?;
    let known = notes.first.clone();
    let launched = launch(project, &aws, notes).await?;
    if known.as_ref() != Some(&launched.id) {
        progress.line(format!("instance {} is launched", launched.id));
    }
    Notes::change(&project.context, |notes| notes.first = Some(launched.id.clone()))?;
    until_running(project, &aws, &launched.id).await
}

/// Goes on where a bootstrap was cut off, before anything else is done: the account is the right one, and port 22 is closed.
/// `before`: the notes before client.js was asked; they stand if it names the wrong account.
///
/// # Errors
/// Nothing of the cluster is to be seen, it was ended, or AWS refuses.
pub async fn pick_up(project: &mut Project, before: Notes) -> Result<(), Failure> {
    if !is_meant(project) {
        return Ok(());
    }
    if Notes::read(&project.context)?.ended {
        return Err(Failure::no("this cluster's machines were ended by `disco destroy`").hint("run `disco destroy` again to finish it"));
    }
    if let Err(failure) = must_be_in_sight(project).await {
        before.write(&project.context)?;
        return Err(failure);
    }
    first::close_after_cut(project)
}

const DESTROY_FIRST: &str = "`disco destroy` removes what else there is; then `disco bootstrap` makes another one";

/// The instance of the lowest ordinal, where one was launched before.
fn first_left(project: &mut Project) -> Result<InstanceSeen, Failure> {
    let none_left = || Failure::no("no instance of this cluster is left").hint(DESTROY_FIRST);
    project.seen()?.into_iter().next().ok_or_else(none_left)
}

/// Opens the nodes' port to where we are now, which may not be where the cluster was made from.
///
/// # Errors
/// AWS refuses.
pub fn let_us_in(project: &mut Project) -> Result<(), Failure> {
    let (aws, notes) = (provider(project)?, Notes::read(&project.context)?);
    let Some(group) = notes.parameters.get(parameter::GROUP) else { return Ok(()) };
    aws.open_port(group, &callers(&aws, &notes)?).map_err(failed("cannot open the nodes' port"))
}

/// Starts these instances, and waits until they run. They have other addresses then.
///
/// # Errors
/// One does not run within five minutes, or AWS refuses.
pub async fn start(project: &mut Project, instances: &[InstanceSeen]) -> Result<(), Failure> {
    let aws = provider(project)?;
    // All before the first is waited for; one that is still stopping cannot be started yet.
    for InstanceSeen { id, .. } in instances.iter().filter(|seen| seen.state == InstanceState::Stopped) {
        aws.start(id).map_err(failed(format!("cannot start instance {id}")))?;
    }
    for instance in instances {
        let seen = until_running(project, &aws, &instance.id).await?;
        project.progress.line(format!("instance {} runs again ({})", seen.id, host(&seen.public_address)));
    }
    project.forget_client();
    Ok(())
}

/// One that is found stopped meanwhile is started; one that ends never runs.
async fn until_running(project: &mut Project, aws: &AwsProvider, id: &str) -> Result<InstanceSeen, Failure> {
    let started = Instant::now();
    loop {
        let seen = project.seen()?.into_iter().find(|seen| seen.id == id);
        match seen {
            Some(seen) if seen.state == InstanceState::Running && !seen.address.is_empty() => return Ok(seen),
            Some(seen) if seen.state == InstanceState::Stopped => {
                aws.start(id).map_err(failed(format!("cannot start instance {id}")))?;
            }
            Some(_) => {}
            None => {
                if let Some(why) = aws.why_ended(id).map_err(failed(format!("cannot look at instance {id}")))? {
                    let others_go_on = project.client()?.is_some();
                    let hint = if others_go_on { "run `disco bootstrap` again: the others go on without it" } else { DESTROY_FIRST };
                    return Err(Failure::no(format!("instance {id} has ended by itself")).because(why).hint(hint));
                }
            }
        }
        if started.elapsed() > RUNNING_MAX {
            return Err(Failure::no(format!("instance {id} does not run"))
                .because(format!("not within {} s", RUNNING_MAX.as_secs()))
                .hint("run `disco bootstrap` again to go on waiting"));
        }
        async_io::Timer::after(LOOK_AGAIN).await;
    }
}

/// Everything the launch is made of, decided once: image and type, group and role, and the key the machine will show.
fn settle(project: &mut Project, aws: &AwsProvider, args: &Value) -> Result<Notes, Failure> {
    let context = project.context.clone();
    let mut notes = Notes::read(&context)?;
    if !notes.parameters.contains_key(parameter::IMAGE) {
        let resolved = aws.resolve(&wish(args)).map_err(failed("cannot decide what to launch"))?;
        notes = Notes::change(&context, |notes| notes.parameters.extend(resolved))?;
        let given = |name: &str| notes.parameters.get(name).cloned().unwrap_or_default();
        let kind = given(parameter::INSTANCE_TYPE);
        project.progress.line(format!("machines are {kind} ({}) of image {}", given(parameter::ARCHITECTURE), given(parameter::IMAGE)));
    }
    let group = aws.ensure_group().map_err(failed("cannot make the security group"))?;
    let profile = match &notes.role {
        Some(role) => role.clone(),
        None => aws.ensure_profile().map_err(failed("cannot make the nodes' role"))?,
    };
    let allow = callers(aws, &notes)?;
    aws.open_port(&group, &allow).map_err(failed("cannot open the nodes' port"))?;
    Notes::change(&context, |notes| {
        notes.parameters.insert(parameter::GROUP.into(), group);
        notes.parameters.insert(parameter::PROFILE.into(), profile);
        if notes.host_key.is_none() && notes.pinned.is_empty() {
            let key = crate::install::host_key::HostKey::new();
            notes.pinned = vec![key.public.clone()];
            notes.host_key = Some(notes::KeyPair { private: key.private, public: key.public });
        }
    })
}

pub fn wish(args: &Value) -> Wish {
    let text = |name: &str| args.get(name).and_then(Value::as_str).map(str::to_owned);
    Wish {
        image: text("image"),
        instance_type: text("instance_type"),
        spot: args["spot"].as_bool().unwrap_or(false),
        disk_gib: args["disk"].as_u64().and_then(|bytes| u32::try_from(bytes.div_ceil(GIB)).ok()),
    }
}

/// From where nodes may be reached.
fn callers(aws: &AwsProvider, notes: &Notes) -> Result<Vec<String>, Failure> {
    if !notes.allow.is_empty() {
        return Ok(notes.allow.clone());
    }
    let own = aws.own_address().map_err(|e| {
        Failure::broke("cannot tell from which address nodes will be reached")
            .caused_by(&e)
            .hint("say it: `AwsProvider.init({ …, allow: [\"203.0.113.7/32\"] })`")
    })?;
    Ok(vec![own])
}

async fn launch(project: &mut Project, aws: &AwsProvider, mut notes: Notes) -> Result<Launched, Failure> {
    let started = Instant::now();
    loop {
        // Gone once the machine was visited: then it is there, and the launch only finds it.
        let user_data = notes.host_key.as_ref().map(|key| {
            let key = crate::install::host_key::HostKey { private: key.private.clone(), public: key.public.clone() };
            key.user_data()
        });
        let first = First { parameters: notes.of_first(), user_data: user_data.unwrap_or_default() };
        let error = match aws.launch_first(&first) {
            Ok(launched) => return Ok(launched),
            // The first one had its day: others carry the cluster.
            Err(ProviderError::Terminated { .. }) => {
                let seen = first_left(project)?;
                return Ok(Launched {
                    operation: agent::drivers::provider::first_operation(aws.cluster()),
                    id: seen.id,
                    address: seen.address,
                });
            }
            Err(error) => error,
        };
        let spot = first.parameters.get(shared::SPOT).is_some_and(|spot| spot == "true");
        let code = if let ProviderError::Cloud { source, .. } = &error { source.code() } else { None };
        if spot && code.is_some_and(|code| code.is_capacity()) {
            project.progress.line(format!("no spot capacity ({}): taking one on demand", code.map_or("", |code| code.as_str())));
            notes = Notes::change(&project.context, |notes| notes.first_on_demand = true)?;
            continue;
        }
        let young_role = !error.is_final() && error_text(&error).contains("Instance Profile") && started.elapsed() < ROLE_MAX;
        if !young_role {
            return Err(failed("cannot launch the first instance")(error));
        }
        async_io::Timer::after(LOOK_AGAIN).await;
    }
}

fn error_text(error: &ProviderError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// `cluster.attach_ip()`: an address that stays, whoever leads. Until there is a leader it leads to the first machine.
pub fn attach_ip(project: &mut Project) -> Result<String, Failure> {
    project.begin("attach_ip")?;
    let outcome = attach(project);
    project.end("attach_ip", outcome, String::clone)
}

fn attach(project: &mut Project) -> Result<String, Failure> {
    let aws = provider(project)?;
    let address = aws.ensure_address().map_err(failed("cannot get a public address"))?;
    let known = Notes::read(&project.context)?.parameters.get(shared::ADDRESS) == Some(&address.allocation);
    Notes::change(&project.context, |notes| {
        notes.parameters.insert(shared::ADDRESS.into(), address.allocation.clone());
    })?;
    if address.instance.is_none() {
        let first = project.first_instance()?;
        aws.attach(&first.id, &address.allocation).map_err(failed("cannot attach the public address"))?;
    }
    if !known {
        project.progress.line(format!("public address {} leads to the cluster", address.ip));
    }
    Ok(address.ip.to_string())
}

/// `cluster.primary_ip()`: the attached address, or the first machine's own.
pub fn primary_ip(project: &mut Project) -> Result<String, Failure> {
    let aws = provider(project)?;
    if Notes::read(&project.context)?.parameters.contains_key(shared::ADDRESS) {
        let address = aws.ensure_address().map_err(failed("cannot look for the public address"))?;
        return Ok(address.ip.to_string());
    }
    let seen = project.first_instance()?;
    Ok(host(if seen.public_address.is_empty() { &seen.address } else { &seen.public_address }).to_owned())
}

/// Tells the cluster what launches are made of, and how many nodes are wanted; then the leader works and we watch.
pub async fn scale(project: &mut Project, options: &Options, nodes: u32) -> Result<(), Failure> {
    let launch = Notes::read(&project.context)?.parameters;
    let progress = project.progress;
    let configure = proto::v1::ConfigureRequest { launch: launch.into_iter().collect(), ..options.configure() };
    let client = project.cluster_client()?;
    let configured = client.write(write_request::Op::Configure(configure)).await;
    configured.map_err(|e| e.failure("the cluster does not take its options"))?;
    ready::set(client, nodes).await.map_err(|e| e.failure(format!("cannot scale to {nodes}")))?;
    let reached = ready::until_ready(client, nodes, |words| progress.line(words)).await;
    project.remember(&reached.map_err(|e| e.failure(nodes))?)
}

/// Without the port.
fn host(address: &str) -> &str {
    super::steps::host_of(address)
}
