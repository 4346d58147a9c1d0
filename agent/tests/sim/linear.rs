//! Whether a history of one key can be put in an order that explains it: linearizability (Herlihy, Wing 1990).
//!
//! The search is Wing and Gong's with Lowe's memory ("Testing for linearizability", 2017): take any operation that
//! nothing unfinished-before-it forbids, see whether the register agrees, go on, and never look twice at the same set
//! of operations done with the same value. An operation nobody heard the end of may take effect at any time, or never.
//! Log indexes say which order to try first, so that a good history is explained without search.

use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What was asked of a register, and what came back. Values are told apart by a number of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Write(u64),
    /// Whether something was there, if that was heard.
    Delete(Option<bool>),
    Read(Option<u64>),
}

/// `ended` is none if nobody heard the end of it. Times are positions in the history.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    pub act: Act,
    pub began: u64,
    pub ended: Option<u64>,
    /// Where the answer says that it stands in the log: what is tried first, and believed only if it explains all.
    pub hint: u64,
}

/// States looked at before the search gives up: real histories need a few per operation.
const STATES_MAX: usize = 2_000_000;

#[derive(Default)]
pub struct Linear {
    keys: BTreeMap<String, BTreeMap<u64, Operation>>,
    /// Those that had not ended when a new life of the cluster began.
    carried: BTreeSet<u64>,
}

impl Linear {
    /// `id` names the operation until it ends.
    pub fn began(&mut self, key: &str, id: u64, act: Act, at: u64) {
        self.keys.entry(key.into()).or_default().insert(id, Operation { act, began: at, ended: None, hint: u64::MAX });
    }

    pub fn ended(&mut self, key: &str, id: u64, act: Act, at: u64, hint: u64) {
        let operation = self.keys.get_mut(key).and_then(|key| key.get_mut(&id)).expect("an operation begins before it ends");
        (operation.act, operation.ended, operation.hint) = (act, Some(at), hint);
        if let (Act::Delete(_), true) = (act, self.carried.remove(&id)) {
            // What it found may have been in the life before.
            operation.act = Act::Delete(None);
        }
    }

    /// A new life of the cluster begins with this value. What had ended is past; what had not may have been done already.
    pub fn begins_again(&mut self, key: &str, id: u64, value: Option<u64>, at: u64) {
        let operations = self.keys.entry(key.into()).or_default();
        operations.retain(|_, operation| operation.ended.is_none());
        self.carried.extend(operations.keys());
        let act = value.map_or(Act::Delete(None), Act::Write);
        operations.insert(id, Operation { act, began: 0, ended: Some(at), hint: 0 });
    }

    /// Operations checked.
    ///
    /// # Panics
    /// A key's history cannot be explained.
    pub fn check(&self) -> u64 {
        let mut checked = 0;
        for (key, operations) in &self.keys {
            // A read nobody heard the answer of says nothing.
            // Nor does a write nobody heard the end of and nobody read, where no deletion tells whether something was there.
            let deleted = operations.values().any(|o| matches!(o.act, Act::Delete(_)));
            let was_read =
                |o: &Operation| operations.values().any(|read| matches!((read.act, o.act), (Act::Read(Some(a)), Act::Write(b)) if a == b));
            let told = |o: &&Operation| o.ended.is_some() || !matches!(o.act, Act::Read(_)) && (deleted || was_read(o));
            let history: Vec<Operation> = operations.values().filter(told).copied().collect();
            checked += history.len() as u64;
            if let Some(last) = explain(&history) {
                panic!("violation: the history of {key} is not linearizable: nothing explains {last:?}");
            }
        }
        checked
    }
}

/// None if some order explains the history; else the first end of an operation that no order got beyond.
pub fn explain(history: &[Operation]) -> Option<Operation> {
    let mut order: Vec<Operation> = history.to_vec();
    for operation in &mut order {
        // Who wrote it may not know that it took effect; who read it does.
        if let Act::Write(value) = operation.act {
            let shown = history.iter().filter(|o| o.act == Act::Read(Some(value))).map(|o| o.hint).min();
            operation.hint = operation.hint.min(shown.unwrap_or(u64::MAX));
        }
    }
    order.sort_by_key(|o| (o.hint, matches!(o.act, Act::Read(_)), o.began));
    let must: usize = order.iter().filter(|o| o.ended.is_some()).count();
    let mut done = Done::new(order.len());
    let mut seen: HashSet<(Done, Option<u64>)> = HashSet::new();
    // What was done, in order, with the value before it and the place to go on from when it is taken back.
    let mut path: Vec<(usize, Option<u64>)> = Vec::new();
    let (mut value, mut ended, mut from) = (None, 0, 0);
    let mut furthest: Option<Operation> = None;
    loop {
        if ended == must {
            return None;
        }
        // Whatever began before the first end among those not done may be next.
        let first_end = order.iter().enumerate().filter(|(i, _)| !done.has(*i)).filter_map(|(_, o)| o.ended).min().unwrap_or(u64::MAX);
        let candidates = || order.iter().enumerate().skip(from).filter(|(_, o)| o.began <= first_end);
        let next = candidates().filter(|(i, _)| !done.has(*i)).find_map(|(i, o)| {
            let after = apply(o.act, value)?;
            let mut with = done.clone();
            with.add(i);
            seen.insert((with, after)).then_some((i, after))
        });
        assert!(seen.len() < STATES_MAX, "violation: a history of {} operations takes too long to explain", order.len());
        match next {
            Some((i, after)) => {
                path.push((i, value));
                done.add(i);
                ended += usize::from(order[i].ended.is_some());
                (value, from) = (after, 0);
            }
            None => {
                let stuck = order.iter().find(|o| o.ended == Some(first_end)).copied();
                if stuck.map(|o| o.ended) > furthest.map(|o| o.ended) {
                    furthest = stuck;
                }
                let Some((i, before)) = path.pop() else { return furthest };
                done.remove(i);
                ended -= usize::from(order[i].ended.is_some());
                (value, from) = (before, i + 1);
            }
        }
    }
}

/// The value afterwards, if the register could have answered so.
fn apply(act: Act, value: Option<u64>) -> Option<Option<u64>> {
    match act {
        Act::Write(new) => Some(Some(new)),
        Act::Delete(None) => Some(None),
        Act::Delete(Some(was_there)) => (was_there == value.is_some()).then_some(None),
        Act::Read(shown) => (shown == value).then_some(value),
    }
}

/// A set of operations.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Done(Vec<u64>);

impl Done {
    fn new(operations: usize) -> Done {
        Done(vec![0; operations.div_ceil(64)])
    }

    fn has(&self, i: usize) -> bool {
        self.0[i / 64] >> (i % 64) & 1 == 1
    }

    fn add(&mut self, i: usize) {
        self.0[i / 64] |= 1 << (i % 64);
    }

    fn remove(&mut self, i: usize) {
        self.0[i / 64] &= !(1 << (i % 64));
    }
}

/// Histories whose answer is known: a checker that says yes to everything would find nothing.
pub fn check_the_checker() {
    let op = |act, began, ended| Operation { act, began, ended, hint: u64::MAX };
    let (w, r) = (Act::Write, |value| Act::Read(Some(value)));
    let good: [&[Operation]; 5] = [
        &[],
        &[op(Act::Read(None), 1, Some(2)), op(w(1), 1, Some(9)), op(r(1), 3, Some(4)), op(Act::Delete(Some(true)), 10, Some(11))],
        // Two that overlap may come in either order.
        &[op(w(1), 1, Some(5)), op(w(2), 2, Some(6)), op(r(2), 7, Some(8)), op(r(2), 9, Some(10))],
        &[op(w(1), 1, Some(5)), op(w(2), 2, Some(6)), op(r(1), 7, Some(8))],
        // Nobody heard of the write; it took effect late.
        &[op(w(1), 1, Some(2)), op(w(2), 3, None), op(r(1), 4, Some(5)), op(r(2), 6, Some(7))],
    ];
    let bad: [&[Operation]; 5] = [
        &[op(w(1), 1, Some(2)), op(Act::Read(None), 3, Some(4))],
        &[op(w(1), 1, Some(2)), op(w(2), 3, Some(4)), op(r(1), 5, Some(6))],
        // Once the new value was shown, the old one is gone.
        &[op(w(1), 1, Some(2)), op(w(2), 3, Some(9)), op(r(2), 4, Some(5)), op(r(1), 6, Some(7))],
        // One write took effect twice.
        &[op(w(1), 1, Some(9)), op(r(1), 2, Some(3)), op(w(2), 4, Some(5)), op(r(1), 6, Some(7))],
        &[op(w(1), 1, Some(2)), op(Act::Delete(Some(false)), 3, Some(4))],
    ];
    assert!(good.iter().all(|history| explain(history).is_none()), "the linearizability checker refuses a good history");
    assert!(bad.iter().all(|history| explain(history).is_some()), "the linearizability checker passes a bad history");
}
