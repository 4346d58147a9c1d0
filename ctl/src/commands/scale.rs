//! `disco scale N`, and the waiting that bootstrap does too: the number is replicated first, the leader makes it true.

use super::{Desk, addresses, at, rollout::STILL_MAX};
use crate::args::Global;
use crate::bootstrap::{
    hosts,
    project::{self, Project},
};
use crate::client::{CallError, Client};
use crate::context::Context;
use crate::message::{Exit, Failure};
use crate::out::Out;
use proto::Spawner;
use proto::v1::{self, write_request};
use std::time::{Duration, Instant};

/// All nodes are ready and only the votes are not as wanted: they may never be (workers do not vote).
const VOTES_MAX: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Where the machines are listed, `disco` itself makes nodes of them; elsewhere the leader does.
pub async fn run(global: &Global, out: Out, spawner: &Spawner, nodes: u32) -> Result<Exit, Failure> {
    let context = Context::new(global)?;
    if context.socket.is_none() && context.cluster()?.is_some_and(|cluster| cluster.provider == hosts::KIND) {
        let mut project = Project::open(context, out, spawner)?;
        let reply = hosts::scale(&mut project, None, nodes).await?;
        return at(out, &reply).map(|()| Exit::Done);
    }
    ask(Desk::open(global, out, spawner)?, nodes).await
}

async fn ask(mut desk: Desk, nodes: u32) -> Result<Exit, Failure> {
    let what = format!("cannot scale to {nodes}");
    let reply = set(&mut desk.client, nodes).await.map_err(|e| e.failure(what.as_str()))?;
    let told = project::Progress::new(desk.out);
    let reached = until_ready(&mut desk.client, nodes, |words| told.line(words)).await;
    desk.remember(&reached.map_err(|e| e.failure(nodes))?).await;
    at(desk.out, &reply).map(|()| Exit::Done)
}

pub async fn set(client: &mut Client, nodes: u32) -> Result<v1::WriteReply, CallError> {
    client.write(write_request::Op::Scale(v1::ScaleRequest { nodes })).await
}

/// Why waiting ended without the nodes.
pub enum NotReady {
    /// Nobody answers any more.
    Call(CallError),
    /// Nothing moved.
    Still(Failure),
    /// Somebody else wants so many by now.
    Changed(u32),
}

impl NotReady {
    pub fn failure(self, nodes: u32) -> Failure {
        match self {
            NotReady::Call(error) => error.failure(format!("the cluster does not come to {nodes} nodes")),
            NotReady::Still(failure) => failure,
            NotReady::Changed(other) => Failure::no(format!("the cluster does not come to {nodes} nodes"))
                .because(format!("somebody scaled it to {other} meanwhile")),
        }
    }
}

/// Waits until exactly `nodes` nodes are ready and as many vote as should; tells each step of the way. Only after [`set`]
/// was answered: what the leader says from then on is that number, or a later one's.
///
/// # Errors
/// Nothing moved for two minutes, nobody answers, or another number is wanted by now.
pub async fn until_ready(client: &mut Client, nodes: u32, mut tell: impl FnMut(&str)) -> Result<v1::Status, NotReady> {
    let mut told = String::new();
    let mut moved = Instant::now();
    let mut ready_since: Option<Instant> = None;
    let mut problems: Vec<String> = Vec::new();
    loop {
        let status = client.status(false).await.map_err(NotReady::Call)?;
        client.know(&addresses(&status));
        if status.desired_nodes != nodes {
            return Err(NotReady::Changed(status.desired_nodes));
        }
        let progress = Progress::of(&status);
        let line = progress.line(nodes);
        if line != told {
            tell(&line);
            told = line;
            moved = Instant::now();
        }
        for problem in status.problems.iter().filter(|p| !problems.contains(p)) {
            moved = Instant::now();
            if progress.all_ready(nodes) {
                continue;
            }
            tell(problem);
        }
        problems.clone_from(&status.problems);
        if progress.all_ready(nodes) {
            let since = *ready_since.get_or_insert_with(Instant::now);
            if progress.votes_as_wanted(nodes, status.managers) || since.elapsed() > VOTES_MAX {
                return Ok(status);
            }
        } else {
            ready_since = None;
        }
        if moved.elapsed() > STILL_MAX {
            let failure = Failure::no(format!("the cluster does not come to {nodes} nodes"))
                .because(format!("{told}, and nothing moved for {} s", STILL_MAX.as_secs()));
            let failure = problems.into_iter().fold(failure, Failure::because);
            return Err(NotReady::Still(failure.hint("the cluster goes on trying; `disco status` shows how far it is")));
        }
        async_io::Timer::after(LOOK_AGAIN).await;
    }
}

/// Whether a person wants this node's machine stopped.
fn rests(status: &v1::Status, node: &v1::Node) -> bool {
    status.instances.iter().any(|i| i.node == node.id && i.desired == "stopped")
}

/// A leader, and every wanted node ready, but for those that are stopped on purpose.
pub fn is_whole(status: &v1::Status) -> bool {
    status.leader.is_some() && status.desired_nodes > 0 && Progress::of(status).all_ready(status.desired_nodes)
}

/// What counts while waiting.
#[derive(Debug, PartialEq, Eq)]
struct Progress {
    ready: u32,
    /// Nodes whose machine a person wants stopped: nobody waits for them.
    resting: u32,
    /// Nodes in any state.
    here: u32,
    /// Instances that are to end and have not.
    ending: u32,
    voters: u32,
}

impl Progress {
    fn of(status: &v1::Status) -> Progress {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let ends = |i: &&v1::Instance| i.desired == "terminated" && !matches!(i.state.as_str(), "terminated" | "failed");
        Progress {
            ready: count(status.nodes.iter().filter(|n| n.state == "ready").count()),
            resting: count(status.nodes.iter().filter(|n| n.state != "ready" && rests(status, n)).count()),
            here: count(status.nodes.iter().filter(|n| n.state != "left").count()),
            ending: count(status.instances.iter().filter(ends).count()),
            voters: count(status.voters.len()),
        }
    }

    fn all_ready(&self, nodes: u32) -> bool {
        self.ready + self.resting == nodes && self.leaving(nodes) == 0
    }

    fn leaving(&self, nodes: u32) -> u32 {
        self.here.saturating_sub(nodes).max(self.ending)
    }

    /// Voter sets are odd: two nodes are one voter and one learner.
    fn votes_as_wanted(&self, nodes: u32, managers: u32) -> bool {
        let most = nodes.min(managers).max(1);
        self.voters == most - (1 - most % 2)
    }

    fn line(&self, nodes: u32) -> String {
        let s = if self.voters == 1 { "" } else { "s" };
        let leaving = match self.leaving(nodes) {
            0 => String::new(),
            many => format!(", {many} still leaving"),
        };
        let resting = match self.resting {
            0 => String::new(),
            many => format!(", {many} stopped on purpose"),
        };
        format!("{} of {nodes} nodes ready, {} vote{s}{resting}{leaving}", self.ready.min(nodes), self.voters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(ready: u32, voters: u32) -> Progress {
        Progress { ready, resting: 0, here: ready, ending: 0, voters }
    }

    #[test]
    fn the_wanted_number_of_votes_is_odd_and_at_most_the_managers() {
        for (nodes, managers, voters) in [(1, 3, 1), (2, 3, 1), (3, 3, 3), (4, 3, 3), (4, 5, 3), (5, 5, 5), (3, 1, 1), (7, 7, 7)] {
            assert!(progress(nodes, voters).votes_as_wanted(nodes, managers), "{nodes} nodes, {managers} managers");
            assert!(!progress(nodes, voters + 1).votes_as_wanted(nodes, managers), "{nodes} nodes, {managers} managers");
        }
    }

    #[test]
    fn a_node_that_is_still_leaving_is_waited_for() {
        let mut status = crate::render::samples::status();
        assert_eq!(Progress::of(&status), Progress { ready: 1, resting: 0, here: 2, ending: 0, voters: 2 });
        assert!(!Progress::of(&status).all_ready(1));
        status.instances[0].desired = "stopped".into();
        assert!(Progress::of(&status).all_ready(2));
        assert_eq!(Progress::of(&status).line(2), "1 of 2 nodes ready, 2 votes, 1 stopped on purpose");
        status.nodes.retain(|n| n.state == "ready");
        status.instances[0].desired = "terminated".into();
        assert!(!Progress::of(&status).all_ready(1));
        status.instances[0].state = "terminated".into();
        assert!(Progress::of(&status).all_ready(1));
        assert_eq!(Progress::of(&status).line(1), "1 of 1 nodes ready, 2 votes");
    }
}
