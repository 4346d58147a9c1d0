//! One HTTP/2 connection of the server: hyper's request in, the service's reply out, both counted.
//!
//! A request is open until its reply's last byte is out or the caller is gone, so streams keep their connection's seat.

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_lite::{AsyncRead, AsyncWrite, future::or};
use http_body_util::BodyExt;
use tonic::{Status, body::Body, metadata::MetadataValue};
use tower_service::Service;

use crate::{
    io::{HyperIo, SmolTimer, Spawner, within},
    is_between_nodes, is_for_strangers, is_streaming, runs_a_script,
    seats::{OpenRequest, Seat},
    server::{Caller, Room, RoomFor, ServerLimits},
};

/// HTTP/2 flow control, per stream and per connection: what a peer may have in flight to us, and so what we may hold.
const WINDOW_BYTES: u32 = 64 * 1024;
const SEND_BUFFER_BYTES: usize = 64 * 1024;
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Requests that a caller without a certificate may have open: a joiner asks one thing at a time.
const STRANGER_REQUESTS_MAX: u32 = 4;
/// How long a connection closed for silence may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Serves until the peer leaves, is silent too long, or its seat is taken.
pub(crate) async fn serve_connection<IO, S>(spawner: Spawner, io: IO, service: S, caller: Caller, seat: Arc<Seat>, limits: ServerLimits)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + Unpin + 'static,
{
    let address = caller.address.clone();
    let answerer = Answerer {
        service,
        caller,
        seat: Arc::clone(&seat),
        request_timeout: limits.request_timeout,
        script_timeout: limits.script_timeout,
        room: limits.room,
    };
    let mut connection = pin!(
        hyper::server::conn::http2::Builder::new(spawner)
            .timer(SmolTimer)
            .max_concurrent_streams(limits.streams_per_connection_max)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_header_list_size(HEADER_BYTES_MAX)
            .keep_alive_interval(limits.ping_interval)
            .keep_alive_timeout(limits.ping_timeout)
            .serve_connection(HyperIo(io), answerer)
    );
    let served = async {
        if let Err(error) = connection.as_mut().await {
            log::debug!("{address}: {}", crate::explain::explain(&error));
        }
        false
    };
    let evicted = async {
        seat.evicted().await;
        log::debug!("{address}: closed in favour of another, its seat was not earned");
        false
    };
    let silent = async {
        seat.silent_too_long().await;
        true
    };
    if or(served, or(evicted, silent)).await {
        connection.as_mut().graceful_shutdown();
        let _ = within(GOODBYE, connection).await;
    }
}

struct Answerer<S> {
    service: S,
    caller: Caller,
    seat: Arc<Seat>,
    request_timeout: Duration,
    script_timeout: Duration,
    room: RoomFor,
}

impl<S> hyper::service::Service<http::Request<hyper::body::Incoming>> for Answerer<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone,
    S::Future: Unpin,
{
    type Response = http::Response<ReplyBody>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn call(&self, request: http::Request<hyper::body::Incoming>) -> Self::Future {
        let open = self.seat.request();
        if let Some(refusal) = self.refusal(request.uri().path()) {
            return Answering { reply: Reply::Refused(refusal), timer: None, open: Some(open) };
        }
        let timer = match is_streaming(request.uri().path()) {
            true => None,
            false if runs_a_script(request.uri().path()) => Some(async_io::Timer::after(self.script_timeout)),
            false => Some(async_io::Timer::after(self.request_timeout)),
        };
        let mut request = request.map(|body| Body::new(body.map_err(|_| Status::cancelled("the caller went away"))));
        request.extensions_mut().insert(self.caller.clone());
        request.extensions_mut().insert(self.seat.standing());
        Answering { reply: Reply::Coming(self.service.clone().call(request)), timer, open: Some(open) }
    }
}

impl<S> Answerer<S> {
    /// Before a byte of the body is read: that is what would need room. Nodes go on among themselves.
    fn refusal(&self, path: &str) -> Option<Refusal> {
        let is_stranger = self.caller.certificate.is_none() && self.caller.uid.is_none();
        if is_stranger && !is_for_strangers(path) {
            return Some(Refusal::Stranger);
        }
        if is_stranger && self.seat.requests_open() > STRANGER_REQUESTS_MAX {
            return Some(Refusal::TooMany);
        }
        (!is_between_nodes(path) && (self.room.0)() == Room::None).then_some(Refusal::NoRoom)
    }
}

enum Reply<F> {
    Coming(F),
    Refused(Refusal),
}

#[derive(Clone, Copy)]
enum Refusal {
    NoRoom,
    Stranger,
    TooMany,
}

impl Refusal {
    /// With the code for programs; if "busy", clients ask again, or somebody else.
    fn status(self) -> Status {
        let (mut status, code) = match self {
            Refusal::NoRoom => (Status::resource_exhausted("this node is short of memory and takes no requests now"), "busy"),
            Refusal::Stranger => (Status::unauthenticated("only who shows a certificate of this cluster may ask this"), "unauthenticated"),
            Refusal::TooMany => (Status::resource_exhausted("too many requests at once for a caller without a certificate"), "busy"),
        };
        status.metadata_mut().insert("disco-code", MetadataValue::from_static(code));
        status
    }
}

/// A reply in the making.
struct Answering<F> {
    reply: Reply<F>,
    timer: Option<async_io::Timer>,
    open: Option<OpenRequest>,
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<http::Response<Body>, Infallible>> + Unpin,
{
    type Output = Result<http::Response<ReplyBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let reply = match &mut this.reply {
            Reply::Coming(reply) => Pin::new(reply).poll(cx),
            Reply::Refused(refusal) => Poll::Ready(Ok(refusal.status().into_http())),
        };
        let response = match reply {
            Poll::Ready(Ok(response)) => response,
            Poll::Pending => match this.timer.as_mut().map(|timer| Pin::new(timer).poll(cx)) {
                Some(Poll::Ready(_)) => Status::deadline_exceeded("the request took too long").into_http(),
                _ => return Poll::Pending,
            },
        };
        let open = this.open.take();
        Poll::Ready(Ok(response.map(|body| ReplyBody { body, _open: open })))
    }
}

/// A reply's bytes; the request counts as open until they are gone.
struct ReplyBody {
    body: Body,
    _open: Option<OpenRequest>,
}

impl http_body::Body for ReplyBody {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
