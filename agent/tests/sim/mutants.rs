//! Deliberate breaches of what the replica relies on, to see that the checkers would notice.
//!
//! A simulator that has never caught anything may be blind. Each mutant breaks, at the simulator's edge, one promise of
//! the world (disk, cloud, runtime, network) or one duty of the daemon around the replica; the product's code holds no
//! switch for it. Each names the mix of faults in which it ought to show.

use crate::options::Options;

macro_rules! mutants {
    ($($name:ident $text:literal $mix:expr),* $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant { $($name),* }

        impl Mutant {
            pub const ALL: &'static [(Mutant, &'static str)] = &[$((Mutant::$name, $text)),*];

            /// Bends what a seed drew towards the faults that the mutant needs.
            pub fn mix(self, options: &mut Options) {
                let mix: fn(&mut Options) = match self { $(Mutant::$name => $mix),* };
                mix(options);
            }
        }
    };
}

mutants! {
    // A crash brings back the hard state before the last: a vote is forgotten.
    ForgottenVote "forgotten-vote" |o| { votes(o); o.crash_after_vote = 300 },
    // The store says "durable" before it is.
    EarlyPersisted "early-persisted" |o| { group(o); crashes(o); o.disk_ms.1 = o.disk_ms.1.max(20) },
    // Linearizable reads are answered without asking the quorum.
    SkippedReadIndex "skipped-read-index" |o| { group(o); o.partition_every_ms = 2_000; o.think_ms = 20 },
    // The door certifies whatever key comes with a token, and asks the cluster about the one it knows.
    TokenNotBoundToItsKey "token-not-bound-to-its-key" |o| { o.steal = 900; o.nodes_max = 5; o.die_every_ms = 2_000; o.call_loss = 200; o.safety_ms = 30_000 },
    // The cloud is not told which operation it carries out: a repeated launch makes a second instance.
    LaunchWithoutClientToken "launch-without-client-token" |o| { group(o); o.cloud_lost = 300; o.cloud_twice = 300 },
    // A leaving voter's machine ends before its vote passed to another.
    VoterRemovedBeforeTransfer "voter-removed-before-transfer" |o| { group(o); o.scale_every_ms = 3_000; o.remove_every_ms = 4_000 },
    // A script's writes come without the term that its hook ran in.
    StaleTermScriptCommandAccepted "stale-term-script-command-accepted" |o| { group(o); script(o); o.pause_every_ms = 3_000; o.partition_every_ms = 3_000 },
    // A returning node takes an assignment of old for a leader's word: what was moved starts before anybody fenced it.
    TaskMovedBeforeFencing "task-moved-before-fencing" |o| { workers(o); script(o); o.die_every_ms = 3_000; crashes(o) },

    // Every retry of a write is a new request.
    ForgottenRequestId "forgotten-request-id" |o| { o.call_loss = 200; o.think_ms = 20 },
    // An agent does not find the tasks that outlived its predecessor.
    TasksNotFound "tasks-not-found" |o| { script(o); crashes(o) },
    // A write torn by a crash takes the entry before it along, which was durable.
    TornWriteSpoilsMore "torn-write-spoils-more" |o| { group(o); o.crash_in_write = 10; o.down_ms = (50, 1_000) },
    // A write error is logged and forgotten.
    WriteErrorSwallowed "write-error-swallowed" |o| { group(o); o.disk_error = 8; crashes(o) },
    // A snapshot comes without the answers that keep retries from being applied twice.
    SnapshotForgetsAnswers "snapshot-forgets-answers" |o| { group(o); o.value_bytes = 12_000 },
    // Answers to reports come late and count as new: what was moved away is ordered again.
    OrdersOutOfDate "orders-out-of-date" |o| { workers(o); script(o); o.whim_every_ms = 2_000 },
    // The runtime says that a task ended once it asked it to.
    EndedBeforeItEnded "ended-before-it-ended" |o| { script(o); o.whim_every_ms = 2_000 },
    // A launch that nobody answered is taken for one that failed for good.
    NoAnswerTakenForFailure "no-answer-taken-for-failure" |o| { group(o); o.cloud_lost = 300 },
    // The door passes on one use more than was asked for.
    TokenGoodForTwo "token-good-for-two" |o| { o.outsiders = 2; o.steal = 900 },
    // New keys of the cluster are held, but not on disk.
    NewKeysNotSaved "new-keys-not-saved" |o| { group(o); o.rotate_every_ms = 2_000 },
    // Links do not notice that a byte changed on its way.
    MessageChangedOnItsWay "message-changed-on-its-way" |o| group(o),
    // Of the survivors of a lost majority not the one with the newest log goes on.
    ShorterLogRecovered "shorter-log-recovered" |o| loss(o),
    // Who goes on forgets by a restart that its terms are ahead of all that were.
    RecoveredInOldTerms "recovered-in-old-terms" |o| loss(o),
    // A survivor that has waited for long enough goes on by itself.
    RecoveredBySilence "recovered-by-silence" |o| loss(o),
}

/// A group that has something to agree on.
fn group(options: &mut Options) {
    options.nodes_max = options.nodes_max.clamp(3, 5);
    options.managers = options.managers.max(3);
}

/// Nodes that hear of their tasks by the answers to their reports.
fn workers(options: &mut Options) {
    (options.nodes_max, options.managers, options.managers_every_ms) = (5, 1, 0);
}

/// Elections without end, and voters that die in the middle of them.
fn votes(options: &mut Options) {
    (options.nodes_max, options.managers, options.supervised) = (3, 3, 1_000);
    (options.cloud_ms, options.boot_ms, options.cloud_lost, options.cloud_failed) = ((5, 50), (50, 100), 0, 0);
    (options.scale_every_ms, options.remove_every_ms, options.managers_every_ms, options.vanish_every_ms) = (0, 0, 0, 0);
    (options.safety_ms, options.loss, options.pause_every_ms, options.die_every_ms) = (30_000, 0, 0, 0);
    (options.crash_every_ms, options.crash_all) = (3_000, 800);
    (options.down_ms, options.disk_ms, options.delay_ms) = ((10, 300), (0, 5), (3, 250));
    (options.partition_every_ms, options.partition_ms) = (3_000, (1_500, 2_500));
}

/// A majority is lost in the end, whatever happened before.
fn loss(options: &mut Options) {
    group(options);
    options.ending_is_loss = true;
    (options.safety_ms, options.services) = (4_000, false);
}

fn crashes(options: &mut Options) {
    options.crash_every_ms = 1_500;
    options.down_ms = (50, 1_500);
}

fn script(options: &mut Options) {
    options.services = true;
    options.whim_every_ms = options.whim_every_ms.clamp(2_000, 5_000);
}

impl Mutant {
    pub fn named(name: &str) -> Option<Mutant> {
        Mutant::ALL.iter().find(|(_, known)| *known == name).map(|(mutant, _)| *mutant)
    }

    pub fn name(self) -> &'static str {
        Mutant::ALL.iter().find(|(mutant, _)| *mutant == self).expect("all are listed").1
    }
}
