//! How often each thing happened: a simulator whose faults never strike proves nothing.

macro_rules! counts {
    ($($name:ident $text:literal),* $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Count { $($name),* }
        impl Count {
            pub const ALL: &'static [(Count, &'static str)] = &[$((Count::$name, $text)),*];
        }
    };
}

counts! {
    Events "events",
    Elections "elections",
    JointChanges "joint changes",
    VoterSets "voter set changes",
    EntriesCompared "log entries compared",
    StatesCompared "states compared",
    AckedWrites "acknowledged writes",
    AckedDeletes "acknowledged deletions",
    LinearChecked "operations in linearizable histories",
    Reads "linearizable reads",
    StaleReads "stale reads",
    Retries "retried requests",
    UnknownWrites "writes given up (outcome unknown)",
    Scales "scale requests",
    ManagersChanged "changes of the number of managers",
    NodeRemovals "node removals",
    Preferences "promotions and demotions by hand",
    TokensMade "tokens made",
    Joins "nodes let in",
    JoinRetries "joins repeated after a lost reply",
    TokenReplaysOtherKey "tokens replayed with another key",
    TokenReplaysSameKey "tokens replayed with the same key",
    StrangersDirected "reports of strangers sent on to the leader",
    Forwarded "requests forwarded to the leader",
    Cancelled "requests cancelled",
    Crashes "crashes",
    CrashesMidway "crashes between two effects",
    CrashesUnsynced "crashes that lost an unsynced batch",
    CrashesSynced "crashes after a sync nobody heard of",
    CrashesTorn "crashes that tore a batch",
    CrashesInWrite "crashes in the middle of a write",
    CrashesAfterVote "crashes right after a vote",
    LeadersCrashed "crashes of a leader",
    LeadersCrashedInRoll "crashes of a leader in the middle of an update",
    CrashesOfAll "crashes of all at once",
    Shutdowns "orderly shutdowns",
    DiskErrors "disk errors",
    DisksFull "disks that were full for a while",
    DiskFullErrors "writes to a full disk",
    Pauses "paused processes",
    ClockJumps "clock jumps",
    Drifts "drifting clocks",
    Lost "messages lost",
    Duplicated "messages duplicated",
    Reordered "messages reordered",
    PartitionsSymmetric "symmetric partitions",
    PartitionsAsymmetric "asymmetric partitions",
    Unreachable "broken links noticed",
    SnapshotsSent "snapshots",
    SnapshotsFailed "snapshots failed",
    CallsLost "calls lost",
    CallRepliesLost "call replies lost",
    KeyringCallsLost "enlist or discharge calls lost",
    Launches "instances launched",
    LaunchRepeats "launches repeated",
    LaunchRepliesLost "launch replies lost",
    LaunchesFailed "launches failed",
    TerminationsDecided "terminations decided",
    TerminationsFailed "terminations failed",
    TerminationRepliesLost "termination replies lost",
    CloudCallsFailed "other cloud calls failed",
    CloudRepliesLost "other cloud replies lost",
    CloudCallsTwice "cloud calls that came twice",
    DescribesStale "stale describes",
    InstancesDied "instances that died by themselves",
    InstancesVanished "instances that vanished with their disk",
    InstancesStarted "instances started again",
    InstancesTerminated "instances terminated",
    NodesLost "nodes lost",
    NodesReturned "lost nodes that returned",
    NodesDrained "nodes drained",
    TasksPlaced "tasks placed",
    TasksStopped "tasks to be stopped",
    TasksForgotten "tasks forgotten",
    TasksStarted "tasks started",
    TasksAskedToEnd "tasks asked to end",
    TasksEnded "tasks that ended",
    TasksPaused "tasks paused because too few nodes were there",
    TasksHeld "tasks stopped because too few nodes were there",
    TasksStartedAlone "tasks started again without a manager",
    TasksAdopted "tasks found running by a new agent",
    ServicesBlocked "services with no room for another copy",
    ServicesScaled "services scaled",
    ServicesRestarted "services restarted",
    ServicesRolledBack "services rolled back",
    ServicesSet "services set by a hook",
    ServicesRemoved "services removed by a hook",
    RollsDone "updates done",
    RollsStopped "updates stopped",
    ModulesPut "modules put",
    ModulesPutInRoll "modules put in the middle of an update",
    ModulesRolledBack "modules rolled back",
    Declared "declarations",
    ScriptLed "terms whose leader hook completed",
    ScriptErrors "script errors told",
    ScriptReloads "script reloads",
    ScriptAsked "plans and evaluations asked for",
    ScriptAnswers "plans and evaluations answered",
    Configured "calls of configure",
    LeaderHooks "calls of leader",
    FollowerHooks "calls of follower",
    TimersFired "timers fired",
    EventsHeard "events heard by the script",
    KeyChangesHeard "key changes heard by the script",
    Evaluated "expressions evaluated",
    FencedWrites "writes of hooks carried out",
    FencedRefused "late writes of hooks refused",
    ScriptCalls "calls of the script",
    ScriptCallsFailed "calls of the script that failed",
    Whims "changes of services",
    Deletes "deletions in the log",
    AgentsAway "agents away for a moment, and nothing moved",
    NodesCame "nodes that came, and nothing moved",
    StoppedBelowMin "clusters stopped below min_nodes",
    PausedBelowMin "clusters paused below min_nodes",
    RotationsAsked "new certificate authorities asked for",
    Recertified "certificates from a new authority",
    AuthoritiesReplaced "certificate authorities replaced",
    PromotedDied "voters killed with their leader in the moment of their promotion",
    MajoritiesLost "lost majorities, at which all was refused",
    MajoritiesBack "lost majorities that came back, and nothing was lost",
    LossesConfirmed "lost majorities confirmed by the provider",
    LossesConsented "lost majorities given up by a person's word",
    EntriesLostWithMajority "decided entries lost with a majority",
    LivesBegun "clusters that went on without their majority",
    OldVotersBack "lost voters that came back after that",
    PlayedTwice "histories played twice",
}

#[derive(Clone)]
pub struct Counts([u64; Count::ALL.len()]);

impl Default for Counts {
    fn default() -> Counts {
        Counts([0; Count::ALL.len()])
    }
}

impl Counts {
    pub fn add(&mut self, count: Count) {
        self.add_many(count, 1);
    }

    pub fn add_many(&mut self, count: Count, many: u64) {
        self.0[count as usize] += many;
    }

    pub fn of(&self, count: Count) -> u64 {
        self.0[count as usize]
    }

    pub fn merge(&mut self, other: &Counts) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// What never happened.
    pub fn zeroes(&self) -> Vec<&'static str> {
        Count::ALL.iter().filter(|(count, _)| self.of(*count) == 0).map(|(_, text)| *text).collect()
    }
}
