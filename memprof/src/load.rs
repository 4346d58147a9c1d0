//! A load of known size: so many mutual TLS connections, so many requests a second, so many of them writes.
//!
//! Requests are due at fixed times, spread evenly over the connections. Who falls behind catches up by asking again at
//! once, so the rate holds as long as the leader can hold it; the report says if it could not.

use proto::{
    Channel, ChannelLimits, Spawner,
    v1::{KvGet, KvSet, ReadRequest, WriteRequest, disco_client::DiscoClient, read_request::Query, write_request::Op},
};
use rustls::{
    RootCertStore,
    client::WebPkiServerVerifier,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// Distinct keys that are written, so that the load measures requests and not a growing state.
const KEYS: u64 = 64;
/// Requests that one connection may have open: a slow answer must not slow the load down, nor pile up without end.
const LANES: u32 = 4;

/// Who asks, in PEM: an administrator.
pub struct Identity {
    /// The cluster's CA.
    pub ca: Vec<u8>,
    /// The administrator's certificate …
    pub certificate: Vec<u8>,
    /// … and key.
    pub key: Vec<u8>,
}

/// What to ask.
pub struct Plan {
    /// Connections, each with its own TLS session.
    pub connections: u32,
    /// Over all connections.
    pub requests_per_second: u32,
    /// Every so many requests is a durable write; the others are linearizable reads.
    pub one_write_in: u32,
    /// Size of what is written.
    pub value_bytes: usize,
    /// How long.
    pub seconds: u32,
}

impl Plan {
    /// Requests in all.
    pub fn planned(&self) -> u64 {
        u64::from(self.requests_per_second) * u64::from(self.seconds)
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Requests answered well.
    pub answered: u64,
    /// Requests answered with an error.
    pub refused: u64,
    /// From the first request to the last answer.
    pub took: Duration,
    /// Time from request to answer, milliseconds: the middle one, the 99th of 100, the longest.
    pub latency_ms: [f64; 3],
    /// One of the errors.
    pub error: Option<String>,
}

impl Report {
    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64().max(0.001)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [middle, most, longest] = self.latency_ms;
        write!(f, "{} answered ({:.0}/s), {} refused, ", self.answered, self.rate(), self.refused)?;
        write!(f, "{middle:.1} ms median, {most:.1} ms for 99 %, {longest:.1} ms at most")?;
        if let Some(error) = &self.error {
            write!(f, "; {error}")?;
        }
        Ok(())
    }
}

/// Why no load could be made at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The administrator's files.
    #[error("cannot use the administrator's certificate: {0}")]
    Identity(String),
    /// Whoever was asked.
    #[error("a write was refused: {0}")]
    Refused(String),
}

/// Asks `address` as planned and returns when the last answer is there.
///
/// # Errors
/// The identity is no identity. Refused requests are in the report instead.
pub fn run(address: &str, identity: &Identity, plan: &Plan) -> Result<Report, LoadError> {
    let tls = tls(identity)?;
    let executor = Arc::new(smol::Executor::new());
    let began = Instant::now();
    let mut tasks = Vec::new();
    for connection in 0..plan.connections {
        let channel = Channel::tcp(Spawner(executor.clone()), address.to_owned(), tls.clone(), ChannelLimits::default());
        for lane in 0..LANES {
            let turns = Turns::new(plan, connection + lane * plan.connections, began);
            tasks.push(executor.spawn(ask(channel.clone(), turns)));
        }
    }
    let tally = smol::block_on(executor.run(async {
        let mut all = Tally::default();
        for task in tasks {
            all.add(task.await);
        }
        all
    }));
    Ok(tally.report(began.elapsed()))
}

/// One write.
///
/// # Errors
/// The identity is no identity, or the write was refused.
pub(crate) fn write(address: &str, identity: &Identity, op: Op) -> Result<(), LoadError> {
    let executor = Arc::new(smol::Executor::new());
    let channel = Channel::tcp(Spawner(executor.clone()), address.to_owned(), tls(identity)?, ChannelLimits::default());
    let request = WriteRequest { client: new_client(), sequence: 1, op: Some(op) };
    let answer = smol::block_on(executor.run(async { DiscoClient::new(channel).write(request).await }));
    answer.map(drop).map_err(|status| LoadError::Refused(status.message().to_owned()))
}

/// What a connection needs to show that it is this administrator's.
///
/// # Errors
/// The identity is no identity.
pub fn tls(identity: &Identity) -> Result<Arc<rustls::ClientConfig>, LoadError> {
    let wrong = |error: &dyn fmt::Display| LoadError::Identity(error.to_string());
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(&identity.ca) {
        roots.add(ca.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let servers = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|error| wrong(&error))?;
    let chain = CertificateDer::pem_slice_iter(&identity.certificate).collect::<Result<_, _>>().map_err(|error| wrong(&error))?;
    let key = PrivateKeyDer::from_pem_slice(&identity.key).map_err(|error| wrong(&error))?;
    proto::client_config(Some((chain, key)), servers).map_err(|error| wrong(&error))
}

/// When a lane's requests are due, and which of them write.
struct Turns {
    began: Instant,
    /// Number among all connections' requests.
    next: u64,
    step: u64,
    end: u64,
    gap: Duration,
    one_write_in: u64,
    value_bytes: usize,
}

impl Turns {
    fn new(plan: &Plan, index: u32, began: Instant) -> Turns {
        Turns {
            began,
            next: u64::from(index),
            step: u64::from(plan.connections * LANES),
            end: plan.planned(),
            gap: Duration::from_secs(1) / plan.requests_per_second.max(1),
            one_write_in: u64::from(plan.one_write_in.max(1)),
            value_bytes: plan.value_bytes,
        }
    }
}

impl Iterator for Turns {
    /// When, the number, and whether it writes.
    type Item = (Instant, u64, bool);

    fn next(&mut self) -> Option<(Instant, u64, bool)> {
        let number = self.next;
        self.next += self.step;
        let due = self.began + self.gap * u32::try_from(number).ok()?;
        (number < self.end).then_some((due, number, number.is_multiple_of(self.one_write_in)))
    }
}

/// The id under which a retry would be recognized; nothing here retries.
pub(crate) fn new_client() -> u64 {
    static BEFORE: AtomicU32 = AtomicU32::new(0);
    u64::from(std::process::id()) << 32 | u64::from(BEFORE.fetch_add(1, Ordering::Relaxed))
}

async fn ask(channel: Channel, turns: Turns) -> Tally {
    let mut client = DiscoClient::new(channel);
    let mut tally = Tally::default();
    let who = new_client();
    let value_bytes = turns.value_bytes;
    for (due, number, writes) in turns {
        smol::Timer::at(due).await;
        let asked = Instant::now();
        let key = format!("load/{}", number % KEYS);
        let answer = if writes {
            let op = Op::KvSet(KvSet { key, value: vec![b'x'; value_bytes] });
            client.write(WriteRequest { client: who, sequence: number + 1, op: Some(op) }).await.map(drop)
        } else {
            let query = Query::KvGet(KvGet { key });
            client.read(ReadRequest { stale: false, query: Some(query) }).await.map(drop)
        };
        tally.note(asked.elapsed(), answer.map_err(|status| status.message().to_owned()));
    }
    tally
}

/// What one asker saw.
#[derive(Default)]
pub(crate) struct Tally {
    latencies: Vec<Duration>,
    refused: u64,
    error: Option<String>,
}

impl Tally {
    pub(crate) fn note(&mut self, took: Duration, answer: Result<(), String>) {
        match answer {
            Ok(()) => self.latencies.push(took),
            Err(error) => {
                self.refused += 1;
                self.error = Some(error);
            }
        }
    }

    pub(crate) fn add(&mut self, other: Tally) {
        self.latencies.extend(other.latencies);
        self.refused += other.refused;
        self.error = other.error.or(self.error.take());
    }

    pub(crate) fn report(mut self, took: Duration) -> Report {
        self.latencies.sort_unstable();
        let count = self.latencies.len();
        let at = |index: usize| self.latencies.get(index.min(count.saturating_sub(1))).map_or(0.0, |span| span.as_secs_f64() * 1e3);
        let latency_ms = [at(count / 2), at(count * 99 / 100), at(count)];
        Report { answered: count as u64, refused: self.refused, took, latency_ms, error: self.error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lanes_share_the_requests_evenly_and_one_in_ten_writes() {
        let plan = Plan { connections: 32, requests_per_second: 1_000, one_write_in: 10, value_bytes: 64, seconds: 2 };
        let began = Instant::now();
        let mut all: Vec<_> = (0..32 * LANES).flat_map(|index| Turns::new(&plan, index, began)).collect();
        all.sort_by_key(|(_, number, _)| *number);
        assert_eq!(all.len() as u64, plan.planned());
        assert_eq!(all.iter().filter(|(_, _, writes)| *writes).count(), 200);
        assert_eq!(all[1_999].0 - began, Duration::from_millis(1_999));
    }
}
