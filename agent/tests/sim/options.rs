//! Swarm testing (Groce et al. 2012): each history draws which faults it has and how hard they strike.
//!
//! A history with every fault at once mostly explores the same mud; leaving some out lets the others reach further.

use crate::rng::Rng;

/// Rates are per mille of the chances to strike; `*_every_ms` are mean gaps (0: never); `*_ms` pairs are bounds.
#[derive(Clone, Debug)]
pub struct Options {
    pub safety_ms: u64,
    /// Whether clients go on while everything comes to rest, and how long it must then last.
    pub busy_to_the_end: bool,
    pub rest_ms: u64,
    pub clients: u64,
    pub nodes_max: u32,
    pub scale_every_ms: u64,
    pub remove_every_ms: u64,
    pub prefer_every_ms: u64,
    pub managers_every_ms: u64,
    /// A new certificate authority is asked for, or the next step of one.
    pub rotate_every_ms: u64,
    pub outsiders: u32,
    pub steal: u64,
    pub managers: u32,
    pub replace_after_ms: u64,
    pub value_bytes: usize,
    pub think_ms: u64,

    pub delay_ms: (u64, u64),
    pub loss: u64,
    pub duplicate: u64,
    pub call_loss: u64,
    pub partition_every_ms: u64,
    pub partition_ms: (u64, u64),

    pub disk_ms: (u64, u64),
    pub disk_error: u64,
    pub disk_full_every_ms: u64,
    pub disk_full_ms: (u64, u64),
    pub crash_every_ms: u64,
    pub crash_midway: u64,
    /// Of the writes that end, and of those that hold a vote.
    pub crash_in_write: u64,
    pub crash_after_vote: u64,
    pub crash_all: u64,
    pub down_ms: (u64, u64),
    /// Crashed processes that something on the machine starts again; the others are the leader's to repair.
    pub supervised: u64,
    pub shutdown: u64,
    pub pause_every_ms: u64,
    pub pause_ms: (u64, u64),

    pub drift_ppm: u64,
    pub skew_ms: u64,
    pub clock_jump_every_ms: u64,

    pub cloud_ms: (u64, u64),
    pub boot_ms: (u64, u64),
    pub cloud_lost: u64,
    pub cloud_failed: u64,
    pub cloud_twice: u64,
    pub describe_stale: u64,
    pub die_every_ms: u64,
    pub vanish_every_ms: u64,
    pub snapshot_failed: u64,

    /// A majority is lost when all is over.
    pub ending_is_loss: bool,
    /// Whether there is a script, and services.
    pub services: bool,
    pub task_trouble: u64,
    pub whim_every_ms: u64,
}

impl Options {
    pub fn draw(rng: &mut Rng) -> Options {
        Options {
            safety_ms: rng.between(12_000, 30_000),
            busy_to_the_end: true,
            rest_ms: 5_000,
            clients: rng.between(1, 3),
            nodes_max: *rng.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 6, 7, 9]).expect("not empty"),
            scale_every_ms: sometimes(rng, 700, 3_000, 15_000),
            remove_every_ms: sometimes(rng, 300, 6_000, 20_000),
            prefer_every_ms: sometimes(rng, 300, 2_000, 10_000),
            managers_every_ms: sometimes(rng, 200, 6_000, 20_000),
            rotate_every_ms: 0,
            outsiders: if rng.chance(300) { rng.between(1, 2) as u32 } else { 0 },
            steal: 100,
            managers: *rng.pick(&[1, 3, 3, 3, 5, 5, 7]).expect("not empty"),
            replace_after_ms: rng.between(4_000, 15_000),
            value_bytes: if rng.chance(200) { 12_000 } else { 8 },
            think_ms: *rng.pick(&[5, 20, 50, 100, 200, 400]).expect("not empty"),

            delay_ms: (rng.between(0, 3), rng.between(3, 60)),
            loss: sometimes(rng, 500, 5, 150),
            duplicate: sometimes(rng, 500, 5, 100),
            call_loss: sometimes(rng, 500, 20, 200),
            partition_every_ms: sometimes(rng, 500, 2_000, 12_000),
            partition_ms: (500, rng.between(1_000, 9_000)),

            disk_ms: (0, rng.between(1, 40)),
            disk_error: sometimes(rng, 250, 1, 8),
            disk_full_every_ms: sometimes(rng, 150, 5_000, 20_000),
            disk_full_ms: (200, rng.between(500, 8_000)),
            crash_every_ms: sometimes(rng, 600, 800, 8_000),
            crash_midway: sometimes(rng, 300, 1, 5),
            crash_in_write: sometimes(rng, 200, 1, 10),
            crash_after_vote: sometimes(rng, 200, 20, 300),
            crash_all: sometimes(rng, 300, 50, 300),
            down_ms: (50, rng.between(200, 8_000)),
            supervised: *rng.pick(&[0, 500, 500, 1_000]).expect("not empty"),
            shutdown: sometimes(rng, 400, 50, 400),
            pause_every_ms: sometimes(rng, 300, 2_000, 10_000),
            pause_ms: (100, rng.between(500, 7_000)),

            drift_ppm: sometimes(rng, 500, 100, 50_000),
            skew_ms: sometimes(rng, 500, 10, 600_000),
            clock_jump_every_ms: sometimes(rng, 300, 2_000, 10_000),

            cloud_ms: (5, rng.between(20, 2_000)),
            boot_ms: (50, rng.between(100, 2_000)),
            cloud_lost: sometimes(rng, 400, 20, 300),
            cloud_failed: sometimes(rng, 400, 20, 300),
            cloud_twice: sometimes(rng, 400, 20, 300),
            describe_stale: sometimes(rng, 400, 50, 500),
            die_every_ms: sometimes(rng, 400, 3_000, 12_000),
            vanish_every_ms: sometimes(rng, 400, 6_000, 20_000),
            snapshot_failed: sometimes(rng, 400, 50, 500),
            ending_is_loss: false,
            services: false,
            task_trouble: 0,
            whim_every_ms: 0,
        }
    }

    /// What came later. Most histories are short, because a fault strikes early or not at all; some go on for long.
    pub fn draw_the_rest(&mut self, rng: &mut Rng) {
        if rng.chance(600) {
            self.safety_ms = rng.between(4_000, 12_000);
        }
        self.rotate_every_ms = sometimes(rng, 250, 2_000, 8_000);
        self.busy_to_the_end = rng.chance(400);
        self.rest_ms = *rng.pick(&[1_500, 1_500, 2_500, 5_000]).expect("not empty");
    }

    pub fn draw_services(&mut self, rng: &mut Rng) {
        self.services = rng.chance(600);
        if self.services {
            self.task_trouble = sometimes(rng, 600, 20, 400);
            self.whim_every_ms = rng.between(2_000, 8_000);
        }
    }

    /// Nothing goes wrong by chance, for plays.
    pub fn calm() -> Options {
        let mut options = Options::draw(&mut Rng::new(0));
        options.heal();
        Options {
            nodes_max: 9,
            managers: 3,
            outsiders: 0,
            replace_after_ms: 10_000,
            delay_ms: (1, 5),
            disk_ms: (1, 5),
            cloud_ms: (5, 50),
            boot_ms: (50, 200),
            drift_ppm: 0,
            skew_ms: 0,
            ..options
        }
    }

    /// The world after the heal: nothing more goes wrong, though it stays as slow as it was.
    pub fn heal(&mut self) {
        for rate in [
            &mut self.loss,
            &mut self.duplicate,
            &mut self.call_loss,
            &mut self.partition_every_ms,
            &mut self.disk_error,
            &mut self.disk_full_every_ms,
            &mut self.crash_every_ms,
            &mut self.crash_midway,
            &mut self.crash_in_write,
            &mut self.crash_after_vote,
            &mut self.pause_every_ms,
            &mut self.clock_jump_every_ms,
            &mut self.cloud_lost,
            &mut self.cloud_failed,
            &mut self.cloud_twice,
            &mut self.describe_stale,
            &mut self.die_every_ms,
            &mut self.vanish_every_ms,
            &mut self.snapshot_failed,
            &mut self.task_trouble,
            &mut self.scale_every_ms,
            &mut self.remove_every_ms,
            &mut self.prefer_every_ms,
            &mut self.managers_every_ms,
            &mut self.rotate_every_ms,
        ] {
            *rate = 0;
        }
    }
}

/// 0 in most histories, something between `low` and `high` in `per_mille` of a thousand.
fn sometimes(rng: &mut Rng, per_mille: u64, low: u64, high: u64) -> u64 {
    if rng.chance(per_mille) { rng.between(low, high) } else { 0 }
}
