//! One node's stream of Raft messages, with a short queue in front.
//!
//! The stream opens at the first message and stays. When it breaks (a killed peer's kernel resets the connection) the
//! replica hears of it at once, what was queued is thrown away, and the next message opens it again after a pause that
//! doubles from 50 ms to 500 ms: Raft repeats what matters.

use crate::{
    drivers::api::door::Door,
    model::{
        ids::{MemberId, NodeId},
        io::Input,
        limits::RAFT_MESSAGE_BYTES_MAX,
    },
};
use async_channel::{Receiver, Sender};
use futures_lite::{Stream, StreamExt, stream};
use proto::{Channel, Spawner, v1::RaftBatch};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

const QUEUE_BATCHES: usize = 64;
const QUEUE_BYTES: usize = 512 * 1024;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// A stream that lived this long had a working connection: the next pause is short again.
const HEALTHY: Duration = Duration::from_secs(1);

/// The way to one node. Dropping it closes the stream.
pub(super) struct Link {
    pub address: String,
    pub channel: Channel,
    /// When something was last sent or asked.
    pub used: Instant,
    queue: Sender<RaftBatch>,
    queued_bytes: Arc<AtomicUsize>,
    _carrier: smol::Task<()>,
}

impl Link {
    pub fn open(spawner: &Spawner, door: Door, node: NodeId, address: &str, channel: Channel) -> Link {
        let (queue, waiting) = async_channel::bounded(QUEUE_BATCHES);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let carrier = Carrier { node, door, channel: channel.clone(), waiting, queued_bytes: queued_bytes.clone() };
        Link { address: address.to_owned(), channel, used: Instant::now(), queue, queued_bytes, _carrier: spawner.0.spawn(carrier.run()) }
    }

    /// Queues messages in batches that fit the wire. `false`: at least one did not fit the queue and was dropped.
    pub fn push(&self, to: MemberId, messages: Vec<Vec<u8>>) -> bool {
        let mut all_taken = true;
        let mut batch = RaftBatch { messages: Vec::new(), to_member: to.0 };
        for message in messages {
            if !batch.messages.is_empty() && bytes(&batch) + message.len() > RAFT_MESSAGE_BYTES_MAX {
                let full = std::mem::replace(&mut batch, RaftBatch { messages: Vec::new(), to_member: to.0 });
                all_taken &= self.push_batch(full);
            }
            batch.messages.push(message);
        }
        all_taken & (batch.messages.is_empty() || self.push_batch(batch))
    }

    fn push_batch(&self, batch: RaftBatch) -> bool {
        let size = bytes(&batch);
        if self.queued_bytes.load(Ordering::Relaxed) + size > QUEUE_BYTES {
            return false;
        }
        // Counted before it is queued: the carrier may take it out at once.
        self.queued_bytes.fetch_add(size, Ordering::Relaxed);
        let taken = self.queue.try_send(batch).is_ok();
        if !taken {
            self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
        }
        taken
    }
}

/// Moves batches from the queue onto the wire.
struct Carrier {
    node: NodeId,
    door: Door,
    channel: Channel,
    waiting: Receiver<RaftBatch>,
    queued_bytes: Arc<AtomicUsize>,
}

impl Carrier {
    async fn run(self) {
        let mut pause = PAUSE_MIN;
        let mut told = String::new();
        while let Ok(first) = self.waiting.recv().await {
            self.queued_bytes.fetch_sub(bytes(&first), Ordering::Relaxed);
            let started = Instant::now();
            let ended = self.channel.peer().raft(self.stream(first)).await;
            let why = ended.err().map_or_else(|| "it ended the stream".to_owned(), |status| status.message().to_owned());
            if started.elapsed() > HEALTHY {
                pause = PAUSE_MIN;
                told.clear();
            }
            if why != told {
                log::info!("the link to node {} broke: {why}", self.node);
                told = why;
            }
            self.forget_queued();
            self.door.report(Input::Unreachable { node: self.node });
            async_io::Timer::after(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            self.forget_queued();
        }
    }

    fn stream(&self, first: RaftBatch) -> impl Stream<Item = RaftBatch> + Send + 'static {
        let queued_bytes = self.queued_bytes.clone();
        let rest = self.waiting.clone().inspect(move |batch| {
            queued_bytes.fetch_sub(bytes(batch), Ordering::Relaxed);
        });
        Box::pin(stream::once(first).chain(rest))
    }

    fn forget_queued(&self) {
        while let Ok(batch) = self.waiting.try_recv() {
            self.queued_bytes.fetch_sub(bytes(&batch), Ordering::Relaxed);
        }
    }
}

fn bytes(batch: &RaftBatch) -> usize {
    batch.messages.iter().map(Vec::len).sum()
}
