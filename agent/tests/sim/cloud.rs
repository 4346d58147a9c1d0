//! A provider as providers are: slow, now and then deaf, sometimes out of date, but idempotent by operation.
//!
//! The truth about instances is here, whatever the nodes believe; the checkers read it from here.

use agent::model::{
    ids::OperationId,
    instance::{InstanceSeen, InstanceState},
    query::LaunchRequest,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many past answers are kept for stale describes, and how old a stale one may be.
const PAST_KEPT: usize = 16;
pub const STALE_MS_MAX: u64 = 5_000;

pub struct Instance {
    pub operation: Option<OperationId>,
    pub address: String,
    pub host: usize,
    pub state: InstanceState,
    /// Ended by the cloud itself, disk and all.
    pub vanished: bool,
}

#[derive(Default)]
pub struct Cloud {
    pub instances: BTreeMap<String, Instance>,
    pub by_operation: BTreeMap<OperationId, (String, LaunchRequest)>,
    /// What it would have said until then.
    past: VecDeque<(u64, Vec<InstanceSeen>)>,
    pub now: u64,
}

pub enum Launch {
    New { id: String, address: String },
    Known { id: String, address: String },
}

impl Cloud {
    /// The same operation gets the same instance, whoever asks and however often.
    pub fn launch(&mut self, request: &LaunchRequest, host: usize, forgetful: bool) -> Launch {
        let known = self.by_operation.get(&request.operation).filter(|_| !forgetful);
        if let Some((id, first)) = known {
            let same = first.ordinal == request.ordinal && first.token == request.token && first.parameters == request.parameters;
            assert!(same, "violation: operation {} was repeated with another request: {first:?} then {request:?}", request.operation);
            return Launch::Known { id: id.clone(), address: self.instances[id].address.clone() };
        }
        // A number that was given before, in a life that this one does not know of, makes no machine of the same name, nor one
        // at an address that is in use.
        let mut id = format!("i-{}", request.ordinal);
        while self.instances.contains_key(&id) {
            id.push_str("-again");
        }
        let in_use = |address: &String| self.instances.values().any(|i| i.address == *address && i.state != InstanceState::Terminated);
        let mut addresses = (0..).map(|net: u32| format!("10.0.{net}.{}:5080", request.ordinal));
        let address = addresses.find(|address| !in_use(address)).expect("there is no end of them");
        self.by_operation.insert(request.operation, (id.clone(), request.clone()));
        self.add(id.clone(), Some(request.operation), address.clone(), host);
        Launch::New { id, address }
    }

    /// Never two instances for one decision.
    pub fn check_one_each(&self) {
        let mut operations = BTreeSet::new();
        for (id, instance) in &self.instances {
            let first = instance.operation.is_none_or(|operation| operations.insert(operation));
            assert!(first, "violation: {id} is the second instance of one operation");
        }
    }

    pub fn add(&mut self, id: String, operation: Option<OperationId>, address: String, host: usize) {
        self.remember();
        self.instances.insert(id, Instance { operation, address, host, state: InstanceState::Pending, vanished: false });
    }

    pub fn set(&mut self, id: &str, state: InstanceState) {
        if self.instances.get(id).is_some_and(|instance| instance.state != state) {
            self.remember();
        }
        if let Some(instance) = self.instances.get_mut(id) {
            instance.state = state;
        }
    }

    /// What it says now, or said `ago` milliseconds ago.
    pub fn describe(&self, ago: u64) -> Vec<InstanceSeen> {
        let then = self.now.saturating_sub(ago);
        if let Some((_, view)) = self.past.iter().find(|(until, _)| *until > then).filter(|_| ago > 0) {
            return view.clone();
        }
        let seen = |(id, instance): (&String, &Instance)| InstanceSeen {
            id: id.clone(),
            operation: instance.operation,
            address: instance.address.clone(),
            state: instance.state,
            public_address: String::new(),
        };
        self.instances.iter().filter(|(_, instance)| !instance.vanished).map(seen).collect()
    }

    /// Instances that cost money.
    pub fn active(&self) -> usize {
        self.instances.values().filter(|instance| instance.state != InstanceState::Terminated).count()
    }

    fn remember(&mut self) {
        if self.past.len() == PAST_KEPT {
            self.past.pop_front();
        }
        self.past.push_back((self.now, self.describe(0)));
    }
}
