//! Lines of a service's tasks: those of this node, and those of all nodes merged by time.
//!
//! Merging needs a line of each node to compare. A node that has nothing to say right now must not hold up the others, so one
//! that stayed silent for a moment is left out of the comparison until it speaks again. A node that cannot be reached
//! becomes a line that says so: the others' lines are worth having.

use super::{Api, convert, disco::wrong_reply, refusal::refuse};
use crate::{
    drivers::{
        runtime::lines::{Line, Reader, Wanted},
        wall_clock::wall_ms,
    },
    model::{ids::NodeId, query::Principal},
};
use async_channel::{Receiver, Sender, TryRecvError};
use futures_lite::{FutureExt, Stream, StreamExt, stream};
use proto::v1::{self, forward_reply::Reply, forward_request::Request as Wire};
use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tonic::Status;

pub type Lines = Pin<Box<dyn Stream<Item = Result<v1::LogLine, Status>> + Send>>;

/// A node that says nothing for this long while others wait is not waited for.
const SILENCE: Duration = Duration::from_millis(300);
/// Between two looks for nodes that got a task of the service since, and whether the reader may still read.
const LOOK: Duration = Duration::from_secs(2);
/// Lines of one node that wait to be merged.
const AHEAD: usize = 16;

/// This node's own lines.
///
/// # Errors
/// Too many streams, or the disk's.
pub(super) fn here(api: &Arc<Api>, request: &v1::LogsRequest) -> Result<Lines, Status> {
    let wanted = Wanted {
        service: request.service.clone(),
        task: request.task.clone(),
        follow: request.follow,
        since_ms: request.since_ms,
        tail: request.tail,
    };
    let woken = api.logs.follow().ok_or_else(|| refuse("busy", "this node serves all the log streams it can"))?;
    let failed = |error: std::io::Error| refuse("internal", format!("cannot read logs: {error}"));
    let reader = Reader::open(api.logs.clone(), wanted).map_err(failed)?;
    let (node, follow) = (api.node.to_string(), request.follow);
    let lines = stream::unfold((reader, woken, false), move |(mut reader, woken, over)| {
        let node = node.clone();
        async move {
            if over {
                return None;
            }
            loop {
                match reader.next_line().await {
                    Ok(Some(Line { at_ms, task, text, end })) => {
                        return Some((Ok(v1::LogLine { at_ms, task, node, text, end }), (reader, woken, false)));
                    }
                    Ok(None) if !follow => return None,
                    Ok(None) => {
                        woken.recv().await.ok()?;
                        if let Err(error) = reader.find_new() {
                            return Some((Err(failed(error)), (reader, woken, true)));
                        }
                    }
                    Err(error) => return Some((Err(failed(error)), (reader, woken, true))),
                }
            }
        }
    });
    Ok(Box::pin(lines))
}

/// Lines of all nodes that have a task of the service.
///
/// # Errors
/// There is no such service, or nobody could be asked where its tasks are.
pub(super) async fn merged(api: Arc<Api>, principal: Principal, request: v1::LogsRequest) -> Result<Lines, Status> {
    let nodes = nodes_of(&api, &principal, &request.service).await?;
    let mut merge = Merge { api, principal, request, known: BTreeSet::new(), sources: Sources::default(), looked: Instant::now() };
    merge.open(nodes);
    Ok(Box::pin(stream::unfold(merge, |mut merge| async move {
        let line = merge.next().await?;
        Some((Ok(line), merge))
    })))
}

/// Ends the lines when whoever reads them may not any more: looked at now and then, whether lines come or not.
pub(super) fn while_allowed(lines: Lines, allowed: impl Fn() -> Result<(), Status> + Send + 'static) -> Lines {
    let look = async_io::Timer::after(LOOK);
    Box::pin(stream::unfold(Some((lines, allowed, look)), |reading| async move {
        let (mut lines, allowed, mut look) = reading?;
        loop {
            let looked = async {
                (&mut look).await;
                None
            };
            match looked.or(async { Some(lines.next().await) }).await {
                Some(line) => return line.map(|line| (line, Some((lines, allowed, look)))),
                None => look.set_after(LOOK),
            }
            if let Err(refused) = allowed() {
                return Some((Err(refused), None));
            }
        }
    }))
}

/// Node, its address, its name.
type Place = (NodeId, String, String);

async fn nodes_of(api: &Api, principal: &Principal, service: &str) -> Result<Vec<Place>, Status> {
    let query = v1::read_request::Query::Status(v1::StatusQuery {});
    let read = Wire::Read(v1::ReadRequest { stale: false, query: Some(query) });
    let Reply::Read(v1::ReadReply { result: Some(v1::read_reply::Result::Status(status)), .. }) =
        api.settle(principal.clone(), read).await?
    else {
        return Err(wrong_reply());
    };
    let found = status.services.into_iter().find(|known| known.name == service);
    let tasks = found.ok_or_else(|| refuse("not_found", format!("there is no service `{service}`")))?.tasks;
    let with_task = |node: &v1::Node| tasks.iter().any(|task| task.node == node.id);
    let place = |node: v1::Node| Ok((convert::node_id(&node.id)?, node.address, node.name));
    status.nodes.into_iter().filter(with_task).map(place).collect()
}

struct Merge {
    api: Arc<Api>,
    principal: Principal,
    request: v1::LogsRequest,
    known: BTreeSet<NodeId>,
    sources: Sources,
    looked: Instant,
}

impl Merge {
    fn open(&mut self, places: Vec<Place>) {
        for (node, address, name) in places {
            if self.known.insert(node) {
                let (out, lines) = async_channel::bounded(AHEAD);
                let carrier = carry(self.api.clone(), node, address, name, self.request.clone(), out);
                self.sources.add(lines, Some(self.api.peers.spawner().0.spawn(carrier)));
            }
        }
    }

    async fn next(&mut self) -> Option<v1::LogLine> {
        if !self.request.follow {
            return self.sources.next(false).await;
        }
        loop {
            let line = async { self.sources.next(true).await };
            let look = async {
                async_io::Timer::at(self.looked + LOOK).await;
                None
            };
            if let Some(line) = line.or(look).await {
                return Some(line);
            }
            self.looked = Instant::now();
            // Without an answer now there is one later.
            if let Ok(places) = nodes_of(&self.api, &self.principal, &self.request.service).await {
                self.open(places);
            }
        }
    }
}

/// The merge itself.
#[derive(Default)]
struct Sources(Vec<Source>);

struct Source {
    lines: Receiver<v1::LogLine>,
    head: Option<v1::LogLine>,
    /// It had nothing when others waited for it.
    silent: bool,
    /// Ends with the source.
    _carrier: Option<smol::Task<()>>,
}

impl Sources {
    fn add(&mut self, lines: Receiver<v1::LogLine>, carrier: Option<smol::Task<()>>) {
        self.0.push(Source { lines, head: None, silent: false, _carrier: carrier });
    }

    /// The earliest line of all. `None`: every source has ended, and we do not `follow`. May be dropped and asked again.
    async fn next(&mut self, follow: bool) -> Option<v1::LogLine> {
        loop {
            self.0.retain_mut(Source::take_in);
            let waiting = self.0.iter().any(|source| source.head.is_some());
            if waiting && self.0.iter().all(|source| source.head.is_some() || source.silent) {
                let heads = self.0.iter_mut().filter(|source| source.head.is_some());
                return heads.min_by_key(|source| source.head.as_ref().map(|line| line.at_ms))?.head.take();
            }
            if self.0.is_empty() && !follow {
                return None;
            }
            // Without `follow` each stream ends, so each is waited for.
            self.wait(waiting && follow).await;
        }
    }

    /// For a word of a source that has none; if others wait for it, until it counts as silent.
    async fn wait(&mut self, others_wait: bool) {
        let silence = async {
            if !others_wait {
                return std::future::pending().await;
            }
            async_io::Timer::after(SILENCE).await;
            true
        };
        let mut some: Pin<Box<dyn Future<Output = bool> + Send + '_>> = Box::pin(silence);
        for source in self.0.iter_mut().filter(|source| source.head.is_none()) {
            let word = async {
                // An end is noticed by the next `take_in`.
                if let Ok(line) = source.lines.recv().await {
                    (source.head, source.silent) = (Some(line), false);
                }
                false
            };
            some = Box::pin(word.or(some));
        }
        if some.await {
            self.0.iter_mut().filter(|source| source.head.is_none()).for_each(|source| source.silent = true);
        }
    }
}

impl Source {
    /// Takes the next line if there is one; `false` once it has ended.
    fn take_in(&mut self) -> bool {
        if self.head.is_none() {
            match self.lines.try_recv() {
                Ok(line) => (self.head, self.silent) = (Some(line), false),
                Err(TryRecvError::Closed) => return false,
                Err(TryRecvError::Empty) => {}
            }
        }
        true
    }
}

/// Moves one node's lines into the merge.
async fn carry(api: Arc<Api>, node: NodeId, address: String, name: String, request: v1::LogsRequest, out: Sender<v1::LogLine>) {
    let opened: Result<Lines, Status> = if node == api.node {
        here(&api, &request)
    } else {
        api.peers.task_logs(node, &address, request).await.map(|lines| Box::pin(lines) as Lines)
    };
    let why = match opened {
        Ok(mut lines) => loop {
            match lines.next().await {
                Some(Ok(line)) => {
                    if out.send(line).await.is_err() {
                        return;
                    }
                }
                Some(Err(status)) => break status,
                None => return,
            }
        },
        Err(status) => status,
    };
    let at_ms = wall_ms();
    let text = format!("disco: no more logs from node {name} at {address}: {}", why.message()).into_bytes();
    // Whoever read has gone away: nobody is left to tell.
    let _ = out.send(v1::LogLine { at_ms, task: String::new(), node: node.to_string(), text, end: 0 }).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    fn line(at_ms: u64) -> v1::LogLine {
        v1::LogLine { at_ms, ..Default::default() }
    }

    #[test]
    fn lines_of_several_nodes_come_by_time_until_all_have_ended() {
        let mut sources = Sources::default();
        for times in [&[1, 4, 5][..], &[], &[2, 3, 9]] {
            let (out, lines) = async_channel::bounded(AHEAD);
            times.iter().for_each(|at_ms| out.try_send(line(*at_ms)).expect("there is room"));
            sources.add(lines, None);
        }
        let mut times = Vec::new();
        while let Some(line) = block_on(sources.next(false)) {
            times.push(line.at_ms);
        }
        assert_eq!(times, [1, 2, 3, 4, 5, 9]);
    }

    #[test]
    fn who_may_read_no_more_reads_no_more_however_many_lines_there_are() {
        let may = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let asked = Arc::clone(&may);
        let allowed = move || match asked.load(std::sync::atomic::Ordering::Relaxed) {
            true => Ok(()),
            false => Err(refuse("removed", "it was removed")),
        };
        let endless: Lines = Box::pin(stream::repeat_with(|| Ok(line(1))));
        let silent: Lines = Box::pin(stream::pending());
        let mut both = [while_allowed(endless, allowed.clone()), while_allowed(silent, allowed)];
        assert_eq!(block_on(both[0].next()).map(|line| line.is_ok()), Some(true));
        may.store(false, std::sync::atomic::Ordering::Relaxed);
        let before = Instant::now();
        for lines in &mut both {
            while block_on(lines.next()).expect("the refusal is told first").is_ok() {
                assert!(before.elapsed() < LOOK * 10, "it is not looked at any more");
            }
            assert!(block_on(lines.next()).is_none());
        }
    }

    #[test]
    fn a_silent_node_holds_up_nobody_for_long() {
        let mut sources = Sources::default();
        let (silent, lines) = async_channel::bounded(AHEAD);
        sources.add(lines, None);
        let (out, lines) = async_channel::bounded(AHEAD);
        sources.add(lines, None);
        [5, 6, 7].iter().for_each(|at_ms| out.try_send(line(*at_ms)).expect("there is room"));
        let before = Instant::now();
        for at_ms in [5, 6] {
            assert_eq!(block_on(sources.next(true)), Some(line(at_ms)));
        }
        assert!(before.elapsed() >= SILENCE && before.elapsed() < SILENCE * 10, "it is waited for once: {:?}", before.elapsed());
        silent.try_send(line(1)).expect("there is room");
        assert_eq!(block_on(sources.next(true)), Some(line(1)), "it counts again as soon as it speaks");
        drop((silent, out));
        assert_eq!(block_on(sources.next(true)), Some(line(7)));
        assert_eq!(block_on(poll_once(sources.next(true))), None, "more nodes may come");
        assert_eq!(block_on(sources.next(false)), None);
    }
}
