//! What a replica shows of its state.

use super::Replica;
use crate::{
    logic::plan,
    model::{
        ids::MemberId,
        query::{MemberView, Query, RotationView, ServiceView, StatusView, View},
        service::ServiceRecord,
    },
};

/// Events in a status, entries in a page.
const STATUS_EVENTS: usize = 20;
const PAGE_MAX: u32 = 512;

impl Replica {
    pub(super) fn view(&self, query: &Query) -> View {
        match query {
            Query::Status => View::Status(Box::new(self.status())),
            Query::KvGet(key) => match self.state.kv.get(key) {
                Some(record) => View::Kv { value: Some(record.value.clone()), version: record.version },
                None => View::Kv { value: None, version: 0 },
            },
            Query::KvList { prefix, after, limit } => {
                let (entries, more) = self.state.kv_page(prefix, after, bounded(*limit));
                View::KvPage { entries, more }
            }
            Query::Tokens => View::Tokens(self.state.tokens.values().cloned().collect()),
            Query::Events { after, limit } => {
                let new = self.state.events.iter().filter(|e| e.id > *after);
                View::Events(new.take(bounded(*limit)).cloned().collect())
            }
            Query::Member => View::Member(self.member_view()),
        }
    }

    fn status(&self) -> StatusView {
        let group = self.consensus.as_ref().map(|c| c.membership()).unwrap_or_default();
        let events = &self.state.events;
        StatusView {
            cluster: self.state.cluster,
            cluster_name: self.state.name.clone(),
            leader: self.leader_address().map(|(id, _)| id),
            desired_nodes: self.state.desired_nodes,
            managers: self.state.settings.managers,
            nodes: self.state.nodes.values().cloned().collect(),
            instances: self.state.instances.values().cloned().collect(),
            events: events.iter().skip(events.len().saturating_sub(STATUS_EVENTS)).cloned().collect(),
            term: self.consensus.as_ref().map_or(0, |c| c.term()),
            problems: self.with_sight(plan::problems).unwrap_or_else(|| self.leaderless().into_iter().collect()),
            answered_by: self.config.node,
            // Until a joint configuration is left, nothing is decided without those who voted before.
            voters: if group.is_joint() { group.outgoing } else { group.voters },
            learners: group.learners,
            services: self.services(),
            script_version: self.state.script.version,
            script_applied: self.state.script.applied,
            script_error: self.state.script.error.clone(),
            rotation: self.state.rotation.as_ref().map(|r| RotationView { stage: r.stage, waits_for: self.state.ca_waits_for() }),
        }
    }

    /// Why copies are missing only the leader knows.
    fn services(&self) -> Vec<ServiceView> {
        let mut unplaced = self.with_sight(plan::unplaced).unwrap_or_default();
        let view = |record: &ServiceRecord| ServiceView {
            record: record.clone(),
            desired: self.state.desired(record),
            tasks: self.state.tasks_of(&record.name).cloned().collect(),
            unplaced: unplaced.remove(&record.name).unwrap_or_default(),
        };
        self.state.services.values().map(view).collect()
    }

    fn member_view(&self) -> MemberView {
        let Some(consensus) = &self.consensus else {
            return MemberView { role: "none", ..MemberView::default() };
        };
        MemberView {
            member: consensus.member().0,
            term: consensus.term(),
            commit: consensus.commit_index(),
            applied: self.applied,
            digest: self.state.digest(),
            role: consensus.role(),
            leader_member: consensus.leader().map_or(0, |m: MemberId| m.0),
        }
    }
}

fn bounded(limit: u32) -> usize {
    (if limit == 0 { PAGE_MAX } else { limit.min(PAGE_MAX) }) as usize
}
