//! Links to other nodes: everything this node says to another goes through here.
//!
//! One channel per node, opened at the first word and closed when nothing was said for a while. Raft messages have a
//! stream and a short queue of their own (`link`); a full queue drops them, which Raft is made for. Calls that take time
//! run as tasks and end in exactly one input.

pub mod join;
mod link;
mod report;
mod snapshot;

use crate::{
    drivers::{api::door::Door, peers::link::Link},
    model::{
        codec,
        ids::{MemberId, NodeId},
        io::{Access, Input, Keyring},
        limits::SCRIPT_HOOK_MS_MAX,
        query::{Report, Way},
    },
};
use proto::{Channel, ChannelLimits, Spawner, v1, v1::peer_client::PeerClient};
use rustls::ClientConfig;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tonic::Status;

/// A link that carried nothing for this long is closed.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Makes the TLS settings for talking to a node: exactly this one, or (`None`) any node of the cluster.
pub type TlsFor = Box<dyn Fn(Option<NodeId>) -> Arc<ClientConfig> + Send + Sync>;

/// All links; clones share them.
#[derive(Clone)]
pub struct Peers(Arc<Shared>);

struct Shared {
    spawner: Spawner,
    door: Door,
    tls: TlsFor,
    links: Mutex<BTreeMap<NodeId, Link>>,
    /// Where the last report went, kept open for the next.
    reporting: Mutex<Option<(Way, Channel)>>,
    /// Whether it was said that nobody believes this node's certificate any more, or it theirs.
    estranged: AtomicBool,
}

impl Peers {
    /// No link yet. What ends (calls, links) is reported through `door`.
    pub fn new(spawner: Spawner, door: Door, tls: TlsFor) -> Peers {
        Peers(Arc::new(Shared {
            spawner,
            door,
            tls,
            links: Mutex::default(),
            reporting: Mutex::default(),
            estranged: AtomicBool::new(false),
        }))
    }

    /// Says once that this node is a stranger to all it asks, and so cannot come back by itself.
    fn note_estranged(&self, estranged: bool, why: &str) {
        let was = self.0.estranged.swap(estranged, Ordering::Relaxed);
        if estranged && !was {
            log::warn!(
                "no node of the cluster believes this node, or it them: {why}. If the certificate authority was replaced while it was \
                 away, take it out with `disco node rm` and let it join anew, with an empty data dir"
            );
        }
    }

    /// Queues Raft messages for a member. What does not fit is dropped and the node reported unreachable.
    pub fn send(&self, node: NodeId, address: &str, to: MemberId, messages: Vec<Vec<u8>>) {
        let all_taken = self.with_link(node, address, |link| link.push(to, messages));
        if !all_taken {
            self.0.door.report(Input::Unreachable { node });
        }
    }

    /// Streams a snapshot; ends in `SnapshotSent`.
    pub fn send_snapshot(&self, node: NodeId, address: &str, to: MemberId, message: Vec<u8>, data: Arc<Vec<u8>>) {
        let client = self.client(node, address);
        let door = self.0.door.clone();
        self.spawn(async move {
            let sent = snapshot::send(client, to, message, data).await;
            if let Err(why) = &sent {
                log::warn!("sending a snapshot to node {node}: {}", why.message());
            }
            door.report(Input::SnapshotSent { to, ok: sent.is_ok() });
        });
    }

    /// Asks a node to take a Raft seat; ends in `Enlisted`.
    pub fn enlist(&self, node: NodeId, address: &str, member: MemberId, keyring: &Keyring) {
        let request = v1::EnlistRequest { member: member.0, keyring: codec::encode(keyring) };
        let mut client = self.client(node, address);
        let door = self.0.door.clone();
        self.spawn(async move {
            let ok = accepted("enlist", node, client.enlist(request).await);
            door.report(Input::Enlisted { node, member, ok });
        });
    }

    /// Tells a node that its Raft seat is gone; ends in `Discharged`.
    pub fn discharge(&self, node: NodeId, address: &str, member: MemberId) {
        let mut client = self.client(node, address);
        let door = self.0.door.clone();
        self.spawn(async move {
            let ok = accepted("discharge", node, client.discharge(v1::DischargeRequest { member: member.0 }).await);
            door.report(Input::Discharged { node, member, ok });
        });
    }

    /// Says that this node lives to the first manager that answers; ends in `ReportAnswered` or `Removed`.
    pub fn report(&self, report: Report, try_in_order: Vec<Way>) {
        let peers = self.clone();
        self.spawn(async move {
            let outcome = report::send(&peers, &report, try_in_order).await;
            peers.0.door.report(outcome);
        });
    }

    /// Passes a request on to the leader.
    ///
    /// # Errors
    /// The leader's refusal, or `UNAVAILABLE` if it cannot be reached.
    pub async fn forward(&self, leader: NodeId, address: &str, request: v1::ForwardRequest) -> Result<v1::ForwardReply, Status> {
        let runs_a_script = matches!(request.request, Some(v1::forward_request::Request::Plan(_) | v1::forward_request::Request::Eval(_)));
        let mut request = tonic::Request::new(request);
        if runs_a_script {
            // The leader bounds it; a link's usual patience would be too short.
            request.set_timeout(Duration::from_millis(SCRIPT_HOOK_MS_MAX));
        }
        Ok(self.client(leader, address).forward(request).await?.into_inner())
    }

    /// Asks a manager for a certificate for the same key.
    ///
    /// # Errors
    /// Its refusal, or `UNAVAILABLE` if it cannot be reached.
    pub async fn renew(&self, manager: NodeId, address: &str, csr: Vec<u8>) -> Result<Vec<u8>, Status> {
        let mut client = self.client(manager, address);
        Ok(client.renew(v1::RenewRequest { csr }).await?.into_inner().certificate)
    }

    /// Where work that goes with a link is spawned.
    pub fn spawner(&self) -> &Spawner {
        &self.0.spawner
    }

    /// Reads the logs of tasks on another node.
    ///
    /// # Errors
    /// Its refusal, or `UNAVAILABLE` if it cannot be reached.
    pub async fn task_logs(&self, node: NodeId, address: &str, wanted: v1::LogsRequest) -> Result<tonic::Streaming<v1::LogLine>, Status> {
        Ok(self.client(node, address).task_logs(wanted).await?.into_inner())
    }

    /// Closes the links to nodes that are no longer in the cluster.
    pub fn keep_only(&self, access: &Access) {
        let known = |node: &NodeId| access.nodes.iter().any(|(known, _, _)| known == node);
        self.links().retain(|node, _| known(node));
    }

    fn client(&self, node: NodeId, address: &str) -> PeerClient<Channel> {
        let channel = self.with_link(node, address, |link| link.channel.clone());
        channel.peer()
    }

    /// The link to a node, opened if there is none or it leads to an old address.
    fn with_link<T>(&self, node: NodeId, address: &str, act: impl FnOnce(&mut Link) -> T) -> T {
        let now = Instant::now();
        let mut links = self.links();
        links.retain(|other, link| *other == node || now.duration_since(link.used) < IDLE_MAX);
        if links.get(&node).is_some_and(|link| link.address != address) {
            links.remove(&node);
        }
        let link = links.entry(node).or_insert_with(|| {
            let channel = self.channel(address, Some(node));
            Link::open(&self.0.spawner, self.0.door.clone(), node, address, channel)
        });
        link.used = now;
        act(link)
    }

    /// A channel for reports, to the node that is expected there or to whoever of the cluster answers; kept until another
    /// is asked for.
    fn channel_to(&self, way: &Way) -> Channel {
        let mut reporting = self.0.reporting.lock().expect("no code that holds this lock can panic");
        match &*reporting {
            Some((known, channel)) if known == way => channel.clone(),
            _ => {
                let channel = self.channel(&way.address, way.node);
                *reporting = Some((way.clone(), channel.clone()));
                channel
            }
        }
    }

    fn channel(&self, address: &str, node: Option<NodeId>) -> Channel {
        Channel::tcp(self.0.spawner.clone(), address.to_owned(), (self.0.tls)(node), ChannelLimits::default())
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<NodeId, Link>> {
        self.0.links.lock().expect("no code that holds this lock can panic")
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawner.0.spawn(task).detach();
    }
}

fn accepted(what: &str, node: NodeId, reply: Result<tonic::Response<v1::Done>, Status>) -> bool {
    if let Err(status) = &reply {
        log::warn!("{what} node {node}: {}", status.message());
    }
    reply.is_ok()
}
