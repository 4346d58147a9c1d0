//! The service for those who want in: the only one that asks for no certificate, so it is slow on purpose.
//!
//! Tokens have 128 random bits and more; guessing is hopeless at any speed. What the limits keep away is the work: a
//! bucket for all joiners together, and a refusal that comes late and holds one of few places while it waits.

use super::{Api, activity::Work, refusal::refuse, unsigned};
use crate::{
    drivers::pki,
    model::{
        command::Joiner,
        limits::{ADDRESS_BYTES_MAX, LABELS_MAX, NAME_BYTES_MAX},
        query::{Admission, Principal, Request as Ask},
    },
};
use proto::v1::{self, forward_reply::Reply, forward_request::Request as Wire, join_server::Join};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tonic::{Code, Request, Response, Status};

/// Joins per second, all callers together, and how many may come at once.
const PER_SECOND: u32 = 10;
/// Refused joiners that wait for their answer at once.
const WAITING_MAX: usize = 16;
/// A refusal takes this long and up to twice as long.
pub(super) const REFUSAL_DELAY: Duration = Duration::from_millis(500);

pub struct JoinService(pub Arc<Api>);

#[tonic::async_trait]
impl Join for JoinService {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinReply>, Status> {
        let too_many = || refuse("busy", "too many nodes want to join at once; try again in a second");
        if !self.0.throttle.try_take(Instant::now()) {
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

/// A bucket that holds `PER_SECOND` drops and gets one back every 1/`PER_SECOND` s; and the places to wait in.
pub(super) struct Throttle {
    bucket: Mutex<Option<(u32, Instant)>>,
    pub(super) places: smol::lock::Semaphore,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle { bucket: Mutex::new(None), places: smol::lock::Semaphore::new(WAITING_MAX) }
    }
}

impl Throttle {
    pub(super) fn try_take(&self, now: Instant) -> bool {
        let interval = Duration::from_secs(1) / PER_SECOND;
        let mut bucket = self.bucket.lock().expect("no code that holds this lock can panic");
        let (drops, since) = bucket.get_or_insert((PER_SECOND, now));
        let gained = now.duration_since(*since).as_millis() / interval.as_millis();
        let gained = u32::try_from(gained).unwrap_or(u32::MAX).min(PER_SECOND);
        if gained > 0 {
            *drops = (*drops + gained).min(PER_SECOND);
            *since = now;
        }
        let taken = *drops > 0;
        *drops = drops.saturating_sub(1);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_are_let_through_at_the_rate_of_the_bucket() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let taken = |ms| (0..100).filter(|_| throttle.try_take(at(ms))).count();
        assert_eq!(taken(0), 10);
        assert_eq!(taken(99), 0);
        assert_eq!(taken(300), 3);
        assert_eq!(taken(60_000), 10, "it does not hold more than a second's worth");
    }
}
