//! `GET /artifact/<sha256>`: a machine that is to become a node fetches the program from one that is.
//!
//! No certificate is asked for, as with `Join`: the caller shows the token it will join with. A fetch is no use of the
//! token. Wrong tokens are answered as late as there, and out of the same bucket; few fetches run at once, each only so long.

use super::{
    Api,
    activity::Work,
    join::{REFUSAL_DELAY, Throttle, source_of},
    refusal::code_of,
};
use crate::{
    drivers::{artifacts::Digest, pki},
    model::{
        limits::ARTIFACT_FETCH_MS_MAX,
        query::{Answer, Principal, Request as Ask},
    },
};
use async_channel::{Receiver, Sender};
use bytes::Bytes;
use futures_lite::{FutureExt, Stream, StreamExt};
use http::{Method, Request, Response, StatusCode};
use proto::{
    Spawner,
    download::{download, refusal},
};
use smol::lock::SemaphoreGuardArc;
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
    api.activity.note(Work::Asked);
    let unreadable = |error: io::Error| (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read the program: {error}"));
    let outgoing = api.artifacts.send(wanted).await.map_err(unreadable)?;
    let outgoing = outgoing.ok_or_else(|| no(StatusCode::NOT_FOUND, "this node does not have that program"))?;
    let length = outgoing.length;
    let sending = Sending::begin(api.peers.spawner(), outgoing.chunks, place, Duration::from_millis(ARTIFACT_FETCH_MS_MAX));
    Ok(download(length, sending))
}

/// Whoever shows a good token, or the certificate of a manager or an administrator.
async fn admit(api: &Arc<Api>, request: &Request<()>) -> Result<(), Refused> {
    if api.gate.person(&bare(request), "fetch programs").is_ok() {
        return Ok(());
    }
    let too_many = || (StatusCode::TOO_MANY_REQUESTS, "too many ask at once; try again in a second".to_owned());
    let throttle: &Throttle = &api.throttle;
    if !throttle.try_take(source_of(request.extensions()), Instant::now()) {
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

/// The chunks of one fetch, for as long as it may take. Whoever stops reading polls nothing here: so an alarm of its own
/// ends the reading of the file, and gives the place to the next.
struct Sending {
    chunks: futures_lite::stream::Boxed<io::Result<Bytes>>,
    ends_at: Instant,
    /// Ends the alarm when the fetch is over.
    _over: Sender<()>,
}

impl Sending {
    fn begin(spawner: &Spawner, chunks: Receiver<io::Result<Bytes>>, place: SemaphoreGuardArc, time: Duration) -> Sending {
        let ends_at = Instant::now() + time;
        let (over, heard_over) = async_channel::bounded::<()>(1);
        let reading = chunks.clone();
        let alarm = async move {
            let late = async {
                async_io::Timer::at(ends_at).await;
                reading.close();
            };
            let ended = async {
                let _ = heard_over.recv().await;
            };
            late.or(ended).await;
            drop(place);
        };
        spawner.0.spawn(alarm).detach();
        Sending { chunks: chunks.boxed(), ends_at, _over: over }
    }
}

impl Stream for Sending {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        match self.chunks.poll_next(cx) {
            Poll::Ready(None) if Instant::now() >= self.ends_at => Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into()))),
            polled => polled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;

    #[test]
    fn a_fetch_that_nobody_reads_gives_its_place_to_the_next() {
        let spawner = Spawner(Arc::new(smol::Executor::new()));
        let places = Arc::new(smol::lock::Semaphore::new(1));
        let (file, chunks) = async_channel::bounded(1);
        let place = places.clone().try_acquire_arc().expect("there is one");
        let mut sending = Sending::begin(&spawner, chunks, place, Duration::from_millis(50));
        block_on(spawner.0.run(async {
            file.send(Ok(Bytes::from_static(b"piece"))).await.expect("it is read");
            // The place is free though `sending` is there, and was never asked for a chunk.
            let _next = places.acquire().await;
            assert!(file.is_closed(), "and nobody goes on reading the file");
            assert_eq!(sending.next().await.expect("what came").expect("is good"), "piece");
            let late = sending.next().await.expect("not as if it were whole");
            assert_eq!(late.expect_err("the rest is missing").kind(), io::ErrorKind::TimedOut);
        }));
    }
}
