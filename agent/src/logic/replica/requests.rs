//! Requests: who may ask what, and how a write becomes an entry of the log and then an answer.

use super::Replica;
use crate::{
    logic::{plan, raft::NotProposed, state::Outcome, token},
    model::{
        codec,
        command::{Command, Joiner, Proposal},
        ids::{MemberId, NodeId, RequestId, Ticket},
        instance::InstanceDesired,
        io::Effect,
        limits::{COMMAND_BYTES_MAX, REQUEST_TIMEOUT_MS, REQUESTS_PENDING_MAX, STATE_BYTES_MAX},
        node::{Role, is_address},
        query::{Admission, Answer, Op, Principal, Report, Request, Written},
        task::Orders,
        token::Credential,
    },
};

/// A write in the log whose answer somebody waits for.
pub(super) struct Waiting {
    /// Of the entry: another term's entry at the same index is not this write.
    term: u64,
    by: u64,
    ticket: Ticket,
    /// What the whole answer needs beyond the outcome.
    token: Option<String>,
}

impl Replica {
    pub(super) fn handle_request(&mut self, ticket: Ticket, principal: &Principal, request: Request) {
        match (request, principal) {
            (Request::Write { id, op }, Principal::Admin | Principal::Script { .. }) => match self.may_write(principal, &op) {
                Ok(fence) => self.handle_write(ticket, id, op, fence),
                Err((code, why)) => self.refuse(ticket, code, why),
            },
            (Request::Read { stale, query }, Principal::Admin | Principal::Node(_) | Principal::Script { .. }) => {
                self.handle_read(ticket, stale, query)
            }
            (Request::Plan { modules }, Principal::Admin) => self.handle_plan(ticket, modules),
            (Request::Eval { expression }, Principal::Admin) => self.handle_eval(ticket, expression),
            (Request::Recover { lost }, Principal::Admin) => self.handle_recover(ticket, &lost),
            (Request::Join { secret, node }, _) => self.handle_join(ticket, &secret, node),
            (Request::Fetch { secret }, _) => self.handle_fetch(ticket, &secret),
            (Request::Report(report), Principal::Node(node)) if *node == report.node => self.handle_report(ticket, report),
            (Request::Report(report), Principal::Node(node)) => {
                self.refuse(ticket, "denied", format!("node {node} may not report for node {}", report.node));
            }
            (Request::Write { .. }, Principal::Node(node)) => {
                self.refuse(ticket, "denied", format!("node {node} may not change the cluster: only administrators and managers may"));
            }
            _ => self.refuse(ticket, "denied", "only administrators may do this".into()),
        }
    }

    /// The term that fences the write, if it is a script's.
    fn may_write(&self, principal: &Principal, op: &Op) -> Result<Option<u64>, (&'static str, String)> {
        let Principal::Script { term } = principal else {
            return match op {
                Op::ServiceSet { .. } => Err(("denied", "services are declared in cluster.js, which `disco apply` loads".into())),
                _ => Ok(None),
            };
        };
        let now = self.consensus.as_ref().filter(|c| c.is_leader()).map(|c| c.term());
        if now != Some(*term) {
            return Err(("stale", format!("the script ran while this node led in term {term}, which is over")));
        }
        match op {
            Op::Scale(_) | Op::KvSet { .. } | Op::KvDelete(_) | Op::ServiceSet { .. } | Op::ServiceScale { .. } => Ok(Some(*term)),
            Op::ServiceRestart(_) | Op::ServiceRollback(_) | Op::ServiceRemove(_) => Ok(Some(*term)),
            _ => Err(("denied", "a script may change keys, services and the number of nodes only".into())),
        }
    }

    fn handle_write(&mut self, ticket: Ticket, id: RequestId, op: Op, fence: Option<u64>) {
        if self.leading.is_none() {
            let answer = self.elsewhere();
            return self.reply(ticket, answer);
        }
        let by_state =
            matches!(op, Op::TokenCreate { .. } | Op::NodeRemove(_) | Op::NodeDrain { .. } | Op::NodePrefer { .. } | Op::CaRotate(_));
        if by_state && !self.leads_settled() {
            return self.ask_again(ticket);
        }
        let mut token = None;
        let command = match op {
            Op::Scale(nodes) => Command::Scale(nodes),
            Op::Configure(change) => Command::Configure(change),
            Op::KvSet { key, value } => Command::KvSet { key, value },
            Op::KvDelete(key) => Command::KvDelete(key),
            Op::TokenRevoke(id) => Command::TokenRevoke(id),
            Op::Destroy => Command::Destroy,
            Op::TokenCreate { role, ttl_ms, uses } => {
                let Some(keyring) = &self.config.keyring else { return self.reply(ticket, Answer::Busy) };
                let (name, hash, whole) = token::person_token(keyring, &self.state.ca, id);
                token = Some(whole);
                Command::TokenCreate { id: name, hash, role, ttl_ms, uses }
            }
            Op::NodeRemove(text) => {
                let Some(node) = self.state.find_node(&text).map(|n| n.id) else {
                    return self.refuse(ticket, "not_found", format!("no node `{text}`"));
                };
                if node == self.config.node {
                    return self.leave_first(ticket);
                }
                Command::NodeRemove(node)
            }
            Op::InstanceSet { id, desired } => Command::InstanceSet { id, desired },
            Op::ModulesPut(files) => Command::ModulesPut(files),
            Op::ModulesRollback => Command::ModulesRollback,
            Op::ServiceSet { name, spec } => Command::ServiceSet { name, spec },
            Op::ServiceScale { name, replicas } => Command::ServiceScale { name, replicas },
            Op::ServiceRestart(name) => Command::ServiceRestart(name),
            Op::ServiceRollback(name) => Command::ServiceRollback(name),
            Op::ServiceRemove(name) => Command::ServiceRemove(name),
            Op::NodeDrain { node, drain } => {
                let Some(node) = self.state.find_node(&node).map(|n| n.id) else {
                    return self.refuse(ticket, "not_found", format!("no node `{node}`"));
                };
                Command::NodeDrain { node, drain }
            }
            Op::CaRotate(keys) => return self.handle_ca_rotate(ticket, id, *keys),
            Op::CaAdvance { from, force } => Command::CaAdvance { from, force },
            Op::NodePrefer { node: text, role } => {
                let Some(node) = self.state.find_node(&text).map(|n| n.id) else {
                    return self.refuse(ticket, "not_found", format!("no node `{text}`"));
                };
                if let Some(Err(why)) = self.with_sight(|sight| plan::partner(sight, node, role)) {
                    return self.refuse(ticket, "no_partner", why);
                }
                Command::NodePrefer { node, role }
            }
        };
        self.propose_for(ticket, Some(id), fence, command, token);
    }

    /// The leader cannot take itself out: it hands leadership on, and the next one does it. Where no other node votes, one
    /// is made to first.
    fn leave_first(&mut self, ticket: Ticket) {
        let may_go = self.with_sight(|sight| plan::partner(sight, sight.me, Role::Worker).is_ok()).unwrap_or_default();
        let Some(consensus) = &mut self.consensus else { return };
        let me = consensus.member();
        let others: Vec<_> = consensus.membership().voters.into_iter().filter(|m| *m != me).collect();
        match consensus.most_caught_up(&others) {
            Some(heir) => consensus.transfer(heir),
            None if may_go => self.stand_aside(),
            None => return self.refuse(ticket, "invalid", ONLY_MANAGER.into()),
        }
        self.reply(ticket, Answer::Unavailable { why: "that node leads; leadership is being handed on, try again".into() });
    }

    fn handle_join(&mut self, ticket: Ticket, secret: &str, node: Joiner) {
        if self.leading.is_none() {
            let answer = self.elsewhere();
            return self.reply(ticket, answer);
        }
        if !self.leads_settled() {
            return self.ask_again(ticket);
        }
        let Some(keyring) = &self.config.keyring else { return self.reply(ticket, Answer::Busy) };
        let credential = match token::check_launch(keyring, self.state.cluster, secret) {
            Some(operation) => Some(Credential::Launch(operation)),
            None => {
                let hash = token::sha256(secret.as_bytes());
                self.state.tokens.values().find(|t| t.hash == hash).map(|t| Credential::Token(t.id.clone()))
            }
        };
        let Some(credential) = credential else {
            return self.refuse(ticket, "token_unknown", "the token is not of this cluster, or was revoked".into());
        };
        self.propose_for(ticket, None, None, Command::Join { credential, node: Box::new(node) }, None);
    }

    /// By this manager's own state, which may lag: a token that is too new for it is good a moment later.
    fn handle_fetch(&mut self, ticket: Ticket, secret: &str) {
        let Some(keyring) = &self.config.keyring else {
            return self.refuse(ticket, "not_a_manager", "this node is a worker; ask a manager".into());
        };
        let stamp_ms = self.state.stamp_ms.max(self.now.wall);
        let good = match token::check_launch(keyring, self.state.cluster, secret) {
            Some(operation) => self.state.instances.get(&operation).is_some_and(|i| !i.ended() && i.desired != InstanceDesired::Terminated),
            None => {
                let hash = token::sha256(secret.as_bytes());
                self.state.tokens.values().any(|t| t.hash == hash && t.expires_ms > stamp_ms)
            }
        };
        match good {
            true => self.reply(ticket, Answer::Written { index: self.applied, result: Written::Done }),
            false => self.refuse(ticket, "token_unknown", "the token is not of this cluster, or was revoked".into()),
        }
    }

    fn handle_report(&mut self, ticket: Ticket, report: Report) {
        if self.leading.is_none() {
            let answer = self.elsewhere();
            return self.reply(ticket, answer);
        }
        let Some(node) = self.state.nodes.get(&report.node) else {
            let removed = self.state.removed.contains(&report.node);
            let code = if removed { "removed" } else { "not_found" };
            return self.refuse(ticket, code, format!("node {} is not in this cluster", report.node));
        };
        // Told at once, or it would be proposed again with each report.
        if !is_address(&report.address) {
            return self.refuse(ticket, "invalid", "a node's address is host:port in plain letters".into());
        }
        let same = node.address == report.address
            && node.cpus == report.cpus
            && node.memory == report.memory
            && node.commands_known == report.commands_known;
        let stray_seat = report.member.filter(|m| node.member != Some(*m));
        let tasks = self.state.news_of(report.node, &report.tasks);
        if !tasks.is_empty() {
            self.propose_soon(Command::TaskSeen { node: report.node, tasks });
        }
        let (reporter, round_trip_ms) = (report.node, report.round_trip_ms);
        self.hear_papers(reporter, report.papers);
        if !same {
            let Report { node, address, cpus, memory, commands_known, .. } = report;
            self.propose_soon(Command::NodeUpdate { node, address, cpus, memory, commands_known });
        }
        self.heard(reporter);
        if let (Some(leading), Some(ms)) = (&mut self.leading, round_trip_ms) {
            leading.took(reporter, ms);
        }
        if !self.leads_settled() {
            // It may not know yet what earlier leaders ordered: no answer is better than one that ends tasks.
            let answer = self.unavailable();
            return self.reply(ticket, answer);
        }
        if let Some(member) = stray_seat {
            self.discharge_stray(reporter, member);
        }
        let group = self.consensus.as_ref().map(|c| c.membership()).unwrap_or_default();
        let answer = Answer::Reported {
            leader: self.config.node,
            leader_address: self.config.address.clone(),
            managers: self.peers_in(&group),
            removed: self.state.removed.iter().copied().collect(),
            orders: Orders { index: self.applied, tasks: self.state.orders_of(reporter) },
            authorities: self.state.authorities(),
        };
        self.reply(ticket, answer);
    }

    pub(super) fn propose_for(
        &mut self,
        ticket: Ticket,
        request: Option<RequestId>,
        fence: Option<u64>,
        command: Command,
        token: Option<String>,
    ) {
        if self.writes.len() >= REQUESTS_PENDING_MAX {
            return self.reply(ticket, Answer::Busy);
        }
        match self.propose(request, fence, command) {
            Ok((term, index)) => {
                let by = self.now.mono + REQUEST_TIMEOUT_MS;
                self.writes.insert(index, Waiting { term, by, ticket, token });
            }
            Err(Refusal::TooLarge(bytes)) => {
                self.refuse(ticket, "limit", format!("the request takes {bytes} bytes, the most is {COMMAND_BYTES_MAX}"))
            }
            Err(Refusal::NoRoom(taken)) => self.refuse(ticket, "limit", no_room(taken)),
            Err(Refusal::TooOld(name)) => {
                self.refuse(ticket, "too_old", format!("node {name} runs an older build that does not understand this; upgrade it first"))
            }
            Err(Refusal::Raft(NotProposed::Full)) => self.reply(ticket, Answer::Busy),
            Err(Refusal::Raft(NotProposed::NotLeader)) => {
                let answer = self.unavailable();
                self.reply(ticket, answer);
            }
        }
    }

    pub(super) fn propose(&mut self, request: Option<RequestId>, fence: Option<u64>, command: Command) -> Result<(u64, u64), Refusal> {
        let kind = command.kind();
        if let Some(old) = self.state.nodes.values().find(|n| n.member.is_some() && n.commands_known < kind) {
            return Err(Refusal::TooOld(old.name.clone()));
        }
        if command.adds() {
            self.check_room()?;
        }
        let stamp_ms = self.next_stamp();
        let Some(consensus) = &mut self.consensus else { return Err(Refusal::Raft(NotProposed::NotLeader)) };
        let bytes = codec::encode(&Proposal { stamp_ms, term: consensus.term(), request, command, fence });
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(Refusal::TooLarge(bytes.len()));
        }
        consensus.propose(bytes).map_err(Refusal::Raft)
    }

    /// Measured only where a first look finds little room: what was deleted since the newest snapshot counts there, too.
    fn check_room(&self) -> Result<(), Refusal> {
        if self.consensus.as_ref().is_none_or(|consensus| consensus.state_bytes() <= STATE_BYTES_MAX) {
            return Ok(());
        }
        let taken = self.state.encode().len();
        if taken > STATE_BYTES_MAX { Err(Refusal::NoRoom(taken)) } else { Ok(()) }
    }

    /// An entry was committed: carry it out, and answer whoever waits for it.
    pub(super) fn apply(&mut self, index: u64, term: u64, proposal: Proposal) {
        let quiet = matches!(proposal.command, Command::KvSet { .. } | Command::KvDelete(_));
        let declares = matches!(proposal.command, Command::Declare { .. });
        let (applied_at, outcome) = self.state.apply(index, term, proposal);
        if let Outcome::Refused { code, why } = &outcome
            && declares
            && *code != "stale"
        {
            self.declaration_refused(why.clone());
        }
        if !quiet {
            self.plan_soon();
            self.orders_changed();
        }
        let Some(waiting) = self.writes.remove(&index) else { return };
        if waiting.term != term {
            let answer = lost_leadership();
            return self.reply(waiting.ticket, answer);
        }
        let written = |result| Answer::Written { index: applied_at, result };
        let answer = match outcome {
            Outcome::Done => written(Written::Done),
            Outcome::Existed(existed) => written(Written::Existed(existed)),
            Outcome::TokenCreated { id } => written(Written::TokenCreated { id, token: waiting.token.unwrap_or_default() }),
            Outcome::Joined { node, stamp_ms } => self.admission(node, stamp_ms),
            Outcome::Refused { code, why } => Answer::Refused { code, why },
        };
        self.reply(waiting.ticket, answer);
    }

    fn admission(&self, node: NodeId, stamp_ms: u64) -> Answer {
        let Some(record) = self.state.nodes.get(&node) else {
            return Answer::Refused { code: "removed", why: format!("node {node} was removed meanwhile") };
        };
        let group = self.consensus.as_ref().map(|c| c.membership()).unwrap_or_default();
        Answer::Joined(Admission {
            node,
            cluster: self.state.cluster,
            cluster_name: self.state.name.clone(),
            public_key: record.public_key.clone(),
            stamp_ms,
            ca: self.state.ca.clone(),
            managers: self.peers_in(&group),
        })
    }

    /// Another entry stands where a write was proposed: it will never be applied as that entry.
    pub(super) fn lost_write(&mut self, index: u64) {
        if let Some(waiting) = self.writes.remove(&index) {
            self.reply(waiting.ticket, lost_leadership());
        }
    }

    pub(super) fn fail_all(&mut self, why: &str) {
        let answer = Answer::Unavailable { why: format!("{why}; retrying the same request is safe") };
        for (_, waiting) in std::mem::take(&mut self.writes) {
            self.reply(waiting.ticket, answer.clone());
        }
        self.fail_reads(&answer);
        self.fail_handover(&answer);
    }

    pub(super) fn expire_writes(&mut self) {
        let now = self.now.mono;
        let late: Vec<u64> = self.writes.iter().filter(|(_, w)| w.by <= now).map(|(index, _)| *index).collect();
        for index in late {
            let answer = self.unavailable();
            if let Some(waiting) = self.writes.remove(&index) {
                self.reply(waiting.ticket, answer);
            }
        }
    }

    pub(super) fn writes_deadline(&self) -> Option<u64> {
        self.writes.values().map(|w| w.by).min()
    }

    pub(super) fn forget(&mut self, ticket: Ticket) {
        self.writes.retain(|_, w| w.ticket != ticket);
        self.reads.forget(ticket);
    }

    pub(super) fn reply(&mut self, ticket: Ticket, answer: Answer) {
        self.effects.push_back(Effect::Reply { ticket, answer });
    }

    pub(super) fn refuse(&mut self, ticket: Ticket, code: &'static str, why: String) {
        self.reply(ticket, Answer::Refused { code, why });
    }

    /// Where a follower sends who asks.
    pub(super) fn elsewhere(&self) -> Answer {
        match self.leader_address() {
            Some((leader, address)) if leader != self.config.node => Answer::Elsewhere { leader, address },
            _ => self.unavailable(),
        }
    }

    /// It leads, and has not applied yet all that earlier leaders decided: by its state it would refuse what they granted.
    fn ask_again(&mut self, ticket: Ticket) {
        self.reply(ticket, Answer::Elsewhere { leader: self.config.node, address: self.config.address.clone() });
    }

    /// Why nothing can be decided now.
    pub(super) fn unavailable(&self) -> Answer {
        Answer::Unavailable { why: self.why_leaderless() }
    }

    /// The same, if this node knows no leader.
    pub(super) fn leaderless(&self) -> Option<String> {
        self.leader_address().is_none().then(|| self.why_leaderless())
    }

    /// Names who is missing as far as this node knows.
    fn why_leaderless(&self) -> String {
        let Some(consensus) = &self.consensus else { return "this node knows no leader yet".into() };
        let group = consensus.membership();
        let leaves = group.outgoing.iter().filter(|m| !group.voters.contains(m));
        let is_missed = |m: &&MemberId| **m != consensus.member() && self.is_missed(**m);
        let missing: Vec<String> = group
            .voters
            .iter()
            .chain(leaves)
            .filter(is_missed)
            .map(|m| self.state.node_of_member(*m).map_or(format!("member {}", m.0), |n| format!("{} ({})", n.name, n.address)))
            .collect();
        let voters = group.voters.len();
        match missing.is_empty() {
            true => "no leader is elected at the moment".into(),
            false => format!("no majority of the {voters} managers: waiting for {}", missing.join(", ")),
        }
    }
}

/// Why a command did not become an entry.
pub(super) enum Refusal {
    TooLarge(usize),
    /// The state takes so many bytes that it must not grow.
    NoRoom(usize),
    /// This member would not understand it.
    TooOld(String),
    Raft(NotProposed),
}

pub(super) fn no_room(taken: usize) -> String {
    format!("the cluster's state takes {taken} bytes, the most is {STATE_BYTES_MAX}; delete keys or remove services first")
}

const ONLY_MANAGER: &str = "it is the only manager and no node can take over; `disco destroy` ends the cluster";

fn lost_leadership() -> Answer {
    Answer::Unavailable { why: "leadership changed before the request was settled; retrying the same request is safe".into() }
}
