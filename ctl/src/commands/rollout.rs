//! Waiting until services run as they should: the cluster does it, we watch and tell.

use crate::client::{CallError, Client};
use crate::message::Failure;
use crate::render::services::tasks_on;
use proto::v1;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Nothing moved for this long: say what is missing and stop waiting. The cluster goes on by itself.
pub const STILL_MAX: Duration = Duration::from_secs(120);
/// For copies that have no place this is enough: a place comes from somebody's doing.
const UNPLACED_MAX: Duration = Duration::from_secs(5);
/// New modules wait for the leader, and a new leader for its turn.
const LOADED_MAX: Duration = Duration::from_secs(90);
/// Services that one error names, a line each.
const TOLD_MAX: usize = 10;
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const GOES_ON: &str = "the cluster goes on trying; `disco status` shows how far it is";

/// Waits until `configure` of these modules has been carried out.
///
/// # Errors
/// The script failed: nothing was changed. Or other modules came in between, or nobody answers.
pub async fn until_loaded(client: &mut Client, version: u64) -> Result<v1::Status, Failure> {
    let what = "the script was not loaded";
    let started = Instant::now();
    loop {
        let status = client.status(false).await.map_err(|e| e.failure(what))?;
        if status.script_version != version {
            return Err(Failure::no(what)
                .because("somebody applied modules at the same time, and those came last")
                .hint("`disco plan` shows whether they are the same; then nothing is left to do"));
        }
        if status.script_applied == version {
            return Ok(status);
        }
        if !status.script_error.is_empty() {
            let failure = Failure::no("the script failed, nothing was changed").because(status.script_error);
            return Err(failure.hint("mend it and run `disco apply` again, or go back with `disco apply --rollback`; until then the leader tries it now and then"));
        }
        if started.elapsed() > LOADED_MAX {
            let failure = Failure::no(what).because(format!("the leader did not run it within {} s", LOADED_MAX.as_secs()));
            return Err(failure.hint(GOES_ON));
        }
        async_io::Timer::after(LOOK_AGAIN).await;
    }
}

/// Waits until each of these services runs as it should or cannot; tells each step of the way.
///
/// # Errors
/// Nobody answers; or, of each that does not run: its update stopped, its copies have no place, nothing moved for two minutes.
pub async fn until_rolled(client: &mut Client, names: &[String], mut tell: impl FnMut(&str)) -> Result<(), Failure> {
    let mut watch = Watch::default();
    loop {
        let status = client.status(false).await.map_err(unanswered)?;
        let seen = watch.look(&status, names);
        seen.lines.iter().for_each(|line| tell(line));
        if let Some(failure) = seen.failure {
            return Err(failure);
        }
        if seen.settled {
            return Ok(());
        }
        async_io::Timer::after(LOOK_AGAIN).await;
    }
}

/// Waits until the last task that was on this node has ended, wherever it goes on.
///
/// # Errors
/// Its tasks have no other place, nothing moved for two minutes, or nobody answers.
pub async fn until_drained(client: &mut Client, node: &v1::Node, mut tell: impl FnMut(&str)) -> Result<(), Failure> {
    let mut told = String::new();
    let mut moved = Instant::now();
    loop {
        let status = client.status(false).await.map_err(unanswered)?;
        let (left, unplaced) = (tasks_on(&status, &node.id), unplaced_of(&status, &node.id));
        if left.is_empty() {
            return Ok(());
        }
        let line = format!("{} on {}: {}", counted(left.len(), "task"), node.name, left.join(", "));
        if line != told {
            tell(&line);
            (told, moved) = (line, Instant::now());
        }
        let limit = if unplaced.is_empty() { STILL_MAX } else { UNPLACED_MAX };
        if moved.elapsed() > limit {
            let failure = Failure::no(format!("node `{}` still runs tasks", node.name))
                .because(format!("{told}, and nothing moved for {} s", limit.as_secs()));
            let hint = format!("it stays drained, and the cluster goes on trying; `disco node drain {} --off` ends that", node.name);
            return Err(unplaced.into_iter().take(3).fold(failure, Failure::because).hint(hint));
        }
        async_io::Timer::after(LOOK_AGAIN).await;
    }
}

/// Why services that still have tasks on this node find no place elsewhere. Another service's trouble is not the drain's.
fn unplaced_of(status: &v1::Status, node: &str) -> Vec<String> {
    let here = status.services.iter().filter(|service| service.tasks.iter().any(|task| task.node == node));
    here.flat_map(|s| s.unplaced.iter().map(|why| format!("{}: {why}", s.name))).collect()
}

fn counted(many: usize, what: &str) -> String {
    if many == 1 { format!("1 {what}") } else { format!("{many} {what}s") }
}

fn unanswered(error: CallError) -> Failure {
    error.failure("the cluster does not tell how far it is")
}

/// What was told so far.
#[derive(Default)]
struct Watch {
    told: BTreeMap<String, String>,
    /// The version first seen of each: another one was begun by somebody, or by a rollback.
    versions: BTreeMap<String, u64>,
    moved: Option<Instant>,
}

struct Seen {
    lines: Vec<String>,
    settled: bool,
    failure: Option<Failure>,
}

impl Watch {
    /// One service that cannot run ends the wait only when the others have come to their end too: all are told at once.
    fn look(&mut self, status: &v1::Status, names: &[String]) -> Seen {
        let mut seen = Seen { lines: Vec::new(), settled: false, failure: None };
        let mut failed: Vec<Failure> = Vec::new();
        let mut late: Vec<(&v1::Service, Progress)> = Vec::new();
        for name in names {
            let service = status.services.iter().find(|s| s.name == *name);
            let Some(service) = service else {
                self.tell(&mut seen, name, format!("{name} is gone"));
                continue;
            };
            let progress = Progress::of(service, &status.nodes);
            let first = *self.versions.entry(name.clone()).or_insert(service.version);
            if let Some(failure) = stopped(service, &progress, first) {
                // Said once: its tasks may begin and end for ever.
                self.tell(&mut seen, name, failure.what().to_owned());
                failed.push(failure);
                continue;
            }
            self.tell(&mut seen, name, progress.line(service));
            if !progress.is_settled(service) {
                late.push((service, progress));
            }
        }
        let still = self.moved.map_or(Duration::ZERO, |moved| moved.elapsed());
        let limit = if late.iter().all(|(service, _)| !service.unplaced.is_empty()) { UNPLACED_MAX } else { STILL_MAX };
        if still > limit {
            failed.extend(late.drain(..).map(|(service, progress)| short_of(service, &progress, still)));
        }
        if late.is_empty() {
            seen.settled = failed.is_empty();
            seen.failure = together(failed);
        }
        seen
    }

    fn tell(&mut self, seen: &mut Seen, name: &str, line: String) {
        if self.told.get(name) != Some(&line) {
            self.told.insert(name.to_owned(), line.clone());
            self.moved = Some(Instant::now());
            seen.lines.push(line);
        }
    }
}

/// One failure as it is, several as a list.
fn together(mut failed: Vec<Failure>) -> Option<Failure> {
    if failed.len() < 2 {
        return failed.pop();
    }
    let mut all = Failure::no(format!("{} services do not run as they should", failed.len()));
    for failure in failed.iter().take(TOLD_MAX) {
        all = all.because(failure.in_one_line());
    }
    if failed.len() > TOLD_MAX {
        all = all.because(format!("and {} more", failed.len() - TOLD_MAX));
    }
    Some(all.hint("`disco service inspect` and `disco logs` say more of each"))
}

/// An update that has ended without its new tasks.
fn stopped(service: &v1::Service, progress: &Progress, first: u64) -> Option<Failure> {
    let name = &service.name;
    if service.version != first {
        let failure = Failure::no(format!("version {first} of service `{name}` does not run"));
        return Some(failure.because(format!("version {} was begun: it was rolled back, or changed by somebody", service.version)));
    }
    (service.roll == "stopped").then(|| {
        let goes_on = if progress.old > 0 { "tasks of older versions go on; " } else { "" };
        Failure::no(format!("the update of service `{name}` to version {} stopped", service.version))
            .because(service.roll_problem.clone())
            .hint(format!("{goes_on}`disco logs {name}` shows what the new one said, `disco service restart {name}` tries again"))
    })
}

fn short_of(service: &v1::Service, progress: &Progress, still: Duration) -> Failure {
    let failure = Failure::no(format!("service `{}` does not run as it should", service.name)).because(format!(
        "{}, and nothing moved for {} s",
        progress.line(service),
        still.as_secs()
    ));
    let mut reasons: Vec<&String> = service.unplaced.iter().collect();
    reasons.extend(service.tasks.iter().map(|t| &t.last_error).filter(|e| !e.is_empty()));
    reasons.dedup();
    reasons.into_iter().take(3).fold(failure, |f, why| f.because(why.clone())).hint(GOES_ON)
}

/// What counts while waiting.
#[derive(Debug, PartialEq, Eq)]
struct Progress {
    /// Up, and of the newest version, on nodes that are there.
    new: u32,
    /// Wanted there, but of an older one.
    old: u32,
    /// Not wanted there any more, and not ended yet.
    ending: u32,
}

impl Progress {
    fn of(service: &v1::Service, nodes: &[v1::Node]) -> Progress {
        let count = |is: &dyn Fn(&v1::Task) -> bool| u32::try_from(service.tasks.iter().filter(|t| is(t)).count()).unwrap_or(u32::MAX);
        let lost = |t: &v1::Task| nodes.iter().any(|n| n.id == t.node && n.state == "lost");
        Progress {
            new: count(&|t| t.wanted && t.version == service.version && matches!(t.state.as_str(), "running" | "exited") && !lost(t)),
            old: count(&|t| t.wanted && t.version != service.version && !lost(t)),
            ending: count(&|t| !t.wanted && !matches!(t.state.as_str(), "exited" | "failed") && !lost(t)),
        }
    }

    fn is_settled(&self, service: &v1::Service) -> bool {
        service.roll == "done" && self.new == service.desired && self.old == 0 && self.ending == 0
    }

    /// `web 2/3 running, 1 of the version before`
    fn line(&self, service: &v1::Service) -> String {
        let some = |many: u32, what: &str| if many == 0 { String::new() } else { format!(", {many} {what}") };
        let (old, ending) = (some(self.old, "of the version before"), some(self.ending, "ending"));
        format!("{} {}/{} running{old}{ending}", service.name, self.new, service.desired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    fn names() -> Vec<String> {
        vec!["web".to_owned()]
    }

    #[test]
    fn a_drain_heeds_only_services_that_have_tasks_there() {
        let mut status = samples::status();
        status.services = vec![samples::service("web", 1, "done", &[("running", 2, true)]), samples::service("big", 1, "going", &[])];
        let here = status.services[0].tasks[0].node.clone();
        status.services[1].unplaced = vec!["no node has 900 GiB free".into()];
        assert!(unplaced_of(&status, &here).is_empty());
        status.services[0].unplaced = vec!["no other node".into()];
        assert_eq!(unplaced_of(&status, &here), ["web: no other node"]);
    }

    #[test]
    fn an_update_is_told_step_by_step_until_the_last_old_task_has_ended() {
        let mut status = samples::status();
        let mut watch = Watch::default();
        let steps = [
            ("going", [("running", 1, true), ("running", 1, true), ("pending", 2, true)], "web 0/2 running, 2 of the version before"),
            (
                "going",
                [("running", 1, true), ("stopping", 1, false), ("running", 2, true)],
                "web 1/2 running, 1 of the version before, 1 ending",
            ),
            ("done", [("running", 2, true), ("stopping", 1, false), ("running", 2, true)], "web 2/2 running, 1 ending"),
        ];
        for (roll, tasks, line) in steps {
            status.services = vec![samples::service("web", 2, roll, &tasks)];
            let seen = watch.look(&status, &names());
            assert_eq!((seen.lines, seen.settled, seen.failure), (vec![line.to_owned()], false, None));
        }
        status.services = vec![samples::service("web", 2, "done", &[("running", 2, true), ("exited", 2, true)])];
        let seen = watch.look(&status, &names());
        assert_eq!((seen.lines, seen.settled), (vec!["web 2/2 running".to_owned()], true));
        let mut service = samples::service("web", 2, "done", &[("running", 2, true), ("exited", 2, true), ("stopping", 2, false)]);
        service.tasks[2].node = status.nodes[1].id.clone();
        status.services = vec![service];
        assert_eq!(status.nodes[1].state, "lost");
        assert!(watch.look(&status, &names()).settled, "nobody waits for a lost node");
    }

    #[test]
    fn an_update_that_stopped_or_was_rolled_back_ends_the_wait_with_the_reason() {
        let mut status = samples::status();
        let mut watch = Watch::default();
        let mut service = samples::service("web", 2, "stopped", &[("running", 1, true), ("running", 1, true)]);
        service.roll_problem = "task web.7 on n1 did not stay up: exit 3".into();
        status.services = vec![service.clone()];
        let failure = watch.look(&status, &names()).failure.expect("it stopped");
        assert_eq!(failure.in_one_line(), "the update of service `web` to version 2 stopped: task web.7 on n1 did not stay up: exit 3");
        (service.version, service.roll) = (3, "going".into());
        status.services = vec![service];
        let failure = watch.look(&status, &names()).failure.expect("it is another version");
        assert_eq!(failure.what(), "version 2 of service `web` does not run");
    }

    #[test]
    fn one_that_cannot_run_does_not_end_the_wait_for_the_others_and_all_that_cannot_are_told() {
        let names = ["web", "api", "big"].map(str::to_owned);
        let mut status = samples::status();
        let mut web = samples::service("web", 1, "stopped", &[("starting", 1, true)]);
        (web.version, web.roll_problem) = (1, "task web.7 on n1 did not stay up: exit 3".into());
        let mut big = samples::service("big", 1, "going", &[]);
        big.unplaced = vec!["no node has 1 TiB free".into()];
        status.services = vec![web, samples::service("api", 1, "going", &[("starting", 2, true)]), big];
        let mut watch = Watch::default();
        let seen = watch.look(&status, &names);
        assert_eq!((seen.settled, seen.failure), (false, None), "api is on its way");
        assert_eq!(seen.lines[0], "the update of service `web` to version 1 stopped");
        status.services[0].tasks[0].state = "running".into();
        assert_eq!(watch.look(&status, &names).lines, Vec::<String>::new(), "what stopped is told once");
        watch.moved = Instant::now().checked_sub(UNPLACED_MAX + LOOK_AGAIN);
        assert_eq!(watch.look(&status, &names).failure, None, "api may be slow");
        status.services[1] = samples::service("api", 1, "done", &[("running", 2, true)]);
        assert_eq!(watch.look(&status, &names).failure, None, "it moved just now");
        watch.moved = Instant::now().checked_sub(UNPLACED_MAX + LOOK_AGAIN);
        let failure = watch.look(&status, &names).failure.expect("two do not run").in_one_line();
        assert!(failure.starts_with("2 services do not run as they should: the update of service `web`"), "{failure}");
        assert!(failure.contains("exit 3") && failure.ends_with("no node has 1 TiB free"), "{failure}");
    }

    #[test]
    fn copies_without_a_place_are_not_waited_for_long() {
        let mut status = samples::status();
        let mut service = samples::service("web", 2, "going", &[("running", 2, true)]);
        service.unplaced = vec!["no node has 512 MiB free".into()];
        status.services = vec![service];
        let mut watch = Watch::default();
        assert_eq!(watch.look(&status, &names()).failure, None);
        watch.moved = Instant::now().checked_sub(UNPLACED_MAX + LOOK_AGAIN);
        let line = watch.look(&status, &names()).failure.expect("nothing moved").in_one_line();
        assert_eq!(line, "service `web` does not run as it should: web 1/2 running, and nothing moved for 5 s: no node has 512 MiB free");
    }
}
