//! Talks to the cluster: tries its addresses in turn until one answers, within a time limit.
//!
//! A write carries who asks and which of its requests it is, so that asking again, elsewhere, after a lost answer, never
//! applies it twice. That makes every failure of the way (refused, lost, busy, no leader) worth another try; an answer
//! of "no" is not.

mod requests;

use crate::context::{Context, Identity};
use crate::message::Failure;
use agent::drivers::api::refusal::code_of;
use agent::model::limits;
use proto::v1::disco_client::DiscoClient;
use proto::{Channel, ChannelLimits, REFUSES_OURS, REFUSES_THEIRS, Spawner};
use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tonic::{Code, Response, Status};

/// One attempt at one address. A frozen node must not eat the whole limit.
const ATTEMPT_MAX: Duration = Duration::from_secs(4);
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// No more: what one waits for here is mostly an election, and a question costs little.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// How long to go on asking.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// While somebody answers, if only "busy" or "no leader now".
    pub answered: Duration,
    /// While nobody can be reached at all.
    pub unreached: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { answered: Duration::from_secs(10), unreached: Duration::from_secs(1) }
    }
}

impl Patience {
    pub fn both(limit: Duration) -> Patience {
        Patience { answered: limit, unreached: limit }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The answer is no. Nothing was changed.
    #[error("{why}")]
    Refused { code: Code, why: String },
    /// Nobody answered in time; of a write the outcome is unknown.
    #[error("no node of the cluster answers")]
    Unanswered { tried: Vec<(String, String)>, remedy: Remedy },
}

/// What a person may do when nobody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    Start,
    /// Somebody is there, and one of us two does not believe the other's certificate.
    Certificate,
    /// There is one door, a node's own.
    OtherDoor,
}

impl Remedy {
    fn of(socket: bool, tried: &[(String, String)]) -> Remedy {
        let mistrusted = |(_, why): &(String, String)| why.contains(REFUSES_OURS) || why.contains(REFUSES_THEIRS);
        match socket {
            true => Remedy::OtherDoor,
            false if tried.iter().any(mistrusted) => Remedy::Certificate,
            false => Remedy::Start,
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Remedy::Start => "`disco bootstrap` starts stopped instances again",
            Remedy::Certificate => {
                "after `disco ca rotate`, or a year without use, a folder needs a new certificate: whoever has one runs `disco ca issue DIR`; \
                 on a node of the cluster `disco ca issue DIR --socket D/control.sock` needs none"
            }
            Remedy::OtherDoor => "--socket names the control.sock of a running discod, of a manager for most questions",
        }
    }
}

impl CallError {
    /// As a failure of `what`, e.g. "cannot set key `a`".
    pub fn failure(self, what: impl Into<String>) -> Failure {
        match self {
            CallError::Refused { code: Code::Unauthenticated, why } => Failure::no(what).because(why).hint(Remedy::Certificate.hint()),
            CallError::Refused { why, .. } => Failure::no(what).because(why),
            CallError::Unanswered { tried, remedy } => {
                let failure = Failure::no(what);
                let failure = if tried.is_empty() { failure.because("no address of a node is known here") } else { failure };
                let failure = tried.into_iter().fold(failure, |f, (address, why)| f.because(format!("{address}: {why}")));
                failure.hint(remedy.hint())
            }
        }
    }

    pub fn is_unanswered(&self) -> bool {
        matches!(self, CallError::Unanswered { .. })
    }
}

struct Door {
    address: String,
    grpc: DiscoClient<Channel>,
}

/// Makes doors for addresses.
enum Key {
    /// A node's control.sock: there is one door.
    Socket,
    Certificate(std::sync::Arc<rustls::ClientConfig>),
}

pub struct Client {
    spawner: Spawner,
    key: Key,
    doors: Vec<Door>,
    /// The door that answered last.
    good: usize,
    patience: Patience,
    client: u64,
    sequence: u64,
    /// Nodes call each other by addresses that mean nothing here.
    outside: bool,
}

impl Client {
    /// The cluster that `context` means: through `--socket`, or by the folder's addresses and certificate.
    ///
    /// # Errors
    /// The folder has no cluster yet, or its files are damaged.
    pub fn open(context: &Context, spawner: &Spawner) -> Result<Client, Failure> {
        if let Some(path) = &context.socket {
            return Ok(Client::through_socket(path.clone(), spawner));
        }
        let shown = context.folder.display();
        let Some(cluster) = context.cluster()? else {
            return Err(Failure::no(format!("there is no cluster in {shown}"))
                .hint("`disco init` writes a starting folder, `disco bootstrap` makes its cluster; `--dir` names another folder"));
        };
        let (Some(identity), addresses) = (context.identity()?, context.addresses()?) else {
            return Err(Failure::no(format!("cluster `{}` was not finished", cluster.name)).hint("`disco bootstrap` continues"));
        };
        let client = Client::with_certificate(&identity, &addresses, spawner)?;
        Ok(if cluster.is_elsewhere() { client.called_from_outside() } else { client })
    }

    /// The node behind this socket file, and no other.
    pub fn through_socket(path: PathBuf, spawner: &Spawner) -> Client {
        let channel = Channel::unix(spawner.clone(), path, ChannelLimits::default());
        let door = Door { address: channel.address().to_owned(), grpc: channel.disco() };
        Client::new(spawner, Key::Socket, vec![door])
    }

    /// # Errors
    /// The certificate, its key or the CA is damaged.
    pub fn with_certificate(identity: &Identity, addresses: &[String], spawner: &Spawner) -> Result<Client, Failure> {
        let mut client = Client::new(spawner, Key::Certificate(crate::identity::tls(identity)?), Vec::new());
        client.know(addresses);
        Ok(client)
    }

    fn new(spawner: &Spawner, key: Key, doors: Vec<Door>) -> Client {
        Client {
            spawner: spawner.clone(),
            key,
            doors,
            good: 0,
            patience: Patience::default(),
            client: random(),
            sequence: 0,
            outside: false,
        }
    }

    /// From here on only who asks says where nodes are, not they themselves.
    pub fn called_from_outside(mut self) -> Client {
        self.outside = true;
        self
    }

    pub fn with_patience(mut self, patience: Patience) -> Client {
        self.patience = patience;
        self
    }

    pub fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// Nobody answered; `tried`: whom was asked, and why not.
    pub fn unanswered(&self, tried: Vec<(String, String)>) -> CallError {
        let remedy = Remedy::of(matches!(self.key, Key::Socket), &tried);
        CallError::Unanswered { tried, remedy }
    }

    /// Takes the addresses that nodes say they have, if they are of use here.
    pub fn know(&mut self, addresses: &[String]) {
        if !self.outside {
            self.reach(addresses);
        }
    }

    /// Takes these addresses for the cluster's, keeping the connections there are.
    pub fn reach(&mut self, addresses: &[String]) {
        let Key::Certificate(tls) = &self.key else { return };
        let last_good = self.doors.get(self.good).map(|d| d.address.clone());
        let mut old = std::mem::take(&mut self.doors);
        for address in addresses.iter().take(limits::NODES_MAX) {
            let kept = old.iter().position(|d| d.address == *address).map(|i| old.swap_remove(i));
            let made = || Door {
                address: address.clone(),
                grpc: Channel::tcp(self.spawner.clone(), address.clone(), tls.clone(), ChannelLimits::default()).disco(),
            };
            self.doors.push(kept.unwrap_or_else(made));
        }
        self.good = self.doors.iter().position(|d| Some(&d.address) == last_good.as_ref()).unwrap_or(0);
    }

    /// The addresses known, last good one first.
    pub fn addresses(&self) -> Vec<String> {
        let count = self.doors.len();
        (0..count).map(|turn| self.doors[(self.good + turn) % count].address.clone()).collect()
    }

    /// The next call begins at another door.
    pub fn turn_away(&mut self) {
        if !self.doors.is_empty() {
            self.good = (self.good + 1) % self.doors.len();
        }
    }

    async fn call<T, F>(&mut self, attempt: impl Fn(DiscoClient<Channel>) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_for(ATTEMPT_MAX, worth_another_try, attempt).await
    }

    /// `again`: whether an answer is worth another try.
    async fn call_for<T, F>(
        &mut self,
        attempt_max: Duration,
        again: fn(&Status) -> bool,
        attempt: impl Fn(DiscoClient<Channel>) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let started = Instant::now();
        let mut pause = PAUSE_FIRST;
        loop {
            let count = self.doors.len();
            let mut tried = Vec::with_capacity(count);
            let mut reached = false;
            for turn in 0..count {
                let index = (self.good + turn) % count;
                let left = self.patience.answered.saturating_sub(started.elapsed()).max(PAUSE_FIRST);
                let limit = if attempt_max > ATTEMPT_MAX { attempt_max } else { attempt_max.min(left) };
                let door = &self.doors[index];
                match within(limit, attempt(door.grpc.clone())).await {
                    Some(Ok(response)) => {
                        self.good = index;
                        return Ok(response.into_inner());
                    }
                    Some(Err(status)) if !again(&status) => {
                        self.good = index;
                        return Err(CallError::Refused { code: status.code(), why: status.message().to_owned() });
                    }
                    Some(Err(status)) => {
                        let why = status.message();
                        let unreachable = format!("cannot reach {}: ", door.address);
                        // A worker's own door will not be a manager's soon; among several doors another one may be.
                        let is_worker = matches!(self.key, Key::Socket) && code_of(&status) == "not_a_manager";
                        reached |= !why.starts_with(&unreachable) && !is_worker;
                        tried.push((door.address.clone(), why.strip_prefix(&unreachable).unwrap_or(why).to_owned()));
                    }
                    None if attempt_max > ATTEMPT_MAX => {
                        let why = format!("no answer within {} s; what came of it is unknown", attempt_max.as_secs());
                        return Err(CallError::Unanswered { tried: vec![(door.address.clone(), why)], remedy: Remedy::Start });
                    }
                    None => {
                        reached = true;
                        tried.push((door.address.clone(), "no answer in time".to_owned()));
                    }
                }
            }
            let patience = if reached { self.patience.answered } else { self.patience.unreached };
            if count == 0 || started.elapsed() + pause > patience {
                return Err(self.unanswered(tried));
            }
            async_io::Timer::after(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

fn worth_another_try(status: &Status) -> bool {
    // gRPC has one word for "too much right now" and "more than is allowed"; ours (`disco-code`) tells them apart.
    let limit = code_of(status) == "limit";
    let passing = [Code::Unavailable, Code::ResourceExhausted, Code::DeadlineExceeded, Code::Cancelled, Code::Aborted, Code::Unknown];
    passing.contains(&status.code()) && !limit
}

/// The node answered something else than was asked.
pub fn mismatched() -> CallError {
    CallError::Refused { code: Code::Internal, why: "the node answered another question".into() }
}

/// `None` when the time is over first.
pub async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    futures_lite::future::or(async { Some(future.await) }, async {
        async_io::Timer::after(limit).await;
        None
    })
    .await
}

/// A number nobody else has.
pub fn random() -> u64 {
    u64::from_le_bytes(agent::drivers::pki::random_bytes())
}

#[cfg(test)]
pub mod tests;
