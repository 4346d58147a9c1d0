//! Reads, writes and restarts, before there is any service.

use crate::world::{World, config};
use agent::logic::replica::Replica;
use agent::model::{
    authority::{NextKeys, Papers},
    command::{Joiner, KINDS_KNOWN},
    ids::{ClusterId, MemberId, NodeId, Now, RequestId, Ticket},
    io::{Effect, Input, Keyring},
    node::Role,
    query::{Answer, Op, Principal, Query, Request, View, Written},
};
use std::collections::BTreeMap;

/// The same node with the disk that it left, and nothing that runs.
fn reborn(world: &World) -> World {
    World::start(world.disk.clone(), false, Now { mono: 1000, wall: 1_000_000 }, BTreeMap::new())
}

fn ask(world: &mut World, ticket: u64, request: Request) -> Answer {
    world.input(Input::Request { ticket: Ticket(ticket), principal: Principal::Admin, request });
    world.answers.remove(&ticket).expect("a cluster of one answers at once")
}

fn set(world: &mut World, sequence: u64, key: &str, value: &str) -> Answer {
    let op = Op::KvSet { key: key.into(), value: value.as_bytes().to_vec() };
    ask(world, sequence, Request::Write { id: RequestId { client: 1, sequence }, op })
}

fn get(world: &mut World, key: &str) -> Option<Vec<u8>> {
    match ask(world, 99, Request::Read { stale: false, query: Query::KvGet(key.into()) }) {
        Answer::Read { view: View::Kv { value, .. }, .. } => value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cluster_of_one_leads_at_once_and_keeps_what_it_acknowledged() {
    let mut world = World::new();
    let first = set(&mut world, 1, "a", "1");
    assert!(matches!(first, Answer::Written { result: Written::Done, .. }), "{first:?}");
    assert_eq!(set(&mut world, 1, "a", "other"), first, "a retried request is applied once");
    assert_eq!(get(&mut world, "a").as_deref(), Some(&b"1"[..]));

    let mut again = reborn(&world);
    assert_eq!(get(&mut again, "a").as_deref(), Some(&b"1"[..]));
    assert_eq!(again.replica.state().cluster, ClusterId(9));
}

#[test]
fn the_log_is_compacted_and_a_restart_reads_the_snapshot() {
    let mut world = World::new();
    for n in 2..30 {
        let answer = set(&mut world, n, &format!("k{n}"), &"x".repeat(30_000));
        assert!(matches!(answer, Answer::Written { .. }), "{answer:?}");
    }
    assert!(world.disk.snapshot.as_ref().is_some_and(|s| s.index > 1), "compacted");
    let bytes: usize = world.disk.entries.iter().map(|e| e.bytes.len()).sum();
    assert!(bytes < agent::model::limits::LOG_BYTES_MAX, "{bytes}");
    let digest = world.replica.state().digest();
    let again = reborn(&world);
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
    let mut world = World::new();
    let id = |sequence| RequestId { client: 1, sequence };
    let cases: [(u64, Op, &str); 5] = [
        (11, Op::Scale(0), "not 0"),
        (12, Op::Scale(17), "max_nodes"),
        (13, Op::KvSet { key: String::new(), value: vec![] }, "1 to 256"),
        (14, Op::NodeRemove("nobody".into()), "nobody"),
        (15, Op::KvSet { key: "k".into(), value: vec![0; 70_000] }, "70000"),
    ];
    for (sequence, op, part) in cases {
        match ask(&mut world, sequence, Request::Write { id: id(sequence), op: op.clone() }) {
            Answer::Refused { why, .. } => assert!(why.contains(part), "{op:?}: {why}"),
            other => panic!("{op:?}: {other:?}"),
        }
    }
    assert!(world.replica.state().kv.is_empty());
}

#[test]
fn a_leader_that_has_just_begun_refuses_nobody_by_a_state_that_lacks_what_was_granted() {
    let mut world = World::new();
    let before = world.disk.hard_state.clone();
    let token = world.ask(Principal::Admin, Op::TokenCreate { role: Role::Worker, ttl_ms: 60_000, uses: 1 });
    let Answer::Written { result: Written::TokenCreated { token, .. }, .. } = token else { panic!("{token:?}") };
    let secret = token.rsplit('-').next().expect("its secret comes last").to_owned();
    let public_key = vec![2; 32];
    let (id, name, address) = (NodeId(2), "n2".into(), "127.0.0.1:2".into());
    let (labels, instance) = (BTreeMap::new(), None);
    let node = Joiner { id, name, address, public_key, cpus: 1, memory: 1, labels, instance, commands_known: KINDS_KNOWN };

    // Its disk has the token, but not that it was committed; and takes its time to write what makes a leader.
    let now = Now { mono: 1000, wall: 1_000_000 };
    let mut replica = Replica::new(config(false), agent::model::io::Restored { hard_state: before, ..world.disk }, 1, now).expect("starts");
    for ticket in 0..20 {
        let request = Request::Join { secret: secret.clone(), node: node.clone() };
        replica.handle(Input::Request { ticket: Ticket(ticket), principal: Principal::Joiner, request }, now);
        let mut written = None;
        while let Some(effect) = replica.poll_effect() {
            match effect {
                Effect::Reply { answer: Answer::Joined(_), .. } => return,
                Effect::Reply { answer: Answer::Elsewhere { .. } | Answer::Unavailable { .. }, .. } => {}
                Effect::Reply { answer, .. } => panic!("{answer:?}"),
                Effect::Persist { number, .. } => written = Some(number),
                _ => {}
            }
        }
        replica.handle(Input::Persisted { number: written.unwrap_or_default() }, now);
    }
    panic!("it was never let in");
}

#[test]
fn keys_of_a_new_authority_make_room_for_others_only_if_no_change_came_of_them() {
    let mut world = World::new();
    let give = |world: &mut World, ca: u8| {
        let next = Some(NextKeys { ca: vec![ca], ca_key: vec![ca], join_key: vec![ca], term: 1 });
        let keyring = Keyring { ca_key: vec![1], join_key: vec![2; 32], secrets_key: vec![3; 32], epoch: 0, next };
        world.asked += 1;
        let ticket = world.asked;
        world.input(Input::Enlist { ticket: Ticket(ticket), from: NodeId(1), member: MemberId(1), keyring });
        matches!(world.answers.remove(&ticket), Some(Answer::Written { .. }))
    };
    let shows = |ca: u8| Input::Papers(Papers { shows: agent::logic::token::ca_mark(&[ca]), ..Papers::default() });
    assert!(give(&mut world, 7) && give(&mut world, 7), "asked again");
    assert!(!give(&mut world, 8), "what is believed here is not known yet");
    world.input(shows(5));
    assert!(give(&mut world, 8), "the leader that gave the first ones did not come to propose them");
    // Its own log does not say so: it is behind.
    world.input(shows(8));
    assert!(!give(&mut world, 9));
}
