//! How long a script has run, as its host sees it.
//!
//! bootstrap() may take half an hour, nearly all of it waiting: for machines, for a timer, for a person. So time
//! counts only while the script itself runs. The child says when it begins to wait and when it goes on; between
//! the two it is not ours to judge. A script that says nothing while it runs is in an endless loop.

use std::time::{Duration, Instant};

/// Bounds of one load or hook.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Running without a pause.
    pub busy: Duration,
    /// Running in all.
    pub total: Duration,
    /// From begin to end. `None`: as long as it takes.
    pub whole: Option<Duration>,
    /// Whether `whole` goes on while the host is asked: a node's answers are bounded, a person's are not.
    pub asking_counts: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Hung,
    Greedy,
    TooLong,
}

/// A stopwatch: time spent, and since when it runs.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    spent: Duration,
    since: Option<Instant>,
}

impl Watch {
    fn start(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    fn stop(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.spent += now.saturating_duration_since(since);
        }
    }

    /// When `limit` is reached if it goes on like this.
    fn reaches(&self, limit: Duration) -> Option<Instant> {
        self.since.map(|since| since + limit.saturating_sub(self.spent))
    }
}

#[derive(Clone, Debug)]
pub struct Clock {
    bounds: Bounds,
    running: Watch,
    whole: Watch,
}

impl Clock {
    /// Starts with the script running.
    pub fn new(bounds: Bounds, now: Instant) -> Clock {
        let started = Watch { spent: Duration::ZERO, since: Some(now) };
        Clock { bounds, running: started, whole: started }
    }

    /// The script runs (or we gave it something to run with).
    pub fn handle_busy(&mut self, now: Instant) {
        self.running.start(now);
    }

    pub fn handle_waiting(&mut self, now: Instant) {
        self.running.stop(now);
    }

    /// Whether the host is being asked something.
    pub fn handle_asked(&mut self, asked: bool, now: Instant) {
        if asked && !self.bounds.asking_counts { self.whole.stop(now) } else { self.whole.start(now) }
    }

    /// When which bound is passed, if nothing comes before.
    pub fn poll_deadline(&self) -> Option<(Instant, Verdict)> {
        let hung = self.running.since.map(|since| (since + self.bounds.busy, Verdict::Hung));
        let greedy = self.running.reaches(self.bounds.total).map(|at| (at, Verdict::Greedy));
        let too_long = self.bounds.whole.and_then(|limit| self.whole.reaches(limit)).map(|at| (at, Verdict::TooLong));
        [hung, greedy, too_long].into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_running_counts_and_each_bound_has_its_verdict() {
        let ms = Duration::from_millis;
        let start = Instant::now();
        let mut clock = Clock::new(Bounds { busy: ms(100), total: ms(250), whole: Some(ms(10_000)), asking_counts: false }, start);
        assert_eq!(clock.poll_deadline(), Some((start + ms(100), Verdict::Hung)));
        // Ran 90, waited an hour for the host, ran 90 again: 70 are left of the total.
        clock.handle_waiting(start + ms(90));
        clock.handle_asked(true, start + ms(90));
        assert_eq!(clock.poll_deadline(), None);
        let later = start + ms(3_600_000);
        clock.handle_asked(false, later);
        clock.handle_busy(later);
        clock.handle_busy(later + ms(5));
        clock.handle_waiting(later + ms(90));
        assert_eq!(clock.poll_deadline(), Some((later + ms(10_000 - 90), Verdict::TooLong)));
        clock.handle_busy(later + ms(200));
        assert_eq!(clock.poll_deadline(), Some((later + ms(270), Verdict::Greedy)));
    }
}
