//! How long a script has run, as its host sees it.
//!
//! bootstrap() may take half an hour, nearly all of it waiting: for machines, for a timer, for a person. So time
//! counts only while the script itself runs. The child says when it begins to wait and when it goes on; between
//! the two it is not ours to judge. A script that says nothing while it runs is in an endless loop.
//!
//! Scripts give way to everything else on the machine, so what counts is the processor time their process was given: a
//! script that waits for its turn on a busy machine is in no loop. Only who is given next to nothing ends by the wall's time.

use std::time::{Duration, Instant};

/// A turn ends after so many times its bound by the wall's time, however little of it was given.
const STARVED_FACTOR: u32 = 6;

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

/// The executor at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub now: Instant,
    /// The processor time its process has had since it began.
    pub cpu: Duration,
}

#[derive(Clone, Debug)]
pub struct Clock {
    bounds: Bounds,
    /// Since when the script runs without a pause.
    turn: Option<Look>,
    /// Processor time of the turns before.
    spent: Duration,
    last: Look,
    whole: Watch,
}

impl Clock {
    /// Starts with the script running.
    pub fn new(bounds: Bounds, look: Look) -> Clock {
        let whole = Watch { spent: Duration::ZERO, since: Some(look.now) };
        Clock { bounds, turn: Some(look), spent: Duration::ZERO, last: look, whole }
    }

    /// The script runs (or we gave it something to run with).
    pub fn handle_busy(&mut self, look: Look) {
        self.last = look;
        self.turn.get_or_insert(look);
    }

    pub fn handle_waiting(&mut self, look: Look) {
        self.last = look;
        if let Some(turn) = self.turn.take() {
            self.spent += look.cpu.saturating_sub(turn.cpu);
        }
    }

    /// Whether the host is being asked something.
    pub fn handle_asked(&mut self, asked: bool, now: Instant) {
        if asked && !self.bounds.asking_counts { self.whole.stop(now) } else { self.whole.start(now) }
    }

    /// Whether a bound is passed, and not only the time in which it could have been.
    pub fn is_over(&mut self, look: Look) -> bool {
        self.last = look;
        self.poll_deadline().is_some_and(|(at, _)| at <= look.now)
    }

    /// When which bound is passed at the earliest, if nothing comes before: with a processor to itself from now on.
    pub fn poll_deadline(&self) -> Option<(Instant, Verdict)> {
        let Look { now, cpu } = self.last;
        let running = self.turn.map(|turn| {
            let so_far = cpu.saturating_sub(turn.cpu);
            let hung = (now + left(self.bounds.busy, so_far)).min(turn.now + self.bounds.busy * STARVED_FACTOR);
            let greedy = now + left(self.bounds.total, self.spent + so_far);
            [(hung, Verdict::Hung), (greedy, Verdict::Greedy)]
        });
        let too_long = self.bounds.whole.and_then(|limit| self.whole.reaches(limit)).map(|at| (at, Verdict::TooLong));
        running.into_iter().flatten().chain(too_long).min_by_key(|(at, _)| *at)
    }
}

/// A hundredth is not worth another look.
fn left(bound: Duration, spent: Duration) -> Duration {
    let left = bound.saturating_sub(spent);
    if left <= bound / 100 { Duration::ZERO } else { left }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn only_running_counts_and_each_bound_has_its_verdict() {
        let start = Instant::now();
        // A processor of its own: it gets all the time there is while it runs.
        let at = |ms: u64, cpu: u64| Look { now: start + MS(ms), cpu: MS(cpu) };
        let mut clock = Clock::new(Bounds { busy: MS(100), total: MS(250), whole: Some(MS(10_000)), asking_counts: false }, at(0, 0));
        assert_eq!(clock.poll_deadline(), Some((start + MS(100), Verdict::Hung)));
        // Ran 90, waited an hour for the host, ran 90 again: 70 are left of the total.
        clock.handle_waiting(at(90, 90));
        clock.handle_asked(true, start + MS(90));
        assert_eq!(clock.poll_deadline(), None);
        let later = 3_600_000;
        clock.handle_asked(false, start + MS(later));
        clock.handle_busy(at(later, 90));
        clock.handle_busy(at(later + 5, 95));
        clock.handle_waiting(at(later + 90, 180));
        assert_eq!(clock.poll_deadline(), Some((start + MS(later + 10_000 - 90), Verdict::TooLong)));
        clock.handle_busy(at(later + 200, 180));
        assert_eq!(clock.poll_deadline(), Some((start + MS(later + 270), Verdict::Greedy)));
        assert!(clock.is_over(at(later + 270, 250)));
    }

    #[test]
    fn who_gets_little_time_has_more_of_it_but_not_for_ever() {
        let start = Instant::now();
        let at = |ms: u64, cpu: u64| Look { now: start + MS(ms), cpu: MS(cpu) };
        let bounds = Bounds { busy: MS(100), total: MS(1000), whole: None, asking_counts: false };
        // A fifth of a processor, beside others.
        let mut clock = Clock::new(bounds, at(0, 7));
        assert!(!clock.is_over(at(100, 27)));
        assert_eq!(clock.poll_deadline(), Some((start + MS(180), Verdict::Hung)));
        assert!(!clock.is_over(at(180, 43)) && clock.is_over(at(500, 107)));
        // Almost none: stopped, or asleep where it cannot say so.
        let mut clock = Clock::new(bounds, at(0, 7));
        assert!(!clock.is_over(at(599, 8)) && clock.is_over(at(600, 8)));
    }
}
