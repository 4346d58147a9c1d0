//! Which survivor of a lost majority goes on: what a person's `disco` decides from what the survivors say of themselves.

/// What one node that answers says: where its log ends, and which managers it misses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor<Id> {
    pub node: Id,
    pub last_term: u64,
    pub last_index: u64,
    pub missing: Vec<Id>,
}

/// The place of the one to go on among those that answered, and the managers that it goes on without.
///
/// The log of the newest term, and of those the longest, holds everything acknowledged that any of them holds: the rule by
/// which Raft votes. Who answers is not lost, whatever others say.
pub fn who_goes_on<Id: Clone + PartialEq>(survivors: &[Survivor<Id>]) -> Option<(usize, Vec<Id>)> {
    let (place, newest) = survivors.iter().enumerate().max_by_key(|(_, s)| (s.last_term, s.last_index))?;
    let lost = newest.missing.iter().filter(|id| !survivors.iter().any(|s| s.node == **id)).cloned().collect();
    Some((place, lost))
}
