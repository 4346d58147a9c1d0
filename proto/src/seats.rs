//! Who may sit at the port: a bounded number of connections, and who must go when it is full.
//!
//! Memory per connection is small but not nothing (tens of KiB), so connections are counted. Plain "no more than 64"
//! would let anybody lock the administrator out by opening 64 and saying nothing. So a newcomer takes the seat of the
//! connection that has waited longest without having earned it: first those that are silent and either unnamed (the
//! service has not said yet that it knows the caller: a certificate alone is no name, its node may have been removed) or
//! never asked anything, then any unnamed one. Only if all seats are earned is the newcomer refused.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use smol::channel::{Receiver, Sender, bounded};

use crate::server::{Room, ServerLimits};

/// A handshake this old is taken to be stuck when others wait for its place.
const HANDSHAKE_STUCK_AFTER: Duration = Duration::from_millis(500);
/// How often one that waits for a handshake's place looks again.
const HANDSHAKE_POLL: Duration = Duration::from_millis(20);

pub(crate) struct Seats {
    limits: ServerLimits,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    open: BTreeMap<u64, Sitting>,
}

struct Sitting {
    handshaking_since: Option<Instant>,
    /// Somebody whom the service knows (`Standing`), or who came by socket file.
    named: bool,
    asked: bool,
    requests_open: u32,
    silent_since: Instant,
    /// Closing this channel ends the connection.
    close: Sender<()>,
}

impl Sitting {
    /// Lower goes first; `None` stays.
    fn eviction_rank(&self) -> Option<u8> {
        match (self.named && self.asked, self.requests_open, self.named) {
            (false, 0, _) => Some(0),
            (_, _, false) => Some(1),
            _ => None,
        }
    }
}

impl Seats {
    pub(crate) fn new(limits: ServerLimits) -> Arc<Seats> {
        Arc::new(Seats { limits, table: Mutex::default() })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for a new connection, if need be another's. `None`: all are earned.
    pub(crate) fn try_take(self: &Arc<Seats>) -> Option<Seat> {
        let connections_max = match (self.limits.room.0)() {
            Room::Enough => self.limits.connections_max,
            Room::Short | Room::None => self.limits.connections_when_short.min(self.limits.connections_max),
        };
        let mut table = self.table();
        if table.open.len() >= connections_max {
            let evicted = table
                .open
                .iter()
                .filter_map(|(id, sitting)| Some((sitting.eviction_rank()?, sitting.silent_since, *id)))
                .min()
                .map(|(_, _, id)| id)?;
            table.evict(evicted);
        }
        let id = table.next;
        table.next += 1;
        let (close, closed) = bounded(1);
        let sitting =
            Sitting { handshaking_since: None, named: false, asked: false, requests_open: 0, silent_since: Instant::now(), close };
        table.open.insert(id, sitting);
        Some(Seat { id, closed, seats: Arc::clone(self) })
    }
}

impl Table {
    fn evict(&mut self, id: u64) {
        if let Some(sitting) = self.open.remove(&id) {
            sitting.close.close();
        }
    }
}

/// One connection's place; given back on drop.
pub(crate) struct Seat {
    id: u64,
    closed: Receiver<()>,
    seats: Arc<Seats>,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seat({})", self.id)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.table().open.remove(&self.id);
    }
}

impl Seat {
    fn change<T>(&self, change: impl FnOnce(&mut Sitting) -> T) -> Option<T> {
        self.seats.table().open.get_mut(&self.id).map(change)
    }

    /// Ends when somebody else got this seat.
    pub(crate) async fn evicted(&self) {
        // Nothing is ever sent: the only news is that the channel is closed.
        let _ = self.closed.recv().await;
    }

    /// Waits for one of the places for handshakes; a stuck handshake loses its place, and its seat, to one that waits.
    pub(crate) async fn begin_handshake(&self) {
        while !self.try_begin_handshake() {
            async_io::Timer::after(HANDSHAKE_POLL).await;
        }
    }

    fn try_begin_handshake(&self) -> bool {
        let mut table = self.seats.table();
        let mut running = 0;
        let mut oldest: Option<(Instant, u64)> = None;
        for (id, sitting) in &table.open {
            if let Some(since) = sitting.handshaking_since {
                running += 1;
                oldest = Some(oldest.map_or((since, *id), |o| o.min((since, *id))));
            }
        }
        if running >= self.seats.limits.handshakes_max {
            match oldest {
                Some((since, id)) if since.elapsed() > HANDSHAKE_STUCK_AFTER => table.evict(id),
                _ => return false,
            }
        }
        if let Some(sitting) = table.open.get_mut(&self.id) {
            sitting.handshaking_since = Some(Instant::now());
        }
        true
    }

    /// The handshake is over; `named` if it showed who calls, and that nobody can take that away.
    pub(crate) fn handshaken(&self, named: bool) {
        self.change(|sitting| {
            sitting.handshaking_since = None;
            sitting.named = named;
            sitting.silent_since = Instant::now();
        });
    }

    /// What whoever answers this connection's requests may say of its caller.
    pub(crate) fn standing(self: &Arc<Seat>) -> Standing {
        Standing(Arc::downgrade(self))
    }

    pub(crate) fn requests_open(&self) -> u32 {
        self.change(|sitting| sitting.requests_open).unwrap_or_default()
    }

    /// Counts a request for as long as the result lives.
    pub(crate) fn request(self: &Arc<Seat>) -> OpenRequest {
        self.change(|sitting| {
            sitting.asked = true;
            sitting.requests_open += 1;
        });
        OpenRequest(Arc::clone(self))
    }

    /// Ends when the connection has been silent for as long as it may be.
    pub(crate) async fn silent_too_long(&self) {
        let limits = &self.seats.limits;
        loop {
            let until = self.change(|sitting| {
                let patience = if sitting.asked { limits.idle_timeout } else { limits.first_request_timeout };
                // With a request open the clock stands: look again later.
                let from = if sitting.requests_open > 0 { Instant::now() } else { sitting.silent_since };
                from + patience
            });
            match until {
                Some(until) if until > Instant::now() => async_io::Timer::at(until).await,
                _ => return,
            };
        }
    }
}

/// In the extensions of every request: TLS only knows who calls, the service knows whether that is still somebody.
#[derive(Clone, Debug)]
pub struct Standing(Weak<Seat>);

impl Standing {
    /// Whether the caller counts as named. One that does not loses its seat first when seats get scarce.
    pub fn set(&self, named: bool) {
        if let Some(seat) = self.0.upgrade() {
            seat.change(|sitting| sitting.named = named);
        }
    }
}

/// A request being answered, its reply's stream included.
pub(crate) struct OpenRequest(Arc<Seat>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.change(|sitting| {
            sitting.requests_open -= 1;
            sitting.silent_since = Instant::now();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::RoomFor;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn seats(connections_max: usize) -> Arc<Seats> {
        Seats::new(ServerLimits { connections_max, ..ServerLimits::default() })
    }

    fn was_evicted(seat: &Seat) -> bool {
        seat.closed.is_closed()
    }

    #[test]
    fn the_longest_silent_stranger_loses_its_seat_first() {
        let seats = seats(3);
        let admin = Arc::new(seats.try_take().expect("free"));
        admin.handshaken(true);
        drop(admin.request());
        let older = seats.try_take().expect("free");
        let newer = seats.try_take().expect("free");
        let newcomer = seats.try_take().expect("takes the older stranger's seat");
        assert!(was_evicted(&older) && !was_evicted(&newer) && !was_evicted(&admin) && !was_evicted(&newcomer));
    }

    #[test]
    fn a_stranger_that_asks_goes_after_silent_ones_and_before_named_ones() {
        let seats = seats(2);
        let joiner = Arc::new(seats.try_take().expect("free"));
        joiner.handshaken(false);
        let asking = joiner.request();
        let silent = seats.try_take().expect("free");
        let node = Arc::new(seats.try_take().expect("takes the silent one's seat"));
        assert!(was_evicted(&silent) && !was_evicted(&joiner));
        node.handshaken(true);
        let _report = node.request();
        let _next = seats.try_take().expect("takes the joiner's seat");
        assert!(was_evicted(&joiner) && !was_evicted(&node));
        drop(asking);
    }

    #[test]
    fn a_caller_that_the_service_sent_away_loses_what_its_name_earned() {
        let seats = seats(1);
        let removed = Arc::new(seats.try_take().expect("free"));
        removed.handshaken(true);
        drop(removed.request());
        removed.standing().set(false);
        assert!(seats.try_take().is_some() && was_evicted(&removed));
    }

    #[test]
    fn while_room_is_short_few_seats_are_given_and_none_is_taken_back() {
        let short = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&short);
        let room = RoomFor(Arc::new(move || if asked.load(Ordering::Relaxed) { Room::Short } else { Room::Enough }));
        let seats = Seats::new(ServerLimits { connections_max: 8, connections_when_short: 2, room, ..ServerLimits::default() });
        let earned = |seat: Seat| {
            let seat = Arc::new(seat);
            seat.handshaken(true);
            drop(seat.request());
            seat
        };
        let held: Vec<_> = (0..3).map(|_| earned(seats.try_take().expect("there is room"))).collect();
        short.store(true, Ordering::Relaxed);
        assert!(seats.try_take().is_none() && held.iter().all(|seat| !was_evicted(seat)));
        drop(held);
        let few: Vec<_> = (0..2).map(|_| earned(seats.try_take().expect("two are given even so"))).collect();
        assert!(seats.try_take().is_none());
        short.store(false, Ordering::Relaxed);
        assert!(seats.try_take().is_some() && few.len() == 2);
    }

    #[test]
    fn earned_seats_are_never_taken() {
        let seats = seats(1);
        let node = Arc::new(seats.try_take().expect("free"));
        node.handshaken(true);
        drop(node.request());
        assert!(seats.try_take().is_none());
        drop(node);
        assert!(seats.try_take().is_some());
    }
}
