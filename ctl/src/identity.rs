//! The administrator's certificate: asked for over a node's own door, renewed by using it.

use crate::client::Client;
use crate::context::{Context, Identity};
use crate::message::Failure;
use crate::out::now_ms;
use agent::drivers::pki::{self, PkiError, Trust, pem};
use std::sync::Arc;

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
        let certificate = pem::certificate_from_pem(identity.certificate_pem.as_bytes(), "certificate in admin.crt")?;
        let key = pem::key_from_pem(identity.key_pem.as_bytes(), "key in admin.key")?;
        let ca = pem::certificate_from_pem(identity.ca_pem.as_bytes(), "certificate in ca.crt")?;
        trust.install(&certificate, &key, &ca)
    };
    installed().map_err(|e| {
        Failure::broke("cannot use this folder's certificate")
            .caused_by(&e)
            .hint("remove .disco/admin.crt; `disco bootstrap` gets another one from a node on this machine")
    })?;
    Ok(trust)
}

/// A certificate for this folder's key (made now if there is none), from whoever is behind `client`; and where nodes are.
///
/// # Errors
/// Nobody answers, or the answer is no.
pub async fn issue(context: &Context, client: &mut Client) -> Result<(Identity, Vec<String>), Failure> {
    let what = "cannot get an administrator's certificate";
    let damaged = |e: &PkiError| Failure::broke(what).caused_by(e);
    let key = match context.key()? {
        Some(text) => pem::key_from_pem(text.as_bytes(), "key in admin.key").map_err(|e| damaged(&e))?,
        None => pki::new_key(),
    };
    let csr = pki::new_csr(&key).map_err(|e| damaged(&e))?;
    let reply = client.issue_admin(csr).await.map_err(|e| e.failure(what))?;
    let identity = Identity {
        ca_pem: pem::certificate_to_pem(&reply.ca),
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

/// Asks for another certificate once half of this one's time is over.
///
/// # Errors
/// Nobody answers, the answer is no, or the disk fails.
pub async fn renew_if_due(context: &Context, client: &mut Client) -> Result<(), Failure> {
    let Some(identity) = context.identity()? else { return Ok(()) };
    if trust(&identity)?.identity().is_none_or(|own| !own.is_due(now_ms())) {
        return Ok(());
    }
    let (identity, _) = issue(context, client).await?;
    context.write_identity(&identity)
}
