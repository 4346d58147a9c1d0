//! What the wire's tests play on: an authority, certificates, a small service, channels to it.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use futures_lite::{AsyncReadExt, AsyncWriteExt, Stream, StreamExt, stream};
use proto::{
    Caller, Channel, ChannelLimits, Listener, Routes, ServerLimits, Spawner, Standing,
    v1::{self, ReadReply, ReadRequest, read_reply, read_request::Query},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, PKCS_ED25519};
use rustls::{
    RootCertStore,
    client::WebPkiServerVerifier,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
};
use smol::Async;
use tonic::{Request, Response, Status, Streaming};

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("ring makes keys");
        let mut params = CertificateParams::new(Vec::new()).expect("no names to refuse");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, key).expect("signs itself"))
    }

    fn identity(&self) -> Identity {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("ring makes keys");
        let mut params = CertificateParams::new(vec![proto::SERVER_NAME.to_owned()]).expect("a DNS name");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.0).expect("signs");
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8"))
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a CA");
        Arc::new(roots)
    }
}

pub struct Stage {
    pub spawner: Spawner,
    ours: Authority,
    theirs: Authority,
    servers: Mutex<Vec<smol::Task<std::io::Result<()>>>>,
}

/// Plays `act` on an executor of its own, bounded in time.
pub fn run(act: impl AsyncFnOnce(Stage)) {
    let executor = Arc::new(smol::Executor::new());
    let stage =
        Stage { spawner: Spawner(Arc::clone(&executor)), ours: Authority::new(), theirs: Authority::new(), servers: Mutex::default() };
    smol::block_on(executor.run(futures_lite::future::or(act(stage), async {
        smol::Timer::after(Duration::from_secs(60)).await;
        panic!("the play takes longer than a minute");
    })));
}

pub fn limits() -> ServerLimits {
    ServerLimits::default()
}

impl Stage {
    pub fn listen(&self, limits: ServerLimits) -> SocketAddr {
        self.listen_at(([127, 0, 0, 1], 0).into(), limits)
    }

    pub fn listen_at(&self, address: SocketAddr, limits: ServerLimits) -> SocketAddr {
        let (chain, key) = self.ours.identity();
        let certified = CertifiedKey::from_der(chain, key, &default_provider()).expect("belong together");
        let clients = WebPkiClientVerifier::builder_with_provider(self.ours.roots(), Arc::new(default_provider()))
            .allow_unauthenticated()
            .build()
            .expect("has roots");
        let tls = proto::server_config(Arc::new(SingleCertAndKey::from(certified)), clients);
        let listener = Listener::tcp(address, tls).expect("free");
        let address = listener.address().expect("is TCP");
        self.serve(listener, limits);
        address
    }

    pub fn listen_unix(&self, path: &Path) {
        self.serve(Listener::unix(path).expect("makes the file"), limits());
    }

    fn serve(&self, listener: Listener, limits: ServerLimits) {
        let own = Spawner(Arc::new(smol::Executor::new()));
        let service = Arc::new(Echo);
        let routes = Routes::new(&limits).disco(Arc::clone(&service)).join(Arc::clone(&service)).peer(service);
        let serving = proto::serve(own.clone(), listener, routes, limits);
        let executor = Arc::clone(&own.0);
        self.servers.lock().expect("no panic").push(self.spawner.0.spawn(async move { executor.run(serving).await }));
    }

    /// Stops all servers like a machine that loses power: nobody listens any more, old connections hang unanswered.
    pub async fn close(&self) {
        let servers = std::mem::take(&mut *self.servers.lock().expect("no panic"));
        for server in servers {
            server.cancel().await;
        }
    }

    pub fn channel(&self, address: SocketAddr) -> Channel {
        self.channel_with(address, |_| {})
    }

    pub fn channel_with(&self, address: SocketAddr, change: impl FnOnce(&mut ChannelLimits)) -> Channel {
        let mut limits = ChannelLimits::default();
        change(&mut limits);
        self.channel_as(address, Some(self.ours.identity()), &self.ours, limits)
    }

    /// Shows no certificate.
    pub fn stranger(&self, address: SocketAddr) -> Channel {
        self.channel_as(address, None, &self.ours, ChannelLimits::default())
    }

    /// Shows another authority's certificate.
    pub fn foreigner(&self, address: SocketAddr) -> Channel {
        self.channel_as(address, Some(self.theirs.identity()), &self.ours, ChannelLimits::default())
    }

    /// Trusts another authority only.
    pub fn distrustful(&self, address: SocketAddr) -> Channel {
        self.channel_as(address, Some(self.ours.identity()), &self.theirs, ChannelLimits::default())
    }

    fn tls(&self, identity: Option<Identity>, trusted: &Authority) -> Arc<rustls::ClientConfig> {
        let servers =
            WebPkiServerVerifier::builder_with_provider(trusted.roots(), Arc::new(default_provider())).build().expect("has roots");
        proto::client_config(identity, servers).expect("key and certificate belong together")
    }

    fn channel_as(&self, address: SocketAddr, identity: Option<Identity>, trusted: &Authority, limits: ChannelLimits) -> Channel {
        Channel::tcp(self.spawner.clone(), address.to_string(), self.tls(identity, trusted), limits)
    }

    /// Connections that finish their handshake and ask nothing.
    pub async fn idle_tls(&self, address: SocketAddr, count: usize) -> Vec<futures_rustls::client::TlsStream<Async<TcpStream>>> {
        let connector = futures_rustls::TlsConnector::from(self.tls(Some(self.ours.identity()), &self.ours));
        let mut open = Vec::new();
        for _ in 0..count {
            let socket = Async::<TcpStream>::connect(address).await.expect("listening");
            let name = proto::SERVER_NAME.try_into().expect("a DNS name");
            open.push(connector.connect(name, socket).await.expect("lets us in"));
        }
        open
    }
}

pub fn text(reply: &ReadReply) -> String {
    match &reply.result {
        Some(read_reply::Result::KvValue(value)) => String::from_utf8(value.value.clone().unwrap_or_default()).expect("is text"),
        other => panic!("not a value: {other:?}"),
    }
}

/// Repeats what it is asked; a few keys have a meaning.
struct Echo;

fn key(request: ReadRequest) -> String {
    match request.query {
        Some(Query::KvGet(get)) => get.key,
        _ => String::new(),
    }
}

type Lines = Pin<Box<dyn Stream<Item = Result<v1::LogLine, Status>> + Send>>;
type Replies = Pin<Box<dyn Stream<Item = Result<ReadReply, Status>> + Send>>;

#[tonic::async_trait]
impl v1::disco_server::Disco for Echo {
    async fn write(&self, _request: Request<v1::WriteRequest>) -> Result<Response<v1::WriteReply>, Status> {
        Ok(Response::new(v1::WriteReply::default()))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadReply>, Status> {
        let caller = request.extensions().get::<Caller>().expect("beside every request").clone();
        // As a gate does that knows the caller.
        request.extensions().get::<Standing>().expect("beside every request").set(true);
        let key = key(request.into_inner());
        if key == "sleep" {
            smol::Timer::after(Duration::from_secs(5)).await;
        }
        let who = match (caller.certificate, caller.uid) {
            (Some(_), _) => "with certificate".to_owned(),
            (None, Some(uid)) => format!("uid {uid}"),
            (None, None) => "without certificate".to_owned(),
        };
        let value = v1::KvValue { value: Some(format!("{key}, {who}").into_bytes()), version: 1 };
        Ok(Response::new(ReadReply { index: 1, result: Some(read_reply::Result::KvValue(value)) }))
    }

    type WatchStream = Replies;

    async fn watch(&self, request: Request<ReadRequest>) -> Result<Response<Replies>, Status> {
        let replies = stream::iter(0..5).map(|index| Ok(ReadReply { index, result: None }));
        Ok(Response::new(match key(request.into_inner()).as_str() {
            "slow" => Box::pin(replies.then(|reply| async {
                smol::Timer::after(Duration::from_millis(80)).await;
                reply
            })),
            "hang" => Box::pin(stream::pending()),
            _ => Box::pin(replies),
        }))
    }

    async fn plan(&self, _request: Request<v1::PlanRequest>) -> Result<Response<v1::PlanReply>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn recover(&self, _: Request<v1::RecoverRequest>) -> Result<Response<v1::RecoverReply>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn eval(&self, _request: Request<v1::EvalRequest>) -> Result<Response<v1::EvalReply>, Status> {
        Err(Status::unimplemented("not played"))
    }

    type LogsStream = Lines;

    async fn logs(&self, _request: Request<v1::LogsRequest>) -> Result<Response<Lines>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn issue_admin(&self, _request: Request<v1::IssueAdminRequest>) -> Result<Response<v1::IssueAdminReply>, Status> {
        Err(Status::unimplemented("not played"))
    }
}

#[tonic::async_trait]
impl v1::join_server::Join for Echo {
    async fn join(&self, _request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinReply>, Status> {
        Ok(Response::new(v1::JoinReply::default()))
    }
}

#[tonic::async_trait]
impl v1::peer_server::Peer for Echo {
    async fn raft(&self, request: Request<Streaming<v1::RaftBatch>>) -> Result<Response<v1::Done>, Status> {
        let mut batches = request.into_inner();
        let mut next = 0;
        while let Some(batch) = batches.message().await? {
            assert_eq!(batch.to_member, next, "in order");
            next += 1;
        }
        if next == 100 { Ok(Response::new(v1::Done {})) } else { Err(Status::data_loss(format!("{next} of 100 batches"))) }
    }

    async fn snapshot(&self, _request: Request<Streaming<v1::SnapshotChunk>>) -> Result<Response<v1::Done>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn report(&self, _request: Request<v1::ReportRequest>) -> Result<Response<v1::ReportReply>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn enlist(&self, _request: Request<v1::EnlistRequest>) -> Result<Response<v1::Done>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn discharge(&self, _request: Request<v1::DischargeRequest>) -> Result<Response<v1::Done>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn renew(&self, _request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewReply>, Status> {
        Err(Status::unimplemented("not played"))
    }

    type TaskLogsStream = Lines;

    async fn task_logs(&self, _request: Request<v1::LogsRequest>) -> Result<Response<Lines>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn forward(&self, _request: Request<v1::ForwardRequest>) -> Result<Response<v1::ForwardReply>, Status> {
        Ok(Response::new(v1::ForwardReply::default()))
    }
}

/// Passes bytes on until frozen; then it keeps its connections open and says nothing, like a peer cut off.
pub struct Relay {
    pub address: SocketAddr,
    frozen: Arc<AtomicBool>,
    executor: Arc<smol::Executor<'static>>,
    stop: Option<smol::channel::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Relay {
    pub fn to(target: SocketAddr) -> Relay {
        let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).expect("free");
        let address = listener.get_ref().local_addr().expect("bound");
        let frozen = Arc::new(AtomicBool::new(false));
        let executor = Arc::new(smol::Executor::new());
        let (inner, ice) = (Arc::clone(&executor), Arc::clone(&frozen));
        executor
            .spawn(async move {
                while let Ok((near, _)) = listener.accept().await {
                    let far = Async::<TcpStream>::connect(target).await.expect("listening");
                    let (near, far) = (Arc::new(near), Arc::new(far));
                    inner.spawn(pass(Arc::clone(&near), Arc::clone(&far), Arc::clone(&ice))).detach();
                    inner.spawn(pass(far, near, Arc::clone(&ice))).detach();
                }
            })
            .detach();
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        let runner = Arc::clone(&executor);
        let thread = std::thread::spawn(move || {
            let _ = smol::block_on(runner.run(stopped.recv()));
        });
        Relay { address, frozen, executor, stop: Some(stop), thread: Some(thread) }
    }

    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::Release);
        debug_assert!(!self.executor.is_empty(), "its connections stay open");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn pass(from: Arc<Async<TcpStream>>, to: Arc<Async<TcpStream>>, frozen: Arc<AtomicBool>) {
    let mut buffer = [0; 4096];
    while let Ok(count) = (&*from).read(&mut buffer).await {
        if frozen.load(Ordering::Acquire) {
            std::future::pending::<()>().await;
        }
        if count == 0 || (&*to).write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
}
