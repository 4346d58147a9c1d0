//! What happened, kept for people: the newest `EVENTS_KEPT`.

use super::State;
use crate::model::{
    event::Event,
    limits::{EVENT_TEXT_BYTES_MAX, EVENTS_KEPT},
};

impl State {
    pub(super) fn event(&mut self, name: &str, subject: &str, text: &str) {
        let text = bounded(text, EVENT_TEXT_BYTES_MAX);
        let subject = bounded(subject, EVENT_TEXT_BYTES_MAX);
        self.events.push_back(Event { id: self.next_event, at_ms: self.stamp_ms, name: name.into(), subject, text });
        self.next_event += 1;
        if self.events.len() > EVENTS_KEPT {
            self.events.pop_front();
        }
    }
}

/// At most `max` bytes, cut at a character's border.
pub(in crate::logic) fn bounded(text: &str, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}
