//! The service for those who want in: the only one that asks for no certificate, so it is slow on purpose.
//!
//! Tokens have 128 random bits and more; guessing is hopeless at any speed. What the limits keep away is the work: a
//! bucket for all joiners together and one for each address, and a refusal that comes late and holds one of few places while it waits.

use super::{Api, activity::Work, refusal::refuse, unsigned};
use crate::{
    drivers::pki,
    model::{
        command::Joiner,
        limits::{ADDRESS_BYTES_MAX, LABELS_MAX, NAME_BYTES_MAX},
        query::{Admission, Principal, Request as Ask},
    },
};
use proto::{
    Caller,
    v1::{self, forward_reply::Reply, forward_request::Request as Wire, join_server::Join},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tonic::{Code, Request, Response, Status};

/// Joins per second, all callers together, and how many may come at once.
const PER_SECOND: u32 = 10;
/// The same of one address.
const PER_SECOND_EACH: u32 = 5;
/// Addresses that are told apart.
const SOURCES_MAX: usize = 32;
/// Refused joiners that wait for their answer at once.
const WAITING_MAX: usize = 16;
/// A refusal takes this long and up to twice as long.
pub(super) const REFUSAL_DELAY: Duration = Duration::from_millis(500);

pub struct JoinService(pub Arc<Api>);

#[tonic::async_trait]
impl Join for JoinService {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinReply>, Status> {
        let too_many = || refuse("busy", "too many nodes want to join at once; try again in a second");
        if !self.0.throttle.try_take(source_of(request.extensions()), Instant::now()) {
            return Err(too_many());
        }
        let _place = self.0.throttle.places.try_acquire().ok_or_else(too_many)?;
        self.0.activity.note(Work::Asked);
        let wire = Wire::Join(v1::JoinForward { request: Some(request.into_inner()) });
        match self.0.settle(Principal::Joiner, wire).await {
            Ok(Reply::Join(reply)) => Ok(Response::new(reply)),
            Ok(_) => Err(super::disco::wrong_reply()),
            Err(refusal) => {
                // Trouble of ours is no guess of theirs.
                if !matches!(refusal.code(), Code::Unavailable | Code::ResourceExhausted) {
                    async_io::Timer::after(REFUSAL_DELAY + REFUSAL_DELAY.mul_f32(pki::random_fraction())).await;
                }
                Err(refusal)
            }
        }
    }
}

impl Api {
    /// The question a join request asks: its CSR is signed by the key it names, and that key names the node.
    pub(super) fn joining(&self, request: v1::JoinRequest) -> Result<Ask, Status> {
        let bounded = [
            ("name", request.name.len(), NAME_BYTES_MAX),
            ("address", request.address.len(), ADDRESS_BYTES_MAX),
            ("instance", request.instance.len(), NAME_BYTES_MAX),
            ("token_secret", request.token_secret.len(), 256),
            ("labels", request.labels.len(), LABELS_MAX),
        ];
        if let Some((field, size, bound)) = bounded.into_iter().find(|(_, size, bound)| size > bound) {
            return Err(refuse("invalid", format!("`{field}` has {size}, it may have {bound}")));
        }
        let public_key = pki::check_csr(&request.csr).map_err(unsigned)?;
        let node = Joiner {
            id: pki::node_of(&public_key),
            name: request.name,
            address: request.address,
            public_key,
            cpus: request.cpus,
            memory: request.memory,
            labels: request.labels.into_iter().collect(),
            instance: Some(request.instance).filter(|instance| !instance.is_empty()),
            commands_known: request.commands_known,
        };
        Ok(Ask::Join { secret: request.token_secret, node })
    }

    /// The reply for a node that the state has let in.
    pub(super) fn certify(&self, admission: Admission) -> Result<v1::JoinReply, Status> {
        let certificate = self.trust.certify(&admission).map_err(unsigned)?;
        Ok(v1::JoinReply {
            node: admission.node.to_string(),
            cluster_id: admission.cluster.to_string(),
            cluster: admission.cluster_name,
            certificate,
            ca: admission.ca,
            peers: super::convert::peers_out(admission.managers),
        })
    }
}

/// Buckets, one for all and one for each address that asks: who asks without end waits, and the others do not. And the
/// places to wait in.
pub(super) struct Throttle {
    buckets: Mutex<Buckets>,
    pub(super) places: smol::lock::Semaphore,
}

#[derive(Default)]
struct Buckets {
    all: Option<Bucket>,
    sources: Vec<(IpAddr, Bucket)>,
}

/// Holds `PER_SECOND` drops and gets one back every 1/`PER_SECOND` s.
#[derive(Clone, Copy)]
struct Bucket {
    drops: u32,
    since: Instant,
}

impl Bucket {
    fn fill(&mut self, per_second: u32, now: Instant) {
        let interval = Duration::from_secs(1) / per_second;
        let gained = now.duration_since(self.since).as_millis() / interval.as_millis();
        let gained = u32::try_from(gained).unwrap_or(u32::MAX).min(per_second);
        if gained > 0 {
            self.drops = (self.drops + gained).min(per_second);
            self.since = now;
        }
    }
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle { buckets: Mutex::default(), places: smol::lock::Semaphore::new(WAITING_MAX) }
    }
}

impl Throttle {
    pub(super) fn try_take(&self, source: Option<IpAddr>, now: Instant) -> bool {
        let Buckets { all, sources } = &mut *self.buckets.lock().expect("no code that holds this lock can panic");
        let all = all.get_or_insert(Bucket { drops: PER_SECOND, since: now });
        all.fill(PER_SECOND, now);
        let mut unknown = Bucket { drops: PER_SECOND_EACH, since: now };
        let own = match source {
            None => &mut unknown,
            Some(source) => own_bucket(sources, source, now),
        };
        own.fill(PER_SECOND_EACH, now);
        let taken = all.drops > 0 && own.drops > 0;
        if taken {
            all.drops -= 1;
            own.drops -= 1;
        }
        taken
    }
}

/// A new source takes the place of the one that was quiet for longest, if there are many.
fn own_bucket(sources: &mut Vec<(IpAddr, Bucket)>, source: IpAddr, now: Instant) -> &mut Bucket {
    let place = sources.iter().position(|(known, _)| *known == source).unwrap_or_else(|| {
        let fresh = (source, Bucket { drops: PER_SECOND_EACH, since: now });
        if sources.len() < SOURCES_MAX {
            sources.push(fresh);
            return sources.len() - 1;
        }
        let oldest = (0..sources.len()).min_by_key(|place| sources[*place].1.since).expect("there are many");
        sources[oldest] = fresh;
        oldest
    });
    &mut sources[place].1
}

/// The address a request came from, without its port.
pub(super) fn source_of(extensions: &http::Extensions) -> Option<IpAddr> {
    let address: SocketAddr = extensions.get::<Caller>()?.address.parse().ok()?;
    Some(address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_are_let_through_at_the_rate_of_the_bucket() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let taken = |ms| (0..100).filter(|n| throttle.try_take(source(*n), at(ms))).count();
        assert_eq!(taken(0), 10);
        assert_eq!(taken(99), 0);
        assert_eq!(taken(300), 3);
        assert_eq!(taken(60_000), 10, "it does not hold more than a second's worth");
    }

    fn source(n: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, n]))
    }

    #[test]
    fn whoever_asks_without_end_keeps_nobody_else_out() {
        let throttle = Throttle::default();
        let start = Instant::now();
        for second in 0..100 {
            let now = start + Duration::from_secs(second);
            assert_eq!((0..1000).filter(|_| throttle.try_take(source(1), now)).count(), 5, "second {second}");
            assert!(throttle.try_take(source(2), now) && throttle.try_take(source(3), now));
        }
        // However many addresses there are, few are kept.
        for n in 0..=255 {
            throttle.try_take(source(n), start + Duration::from_secs(200));
        }
        assert!(throttle.buckets.lock().expect("no code panicked").sources.len() <= SOURCES_MAX);
    }
}
