//! Deliberate faults in the world's promises, to see that the checkers would notice.
//!
//! A simulator that has never caught anything may be blind. Each mutant breaks one thing the replica relies on, or one
//! thing the daemon does for it.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A crash brings back the hard state before the last: a vote is forgotten.
    ForgottenVote,
    /// The store says "durable" before it is.
    EarlyPersisted,
    /// The cloud forgets operations: a repeated launch makes a second instance.
    LaunchNotIdempotent,
    /// Linearizable reads are asked for as stale ones.
    SkippedReadIndex,
    /// Every retry of a write is a new request.
    ForgottenRequestId,
    /// An agent does not find the tasks that outlived its predecessor.
    TasksNotFound,
    /// A script's writes come without the term they belong to.
    StaleTermAccepted,
    /// What half a batch left on the disk is taken for the whole.
    TornTailTrusted,
}

impl Mutant {
    pub const ALL: &'static [(Mutant, &'static str)] = &[
        (Mutant::ForgottenVote, "forgotten-vote"),
        (Mutant::EarlyPersisted, "early-persisted"),
        (Mutant::LaunchNotIdempotent, "launch-not-idempotent"),
        (Mutant::SkippedReadIndex, "skipped-read-index"),
        (Mutant::ForgottenRequestId, "forgotten-request-id"),
        (Mutant::TasksNotFound, "tasks-not-found"),
        (Mutant::StaleTermAccepted, "stale-term-accepted"),
        (Mutant::TornTailTrusted, "torn-tail-trusted"),
    ];

    pub fn named(name: &str) -> Option<Mutant> {
        Mutant::ALL.iter().find(|(_, known)| *known == name).map(|(mutant, _)| *mutant)
    }
}
