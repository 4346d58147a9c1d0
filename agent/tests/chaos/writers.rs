//! Writers that never rest, one at each node's door, and the ledger of what they were told.
//!
//! A write is repeated under its request id until it is acknowledged, so once the writers rest nothing is in doubt: the
//! store must hold exactly what the ledger says, no key more and none less.

use crate::{
    NODES,
    cluster::{Cluster, HEALTHY_WITHIN},
    common::{block_on, until},
    wire,
};
use async_io::Timer;
use proto::{
    Channel,
    v1::{self, write_request::Op},
};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Between two writes of one writer, so that the disk has time for others too.
const PACE: Duration = Duration::from_millis(40);
/// After this long without an answer a write is repeated: longer than a node promises to take, whatever happened.
const REPEAT_AFTER: Duration = Duration::from_secs(13);
/// The same of a writer that has other doors to knock at.
const KNOCK_ELSEWHERE_AFTER: Duration = Duration::from_secs(3);
const REFUSED_PAUSE: Duration = Duration::from_millis(20);
/// Keys a writer leaves in the store; then each write is followed by the deletion of its oldest.
const KEYS_KEPT: u64 = 500;

/// Everything that was acknowledged and not deleted, and when.
pub struct Ledger {
    keys: BTreeMap<String, Vec<u8>>,
    acknowledged: u64,
    last: Instant,
    longest: Duration,
}

impl Ledger {
    fn acknowledge(&mut self) {
        self.longest = self.longest.max(self.last.elapsed());
        self.last = Instant::now();
        self.acknowledged += 1;
    }
}

/// What the writers were told since they were last asked to go on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    pub acknowledged: u64,
    /// The longest time in which no writer anywhere got an acknowledgement.
    pub pause: Duration,
}

pub struct Writers {
    ledger: Arc<Mutex<Ledger>>,
    resting: Arc<AtomicBool>,
    /// Writers in the middle of a write.
    busy: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    doors: Vec<PathBuf>,
}

impl Writers {
    /// They rest until told to go on.
    pub fn start(cluster: &Cluster) -> Writers {
        let ledger = Ledger { keys: BTreeMap::new(), acknowledged: 0, last: Instant::now(), longest: Duration::ZERO };
        let doors: Vec<PathBuf> = (0..NODES).map(|node| cluster.door(node)).collect();
        let mut writers = Writers {
            ledger: Arc::new(Mutex::new(ledger)),
            resting: Arc::new(AtomicBool::new(true)),
            busy: Arc::new(AtomicUsize::new(0)),
            ended: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
            doors,
        };
        for node in 0..NODES {
            let writer = Writer {
                node,
                doors: writers.doors.clone(),
                pinned: cluster.managers() == NODES,
                ledger: writers.ledger.clone(),
                resting: writers.resting.clone(),
                busy: writers.busy.clone(),
                ended: writers.ended.clone(),
            };
            writers.threads.push(std::thread::spawn(move || writer.work()));
        }
        writers
    }

    pub fn go_on(&self) {
        let mut ledger = self.ledger.lock().expect("no writer panics");
        (ledger.acknowledged, ledger.last, ledger.longest) = (0, Instant::now(), Duration::ZERO);
        self.resting.store(false, Ordering::SeqCst);
    }

    /// No pause goes on longer than this: somebody is told again.
    ///
    /// # Panics
    /// Nobody is.
    pub fn until_acknowledged(&self, within: Duration) -> Duration {
        let asked = Instant::now();
        let seen = || self.ledger.lock().expect("no writer panics").last > asked;
        until("an acknowledged write", within, || seen().then(|| asked.elapsed()))
    }

    /// Waits until each writer has its last answer.
    ///
    /// # Errors
    /// A write is still without one.
    pub fn rest(&self) -> Result<Told, String> {
        self.resting.store(true, Ordering::SeqCst);
        let asked = Instant::now();
        while self.busy.load(Ordering::SeqCst) > 0 {
            if asked.elapsed() > HEALTHY_WITHIN {
                return Err(format!("a write was not acknowledged within {HEALTHY_WITHIN:?} by a healthy cluster"));
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let ledger = self.ledger.lock().expect("no writer panics");
        Ok(Told { acknowledged: ledger.acknowledged, pause: ledger.longest })
    }

    /// The store against the ledger, asked at one node's door.
    ///
    /// # Errors
    /// The first keys that are lost, changed, or should not be there.
    pub fn compare(&self, node: usize) -> Result<(), String> {
        let found =
            wire::keys(&self.doors[node], "chaos/", HEALTHY_WITHIN).map_err(|status| format!("the keys cannot be read: {status}"))?;
        let found: BTreeMap<String, Vec<u8>> = found.into_iter().collect();
        let ledger = self.ledger.lock().expect("no writer panics");
        let lost: Vec<&String> = ledger.keys.iter().filter(|(key, value)| found.get(*key) != Some(value)).map(|(key, _)| key).collect();
        let surplus: Vec<&String> = found.keys().filter(|key| !ledger.keys.contains_key(*key)).collect();
        if lost.is_empty() && surplus.is_empty() {
            return Ok(());
        }
        let some = |keys: &[&String]| format!("{} ({:?} …)", keys.len(), &keys[..keys.len().min(5)]);
        Err(format!("acknowledged writes lost: {}; deleted keys that are back: {}", some(&lost), some(&surplus)))
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // A writer's panic was printed where it happened.
            let _ = thread.join();
        }
    }
}

struct Writer {
    node: usize,
    doors: Vec<PathBuf>,
    /// It knocks at its own node's door only; else, refused there, at the next one, as `disco` does.
    pinned: bool,
    ledger: Arc<Mutex<Ledger>>,
    resting: Arc<AtomicBool>,
    busy: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Writer {
    fn work(&self) {
        block_on(async |spawner| {
            let open = |door: &PathBuf| Channel::unix(spawner.clone(), door.clone(), wire::limits(self.patience()));
            let channels: Vec<Channel> = self.doors.iter().map(open).collect();
            let mut sequence = 0;
            let mut turn = 0u64;
            while !self.ended.load(Ordering::SeqCst) {
                // Busy first, then look: whoever sees nobody busy after saying "rest" may count.
                self.busy.fetch_add(1, Ordering::SeqCst);
                if self.resting.load(Ordering::SeqCst) {
                    self.busy.fetch_sub(1, Ordering::SeqCst);
                    Timer::after(REFUSED_PAUSE).await;
                    continue;
                }
                let (key, value) = (self.key(turn), format!("{turn} by {}", Cluster::name(self.node)).into_bytes());
                let set = Op::KvSet(v1::KvSet { key: key.clone(), value: value.clone() });
                if self.until_acknowledged(&channels, &mut sequence, set).await {
                    self.ledger.lock().expect("nobody panics with it").keys.insert(key, value);
                }
                if let Some(oldest) = turn.checked_sub(KEYS_KEPT).map(|turn| self.key(turn)) {
                    let delete = Op::KvDelete(v1::KvDelete { key: oldest.clone() });
                    if self.until_acknowledged(&channels, &mut sequence, delete).await {
                        self.ledger.lock().expect("nobody panics with it").keys.remove(&oldest);
                    }
                }
                self.busy.fetch_sub(1, Ordering::SeqCst);
                turn += 1;
                Timer::after(PACE).await;
            }
        });
    }

    fn patience(&self) -> Duration {
        if self.pinned { REPEAT_AFTER } else { KNOCK_ELSEWHERE_AFTER }
    }

    fn key(&self, turn: u64) -> String {
        format!("chaos/{}/{turn:06}", Cluster::name(self.node))
    }

    /// The same request again and again; `false` if the test ended first.
    async fn until_acknowledged(&self, channels: &[Channel], sequence: &mut u64, op: Op) -> bool {
        *sequence += 1;
        let client = u64::from(std::process::id()) << 8 | self.node as u64;
        let request = v1::WriteRequest { client, sequence: *sequence, op: Some(op) };
        let mut door = self.node;
        while channels[door].disco().write(request.clone()).await.is_err() {
            door = if self.pinned { door } else { (door + 1) % NODES };
            if self.ended.load(Ordering::SeqCst) {
                return false;
            }
            Timer::after(REFUSED_PAUSE).await;
        }
        self.ledger.lock().expect("nobody panics with it").acknowledge();
        true
    }
}
