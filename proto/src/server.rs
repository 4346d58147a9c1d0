//! The listening side: accepts, checks that a caller speaks TLS, bounds everything it can make us hold.
//!
//! A connection passes three doors. Its first byte must be that of a TLS handshake (plain HTTP and garbage are closed
//! there, before TLS costs anything). One of few handshake places must be free. Then its requests are served, with
//! [`Caller`] beside each, so that the services can decide what this caller may do.

use std::{
    convert::Infallible,
    fmt, io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures_lite::{AsyncReadExt, AsyncWriteExt, future::or};
use futures_rustls::TlsAcceptor;
use rustls::ServerConfig;
use smol::Async;
use tonic::body::Body;
use tower_service::Service;

use crate::{
    connection::serve_connection,
    explain::explain,
    io::{Spawner, within},
    seats::{Seat, Seats},
    socket_path::SocketPath,
};

/// RFC 8446, 5.1: content type of the record that opens a handshake.
const TLS_HANDSHAKE: u8 = 22;
/// After a failed accept (out of descriptors), so that the loop does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Bounds of one listening socket.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Connections open at once, handshakes included.
    pub connections_max: usize,
    /// Handshakes at once.
    pub handshakes_max: usize,
    /// From accept to the handshake's end.
    pub handshake_timeout: Duration,
    /// Requests open at once on one connection.
    pub streams_per_connection_max: u32,
    /// One gRPC message, either way.
    pub message_bytes_max: usize,
    /// A connection that never asked anything is closed after this long.
    pub first_request_timeout: Duration,
    /// One that asked before, and has no request open, after this long.
    pub idle_timeout: Duration,
    /// A request that is no stream is answered by then, if need be with DEADLINE_EXCEEDED.
    pub request_timeout: Duration,
    /// … but one that runs a script by then.
    pub script_timeout: Duration,
    /// After this long without a frame the peer is pinged …
    pub ping_interval: Duration,
    /// … and given up if no answer comes within this.
    pub ping_timeout: Duration,
    /// Asked before a connection or a request is taken on.
    pub room: RoomFor,
    /// Connections open at once while room is short.
    pub connections_when_short: usize,
}

/// How much may be taken on now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// All that the limits allow.
    Enough,
    /// Few connections.
    Short,
    /// And no requests but those between nodes.
    None,
}

/// Says how much room there is; asked often, so it has to be quick.
#[derive(Clone)]
pub struct RoomFor(pub Arc<dyn Fn() -> Room + Send + Sync>);

impl fmt::Debug for RoomFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoomFor({:?})", (self.0)())
    }
}

impl Default for RoomFor {
    fn default() -> RoomFor {
        RoomFor(Arc::new(|| Room::Enough))
    }
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        ServerLimits {
            connections_max: 64,
            handshakes_max: 16,
            handshake_timeout: Duration::from_secs(5),
            streams_per_connection_max: 32,
            message_bytes_max: 512 * 1024,
            first_request_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            request_timeout: Duration::from_secs(30),
            script_timeout: Duration::from_secs(330),
            ping_interval: Duration::from_secs(15),
            ping_timeout: Duration::from_secs(5),
            room: RoomFor::default(),
            connections_when_short: 16,
        }
    }
}

/// Where callers come in.
pub enum Listener {
    /// The port: mutual TLS.
    Tcp(Async<TcpListener>, Arc<ServerConfig>),
    /// A socket file: no TLS, the kernel says who calls.
    Unix(Async<UnixListener>),
}

impl Listener {
    /// Listens on `address`.
    ///
    /// # Errors
    /// The address is taken, not ours, or not allowed.
    pub fn tcp(address: SocketAddr, tls: Arc<ServerConfig>) -> io::Result<Listener> {
        Ok(Listener::Tcp(Async::<TcpListener>::bind(address)?, tls))
    }

    /// Listens on a socket file that only its owner may use. A file left by an earlier process is replaced, so the
    /// caller must hold the lock of the folder it lies in.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn unix(path: &Path) -> io::Result<Listener> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = Async::<UnixListener>::bind(SocketPath::of(path)?.as_path())?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Listener::Unix(listener))
    }

    /// The address of a TCP listener, with the port the system chose if 0 was asked for.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener, _) => listener.get_ref().local_addr().ok(),
            Listener::Unix(_) => None,
        }
    }
}

/// Who calls, in the extensions of every request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The certificate it proved to own, DER. None: it showed none, or came by socket file.
    pub certificate: Option<Arc<[u8]>>,
    /// `host:port`, or `control.sock`.
    pub address: String,
    /// The user at the other end of a socket file.
    pub uid: Option<u32>,
}

/// Accepts until the future is dropped. Connections run on `spawner` and outlive it only until they notice.
///
/// # Errors
/// The listening socket itself is broken.
pub async fn serve<S>(spawner: Spawner, listener: Listener, service: S, limits: ServerLimits) -> io::Result<()>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + Unpin + 'static,
{
    let seats = Seats::new(limits.clone());
    let door = Door { spawner, service, seats, limits };
    match listener {
        Listener::Tcp(listener, tls) => loop {
            match listener.accept().await {
                Ok((socket, address)) => door.admit_tcp(socket, address, TlsAcceptor::from(Arc::clone(&tls))),
                Err(error) => accept_failed(error).await?,
            }
        },
        Listener::Unix(listener) => loop {
            match listener.accept().await {
                Ok((socket, _)) => door.admit_unix(socket),
                Err(error) => accept_failed(error).await?,
            }
        },
    }
}

/// accept(2) passes on errors of the connection it was about to return, and runs out of descriptors under attack:
/// neither is a reason to stop listening.
async fn accept_failed(error: io::Error) -> io::Result<()> {
    if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotConnected) {
        return Err(error);
    }
    log::debug!("accept: {error}");
    async_io::Timer::after(ACCEPT_BACKOFF).await;
    Ok(())
}

struct Door<S> {
    spawner: Spawner,
    service: S,
    seats: Arc<Seats>,
    limits: ServerLimits,
}

impl<S> Door<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + Unpin + 'static,
{
    fn admit_tcp(&self, socket: Async<TcpStream>, address: SocketAddr, tls: TlsAcceptor) {
        let Some(seat) = self.seats.try_take() else {
            log::debug!("{address}: closed, all {} connections are in use", self.limits.connections_max);
            return;
        };
        // Small frames both ways: waiting to fill packets (Nagle) would only add latency.
        let _ = socket.get_ref().set_nodelay(true);
        let (spawner, service, limits) = (self.spawner.clone(), self.service.clone(), self.limits.clone());
        let serving = async move {
            let shaken = or(within(limits.handshake_timeout, shake_hands(socket, tls, &seat)), async {
                seat.evicted().await;
                None
            });
            // Boxed: a handshake's state is large and over soon, a connection's lives long.
            let stream = match Box::pin(shaken).await {
                Some(Ok(stream)) => stream,
                Some(Err(error)) => return log::debug!("{address}: {}", explain(&error)),
                None => return log::debug!("{address}: no TLS handshake within {:?}", limits.handshake_timeout),
            };
            let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|leaf| Arc::from(leaf.as_ref()));
            seat.handshaken(false);
            let caller = Caller { certificate, address: address.to_string(), uid: None };
            serve_connection(spawner, stream, service, caller, Arc::new(seat), limits).await;
        };
        self.spawner.0.spawn(serving).detach();
    }

    fn admit_unix(&self, socket: Async<UnixStream>) {
        let Some(seat) = self.seats.try_take() else { return };
        let uid = match rustix::net::sockopt::socket_peercred(socket.get_ref()) {
            Ok(peer) => peer.uid.as_raw(),
            Err(error) => return log::debug!("control.sock: cannot tell who calls: {error}"),
        };
        seat.handshaken(true);
        let caller = Caller { certificate: None, address: "control.sock".into(), uid: Some(uid) };
        let serving = serve_connection(self.spawner.clone(), socket, self.service.clone(), caller, Arc::new(seat), self.limits.clone());
        self.spawner.0.spawn(serving).detach();
    }
}

async fn shake_hands(
    socket: Async<TcpStream>,
    tls: TlsAcceptor,
    seat: &Seat,
) -> io::Result<futures_rustls::server::TlsStream<Async<TcpStream>>> {
    let mut first = [0];
    if socket.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first[0] != TLS_HANDSHAKE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not TLS"));
    }
    seat.begin_handshake().await;
    match tls.accept(socket).into_fallible().await {
        Ok(stream) => Ok(stream),
        Err((error, socket)) => {
            say_goodbye(socket).await;
            Err(error)
        }
    }
}

/// Reads what is still coming: closing with unread bytes would reset the connection, and the alert that tells the
/// caller why it was refused would be lost on the way. The handshake's timeout bounds it.
async fn say_goodbye(mut socket: Async<TcpStream>) {
    let _ = socket.close().await;
    let mut rest = [0; 512];
    let mut left = 64 * 1024usize;
    while let Ok(count) = socket.read(&mut rest).await {
        left = left.saturating_sub(count);
        if count == 0 || left == 0 {
            break;
        }
    }
}
