//! The calling side: one connection to one address, made when first needed and made again after it broke.
//!
//! A [`Channel`] is what tonic's generated clients call. It never queues calls for later: a call that finds no
//! connection makes one (others that come meanwhile wait for the same attempt), and a failure says which address and why.

use std::{
    future::Future,
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_lite::{AsyncRead, AsyncWrite, future::or};
use futures_rustls::TlsConnector;
use hyper::client::conn::http2::SendRequest;
use rustls::{ClientConfig, pki_types::ServerName};
use smol::{Async, lock::Mutex};
use tonic::{Status, body::Body};

use crate::{
    explain::explain,
    io::{HyperIo, SmolTimer, Spawner, within},
    is_streaming,
    socket_path::SocketPath,
    tls::SERVER_NAME,
    v1::{disco_client::DiscoClient, join_client::JoinClient, peer_client::PeerClient},
};

const WINDOW_BYTES: u32 = 64 * 1024;
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// How long a failed call waits for its connection's end, which knows the cause better.
const CAUSE_WAIT: Duration = Duration::from_millis(100);

/// Bounds of one channel.
#[derive(Clone, Debug)]
pub struct ChannelLimits {
    /// Name lookup, TCP and TLS together.
    pub connect_timeout: Duration,
    /// A call that is no stream, connecting included, unless the call sets its own.
    pub request_timeout: Duration,
    /// While calls are open: after this long without a frame the peer is pinged …
    pub ping_interval: Duration,
    /// … and given up if no answer comes within this.
    pub ping_timeout: Duration,
    /// One gRPC message, either way.
    pub message_bytes_max: usize,
}

impl Default for ChannelLimits {
    fn default() -> ChannelLimits {
        ChannelLimits {
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(2),
            ping_timeout: Duration::from_secs(3),
            message_bytes_max: 512 * 1024,
        }
    }
}

/// A way to one address. Cheap to clone; clones share the connection, which closes when the last one is gone.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
}

struct Shared {
    spawner: Spawner,
    address: Arc<str>,
    target: Target,
    limits: ChannelLimits,
    /// Attempts to connect that failed, ever.
    failures: AtomicU64,
    state: Mutex<State>,
}

enum Target {
    Tcp(Arc<ClientConfig>),
    Unix(PathBuf),
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    last_failure: String,
}

#[derive(Clone)]
struct Link {
    sender: SendRequest<AskBody>,
    /// Set when the connection has ended.
    ended: Arc<Ended>,
}

struct Ended {
    cause: OnceLock<String>,
    /// Closed when `cause` is set.
    news: smol::channel::Receiver<()>,
}

impl Channel {
    /// To a node's port (`host:port`). Connects with the first call.
    pub fn tcp(spawner: Spawner, address: String, tls: Arc<ClientConfig>, limits: ChannelLimits) -> Channel {
        Channel::new(spawner, address.into(), Target::Tcp(tls), limits)
    }

    /// To a node's `control.sock`.
    pub fn unix(spawner: Spawner, path: PathBuf, limits: ChannelLimits) -> Channel {
        Channel::new(spawner, path.display().to_string().into(), Target::Unix(path), limits)
    }

    fn new(spawner: Spawner, address: Arc<str>, target: Target, limits: ChannelLimits) -> Channel {
        let shared = Shared { spawner, address, target, limits, failures: AtomicU64::new(0), state: Mutex::default() };
        Channel { shared: Arc::new(shared) }
    }

    /// The service for people, messages bounded.
    pub fn disco(&self) -> DiscoClient<Channel> {
        let bytes = self.shared.limits.message_bytes_max;
        DiscoClient::new(self.clone()).max_decoding_message_size(bytes).max_encoding_message_size(bytes)
    }

    /// The service for those who want in, messages bounded.
    pub fn join(&self) -> JoinClient<Channel> {
        let bytes = self.shared.limits.message_bytes_max;
        JoinClient::new(self.clone()).max_decoding_message_size(bytes).max_encoding_message_size(bytes)
    }

    /// The service between nodes, messages bounded.
    pub fn peer(&self) -> PeerClient<Channel> {
        let bytes = self.shared.limits.message_bytes_max;
        PeerClient::new(self.clone()).max_decoding_message_size(bytes).max_encoding_message_size(bytes)
    }

    /// Where it leads.
    pub fn address(&self) -> &str {
        &self.shared.address
    }
}

impl tower_service::Service<http::Request<Body>> for Channel {
    type Response = http::Response<ReplyBody>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let asked = request.headers().get("grpc-timeout").and_then(|text| parse_timeout(text.to_str().ok()?));
            let limit = asked.or((!is_streaming(request.uri().path())).then_some(shared.limits.request_timeout));
            let deadline = limit.map(|limit| Deadline { limit, timer: async_io::Timer::after(limit) });
            let Some(mut deadline) = deadline else { return shared.send(request).await };
            let passed = async {
                (&mut deadline.timer).await;
                None
            };
            let Some(sent) = or(async { Some(shared.send(request).await) }, passed).await else {
                return Err(deadline.passed(&shared.address));
            };
            let mut response = sent?;
            response.body_mut().deadline = Some(deadline);
            Ok(response)
        })
    }
}

impl Shared {
    async fn send(&self, mut request: http::Request<Body>) -> Result<http::Response<ReplyBody>, Status> {
        // Names a node by its TLS name: tonic's clients leave the authority empty, HTTP/2 wants one (RFC 9113, 8.3.1).
        let path = request.uri().path_and_query().cloned().unwrap_or(http::uri::PathAndQuery::from_static("/"));
        *request.uri_mut() = http::Uri::builder()
            .scheme(if matches!(self.target, Target::Tcp(_)) { "https" } else { "http" })
            .authority(SERVER_NAME)
            .path_and_query(path)
            .build()
            .map_err(|error| Status::internal(error.to_string()))?;
        let mut again = true;
        let refusal = Arc::new(OnceLock::new());
        let mut request = request.map(|body| AskBody { body, refusal: Arc::clone(&refusal) });
        loop {
            let mut link = self.link().await?;
            let mut error = match link.sender.try_send_request(request).await {
                Ok(response) => {
                    let address = Arc::clone(&self.address);
                    return Ok(response.map(|body| ReplyBody { body, address, ended: link.ended, deadline: None }));
                }
                Err(error) => error,
            };
            match error.take_message() {
                // The connection had ended before the request went out: nothing happened yet, a new one may do.
                Some(unsent) if again => {
                    again = false;
                    request = unsent;
                    self.forget(&link).await;
                }
                _ => {
                    if let Some(status) = refusal.get() {
                        return Err(status.clone());
                    }
                    let cause = link.cause(error.error()).await;
                    self.forget_if_ended(&link).await;
                    return Err(lost(&self.address, &cause));
                }
            }
        }
    }

    /// The connection, made now if there is none.
    async fn link(&self) -> Result<Link, Status> {
        let failures_before = self.failures.load(Ordering::Acquire);
        let mut state = self.state.lock().await;
        if let Some(link) = state.link.as_ref().filter(|link| !link.sender.is_closed()) {
            return Ok(link.clone());
        }
        if self.failures.load(Ordering::Acquire) != failures_before {
            return Err(self.unreachable(&state.last_failure));
        }
        let connected = within(self.limits.connect_timeout, self.connect()).await;
        match connected.unwrap_or_else(|| Err(format!("no answer within {} s", self.limits.connect_timeout.as_secs_f32()))) {
            Ok(link) => {
                state.link = Some(link.clone());
                Ok(link)
            }
            Err(why) => {
                state.link = None;
                state.last_failure.clone_from(&why);
                self.failures.fetch_add(1, Ordering::AcqRel);
                Err(self.unreachable(&why))
            }
        }
    }

    fn unreachable(&self, why: &str) -> Status {
        Status::unavailable(format!("cannot reach {}: {why}", self.address))
    }

    async fn forget(&self, link: &Link) {
        let mut state = self.state.lock().await;
        if state.link.as_ref().is_some_and(|current| Arc::ptr_eq(&current.ended, &link.ended)) {
            state.link = None;
        }
    }

    async fn forget_if_ended(&self, link: &Link) {
        if link.ended.cause.get().is_some() || link.sender.is_closed() {
            self.forget(link).await;
        }
    }

    async fn connect(&self) -> Result<Link, String> {
        match &self.target {
            Target::Tcp(tls) => {
                let socket = self.connect_tcp().await?;
                let name = ServerName::try_from(SERVER_NAME).expect("node.disco is a DNS name");
                let stream = TlsConnector::from(Arc::clone(tls)).connect(name, socket).await.map_err(|error| explain(&error))?;
                self.shake_hands(stream).await
            }
            Target::Unix(path) => {
                let path = SocketPath::of(path).map_err(|error| explain(&error))?;
                let socket = Async::<UnixStream>::connect(path.as_path()).await.map_err(|error| explain(&error))?;
                self.shake_hands(socket).await
            }
        }
    }

    async fn connect_tcp(&self) -> Result<Async<TcpStream>, String> {
        let mut why = "no such host".to_owned();
        for address in self.resolve().await? {
            match Async::<TcpStream>::connect(address).await {
                Ok(socket) => {
                    let _ = socket.get_ref().set_nodelay(true);
                    return Ok(socket);
                }
                Err(error) => why = explain(&error),
            }
        }
        Err(why)
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        // A lookup costs a thread; addresses are the rule.
        if let Ok(address) = self.address.parse() {
            return Ok(vec![address]);
        }
        let address = Arc::clone(&self.address);
        let found = smol::unblock(move || address.to_socket_addrs()).await;
        found.map(Iterator::collect).map_err(|error| error.to_string())
    }

    async fn shake_hands<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, io: IO) -> Result<Link, String> {
        let (sender, connection) = hyper::client::conn::http2::Builder::new(self.spawner.clone())
            .timer(SmolTimer)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .keep_alive_interval(self.limits.ping_interval)
            .keep_alive_timeout(self.limits.ping_timeout)
            .keep_alive_while_idle(false)
            .handshake(HyperIo(io))
            .await
            .map_err(|error| explain(&error))?;
        let (told, news) = smol::channel::bounded(1);
        let ended = Arc::new(Ended { cause: OnceLock::new(), news });
        let teller = Arc::clone(&ended);
        self.spawner
            .0
            .spawn(async move {
                let cause = match connection.await {
                    Ok(()) => "the other side closed the connection".to_owned(),
                    Err(error) => explain(&error),
                };
                let _ = teller.cause.set(cause);
                drop(told);
            })
            .detach();
        Ok(Link { sender, ended })
    }
}

impl Link {
    /// Why a call failed: the connection's end if it ended, else the call's own error.
    async fn cause(&self, error: &hyper::Error) -> String {
        let _ = within(CAUSE_WAIT, self.ended.news.recv()).await;
        self.ended.cause.get().cloned().unwrap_or_else(|| explain(error))
    }
}

fn lost(address: &str, why: &str) -> Status {
    Status::unavailable(format!("lost the connection to {address}: {why}"))
}

struct Deadline {
    limit: Duration,
    timer: async_io::Timer,
}

impl Deadline {
    fn passed(&self, address: &str) -> Status {
        Status::deadline_exceeded(format!("{address} did not answer within {} s", self.limit.as_secs_f32()))
    }
}

/// `grpc-timeout` as gRPC's HTTP/2 mapping defines it: at most 8 digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// A request's bytes. What keeps them from being sent (a message over its bound) is the answer to the call, but hyper
/// would report it as a reset stream.
struct AskBody {
    body: Body,
    refusal: Arc<OnceLock<Status>>,
}

impl http_body::Body for AskBody {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Err(status)) = &frame {
            let _ = self.refusal.set(status.clone());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// A reply's bytes; failures name the address.
pub struct ReplyBody {
    body: hyper::body::Incoming,
    address: Arc<str>,
    ended: Arc<Ended>,
    deadline: Option<Deadline>,
}

impl http_body::Body for ReplyBody {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Status>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Err(error))) => {
                let cause = this.ended.cause.get().cloned().unwrap_or_else(|| explain(&error));
                Poll::Ready(Some(Err(lost(&this.address, &cause))))
            }
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(frame))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let Some(deadline) = this.deadline.as_mut() else { return Poll::Pending };
                ready!(Pin::new(&mut deadline.timer).poll(cx));
                Poll::Ready(Some(Err(deadline.passed(&this.address))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
