//! `disco events [-f]`.

use super::{Desk, watcher::Watcher};
use crate::client::mismatched;
use crate::message::{Exit, Failure};
use crate::out::now_ms;
use crate::render::{json, status::event_line};
use agent::model::limits;
use proto::v1::{self, read_reply, read_request};

const CANNOT: &str = "cannot show the events";
const PAGE: u32 = limits::EVENTS_KEPT as u32;

fn question(after: u64) -> read_request::Query {
    read_request::Query::Events(v1::EventsQuery { after, limit: PAGE })
}

pub async fn run(mut desk: Desk, follow: bool, stale: bool) -> Result<Exit, Failure> {
    let mut last = 0;
    let answer = desk.client.read(stale, question(last)).await.map_err(|e| e.failure(CANNOT))?;
    print(&desk, answer, &mut last)?;
    if !follow {
        return Ok(Exit::Done);
    }
    let mut watcher = Watcher::new(stale, question(last)).go_on();
    loop {
        let answer = watcher.next(&mut desk.client, desk.out).await.map_err(|e| e.failure(CANNOT))?;
        let many = print(&desk, answer, &mut last)?;
        // The answers are of what happened after a fixed point: once they are half full, move it.
        if many >= PAGE as usize / 2 {
            watcher.ask(question(last));
        }
    }
}

/// Prints those not printed yet; how many the answer had.
fn print(desk: &Desk, answer: read_reply::Result, last: &mut u64) -> Result<usize, Failure> {
    let read_reply::Result::Events(v1::Events { events }) = answer else { return Err(mismatched().failure(CANNOT)) };
    for event in events.iter().filter(|e| e.id > *last) {
        if desk.out.json {
            desk.out.line(&json::event(event))?;
        } else {
            desk.out.data(event_line(event, now_ms(), desk.out.paint) + "\n")?;
        }
    }
    *last = events.iter().map(|e| e.id).max().unwrap_or(0).max(*last);
    Ok(events.len())
}
