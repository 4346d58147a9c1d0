//! What happened, as one number to compare and as lines to read.
//!
//! Every event is mixed into the hash, so two runs of one seed that differ anywhere end with different hashes. Lines cost
//! far more than hashing; they are made only when somebody will read them: a failed seed is simply run again with lines.

use std::collections::VecDeque;

const LINES_KEPT: usize = 60;

pub enum Lines {
    Off,
    /// The last few, for the report of a failure.
    Kept(VecDeque<String>),
    Printed,
}

pub struct Trace {
    pub hash: u64,
    pub events: u64,
    pub lines: Lines,
}

impl Trace {
    pub fn new(lines: Lines) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0, lines }
    }

    pub fn kept() -> Lines {
        Lines::Kept(VecDeque::with_capacity(LINES_KEPT))
    }

    pub fn mix(&mut self, value: u64) {
        self.hash = (self.hash.rotate_left(5) ^ value).wrapping_mul(0x0100_0000_01b3_0d6b);
    }

    /// The beginning, the end and the length: a difference between them is a difference elsewhere soon.
    pub fn mix_bytes(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        let tail = &bytes[bytes.len().saturating_sub(16)..];
        for chunk in bytes.chunks(8).take(2).chain(tail.chunks(8)) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    pub fn line(&mut self, now: u64, text: impl FnOnce() -> String) {
        match &mut self.lines {
            Lines::Off => {}
            Lines::Kept(kept) => {
                if kept.len() == LINES_KEPT {
                    kept.pop_front();
                }
                kept.push_back(format!("{now:>7} {}", text()));
            }
            Lines::Printed => println!("{now:>7} {}", text()),
        }
    }
}
