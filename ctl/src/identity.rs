//! The administrator's certificate: asked for over a node's own door, renewed by using it.

use crate::client::Client;
use crate::context::{Context, Identity};
use crate::message::Failure;
use crate::out::now_ms;
use agent::drivers::pki::{self, PkiError, Trust, pem};
use agent::model::authority::{Authorities, Certificate};
use std::sync::Arc;

pub const CANNOT_ISSUE: &str = "cannot get an administrator's certificate";

/// What this identity shows, and whom it believes: nodes of its own cluster.
///
/// # Errors
/// A file is damaged, or they do not belong together.
pub fn tls(identity: &Identity) -> Result<Arc<rustls::ClientConfig>, Failure> {
    Ok(trust(identity)?.client_tls(None))
}

fn trust(identity: &Identity) -> Result<Arc<Trust>, Failure> {
    let trust = Trust::new();
    let installed = || -> Result<(), PkiError> {
        let certificates = pem::certificates_from_pem(identity.certificate_pem.as_bytes(), "certificate in admin.crt")?;
        let key = pem::key_from_pem(identity.key_pem.as_bytes(), "key in admin.key")?;
        let trusted = trusted(identity)?;
        let known = Authorities { trusted: trusted.into_iter().map(Certificate).collect(), ..Authorities::default() };
        trust.install_all(&certificates, &key, known)
    };
    installed().map_err(|e| unusable(&e))?;
    Ok(trust)
}

/// The authorities it believes: two, while one gives way to another.
///
/// # Errors
/// ca.crt is damaged.
pub fn authorities(identity: &Identity) -> Result<Vec<Vec<u8>>, Failure> {
    trusted(identity).map_err(|e| unusable(&e))
}

fn trusted(identity: &Identity) -> Result<Vec<Vec<u8>>, PkiError> {
    pem::certificates_from_pem(identity.ca_pem.as_bytes(), "certificate in ca.crt")
}

fn unusable(error: &PkiError) -> Failure {
    Failure::broke("cannot use this folder's certificate")
        .caused_by(error)
        .hint("remove .disco/admin.crt; `disco bootstrap` gets another one from a node of the cluster")
}

/// A certificate for this folder's key (made now if there is none), from whoever is behind `client`; and where nodes are.
///
/// # Errors
/// Nobody answers, or the answer is no.
pub async fn issue(context: &Context, client: &mut Client) -> Result<(Identity, Vec<String>), Failure> {
    let what = CANNOT_ISSUE;
    let damaged = |e: &PkiError| Failure::broke(what).caused_by(e);
    let key = match context.key()? {
        Some(text) => pem::key_from_pem(text.as_bytes(), "key in admin.key").map_err(|e| damaged(&e))?,
        None => pki::new_key(),
    };
    let csr = pki::new_csr(&key).map_err(|e| damaged(&e))?;
    let reply = client.issue_admin(csr).await.map_err(|e| e.failure(what))?;
    let identity = Identity {
        ca_pem: if reply.authorities.is_empty() { pem::certificate_to_pem(&reply.ca) } else { bundle(&reply.authorities) },
        certificate_pem: pem::certificate_to_pem(&reply.certificate),
        key_pem: pem::key_to_pem(&key),
    };
    // What cannot be used must not replace what can.
    trust(&identity)?;
    if let Some(cluster) = context.cluster()?
        && cluster.id != reply.cluster_id
    {
        return Err(Failure::broke(what).because(format!("the node is of cluster {}, this folder is for {}", reply.cluster_id, cluster.id)));
    }
    Ok((identity, reply.addresses))
}

fn bundle(certificates: &[Vec<u8>]) -> String {
    certificates.iter().map(|certificate| pem::certificate_to_pem(certificate)).collect()
}

/// Asks for another certificate once half of this one's time is over.
///
/// # Errors
/// Nobody answers, the answer is no, or the disk fails.
pub async fn renew_if_due(context: &Context, client: &mut Client) -> Result<(), Failure> {
    let Some(identity) = context.identity()? else { return Ok(()) };
    // Sooner than a node's: whoever comes back after half a year of silence still has half a year.
    let half = |own: pki::Identity| own.not_before_ms / 2 + own.not_after_ms / 2;
    if trust(&identity)?.identity().is_none_or(|own| now_ms() <= half(own)) {
        return Ok(());
    }
    let (identity, _) = issue(context, client).await?;
    context.write_identity(&identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Global;
    use crate::client::tests::with_node;
    use crate::context::ClusterFile;
    use agent::drivers::pki::{Authority, public_key};
    use agent::model::ids::ClusterId;
    use agent::model::limits::ADMIN_CERTIFICATE_TTL_MS;

    /// A folder that holds a certificate of this age.
    fn folder(authority: &Authority, age_ms: u64) -> (tempfile::TempDir, Context) {
        let dir = tempfile::tempdir().unwrap();
        let context = Context::new(&Global { dir: Some(dir.path().to_owned()), ..Global::default() }).unwrap();
        context.make_disco().unwrap();
        let cluster = ClusterFile { id: ClusterId(7).to_string(), name: "c".into(), provider: "local".into() };
        context.write_cluster(&cluster).unwrap();
        let key = pki::new_key();
        let certificate = authority.sign_admin(&public_key(&key).unwrap(), now_ms() - age_ms).unwrap();
        let identity = Identity {
            ca_pem: pem::certificate_to_pem(authority.certificate()),
            certificate_pem: pem::certificate_to_pem(&certificate),
            key_pem: pem::key_to_pem(&key),
        };
        context.write_identity(&identity).unwrap();
        (dir, context)
    }

    #[test]
    fn a_certificate_past_half_its_time_is_renewed_for_the_same_key() {
        for (age_ms, renewed) in [(0, false), (ADMIN_CERTIFICATE_TTL_MS / 2 + 60_000, true)] {
            let authority = Authority::create(ClusterId(7), now_ms());
            let (_dir, context) = folder(&authority, age_ms);
            let before = context.identity().unwrap().expect("it was written");
            with_node(vec![], async |client, node| {
                *node.authority.lock().unwrap() = Some(authority);
                renew_if_due(&context, client).await.unwrap();
            });
            let after = context.identity().unwrap().expect("it stays");
            assert_eq!((after.certificate_pem != before.certificate_pem, after.key_pem), (renewed, before.key_pem), "age {age_ms}");
        }
    }

    #[test]
    fn a_certificate_of_another_cluster_is_not_taken() {
        let (_dir, context) = folder(&Authority::create(ClusterId(7), now_ms()), 0);
        let failure = with_node(vec![], async |client, node| {
            *node.authority.lock().unwrap() = Some(Authority::create(ClusterId(8), now_ms()));
            issue(&context, client).await.err().expect("it is another cluster's")
        });
        assert!(failure.in_one_line().contains("the node is of cluster 0000000000000008"), "{}", failure.in_one_line());
    }
}
