//! One folder under work: its lock, its journal, its provider and the way to its cluster.

use super::aws;
use super::hosts;
use super::inventory::Inventory;
use super::options::Options;
use super::whose;
use crate::client::{Client, Patience};
use crate::commands::addresses;
use crate::context::{AWS, ClusterFile, Context, JOURNAL, Lock};
use crate::install::door;
use crate::journal::{Journal, What};
use crate::message::Failure;
use crate::out::{Out, now_ms};
use agent::drivers::provider::{AwsProvider, HostsProvider, LocalProvider, Provider};
use agent::model::ids::ClusterId;
use agent::model::instance::{InstanceSeen, InstanceState};
use agent::model::limits;
use proto::{Spawner, v1};
use std::time::{Duration, Instant};

/// While bootstrapping, nodes come and go: more patience than for a question.
const PATIENCE: Patience = Patience { answered: Duration::from_secs(20), unreached: Duration::from_secs(4) };

/// For a leader, at the end of a bootstrap.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Says what was done and when, counted from the start of the command.
#[derive(Clone, Copy)]
pub struct Progress {
    started: Instant,
    out: Out,
}

impl Progress {
    pub fn new(out: Out) -> Progress {
        Progress { started: Instant::now(), out }
    }

    /// ` 0.31s  instance i-1 started (127.80.3.1)`
    pub fn line(&self, words: impl AsRef<str>) {
        self.out.say(format!("{:5.2}s  {}", self.started.elapsed().as_secs_f64(), words.as_ref()));
    }
}

pub struct Project {
    pub context: Context,
    pub out: Out,
    pub spawner: Spawner,
    pub progress: Progress,
    /// None until the folder has a cluster: what fails before leaves nothing behind.
    pub site: Option<Site>,
    /// Whether the client was opened; see [`Project::client`].
    client: Option<Client>,
    lock: Lock,
}

/// Where the machines of this folder's cluster come from.
///
/// # Errors
/// What the folder remembers of them is damaged.
pub fn provider_of(context: &Context, id: ClusterId, cluster: &ClusterFile) -> Result<Box<dyn Provider>, Failure> {
    let name = cluster.name.clone();
    Ok(match cluster.provider.as_str() {
        hosts::KIND => Box::new(HostsProvider::new(Inventory::read(context)?.provider_hosts())),
        aws::KIND => {
            let notes = context.file(AWS);
            if !notes.exists() {
                return Err(Failure::broke(format!("{} is missing", notes.display()))
                    .because("machines at AWS are not found without it")
                    .hint("if a `disco destroy` of an older disco was cut off, and nothing of the cluster is at AWS, remove .disco"));
            }
            let provider = AwsProvider::new(&aws::Notes::read(context)?.config(), id, name);
            Box::new(provider.map_err(|e| Failure::broke("cannot use AWS").caused_by(&e))?)
        }
        // Ending instances needs no program; starting one says what is missing.
        _ => Box::new(LocalProvider::new(context.disco(), id, name, context.discod().unwrap_or_default())),
    })
}

/// The folder's cluster: decided once, in the journal.
pub struct Site {
    pub cluster: ClusterFile,
    pub journal: Journal,
    pub provider: Box<dyn Provider>,
}

/// Where this machine reaches it.
fn reached_at(seen: InstanceSeen) -> String {
    if seen.public_address.is_empty() { seen.address } else { seen.public_address }
}

impl Project {
    /// Locks the folder and reads its journal, if there is one.
    ///
    /// # Errors
    /// Another disco holds the lock, or the journal is damaged.
    pub fn open(context: Context, out: Out, spawner: &Spawner) -> Result<Project, Failure> {
        let lock = context.lock()?;
        door::sweep(&context.disco());
        let mut project = Project { context, out, spawner: spawner.clone(), progress: Progress::new(out), site: None, client: None, lock };
        let path = project.context.file(JOURNAL);
        if path.exists() {
            if project.must_be_forgotten()? {
                project.context.finish_removal()?;
                return Ok(project);
            }
            let journal = project.open_journal()?;
            if let Some((id, name, provider)) = journal.cluster() {
                let file = ClusterFile { id: id.to_string(), name: name.to_owned(), provider: provider.to_owned() };
                project.settle(id, file, journal)?;
            }
        } else if let Some(cluster) = project.context.cluster()? {
            return Err(Failure::no(format!("the machines of cluster `{}` are not this folder's", cluster.name))
                .because("it has no journal: it may ask the cluster and change what runs there, another folder made it")
                .hint("use the folder that ran `disco bootstrap`; to forget the cluster here, remove .disco"));
        }
        Ok(project)
    }

    /// A destroy on AWS was cut off when it had removed even what finds the machines: there are none.
    fn must_be_forgotten(&self) -> Result<bool, Failure> {
        let on_aws = self.context.cluster()?.is_none_or(|cluster| cluster.provider == aws::KIND);
        Ok(on_aws && self.context.is_half_removed()?)
    }

    fn open_journal(&self) -> Result<Journal, Failure> {
        let path = self.context.file(JOURNAL);
        let journal = Journal::open(&path).map_err(|e| Failure::broke("cannot continue without this folder's journal").caused_by(&e))?;
        if let Some(warning) = journal.warning() {
            self.out.say(format!("warning: {warning}"));
        }
        let interrupted = journal.interrupted();
        if !interrupted.is_empty() {
            self.progress.line(format!("continuing after an interruption (in {})", interrupted.join(", ")));
        }
        Ok(journal)
    }

    /// Decides the cluster's id, once: on disk before anything is made in its name.
    ///
    /// # Errors
    /// The folder is another cluster's, or the disk fails.
    pub fn decide(&mut self, name: &str, provider: &str) -> Result<(), Failure> {
        if let Some(site) = &self.site {
            if site.cluster.name != name {
                return Err(Failure::broke(format!("this folder's cluster is `{}`, but client.js says `{name}`", site.cluster.name))
                    .hint("name it as before, or end it first with `disco destroy`"));
            }
            return Ok(());
        }
        if name.len() > limits::NAME_BYTES_MAX || name.chars().any(char::is_control) {
            let rule = format!("a name has at most {} bytes and no control characters", limits::NAME_BYTES_MAX);
            return Err(Failure::broke(format!("a cluster cannot be called `{}`", crate::render::plain(name))).because(rule));
        }
        let id = ClusterId(crate::client::random());
        let cluster = ClusterFile { id: id.to_string(), name: name.to_owned(), provider: provider.to_owned() };
        let mut journal = self.open_journal()?;
        let what = What::Cluster { id: cluster.id.clone(), name: cluster.name.clone(), provider: cluster.provider.clone() };
        journal.write(now_ms(), what).map_err(|e| Failure::broke("cannot decide which cluster this is").caused_by(&e))?;
        self.progress.line(format!("cluster {name} is {id}"));
        self.settle(id, cluster, journal)
    }

    fn settle(&mut self, id: ClusterId, cluster: ClusterFile, journal: Journal) -> Result<(), Failure> {
        if self.context.cluster()?.as_ref() != Some(&cluster) {
            self.context.write_cluster(&cluster)?;
        }
        let provider = provider_of(&self.context, id, &cluster)?;
        self.site = Some(Site { cluster, journal, provider });
        Ok(())
    }

    /// Writes down which machines client.js lists, before any of them is touched.
    ///
    /// # Errors
    /// client.js names another kind of provider than before, or the disk fails.
    pub fn take_options(&mut self, options: &Options) -> Result<(), Failure> {
        if let Some(site) = self.site.as_ref().filter(|site| site.cluster.provider != options.provider) {
            let (was, is) = (&site.cluster.provider, &options.provider);
            return Err(Failure::broke(format!("this folder's cluster is on the {was} provider, but client.js says {is}"))
                .hint("a cluster does not move; end it first with `disco destroy`"));
        }
        if let Some(options) = options.aws() {
            aws::Notes::take(&self.context, options)?;
        }
        self.decide(&options.name, &options.provider)?;
        if aws::is_meant(self) {
            // What client.js says of it may be new.
            let cluster = self.site()?.cluster.clone();
            let id = cluster.cluster_id().expect("it was parsed before it was taken");
            self.site()?.provider = provider_of(&self.context, id, &cluster)?;
        }
        if options.provider == hosts::KIND {
            let before = Inventory::read(&self.context)?;
            let mut inventory = before.clone();
            inventory.take(&options.hosts());
            whose::check_logins(&inventory)?;
            if inventory != before {
                inventory.write(&self.context)?;
            }
        }
        Ok(())
    }

    /// # Errors
    /// init() has not returned its cluster yet.
    pub fn site(&mut self) -> Result<&mut Site, Failure> {
        self.site.as_mut().ok_or_else(|| Failure::broke("there is no cluster before init() has returned it"))
    }

    /// The provider's own view: what instances there are, by ordinal, ended ones left out.
    ///
    /// # Errors
    /// Their folders cannot be read.
    pub fn seen(&mut self) -> Result<Vec<InstanceSeen>, Failure> {
        let seen = self.site()?.provider.describe().map_err(|e| Failure::broke("cannot look at the instances").caused_by(&e))?;
        Ok(seen.into_iter().filter(|instance| instance.state != InstanceState::Terminated).collect())
    }

    /// The instance of the lowest ordinal that there still is.
    ///
    /// # Errors
    /// There is none, or they cannot be seen.
    pub fn first_instance(&mut self) -> Result<InstanceSeen, Failure> {
        let first = self.seen()?.into_iter().next();
        first.ok_or_else(|| Failure::broke("no instance was started yet").hint("call `await cluster.start_instance()` first"))
    }

    /// Notes that a step is about to be taken.
    ///
    /// # Errors
    /// The disk fails: the step must not be taken.
    pub fn begin(&mut self, step: &str) -> Result<(), Failure> {
        self.note(What::Begin { step: step.to_owned() })
    }

    /// Notes how a step went, and hands that on.
    ///
    /// # Errors
    /// The step's own, or the disk's.
    pub fn end<T>(&mut self, step: &str, outcome: Result<T, Failure>, result: impl Fn(&T) -> String) -> Result<T, Failure> {
        let what = match &outcome {
            Ok(value) => What::Done { step: step.to_owned(), result: result(value) },
            Err(failure) => What::Failed { step: step.to_owned(), why: failure.in_one_line() },
        };
        let noted = self.note(what);
        let value = outcome?;
        noted.map(|()| value)
    }

    fn note(&mut self, what: What) -> Result<(), Failure> {
        self.site()?.journal.write(now_ms(), what).map_err(|e| Failure::broke("cannot note the step").caused_by(&e))
    }

    /// The way to the cluster; `None` before this folder holds a certificate.
    ///
    /// # Errors
    /// Its files are damaged.
    pub fn client(&mut self) -> Result<Option<&mut Client>, Failure> {
        if self.client.is_none()
            && let Some(identity) = self.context.identity()?
        {
            let mut known = self.context.addresses()?;
            // Where the provider sees instances there may be nodes, whatever was written down last.
            if let Some(seen) = self.site.as_ref().and_then(|s| s.provider.describe().ok()) {
                known.extend(seen.into_iter().map(reached_at));
            }
            let mut once: Vec<String> = Vec::new();
            known.into_iter().for_each(|a| {
                if !once.contains(&a) {
                    once.push(a)
                }
            });
            let client = Client::with_certificate(&identity, &once, &self.spawner)?.with_patience(PATIENCE);
            let elsewhere = self.site.as_ref().is_some_and(|site| site.cluster.is_elsewhere());
            self.client = Some(if elsewhere { client.called_from_outside() } else { client });
        }
        Ok(self.client.as_mut())
    }

    /// # Errors
    /// No instance was started yet.
    pub fn cluster_client(&mut self) -> Result<&mut Client, Failure> {
        self.client()?.ok_or_else(|| Failure::broke("no instance was started yet").hint("call `await cluster.start_instance()` first"))
    }

    /// The certificate or the addresses on disk are new: look again.
    pub fn forget_client(&mut self) {
        self.client = None;
    }

    /// The cluster's state, asked with this much patience; `None` if nobody answers.
    ///
    /// # Errors
    /// It answers, and refuses.
    pub async fn status(&mut self, patience: Patience) -> Result<Option<v1::Status>, Failure> {
        let Some(client) = self.client()? else { return Ok(None) };
        client.set_patience(patience);
        let status = client.status(false).await;
        client.set_patience(PATIENCE);
        match status {
            Ok(status) => Ok(Some(status)),
            Err(error) if error.is_unanswered() => Ok(None),
            Err(error) => Err(error.failure("the cluster refuses to tell its status")),
        }
    }

    /// The state of the cluster that this folder was admitted to; `None` if it never was.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub async fn status_if_any(&mut self) -> Result<Option<v1::Status>, Failure> {
        let status = self.status(Patience::both(ANSWER_MAX)).await?;
        if status.is_none() && self.client()?.is_some() {
            return Err(Failure::no("the cluster does not answer")
                .because(format!("no leader within {} s", ANSWER_MAX.as_secs()))
                .hint("run `disco bootstrap` again; `disco status --stale` shows what its nodes say"));
        }
        Ok(status)
    }

    /// Writes down where the nodes are and which instances are to stay stopped.
    ///
    /// # Errors
    /// As writing files goes.
    pub fn remember(&mut self, status: &v1::Status) -> Result<(), Failure> {
        let addresses = match aws::is_meant(self) {
            true => self.seen()?.into_iter().map(reached_at).filter(|address| !address.is_empty()).collect(),
            false => addresses(status),
        };
        if let Some(client) = self.client()? {
            client.reach(&addresses);
        }
        let stopped: Vec<String> = status.instances.iter().filter(|i| i.desired == "stopped").map(|i| i.id.clone()).collect();
        self.context.write_addresses(&addresses)?;
        self.context.write_wanted_stopped(&stopped)
    }

    /// Nothing was made: leaves no trace of having looked. Best effort.
    pub fn leave_no_trace(self) {
        if self.site.is_none() && !self.context.file("instances").exists() {
            let _ = self.context.remove_disco(self.lock);
        }
    }

    /// Removes `.disco/`.
    ///
    /// # Errors
    /// As removing files goes.
    pub fn remove(self) -> Result<(), Failure> {
        self.context.remove_disco(self.lock)
    }
}
