//! Links between nodes over real sockets and TLS, with tests where the replicas would be.

use agent::{
    drivers::{
        api::{
            Api,
            door::{self, Door, Inbox},
        },
        artifacts::Artifacts,
        peers::Peers,
        pki::{self, Authority, Doorkeeper, Trust},
        runtime::{Runtime, process::start::Here},
    },
    model::{
        ids::{ClusterId, MemberId, NodeId},
        io::{Access, Input, Keyring},
        node::{NodeRecord, NodeState, Role},
        query::{Answer, ServiceView, StatusView, View},
        service::{Roll, ServiceRecord, ServiceSpec},
        task::{Exit, TaskCall, TaskEvent, TaskNumber, TaskOrder, TaskRecord, TaskSeen, TaskState},
    },
};
use futures_lite::FutureExt;
use proto::{Listener, ServerLimits, Spawner};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

const BOUND: Duration = Duration::from_secs(10);
const SEAT: MemberId = MemberId(7);

/// One end: what it says goes through `peers`, what it hears comes out of `inbox`.
struct End {
    node: NodeId,
    key: Vec<u8>,
    trust: Arc<Trust>,
    door: Door,
    inbox: Inbox,
    peers: Peers,
    runtime: Runtime,
    /// What the runtime says.
    tasks: async_channel::Receiver<Input>,
    _folder: tempfile::TempDir,
}

impl End {
    fn new(authority: &Authority, spawner: &Spawner) -> End {
        let secret = pki::new_key();
        let key = pki::public_key(&secret).expect("just made");
        let node = pki::node_of(&key);
        let trust = Trust::new();
        let certificate = authority.sign_node(node, &key, 1_700_000_000_000).expect("32 bytes");
        trust.install(&certificate, &secret, authority.certificate()).expect("a pair");
        let (door, inbox) = door::open();
        let shown = trust.clone();
        let peers = Peers::new(spawner.clone(), door.clone(), Box::new(move |node| shown.client_tls(node)));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (report, tasks) = async_channel::unbounded();
        let report = Arc::new(move |input| report.try_send(input).expect("the channel is unbounded"));
        let at = Here { node, name: "n".into(), host: "127.0.0.1".into() };
        let runtime = Runtime::start(folder.path().join("tasks"), at, spawner, report).expect("the folder can be made");
        End { node, key, trust, door, inbox, peers, runtime, tasks, _folder: folder }
    }

    /// Serves this end for as long as the task lives, to a caller that is (or is not) a manager.
    fn serve(&self, spawner: &Spawner, at: SocketAddr, caller: &End, manager: bool) -> (SocketAddr, smol::Task<()>) {
        let doorkeeper = Doorkeeper::new(ClusterId(1), self.trust.clone(), 0);
        let logs = self.runtime.logs.clone();
        let api = Api::new(
            self.node,
            self.door.clone(),
            self.peers.clone(),
            self.trust.clone(),
            doorkeeper,
            logs,
            Artifacts::new(self._folder.path()),
        );
        api.gate.learn(Arc::new(Access { nodes: vec![(caller.node, caller.key.clone(), manager)], removed: vec![], ..Access::default() }));
        let limits = ServerLimits::default();
        let listener = Listener::tcp(at, self.trust.server_tls()).expect("the address is free");
        let address = listener.address().expect("it is TCP");
        let serving = proto::serve(spawner.clone(), listener, api.routes(&limits), limits);
        (address, spawner.0.spawn(async move { serving.await.expect("the socket is sound") }))
    }

    /// Runs a task of the service `web` to its end.
    async fn run(&self, number: u64, script: &str) {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).into();
        let spec = ServiceSpec { command, ..ServiceSpec::default() };
        let order = TaskOrder { number: TaskNumber(number), service: "web".into(), version: 1, wanted: true, spec, hold: None };
        self.runtime.carry_out(TaskCall::Start { order: Box::new(order), restarts: 0 });
        loop {
            if let Ok(Input::Task { event: TaskEvent::Ended(exit), .. }) = self.tasks.recv().await {
                return assert_eq!(exit, Exit::Code(0));
            }
        }
    }

    async fn heard(&self) -> Input {
        let late = async {
            async_io::Timer::after(BOUND).await;
            panic!("nothing was heard within {BOUND:?}")
        };
        self.inbox.next().or(late).await.expect("the door is open")
    }

    /// Sends and repeats, as Raft does, until the other end has it.
    async fn send_until_heard(&self, to: &End, address: SocketAddr) {
        let deadline = Instant::now() + BOUND;
        loop {
            self.peers.send(to.node, &address.to_string(), SEAT, vec![b"again".to_vec()]);
            let pause = async {
                async_io::Timer::after(Duration::from_millis(50)).await;
                None
            };
            if let Some(Input::Raft { .. }) = to.inbox.next().or(pause).await {
                return;
            }
            assert!(Instant::now() < deadline, "not heard within {BOUND:?}");
        }
    }
}

/// Two ends of one cluster; they stop when the play is over.
fn play(play: impl AsyncFnOnce(Spawner, End, End)) {
    let authority = Authority::create(ClusterId(1), 1_700_000_000_000);
    let executor = Arc::new(smol::Executor::new());
    let spawner = Spawner(executor.clone());
    let (here, there) = (End::new(&authority, &spawner), End::new(&authority, &spawner));
    smol::block_on(executor.run(play(spawner, here, there)));
}

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

#[test]
fn messages_arrive_in_order_and_as_the_certificates_node() {
    play(async |spawner, here, there| {
        let (address, _serving) = there.serve(&spawner, any_port(), &here, true);
        for number in 0..5u8 {
            here.peers.send(there.node, &address.to_string(), SEAT, vec![vec![number], vec![number, number]]);
        }
        for number in 0..5u8 {
            let Input::Raft { from, to, messages } = there.heard().await else { panic!("messages were sent") };
            assert_eq!((from, to, messages), (here.node, SEAT, vec![vec![number], vec![number, number]]));
        }
    });
}

#[test]
fn a_snapshot_arrives_whole() {
    play(async |spawner, here, there| {
        let (address, _serving) = there.serve(&spawner, any_port(), &here, true);
        let sent: Arc<Vec<u8>> = Arc::new((0..3_000_001u32).map(|i| (i % 251) as u8).collect());
        here.peers.send_snapshot(there.node, &address.to_string(), SEAT, b"head".to_vec(), sent.clone());
        let Input::Snapshot { from, to, message, data } = there.heard().await else { panic!("a snapshot was sent") };
        assert_eq!((from, to, message.as_slice()), (here.node, SEAT, b"head".as_slice()));
        assert!(data == *sent, "the bytes are the same");
        assert!(matches!(here.heard().await, Input::SnapshotSent { to: SEAT, ok: true }));
    });
}

#[test]
fn a_peer_that_goes_away_is_noticed_at_once_and_found_again() {
    play(async |spawner, here, there| {
        let (behind, _serving) = there.serve(&spawner, any_port(), &here, true);
        let (address, wire) = cuttable(any_port(), behind, &spawner).await;
        here.send_until_heard(&there, address).await;
        wire.cancel().await;
        let went = Instant::now();
        assert!(matches!(here.heard().await, Input::Unreachable { node } if node == there.node));
        assert!(went.elapsed() < Duration::from_secs(1), "noticed after {:?}", went.elapsed());
        let (_, _wire) = cuttable(address, behind, &spawner).await;
        here.send_until_heard(&there, address).await;
    });
}

/// Passes one connection on until the task is cancelled; then both ends see it closed, as when a process dies.
async fn cuttable(at: SocketAddr, behind: SocketAddr, spawner: &Spawner) -> (SocketAddr, smol::Task<()>) {
    let listener = smol::net::TcpListener::bind(at).await.expect("the address is free");
    let address = listener.local_addr().expect("it is bound");
    let pass = async move {
        let (near, _) = listener.accept().await.expect("the socket is sound");
        let far = smol::net::TcpStream::connect(behind).await.expect("somebody listens");
        let there = smol::io::copy(near.clone(), far.clone());
        let back = smol::io::copy(far, near);
        // How it ends is for the two ends to say.
        let _ = there.or(back).await;
    };
    (address, spawner.0.spawn(pass))
}

#[test]
fn nobody_at_an_address_is_unreachable_at_once() {
    play(async |_, here, there| {
        let asked = Instant::now();
        here.peers.send(there.node, "127.0.0.1:1", SEAT, vec![b"hello".to_vec()]);
        assert!(matches!(here.heard().await, Input::Unreachable { node } if node == there.node));
        assert!(asked.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn another_node_at_a_peers_address_gets_nothing() {
    play(async |spawner, here, there| {
        let (address, _serving) = there.serve(&spawner, any_port(), &here, true);
        let expected = NodeId(42);
        here.peers.send(expected, &address.to_string(), SEAT, vec![b"secret".to_vec()]);
        assert!(matches!(here.heard().await, Input::Unreachable { node } if node == expected));
        assert!(there.inbox.try_next().is_none());
    });
}

#[test]
fn a_worker_gives_out_no_seats_and_its_raft_messages_are_dropped() {
    play(async |spawner, here, there| {
        let (address, _serving) = there.serve(&spawner, any_port(), &here, false);
        let address = address.to_string();
        here.peers.send(there.node, &address, SEAT, vec![b"vote for me".to_vec()]);
        assert!(matches!(here.heard().await, Input::Unreachable { .. }));
        let keyring = Keyring { ca_key: vec![1], join_key: vec![2], secrets_key: vec![3], epoch: 0, next: None };
        here.peers.enlist(there.node, &address, SEAT, &keyring);
        assert!(matches!(here.heard().await, Input::Enlisted { ok: false, member: SEAT, .. }));
        here.peers.send_snapshot(there.node, &address, SEAT, vec![1], Arc::new(vec![2]));
        assert!(matches!(here.heard().await, Input::SnapshotSent { ok: false, .. }));
        assert!(there.inbox.try_next().is_none(), "nothing of it reached the replica");
    });
}

#[test]
fn a_peer_that_does_not_keep_up_costs_a_bounded_queue() {
    play(async |spawner, here, there| {
        let (address, _serving) = there.serve(&spawner, any_port(), &here, true);
        let address = address.to_string();
        // Nobody reads the other inbox: its lane, the wire and our queue fill up, then messages are dropped.
        let mut dropped = 0;
        let mut sent = 0;
        while dropped == 0 {
            assert!(sent < 1000, "64 MB were queued for a peer that takes nothing");
            here.peers.send(there.node, &address, SEAT, vec![vec![0; 64 * 1024]]);
            sent += 1;
            smol::future::yield_now().await;
            while let Some(input) = here.inbox.try_next() {
                assert!(matches!(input, Input::Unreachable { .. }));
                dropped += 1;
            }
        }
        assert!(sent < 100, "{sent} messages of 64 KiB were taken");
    });
}

/// A cluster whose service `web` has one task on each of these nodes.
fn status(places: &[(NodeId, String)]) -> StatusView {
    let node = |(id, address): &(NodeId, String)| NodeRecord {
        id: *id,
        name: format!("n-{id}"),
        address: address.clone(),
        public_key: Vec::new(),
        state: NodeState::Ready,
        member: None,
        cpus: 1,
        memory: 1,
        labels: [].into(),
        instance: None,
        joined_ms: 0,
        reason: String::new(),
        commands_known: 1,
        admitted: Role::Manager,
        since_ms: 0,
        seated: false,
        leaving: false,
        drained: false,
        preference: None,
        papers: Default::default(),
    };
    let task = |(at, (node, _)): (usize, &(NodeId, String))| {
        let number = TaskNumber(at as u64 + 1);
        let seen = TaskSeen { number, state: TaskState::Running, exit: None, error: String::new(), ports: [].into(), restarts: 0, pid: 1 };
        TaskRecord { number, service: "web".into(), version: 1, node: *node, wanted: true, seen, placed_ms: 0, started: false }
    };
    let specs = [(1, ServiceSpec::default())].into();
    let record =
        ServiceRecord { name: "web".into(), version: 1, specs, replicas_by_hand: None, roll: Roll::Done, previous: None, healthy: false };
    let tasks = places.iter().enumerate().map(task).collect();
    StatusView {
        cluster: ClusterId(1),
        cluster_name: "home".into(),
        leader: None,
        desired_nodes: 3,
        managers: 3,
        nodes: places.iter().map(node).collect(),
        instances: vec![],
        events: vec![],
        term: 1,
        problems: vec![],
        answered_by: places[0].0,
        voters: vec![],
        learners: vec![],
        services: vec![ServiceView { record, desired: 3, tasks, unplaced: vec![] }],
        script_version: 0,
        script_applied: 0,
        script_error: String::new(),
        rotation: None,
    }
}

#[test]
fn logs_of_all_nodes_come_merged_and_a_node_that_is_gone_is_a_line() {
    play(async |spawner, here, there| {
        here.run(1, "echo one").await;
        there.run(2, "echo two").await;
        here.run(4, "echo three; printf four").await;
        let (address, _serving) = here.serve(&spawner, any_port(), &there, true);
        let (beyond, _serving_too) = there.serve(&spawner, any_port(), &here, true);
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("loopback has free ports");
        let places = [(here.node, address.to_string()), (there.node, beyond.to_string()), (NodeId(3), nobody.to_string())];
        let channel =
            proto::Channel::tcp(spawner.clone(), address.to_string(), there.trust.client_tls(Some(here.node)), Default::default());
        let replica = async {
            loop {
                if let Some(Input::Request { ticket, .. }) = here.inbox.next().await {
                    here.door.answer(ticket, Answer::Read { index: 1, view: View::Status(Box::new(status(&places))) });
                }
            }
        };
        let ask = |service: &str, follow| {
            let request = proto::v1::LogsRequest { service: service.into(), follow, ..Default::default() };
            let channel = channel.clone();
            async move { channel.disco().logs(request).await.map(tonic::Response::into_inner) }
        };
        let reader = async {
            let refused = ask("db", false).await.expect_err("there is no such service");
            assert!(refused.message().contains("`db`"), "{refused:?}");
            let mut lines = ask("web", false).await.expect("it answers");
            let (mut texts, mut times) = (Vec::new(), Vec::new());
            while let Some(line) = lines.message().await.expect("it goes on to the end") {
                times.push(line.at_ms);
                texts.push((line.task, line.node, String::from_utf8_lossy(&line.text).into_owned()));
            }
            let (ours, theirs) = (here.node.to_string(), there.node.to_string());
            let line = |task: &str, node: &str, text: &str| (task.to_owned(), node.to_owned(), text.to_owned());
            let told =
                [line("web.1", &ours, "one"), line("web.2", &theirs, "two"), line("web.4", &ours, "three"), line("web.4", &ours, "four")];
            assert!(times[..4].is_sorted(), "{texts:#?} at {times:?}");
            // A line's time is when its log was seen to have grown, to a fifth of a second: only a task's own lines have an order.
            let of_tasks = |texts: &[(String, String, String)]| {
                let mut texts = texts.to_vec();
                texts.sort_by_key(|(task, ..)| task.clone());
                texts
            };
            assert_eq!(of_tasks(&texts[..4]), told);
            assert!(texts.len() == 5 && texts[4].2.contains(&nobody.to_string()), "{texts:#?}");
            let mut followed = ask("web", true).await.expect("it answers");
            for _ in 0..4 {
                followed.message().await.expect("it goes on").expect("it has no end");
            }
            there.run(5, "echo five").await;
            let five = followed.message().await.expect("it goes on").expect("it has no end");
            assert_eq!((five.task.as_str(), five.text.as_slice()), ("web.5", &b"five"[..]));
        };
        let late = async {
            async_io::Timer::after(BOUND).await;
            panic!("not read within {BOUND:?}")
        };
        reader.or(replica).or(late).await;
    });
}
