//! How nodes that start from nothing but a config file become one cluster.
//!
//! A node that may originate and has seeds looks for a formed cluster first, for `originate_after` (`logic/forming.rs` decides).
//! Meanwhile it listens and answers each joiner "not formed yet", with its id, by which others yield to it. That takes a common trust to begin with, a baked image; without one a node is on its own, and only a
//! cluster that it finds keeps it from making another.

use super::{
    config::Config,
    data_dir::Identity,
    image::Image,
    join::{Applicant, JoinError, Round},
};
use crate::{
    drivers::{
        api::unformed,
        pki::{self, Trust},
        wall_clock::wall_ms,
    },
    logic::forming::{Forming, Next},
    model::ids::NodeId,
};
use futures_lite::future::or;
use proto::{Listener, ServerLimits, Spawner};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(500);

/// What came of looking around.
pub enum Formed {
    /// A cluster let this node in.
    Joined(Box<Identity>),
    /// Nobody else will: begin one.
    Originate,
}

/// # Errors
/// A cluster is there and will not have this node, or it is one that this node has no token of.
pub async fn look_around(
    mut applicant: Applicant<'_>,
    config: &Config,
    image: Option<&Image>,
    spawner: Spawner,
) -> Result<Formed, JoinError> {
    let node = applicant.node();
    let shown = image.and_then(|image| applicant_certificate(&applicant, image));
    let answering = async {
        if let Some(shown) = shown {
            answer_joiners(node, shown, config, spawner.clone()).await;
        }
        std::future::pending().await
    };
    let looking = async {
        let began = Instant::now();
        let mut forming = Forming::new(node, config.originate_after_ms, 0);
        loop {
            let seen = match applicant.round(&config.seeds).await? {
                Round::In(identity) => return Ok(Formed::Joined(identity)),
                Round::Out { others, seen, .. } => {
                    // Another cluster's seed is no reason to make a third one silently.
                    if let Some(address) = others.into_iter().next() {
                        return Err(JoinError::OtherCluster { address });
                    }
                    seen
                }
            };
            let now = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            if forming.looked(&seen, now) == Next::Originate {
                return Ok(Formed::Originate);
            }
            async_io::Timer::after(PAUSE).await;
        }
    };
    or(looking, answering).await
}

/// A certificate, its key and the CA's certificate, all DER.
type Shown = (Vec<u8>, Vec<u8>, Vec<u8>);

/// What this node shows while it is in no cluster; none if the image cannot make it.
fn applicant_certificate(applicant: &Applicant<'_>, image: &Image) -> Option<Shown> {
    let certificate = image.authority.sign_node(applicant.node(), &pki::public_key(applicant.key()).ok()?, wall_ms()).ok()?;
    Some((certificate, applicant.key().to_vec(), image.authority.certificate().to_vec()))
}

/// Ends only if the port cannot be had, which the cluster's own start will tell.
async fn answer_joiners(node: NodeId, (certificate, key, ca): Shown, config: &Config, spawner: Spawner) {
    let trust = Trust::new();
    if let Err(error) = trust.install(&certificate, &key, &ca) {
        return log::warn!("cannot answer others before there is a cluster: {error}");
    }
    let limits = ServerLimits::default();
    match Listener::tcp(config.listen, trust.server_tls()) {
        Ok(port) => {
            if let Err(error) = proto::serve(spawner, port, unformed::routes(node, &limits), limits).await {
                log::warn!("cannot answer others before there is a cluster: {error}");
            }
        }
        Err(error) => log::warn!("cannot listen on {} before there is a cluster: {error}", config.listen),
    }
}
