//! A cluster of one, driven by hand: what the daemon's pump does, without anything real.

use agent::logic::replica::{Config, Genesis, Replica, Timings};
use agent::model::{
    ids::{ClusterId, NodeId, Now, RequestId, Ticket},
    io::{Batch, Effect, Input, Keyring, Restored, Seat},
    query::{Answer, Op, Principal, Query, Request, View, Written},
};
use std::collections::BTreeMap;

struct World {
    replica: Replica,
    now: Now,
    disk: Restored,
    answers: BTreeMap<u64, Answer>,
}

fn config(originate: bool) -> Config {
    Config {
        node: NodeId(1),
        boot: 7,
        name: "n1".into(),
        address: "127.0.0.1:1".into(),
        cpus: 1,
        memory: 1 << 30,
        labels: BTreeMap::new(),
        instance: None,
        public_key: vec![1; 32],
        keyring: Some(Keyring { ca_key: vec![1], join_key: vec![2; 32], secrets_key: vec![3; 32], epoch: 0 }),
        originate: originate.then(|| Genesis { cluster: ClusterId(9), name: "c".into(), ca: vec![5], tokens: vec![] }),
        seeds: vec![],
        assignment: None,
        has_provider: false,
        on_stop_end_tasks: false,
        timings: Timings::default(),
    }
}

impl World {
    fn new(disk: Restored, originate: bool) -> World {
        let now = Now { mono: 1000, wall: 1_000_000 };
        let replica = Replica::new(config(originate), disk.clone(), 1, now).expect("starts");
        let mut world = World { replica, now, disk, answers: BTreeMap::new() };
        world.drain();
        world
    }

    fn drain(&mut self) {
        while let Some(effect) = self.replica.poll_effect() {
            match effect {
                Effect::Persist { number, batch } => {
                    self.write(batch);
                    self.replica.handle(Input::Persisted { number }, self.now);
                }
                Effect::Reply { ticket, answer } => {
                    self.answers.insert(ticket.0, answer);
                }
                Effect::Stop { why, .. } => panic!("stopped: {why}"),
                _ => {}
            }
        }
    }

    fn write(&mut self, batch: Batch) {
        if let Some(Seat::Take(member)) = batch.seat {
            self.disk = Restored { member: Some(member), ..Restored::default() };
        }
        if let Some(snapshot) = batch.snapshot {
            self.disk.entries.retain(|e| !snapshot.reset_log && e.index > snapshot.index);
            self.disk.snapshot = Some(snapshot);
        }
        if let Some(first) = batch.entries.first().map(|e| e.index) {
            self.disk.entries.retain(|e| e.index < first);
            self.disk.entries.extend(batch.entries);
        }
        self.disk.hard_state = batch.hard_state.or(self.disk.hard_state.take());
    }

    fn ask(&mut self, ticket: u64, request: Request) -> Answer {
        self.replica.handle(Input::Request { ticket: Ticket(ticket), principal: Principal::Admin, request }, self.now);
        self.drain();
        self.answers.remove(&ticket).expect("a cluster of one answers at once")
    }

    fn set(&mut self, sequence: u64, key: &str, value: &str) -> Answer {
        let op = Op::KvSet { key: key.into(), value: value.as_bytes().to_vec() };
        self.ask(sequence, Request::Write { id: RequestId { client: 1, sequence }, op })
    }

    fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        match self.ask(99, Request::Read { stale: false, query: Query::KvGet(key.into()) }) {
            Answer::Read { view: View::Kv { value, .. }, .. } => value,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_cluster_of_one_leads_at_once_and_keeps_what_it_acknowledged() {
    let mut world = World::new(Restored::default(), true);
    let first = world.set(1, "a", "1");
    assert!(matches!(first, Answer::Written { result: Written::Done, .. }), "{first:?}");
    assert_eq!(world.set(1, "a", "other"), first, "a retried request is applied once");
    assert_eq!(world.get("a").as_deref(), Some(&b"1"[..]));

    let mut again = World::new(world.disk.clone(), false);
    assert_eq!(again.get("a").as_deref(), Some(&b"1"[..]));
    assert_eq!(again.replica.state().cluster, ClusterId(9));
}

#[test]
fn the_log_is_compacted_and_a_restart_reads_the_snapshot() {
    let mut world = World::new(Restored::default(), true);
    for n in 2..30 {
        let answer = world.set(n, &format!("k{n}"), &"x".repeat(30_000));
        assert!(matches!(answer, Answer::Written { .. }), "{answer:?}");
    }
    assert!(world.disk.snapshot.as_ref().is_some_and(|s| s.index > 1), "compacted");
    let bytes: usize = world.disk.entries.iter().map(|e| e.bytes.len()).sum();
    assert!(bytes < agent::model::limits::LOG_BYTES_MAX, "{bytes}");
    let digest = world.replica.state().digest();
    let again = World::new(world.disk.clone(), false);
    assert_eq!(again.replica.state().kv, world.replica.state().kv);
    assert_eq!(State::of(&again), State::of(&world));
    assert_ne!(digest, 0);
}

/// What must survive a restart, apart from the new term's `leader` event.
struct State;
impl State {
    fn of(world: &World) -> (u32, usize, u64) {
        let state = world.replica.state();
        (state.desired_nodes, state.nodes.len(), state.kv_bytes)
    }
}

#[test]
fn bad_requests_name_what_is_wrong_and_change_nothing() {
    let mut world = World::new(Restored::default(), true);
    let id = |sequence| RequestId { client: 1, sequence };
    let cases: [(u64, Op, &str); 5] = [
        (11, Op::Scale(0), "not 0"),
        (12, Op::Scale(17), "max_nodes"),
        (13, Op::KvSet { key: String::new(), value: vec![] }, "1 to 256"),
        (14, Op::NodeRemove("nobody".into()), "nobody"),
        (15, Op::KvSet { key: "k".into(), value: vec![0; 70_000] }, "70000"),
    ];
    for (sequence, op, part) in cases {
        match world.ask(sequence, Request::Write { id: id(sequence), op: op.clone() }) {
            Answer::Refused { why, .. } => assert!(why.contains(part), "{op:?}: {why}"),
            other => panic!("{op:?}: {other:?}"),
        }
    }
    assert!(world.replica.state().kv.is_empty());
}
