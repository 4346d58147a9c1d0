//! One request, one answer, no cleverness: a form is posted and a bounded text comes back.
//!
//! Every wait is bounded, nothing is followed to another address (a signature is for one), and buffers are small,
//! because a caller may live in a few megabytes.

use crate::{Error, endpoint::Endpoint, sign::FORM, sign::Signed, time::parse_http_date};
use std::time::{Duration, SystemTime};
use ureq::{
    Agent, Timeout,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

/// The longest answer that is read. A page of ours is well below one MiB.
const REPLY_BYTES_MAX: u64 = 8 << 20;
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// One attempt from connecting to the last byte. RunInstances seldom takes ten seconds.
const ATTEMPT_MAX: Duration = Duration::from_secs(20);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The server's clock.
    pub(crate) date: Option<SystemTime>,
    pub(crate) text: String,
}

/// `roots` is PEM; without it https trusts Mozilla's list. `patience` is a call's, which one attempt may not exceed.
///
/// All waits are the agent's, none a request's: ureq keeps what it computed for TLS only for requests that have no settings
/// of their own, and would read all roots again for each connection.
pub(crate) fn agent(roots: Option<&[u8]>, patience: Duration) -> Result<Agent, Box<dyn std::error::Error + Send + Sync>> {
    let mut tls = TlsConfig::builder();
    if let Some(pem) = roots {
        let mut found: Vec<Certificate<'static>> = Vec::new();
        for item in parse_pem(pem) {
            if let PemItem::Certificate(certificate) = item? {
                found.push(certificate);
            }
        }
        // Nobody at all would be trusted, which each call would find out anew.
        if found.is_empty() {
            return Err("there is no certificate in it".into());
        }
        tls = tls.root_certs(RootCerts::new_with_certs(&found));
    }
    let config = Agent::config_builder()
        .tls_config(tls.build())
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT_MAX))
        .timeout_global(Some(ATTEMPT_MAX.min(patience)))
        .max_response_header_size(16 << 10)
        .input_buffer_size(16 << 10)
        .output_buffer_size(16 << 10)
        .max_idle_connections(1)
        .max_idle_connections_per_host(1)
        .user_agent(concat!("sigv4-ec2/", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(config.into())
}

/// Posts a signed form.
pub(crate) fn post(agent: &Agent, action: &'static str, endpoint: &Endpoint, form: &[u8], signed: &Signed) -> Result<Answer, Error> {
    let lost = |source: ureq::Error| match source {
        ureq::Error::BodyExceedsLimit(limit) => Error::reply(action, format!("it is longer than {limit} bytes")),
        source => Error::Transport { action, endpoint: endpoint.url.clone(), unsent: is_unsent(&source), source: Box::new(source) },
    };
    let mut request = agent.post(&endpoint.url).header("content-type", FORM);
    for (name, value) in &signed.headers {
        request = request.header(name, value);
    }
    let mut response = request.send(form).map_err(lost)?;
    let date = response.headers().get("date").and_then(|value| parse_http_date(value.to_str().ok()?));
    let status = response.status().as_u16();
    let text = response.body_mut().with_config().limit(REPLY_BYTES_MAX).read_to_string().map_err(lost)?;
    Ok(Answer { status, date, text })
}

/// A request that is not made, because its call has lasted as long as it may.
pub(crate) fn out_of_time(action: &'static str, endpoint: &Endpoint) -> Error {
    let source = Box::new(ureq::Error::Timeout(Timeout::Global));
    Error::Transport { action, endpoint: endpoint.url.clone(), unsent: true, source }
}

/// Whether it broke before the first byte of the request went out.
fn is_unsent(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound | ureq::Error::BadUri(_) | ureq::Error::Tls(_) | ureq::Error::Timeout(Timeout::Resolve) => true,
        error => is_unreachable(error),
    }
}

/// Whether nobody is at that address, as far as can be told.
pub(crate) fn is_unreachable(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    match error {
        ureq::Error::ConnectionFailed | ureq::Error::Timeout(Timeout::Connect) => true,
        ureq::Error::Io(source) => matches!(source.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable),
        _ => false,
    }
}
