//! `disco status`: the cluster on one screen.

use super::{Desk, watcher::Watcher};
use crate::client::mismatched;
use crate::message::{Exit, Failure};
use crate::out::now_ms;
use crate::render::{json, status as screen};
use proto::v1::{self, read_reply, read_request};
use std::io::IsTerminal as _;
use std::time::Duration;

const CANNOT: &str = "cannot show the status";
/// On a terminal the ages move on even if nothing happens.
const REDRAW: Duration = Duration::from_secs(1);
// Cursor home, then erase to the end of the screen (ECMA-48: CUP, ED).
const HOME: &str = "\x1b[H\x1b[J";

pub async fn run(mut desk: Desk, watch: bool, stale: bool) -> Result<Exit, Failure> {
    if watch {
        return follow(desk).await;
    }
    let status = desk.client.status(stale).await.map_err(|e| e.failure(CANNOT))?;
    desk.remember(&status).await;
    if desk.out.json {
        desk.out.document(&json::status(&status))?;
    } else {
        desk.out.data(screen::screen(&status, now_ms(), desk.out.paint))?;
    }
    Ok(if healthy(&status) { Exit::Done } else { Exit::No })
}

fn healthy(status: &v1::Status) -> bool {
    // A machine that is still being made, ended or started again is no problem to tell, but not what is wanted either.
    let as_wanted = |instance: &v1::Instance| instance.state == instance.desired;
    status.leader.is_some() && status.problems.is_empty() && status.instances.iter().all(as_wanted)
}

/// Until it is interrupted. On a terminal it redraws; into a file or pipe it prints one status per change.
async fn follow(mut desk: Desk) -> Result<Exit, Failure> {
    let mut watcher = Watcher::new(read_request::Query::Status(v1::StatusQuery {}));
    let terminal = std::io::stdout().is_terminal() && !desk.out.json;
    let mut last: Option<v1::Status> = None;
    loop {
        let news = async { Some(watcher.next(&mut desk.client).await) };
        let redraw = async {
            if !terminal {
                std::future::pending::<()>().await;
            }
            async_io::Timer::after(REDRAW).await;
            None
        };
        match futures_lite::future::or(news, redraw).await {
            Some(Ok(read_reply::Result::Status(status))) => {
                if last.as_ref() == Some(&status) {
                    continue;
                }
                desk.remember(&status).await;
                last = Some(status);
            }
            Some(Ok(_)) => return Err(mismatched().failure(CANNOT)),
            // Somebody who watches wants to see it come back.
            Some(Err(error)) if error.is_unanswered() && last.is_some() => {
                desk.out.say(format!("{}; still trying", error));
                async_io::Timer::after(REDRAW).await;
                continue;
            }
            Some(Err(error)) => return Err(error.failure(CANNOT)),
            None => {}
        }
        let Some(status) = &last else { continue };
        if desk.out.json {
            desk.out.line(&json::status(status))?;
        } else {
            let head = if terminal { HOME } else { "" };
            let tail = if terminal { "" } else { "\n" };
            desk.out.data(format!("{head}{}{tail}", screen::screen(status, now_ms(), desk.out.paint)))?;
        }
    }
}
