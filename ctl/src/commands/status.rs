//! `disco status`: the cluster on one screen.

use super::{Desk, watcher::Watcher};
use crate::client::mismatched;
use crate::message::{Exit, Failure};
use crate::out::{Out, now_ms};
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
        return follow(desk, stale).await;
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
async fn follow(mut desk: Desk, stale: bool) -> Result<Exit, Failure> {
    let mut watcher = Watcher::new(stale, read_request::Query::Status(v1::StatusQuery {}));
    let terminal = std::io::stdout().is_terminal() && !desk.out.json;
    let mut shown = Shown { out: desk.out, terminal, last: None };
    loop {
        match shown.until(watcher.next(&mut desk.client, desk.out)).await? {
            Ok(read_reply::Result::Status(status)) if shown.last.as_ref() == Some(&status) => {}
            Ok(read_reply::Result::Status(status)) => {
                desk.remember(&status).await;
                shown.last = Some(status);
                shown.draw()?;
            }
            Ok(_) => return Err(mismatched().failure(CANNOT)),
            Err(error) => return Err(error.failure(CANNOT)),
        }
    }
}

/// What a person looks at.
struct Shown {
    out: Out,
    terminal: bool,
    last: Option<v1::Status>,
}

impl Shown {
    /// Redraws a terminal until there are news. The question stays the same one over all redraws: begun anew each time,
    /// it would never get past an address that does not answer.
    async fn until<T>(&self, news: impl Future<Output = T>) -> Result<T, Failure> {
        let mut news = std::pin::pin!(news);
        loop {
            let redraw = async {
                if !self.terminal {
                    std::future::pending::<()>().await;
                }
                async_io::Timer::after(REDRAW).await;
                None
            };
            match futures_lite::future::or(async { Some(news.as_mut().await) }, redraw).await {
                Some(news) => return Ok(news),
                None => self.draw()?,
            }
        }
    }

    fn draw(&self) -> Result<(), Failure> {
        let Some(status) = &self.last else { return Ok(()) };
        if self.out.json {
            return self.out.line(&json::status(status));
        }
        let (head, tail) = if self.terminal { (HOME, "") } else { ("", "\n") };
        self.out.data(format!("{head}{}{tail}", screen::screen(status, now_ms(), self.out.paint)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::Paint;

    #[test]
    fn a_question_that_takes_longer_than_a_redraw_is_not_begun_again() {
        let shown = Shown { out: Out { json: false, paint: Paint::off() }, terminal: true, last: None };
        let mut looks = 0;
        // Who drops it before it is ready never hears of it.
        let slow = std::future::poll_fn(|_| {
            looks += 1;
            if looks == 2 { std::task::Poll::Ready(7) } else { std::task::Poll::Pending }
        });
        assert_eq!(async_io::block_on(shown.until(slow)).unwrap(), 7);
    }
}
