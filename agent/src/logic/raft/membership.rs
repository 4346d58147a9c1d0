//! Who votes: the Raft group's membership and changes of it, in our own words.

use crate::model::ids::MemberId;
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState};

/// The group as this member has applied it, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    pub voters: Vec<MemberId>,
    pub learners: Vec<MemberId>,
    /// Voters of the configuration being left: while there are any, it is joint and takes both majorities.
    pub outgoing: Vec<MemberId>,
    /// A change is proposed and not applied yet (leader only), or this node would have forgotten after a restart that it is
    /// over: nobody may give up the seat then that it would need again.
    pub pending: bool,
}

impl Membership {
    pub(super) fn from_raft(conf: &ConfState, pending: bool) -> Membership {
        let sorted = |ids: &[u64]| {
            let mut members: Vec<MemberId> = ids.iter().copied().map(MemberId).collect();
            members.sort_unstable();
            members
        };
        let mut learners: Vec<u64> = conf.learners.clone();
        learners.extend(&conf.learners_next);
        Membership { voters: sorted(&conf.voters), learners: sorted(&learners), outgoing: sorted(&conf.voters_outgoing), pending }
    }

    /// Whether it takes part in any way: those being voted out still vote until the joint configuration is left.
    pub fn contains(&self, member: MemberId) -> bool {
        self.voters.contains(&member) || self.learners.contains(&member) || self.outgoing.contains(&member)
    }

    /// A joint configuration is in force: the leader has to propose to leave it.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }
}

/// One step of membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    AddLearner(MemberId),
    /// From one odd voter set to another in one joint change.
    Joint {
        voters: Vec<MemberId>,
        learners: Vec<MemberId>,
        remove: Vec<MemberId>,
    },
    /// Out of the joint configuration. (raft-rs' own auto-leave may never happen.)
    LeaveJoint,
    RemoveLearner(MemberId),
}

impl Change {
    pub(super) fn to_raft(&self) -> ConfChangeV2 {
        let mut change = ConfChangeV2::default();
        let single = |kind: ConfChangeType, member: MemberId| {
            let mut single = ConfChangeSingle { node_id: member.0, ..ConfChangeSingle::default() };
            single.set_change_type(kind);
            single
        };
        match self {
            Change::AddLearner(member) => change.changes.push(single(ConfChangeType::AddLearnerNode, *member)),
            Change::RemoveLearner(member) => change.changes.push(single(ConfChangeType::RemoveNode, *member)),
            Change::LeaveJoint => {}
            Change::Joint { voters, learners, remove } => {
                change.set_transition(ConfChangeTransition::Explicit);
                change.changes.extend(voters.iter().map(|m| single(ConfChangeType::AddNode, *m)));
                change.changes.extend(learners.iter().map(|m| single(ConfChangeType::AddLearnerNode, *m)));
                change.changes.extend(remove.iter().map(|m| single(ConfChangeType::RemoveNode, *m)));
            }
        }
        change
    }
}
