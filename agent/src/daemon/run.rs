//! `discod` from its command line to its exit code.
//!
//! The order matters: the data dir is locked before anything in it is read, signals are held back and the process is
//! detached before the first thread, the node has an identity before it listens, and everything listens before the
//! replica says its first word.

use super::{
    clock::Clock,
    complaint,
    config::{Config, ConfigError, Invocation, help},
    data_dir::{DataDir, DataDirError, Identity},
    detach::{Detached, detach},
    forming::{self, Formed},
    image::{Image, ImageError},
    join::{self, Applicant, JoinError},
    keys::{Keys, KeysError},
    machine, memory,
    notebook::Notebook,
    origin::{self, OriginError},
    provide::Provider,
    pump::{Ended, Pump},
    script, seeds, shed,
    signals::{self, Signal, Signals},
    telemetry,
};
use crate::{
    drivers::{
        api::{Api, door},
        artifacts::Artifacts,
        peers::Peers,
        pki::{self, Doorkeeper, FilesError, JoinToken, KeyFiles, PkiError, Trust},
        provider::ProviderError,
        runtime::{Runtime, process::start::Here},
        store::{self, Expect, Store, StoreError},
        syscall,
    },
    logic::replica::{self, Genesis, Replica, Timings},
    model::{
        ids::{ClusterId, NodeId},
        io::{Input, Keyring, Restored},
        limits,
        query::Way,
        task::Orders,
    },
};
use futures_lite::{
    FutureExt,
    future::{BoxedLocal, block_on, or},
};
use proto::{Listener, ServerLimits, Spawner};
use std::{fs::File, io, os::unix::net::UnixDatagram, pin::Pin, process::ExitCode, sync::Arc, time::Duration};

/// It stopped as asked.
const STOPPED: u8 = 0;
/// It broke, or was asked something it does not understand.
const BROKE: u8 = 2;
/// What answers on their way out may take when the process ends.
const FAREWELL: Duration = Duration::from_millis(100);

/// Why the daemon could not start or go on.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("this node has no identity in {0}, and is told neither to originate a cluster nor how to join one")]
    Purposeless(String),
    #[error("cannot join the cluster")]
    Join(#[from] JoinError),
    #[error("cannot originate the cluster")]
    Origin(#[from] OriginError),
    #[error("cannot use the image")]
    Image(#[from] ImageError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error("node.key, node.crt and ca.crt in {0} cannot be used together")]
    Certificate(String, #[source] PkiError),
    #[error("node.crt is for {shown} of cluster {in_cluster}, but identity.toml says node {node} of cluster {cluster}")]
    Mixed { shown: pki::Subject, in_cluster: ClusterId, node: NodeId, cluster: ClusterId },
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error("cannot use the provider")]
    Provider(#[from] ProviderError),
    #[error("the state in {} cannot be used", .0)]
    Replica(String, #[source] replica::StartError),
    #[error("cannot listen on {0}")]
    Listen(String, #[source] io::Error),
    #[error("cannot open the tasks in {0}")]
    Tasks(String, #[source] io::Error),
    #[error("cannot {0}")]
    System(&'static str, #[source] io::Error),
    #[error("{0}")]
    Ended(String),
}

impl RunError {
    fn hint(&self) -> Option<String> {
        match self {
            RunError::Config(error) => error.hint(),
            RunError::DataDir(DataDirError::InUse { .. }) => Some("stop it first, or give this one another --data-dir".into()),
            RunError::Purposeless(_) => Some("set `originate = true`, or `seeds` and `token` (from `disco token create`)".into()),
            RunError::Origin(OriginError::Store(StoreError::Unexpected { .. }))
            | RunError::Join(JoinError::Store(StoreError::Unexpected { .. })) => {
                Some("restore identity.toml from a copy, or give this node another --data-dir".into())
            }
            RunError::Join(JoinError::Refused { .. } | JoinError::OtherCluster { .. }) => {
                Some("make a new token with `disco token create` and set it as `token`".into())
            }
            RunError::Store(StoreError::Corrupt { .. } | StoreError::Missing { .. } | StoreError::Foreign { .. })
            | RunError::Files(FilesError::Missing(_) | FilesError::Damaged { .. })
            | RunError::DataDir(DataDirError::Damaged { .. })
            | RunError::Certificate(..)
            | RunError::Mixed { .. } => {
                Some("restore the file from a copy; without one this node cannot go on: remove it with `disco node rm` and let it join anew with an empty data dir".into())
            }
            _ => None,
        }
    }
}

/// The whole life of the process.
pub fn main() -> ExitCode {
    syscall::tune_memory();
    let config = match Config::parse(std::env::args_os().skip(1), |name| std::env::var_os(name)) {
        Ok(Invocation::Run(config)) => *config,
        Ok(Invocation::Help) => {
            print!("{}", help());
            return ExitCode::from(STOPPED);
        }
        Ok(Invocation::Version) => {
            println!("discod {}", crate::VERSION);
            return ExitCode::from(STOPPED);
        }
        Err(error) => return broke(&error.into()),
    };
    match live(config) {
        Ok(()) => ExitCode::from(STOPPED),
        Err(error) => broke(&error),
    }
}

fn broke(error: &RunError) -> ExitCode {
    eprint!("{}", complaint::text(error, error.hint().as_deref()));
    ExitCode::from(BROKE)
}

fn live(config: Config) -> Result<(), RunError> {
    // Before the fork, so that whoever started us hears that the folder is taken; the copy inherits the lock.
    let mut data_dir = DataDir::open(&config.data_dir)?;
    if config.detach {
        match detach(config.await_record).map_err(|error| RunError::System("leave the starting process", error))? {
            Detached::Onward => {}
            Detached::Done | Detached::Unwanted => return Ok(()),
        }
    }
    // Cut up before most of it runs, less of it comes in at all.
    if let Err(error) = syscall::release_code_pages() {
        log::debug!("cannot unmap code pages: {error}");
    }
    data_dir.sign()?;
    telemetry::start(config.log.clone());
    let held = signals::hold_back().map_err(|error| RunError::System("hold back signals", error))?;
    let executor = Arc::new(smol::Executor::new());
    let spawner = Spawner(executor.clone());
    // Not smol::block_on: it takes turns at the kernel with the reactor's own thread, and to find out whose turn it is
    // that thread wakes up ten times an event. Parked here, an event costs two wake-ups: that thread's and this one's.
    let ended = block_on(executor.run(node(config, data_dir, held, spawner)))?;
    if ended.failed { Err(RunError::Ended(ended.why)) } else { Ok(()) }
}

async fn node(config: Config, data_dir: DataDir, held: File, spawner: Spawner) -> Result<Ended, RunError> {
    let signals = Signals::new(held).map_err(|error| RunError::System("read signals", error))?;
    let advertised = config.advertised(config.listen)?;
    // Boxed, as in `Life`.
    let becoming: Pin<Box<dyn Future<Output = _>>> =
        Box::pin(async { become_somebody(&data_dir, &config, advertised.clone(), spawner.clone()).await.map(Some) });
    let stop = async {
        signals.stop().await;
        Ok(None)
    };
    match or(becoming, stop).await? {
        Some(identity) => Ok(begin(config, data_dir, identity, advertised, signals, spawner)?.live().await),
        None => Ok(Ended { failed: false, why: "asked to stop".into() }),
    }
}

/// The identity on disk, or a new one.
async fn become_somebody(data_dir: &DataDir, config: &Config, advertised: String, spawner: Spawner) -> Result<Identity, RunError> {
    if let Some(identity) = data_dir.identity()? {
        return Ok(identity);
    }
    let name = config.name.clone().unwrap_or_else(machine::name);
    let image = image_of(config)?;
    if config.originate && config.seeds.is_empty() {
        return Ok(origin::originate(data_dir, config, image.as_ref(), name)?);
    }
    let given = config.join_token()?.map(|token| token.expose().parse().expect("the config checked it"));
    let token: Option<JoinToken> = given.or_else(|| image.as_ref().map(|image| image.token.clone()));
    if config.seeds.is_empty() || token.is_none() && !config.originate {
        return Err(RunError::Purposeless(data_dir.path().display().to_string()));
    }
    let applicant = Applicant::new(data_dir, config, token, name.clone(), advertised, spawner.clone())?;
    if !config.originate {
        return Ok(join::join(applicant, &config.seeds).await?);
    }
    match forming::look_around(applicant, config, image.as_ref(), spawner).await? {
        Formed::Joined(identity) => Ok(*identity),
        Formed::Originate => Ok(origin::originate(data_dir, config, image.as_ref(), name)?),
    }
}

/// Beside everything else: a member needs no seeds, and a list that cannot be reached takes its time to say so.
async fn read_lists(lists: Vec<String>, door: door::Door) {
    if !lists.is_empty() {
        let found = seeds::addresses(&lists).await;
        door.report(Input::Seeds(found.into_iter().map(Way::unknown).collect()));
    }
}

fn image_of(config: &Config) -> Result<Option<Image>, ImageError> {
    config.image.as_deref().map(Image::read).transpose()
}

/// A member, from now on to its end.
///
/// Its parts are boxed, and put together by a function of its own: a future's locals, also those that only its beginning
/// needs, lie on the stack at each step of it, and every page of them is touched. It was 0.3 MB that no node ever gave back.
struct Life {
    ended: BoxedLocal<Ended>,
    background: [smol::Task<()>; 4],
}

impl Life {
    async fn live(self) -> Ended {
        let ended = self.ended.await;
        log::info!("stopping: {}", ended.why);
        async_io::Timer::after(FAREWELL).await;
        for task in self.background {
            task.cancel().await;
        }
        ended
    }
}

#[inline(never)]
fn begin(
    config: Config,
    data_dir: DataDir,
    mut identity: Identity,
    advertised: String,
    signals: Signals,
    spawner: Spawner,
) -> Result<Life, RunError> {
    let files = KeyFiles::new(data_dir.path());
    let keys = Keys::new(files.clone(), Trust::new());
    let (key, (certificates, known)) = (files.key()?, files.held()?);
    let ca = known.trusted[0].0.clone();
    let unusable = |error| RunError::Certificate(data_dir.path().display().to_string(), error);
    keys.trust.install_all(&certificates, &key, known).map_err(unusable)?;
    let public_key = pki::public_key(&key).map_err(unusable)?;
    check_certificate(&keys.trust, &identity)?;
    // After everything that may be damaged: opening it writes in it.
    let store_path = data_dir.file("store.redb");
    let mut store = Store::open(&store_path, Expect::Existing)?;
    let restored = store.load();
    if identity.originating && restored.member.is_some() {
        identity.originating = false;
        data_dir.save_identity(&identity)?;
    }
    let keyring = keyring_of(&keys, &restored, identity.originating)?;

    let (door, inbox) = door::open();
    let trust = keys.trust.clone();
    let peers = Peers::new(spawner.clone(), door.clone(), Box::new(move |node| trust.client_tls(node)));
    let doorkeeper = Doorkeeper::new(identity.cluster, keys.trust.clone(), syscall::effective_uid());
    let runtime = runtime(&data_dir, &identity, &advertised, &spawner, &door)?;
    let api = Api::new(
        identity.node,
        door.clone(),
        peers.clone(),
        keys.trust.clone(),
        doorkeeper,
        runtime.logs.clone(),
        Artifacts::new(data_dir.path()),
    );

    let setting = script::Setting {
        node: identity.node,
        cluster: identity.cluster_name.clone(),
        commands_max: config.external_commands_max as usize,
        has_provider: config.provider.is_some(),
    };
    let (script, scripted) = script::open(door.clone(), setting);
    let limits = ServerLimits { room: shed::room(script.clone()), ..server_limits() };
    let port = Listener::tcp(config.listen, keys.trust.server_tls()).map_err(|error| RunError::Listen(config.listen.to_string(), error))?;
    let socket_path = data_dir.file("control.sock");
    let socket = Listener::unix(&socket_path).map_err(|error| RunError::Listen(socket_path.display().to_string(), error))?;

    let managers = data_dir.managers()?;
    let clock = Clock::start();
    let genesis = match identity.originating {
        true => {
            let tokens = image_of(&config)?.map(|image| image.token_record(clock.now().wall)).into_iter().collect();
            Some(Genesis { cluster: identity.cluster, name: identity.cluster_name.clone(), ca, tokens })
        }
        false => None,
    };
    let (lists, plain): (Vec<String>, Vec<String>) = config.seeds.iter().cloned().partition(|seed| seeds::is_list(seed));
    let plain_seeds = plain.into_iter().map(Way::unknown);
    let setup = replica::Config {
        node: identity.node,
        boot: u64::from_be_bytes(pki::random_bytes()),
        name: identity.name.clone(),
        address: advertised,
        cpus: machine::cpus(),
        memory: machine::memory(),
        labels: config.labels.clone(),
        instance: config.instance.clone(),
        public_key,
        keyring,
        originate: genesis,
        seeds: managers.iter().cloned().chain(plain_seeds).collect(),
        assignment: assignment(&data_dir),
        on_stop_end_tasks: config.on_stop_end_tasks,
        has_provider: config.provider.is_some(),
        timings: timings(&config),
    };
    let seed = u64::from_be_bytes(pki::random_bytes());
    let replica =
        Replica::new(setup, restored, seed, clock.now()).map_err(|error| RunError::Replica(store_path.display().to_string(), error))?;

    let provider = match &config.provider {
        Some(kind) => Some(Provider::of(kind, identity.cluster, identity.cluster_name.clone(), spawner.clone(), door.clone())?),
        None => None,
    };
    let told = door.clone();
    let completion = move |result: Result<u64, String>| match result {
        Ok(number) => told.report(Input::Persisted { number }),
        Err(why) => told.report(Input::StoreFailed { why }),
    };
    let store = store::spawn(store, Box::new(completion)).map_err(|error| RunError::System("start the store's thread", error))?;

    door.report(Input::Papers(keys.trust.papers()));
    let background = [
        spawner.0.spawn(keys.clone().renew_when_due(api.clone())),
        spawner.0.spawn(memory::give_back(api.activity.clone())),
        spawner.0.spawn(obey(signals, door.clone(), config.clone())),
        spawner.0.spawn(read_lists(lists, door.clone())),
    ];
    log::info!("node {} ({}) of cluster {} listens on {}", identity.node, identity.name, identity.cluster, config.listen);
    let routes = api.routes(&limits);
    let served = async move {
        let (port_limits, port_routes) = (limits.clone(), routes.clone());
        let both = or(proto::serve(spawner.clone(), port, port_routes, port_limits), proto::serve(spawner.clone(), socket, routes, limits));
        let why = both.await.map_or_else(|error| error.to_string(), |()| "it was closed".to_owned());
        Ended { failed: true, why: format!("a listening socket failed: {why}") }
    };
    let notebook = Notebook::new(data_dir, identity, managers);
    let pump = Pump { replica, clock, inbox, door, peers, store, provider, runtime, script, api, notebook, keys };
    let pumped = async {
        tell_service_manager();
        pump.run().await
    };
    // Here rather than as a task of its own: what it holds belongs to one thread.
    let ended = or(or(pumped.boxed_local(), served.boxed_local()), scripted.boxed_local()).boxed_local();
    Ok(Life { ended, background })
}

/// Finds the tasks of the process before this one, and is ready for more.
fn runtime(data_dir: &DataDir, identity: &Identity, advertised: &str, spawner: &Spawner, door: &door::Door) -> Result<Runtime, RunError> {
    let folder = data_dir.file("tasks");
    let host = advertised.rsplit_once(':').map_or(advertised, |(host, _)| host).to_owned();
    let here = Here { node: identity.node, name: identity.name.clone(), host };
    let told = door.clone();
    let report = Arc::new(move |input| told.report(input));
    Runtime::start(folder.clone(), here, spawner, report).map_err(|error| RunError::Tasks(folder.display().to_string(), error))
}

/// Without one, tasks wait for the word of a leader: no reason not to start.
fn assignment(data_dir: &DataDir) -> Option<Orders> {
    data_dir.assignment().unwrap_or_else(|error| {
        log::warn!("{error}; tasks are started again only when a manager is heard");
        None
    })
}

/// The keyring goes with a seat. One without a seat is left from a change that a crash cut short: the leader gives it again.
fn keyring_of(keys: &Keys, restored: &Restored, originating: bool) -> Result<Option<Keyring>, RunError> {
    let keyring = keys.files.keyring()?;
    let entitled = restored.member.is_some() || originating;
    if keyring.is_some() && !entitled {
        keys.hold(None)?;
        return Ok(None);
    }
    if keyring.is_none() && entitled {
        return Err(keys.files.keyring_missing().into());
    }
    keys.trust.set_keyring(keyring.as_ref()).map_err(KeysError::Keyring)?;
    Ok(keyring)
}

/// Files of two nodes must not be mixed: TLS would show one and the state would hear of the other.
fn check_certificate(trust: &Trust, identity: &Identity) -> Result<(), RunError> {
    let shown = trust.identity().expect("it was installed right before");
    if (shown.cluster, &shown.subject) == (identity.cluster, &pki::Subject::Node(identity.node)) {
        return Ok(());
    }
    Err(RunError::Mixed { shown: shown.subject, in_cluster: shown.cluster, node: identity.node, cluster: identity.cluster })
}

fn timings(config: &Config) -> Timings {
    Timings {
        heartbeat_ms: config.heartbeat_interval_ms,
        election_min_ms: config.election_timeout_min_ms,
        election_max_ms: config.election_timeout_max_ms,
        lost_after_ms: config.lost_after_ms,
        ..Timings::default()
    }
}

fn server_limits() -> ServerLimits {
    ServerLimits {
        connections_max: limits::CONNECTIONS_MAX,
        handshakes_max: limits::HANDSHAKES_MAX,
        handshake_timeout: Duration::from_millis(limits::HANDSHAKE_TIMEOUT_MS),
        streams_per_connection_max: limits::STREAMS_PER_CONNECTION_MAX,
        message_bytes_max: limits::WIRE_MESSAGE_BYTES_MAX,
        script_timeout: Duration::from_millis(limits::SCRIPT_HOOK_MS_MAX + limits::REQUEST_TIMEOUT_MS),
        ..ServerLimits::default()
    }
}

/// SIGTERM asks the replica to hand over and stop; the second time nobody waits for it. SIGHUP reads the log filter and
/// runs the script again.
async fn obey(signals: Signals, door: door::Door, config: Config) {
    let mut asked = false;
    loop {
        match signals.next().await {
            Ok(Signal::Stop) if asked => std::process::exit(i32::from(BROKE)),
            Ok(Signal::Stop) => {
                asked = true;
                door.report(Input::Shutdown);
            }
            Ok(Signal::Reload) => {
                reload(&config);
                door.report(Input::ReloadScript);
            }
            Err(error) => return log::error!("cannot read signals any more: {error}"),
        }
    }
}

fn reload(before: &Config) {
    match Config::parse(std::env::args_os().skip(1), |name| std::env::var_os(name)) {
        Ok(Invocation::Run(config)) => {
            telemetry::set_filter(config.log.clone());
            let same = Config { log: before.log.clone(), ..*config } == *before;
            log::info!("reloaded the log filter{}", if same { "" } else { "; other changes take effect at the next start" });
        }
        Ok(_) => {}
        Err(error) => log::error!("not reloaded: {error}"),
    }
}

/// `Type=notify` (sd_notify(3)): the node listens.
fn tell_service_manager() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told = UnixDatagram::unbound().and_then(|socket| socket.send_to(b"READY=1", path));
    if let Err(error) = told {
        log::warn!("cannot tell the service manager that this node is ready: {error}");
    }
}
