//! Reads the clocks, for everybody who may.

use crate::{drivers::wall_clock::wall_ms, model::ids::Now};
use std::time::{Duration, Instant};

/// Monotonic time counts from when it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    pub fn now(&self) -> Now {
        let mono = u64::try_from(self.start.elapsed().as_millis()).expect("a process does not run for 500 million years");
        Now { mono, wall: wall_ms() }
    }

    /// When `mono` milliseconds have passed.
    pub fn instant(&self, mono: u64) -> Instant {
        // A deadline that means "never" may be too far for the platform's clock: a day is as good, the loop looks again then.
        const DAY_MS: u64 = 24 * 3_600_000;
        let now = self.now().mono;
        self.start + Duration::from_millis(mono.min(now + DAY_MS))
    }
}
