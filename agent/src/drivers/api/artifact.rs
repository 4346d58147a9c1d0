//! `GET /artifact/<sha256>`: a machine that is to become a node fetches the program from one that is.
//!
//! No certificate is asked for, as with `Join`: the caller shows the token it will join with. A fetch is no use of the
//! token. Wrong tokens are answered as late as there, and out of the same bucket; few fetches run at once, each only so long.

use super::{
    Api,
    join::{REFUSAL_DELAY, Throttle},
    refusal::code_of,
};
use crate::{
    drivers::{artifacts::Digest, pki},
    model::{
        limits::ARTIFACT_FETCH_MS_MAX,
        query::{Answer, Principal, Request as Ask},
    },
};
use bytes::Bytes;
use futures_lite::{FutureExt, Stream, StreamExt};
use http::{Method, Request, Response, StatusCode};
use proto::download::{download, refusal};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tonic::body::Body;

/// Under which this is asked for.
pub const PATH: &str = "artifact";
const SECRET_BYTES_MAX: usize = 256;

/// Answers one request.
pub async fn serve(api: Arc<Api>, request: Request<Body>) -> Response<Body> {
    // Nobody reads a body here.
    let request = request.map(drop);
    match answer(&api, &request).await {
        Ok(reply) => reply,
        Err((status, why)) => refusal(status, &why),
    }
}

type Refused = (StatusCode, String);

async fn answer(api: &Arc<Api>, request: &Request<()>) -> Result<Response<Body>, Refused> {
    let no = |status: StatusCode, why: &str| (status, why.to_owned());
    if request.method() != Method::GET {
        return Err(no(StatusCode::METHOD_NOT_ALLOWED, "a program is fetched by GET"));
    }
    let named = request.uri().path().strip_prefix("/artifact/").and_then(Digest::parse);
    let wanted =
        named.ok_or_else(|| no(StatusCode::BAD_REQUEST, "ask for /artifact/ and the program's SHA-256 in lower-case hex digits"))?;
    admit(api, request).await?;
    let busy = || no(StatusCode::TOO_MANY_REQUESTS, "this node sends as many programs as it can; ask another one, or later");
    let place = api.fetches.clone().try_acquire_arc().ok_or_else(busy)?;
    api.activity.note();
    let unreadable = |error: io::Error| (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read the program: {error}"));
    let outgoing = api.artifacts.send(wanted).await.map_err(unreadable)?;
    let outgoing = outgoing.ok_or_else(|| no(StatusCode::NOT_FOUND, "this node does not have that program"))?;
    let late = async_io::Timer::after(Duration::from_millis(ARTIFACT_FETCH_MS_MAX));
    Ok(download(outgoing.length, Sending { chunks: outgoing.chunks.boxed(), late, _place: place }))
}

/// Whoever shows a good token, or the certificate of a manager or an administrator.
async fn admit(api: &Arc<Api>, request: &Request<()>) -> Result<(), Refused> {
    if api.gate.person(&bare(request), "fetch programs").is_ok() {
        return Ok(());
    }
    let too_many = || (StatusCode::TOO_MANY_REQUESTS, "too many ask at once; try again in a second".to_owned());
    let throttle: &Throttle = &api.throttle;
    if !throttle.try_take(Instant::now()) {
        return Err(too_many());
    }
    let _waiting = throttle.places.try_acquire().ok_or_else(too_many)?;
    let shown = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = shown.and_then(|text| text.strip_prefix("Bearer ")).filter(|token| token.len() <= SECRET_BYTES_MAX);
    let secret = token.and_then(|token| token.parse::<pki::JoinToken>().ok()).map(|token| token.secret);
    let why = match secret {
        None => "show the join token: `Authorization: Bearer DISCO1-…`".to_owned(),
        Some(secret) => match api.door.ask(Principal::Joiner, Ask::Fetch { secret }).await {
            Answer::Written { .. } => return Ok(()),
            Answer::Refused { code: "token_unknown", why } => why,
            other => {
                let status = super::refusal::unwished(other);
                return Err((StatusCode::SERVICE_UNAVAILABLE, format!("{} ({})", status.message(), code_of(&status))));
            }
        },
    };
    async_io::Timer::after(REFUSAL_DELAY + REFUSAL_DELAY.mul_f32(pki::random_fraction())).await;
    Err((StatusCode::FORBIDDEN, why))
}

/// Who asks, without what.
fn bare(request: &Request<()>) -> tonic::Request<()> {
    tonic::Request::from_parts(Default::default(), request.extensions().clone(), ())
}

/// The chunks of one fetch, for as long as it may take.
struct Sending {
    chunks: futures_lite::stream::Boxed<io::Result<Bytes>>,
    late: async_io::Timer,
    _place: smol::lock::SemaphoreGuardArc,
}

impl Stream for Sending {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.late.poll(cx).is_ready() {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        self.chunks.poll_next(cx)
    }
}
