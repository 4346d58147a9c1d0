//! Clocks that are wrong in the two ways clocks are: they run at another speed, and they show another date.
//!
//! `mono` starts anywhere at each process start and drifts; `wall` is off by a skew that may jump. The world's own time
//! is exact and unknown to the nodes.

use agent::model::ids::Now;

/// The world's time 0, in milliseconds since 1970.
const WALL_ORIGIN_MS: i64 = 1_760_000_000_000;

#[derive(Clone, Copy)]
pub struct Clock {
    /// What `mono` showed when the process started, at world time `started`.
    pub mono_base: u64,
    pub started: u64,
    /// Parts per million faster (or slower) than the world.
    pub drift_ppm: i64,
    pub skew_ms: i64,
}

impl Clock {
    pub fn read(&self, world: u64) -> Now {
        let passed = (world - self.started) as i64;
        let mono = self.mono_base + (passed + passed * self.drift_ppm / 1_000_000) as u64;
        Now { mono, wall: (WALL_ORIGIN_MS + world as i64 + self.skew_ms) as u64 }
    }

    /// The first world time at which `mono` is reached.
    pub fn world_at(&self, mono: u64) -> u64 {
        let ahead = mono.saturating_sub(self.mono_base) as i64;
        let mut world = self.started + (ahead * 1_000_000 / (1_000_000 + self.drift_ppm)) as u64;
        while self.read(world).mono < mono {
            world += 1;
        }
        world
    }
}
