//! Under a cap on its memory the node takes on less, rather than be killed.
//!
//! Looked at when something comes in that would need memory, not by a timer: an idle node has no pressure.

use super::script::Script;
use crate::{
    drivers::cap::Caps,
    logic::shedding::{Stance, judge},
};
use proto::{Room, RoomFor};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Between two looks: reading the files of each group costs some 50 us.
const LOOK: Duration = Duration::from_millis(100);

struct Seen {
    stance: Stance,
    at: Option<Instant>,
}

/// What the server asks before it takes something on. Without a cap it always says yes; one may be set later.
pub fn room(script: Script) -> RoomFor {
    let Some(caps) = Caps::find() else { return RoomFor::default() };
    let seen = Mutex::new(Seen { stance: Stance::Calm, at: None });
    RoomFor(Arc::new(move || {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.at.is_none_or(|at| at.elapsed() >= LOOK) {
            look(&mut seen, &caps, &script);
        }
        match seen.stance {
            Stance::Calm => Room::Enough,
            Stance::Tight => Room::Short,
            Stance::Dire => Room::None,
        }
    }))
}

fn look(seen: &mut Seen, caps: &Caps, script: &Script) {
    seen.at = Some(Instant::now());
    let Some((used, max)) = caps.nearest() else {
        seen.stance = Stance::Calm;
        return;
    };
    let stance = judge(seen.stance, used, max);
    if stance > Stance::Calm {
        script.shed();
    }
    if stance != seen.stance {
        log::warn!("{used} of {max} bytes are in use: {}", told(stance));
        seen.stance = stance;
    }
}

fn told(stance: Stance) -> &'static str {
    match stance {
        Stance::Calm => "takes everything on again",
        Stance::Tight => "takes few connections on, and runs no script",
        Stance::Dire => "takes no requests on but those of other nodes",
    }
}
