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
    AckedWrites "acknowledged writes",
    Reads "linearizable reads",
    StaleReads "stale reads",
    Retries "retried requests",
    UnknownWrites "writes given up (outcome unknown)",
    Scales "scale requests",
    NodeRemovals "node removals",
    Preferences "promotions and demotions by hand",
    TokensMade "tokens made",
    Joins "nodes let in",
    JoinRetries "joins repeated after a lost reply",
    TokenReplaysOtherKey "tokens replayed with another key",
    TokenReplaysSameKey "tokens replayed with the same key",
    Forwarded "requests forwarded to the leader",
    Cancelled "requests cancelled",
    Crashes "crashes",
    CrashesMidway "crashes between two effects",
    CrashesUnsynced "crashes that lost an unsynced batch",
    CrashesSynced "crashes after a sync nobody heard of",
    CrashesOfAll "crashes of all at once",
    Shutdowns "orderly shutdowns",
    DiskErrors "disk errors",
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
    CloudCallsFailed "other cloud calls failed",
    DescribesStale "stale describes",
    InstancesDied "instances that died by themselves",
    InstancesVanished "instances that vanished with their disk",
    InstancesStarted "instances started again",
    InstancesTerminated "instances terminated",
    TasksStarted "tasks started",
    TasksEnded "tasks that ended",
    TasksStartedAlone "tasks started again without a manager",
    TasksAdopted "tasks found running by a new agent",
    ScriptCalls "calls of the script",
    ScriptCallsFailed "calls of the script that failed",
    Whims "changes of services",
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
