//! Finds the service that a request names.
//!
//! A gRPC path is `/package.Service/Method`. The typed methods also set each service's message bounds, so that no
//! caller of this crate can forget them.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{Status, body::Body, server::NamedService};
use tower_service::Service;

use crate::{
    server::ServerLimits,
    v1::{disco_server, join_server, peer_server},
};

/// A request to join: a CSR of some 300 bytes, names, and up to 16 labels.
const JOIN_BYTES_MAX: usize = 16 * 1024;

type Reply = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;
type Handler = Arc<dyn Fn(http::Request<Body>) -> Reply + Send + Sync>;

/// Several gRPC services behind one port. A path that names none of them is answered UNIMPLEMENTED.
#[derive(Clone)]
pub struct Routes {
    message_bytes_max: usize,
    handlers: Arc<Vec<(&'static str, Handler)>>,
}

impl Routes {
    /// No service yet; messages are bounded as `limits` says.
    pub fn new(limits: &ServerLimits) -> Routes {
        Routes { message_bytes_max: limits.message_bytes_max, handlers: Arc::new(Vec::new()) }
    }

    /// Adds the service for people.
    #[must_use]
    pub fn disco<T: disco_server::Disco>(self, service: Arc<T>) -> Routes {
        let bytes = self.message_bytes_max;
        let server = disco_server::DiscoServer::from_arc(service);
        self.add(server.max_decoding_message_size(bytes).max_encoding_message_size(bytes))
    }

    /// Adds the service for those who want in. Anybody may ask it, so a question must be small.
    #[must_use]
    pub fn join<T: join_server::Join>(self, service: Arc<T>) -> Routes {
        let bytes = self.message_bytes_max;
        let server = join_server::JoinServer::from_arc(service);
        self.add(server.max_decoding_message_size(JOIN_BYTES_MAX.min(bytes)).max_encoding_message_size(bytes))
    }

    /// Adds the service between nodes.
    #[must_use]
    pub fn peer<T: peer_server::Peer>(self, service: Arc<T>) -> Routes {
        let bytes = self.message_bytes_max;
        let server = peer_server::PeerServer::from_arc(service);
        self.add(server.max_decoding_message_size(bytes).max_encoding_message_size(bytes))
    }

    /// Adds something that is no gRPC: whatever is asked for under `/name/`. It sets its own bounds.
    #[must_use]
    pub fn plain<F>(mut self, name: &'static str, answer: impl Fn(http::Request<Body>) -> F + Send + Sync + 'static) -> Routes
    where
        F: Future<Output = http::Response<Body>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |request| {
            let answer = answer(request);
            Box::pin(async move { Ok(answer.await) })
        });
        Arc::make_mut(&mut self.handlers).push((name, handler));
        self
    }

    fn add<S>(mut self, service: S) -> Routes
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        let handler: Handler = Arc::new(move |request| Box::pin(service.clone().call(request)));
        Arc::make_mut(&mut self.handlers).push((S::NAME, handler));
        self
    }
}

impl Service<http::Request<Body>> for Routes {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Reply;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Reply {
        let service = request.uri().path().split('/').nth(1).unwrap_or_default();
        match self.handlers.iter().find(|(name, _)| *name == service) {
            Some((_, handler)) => handler(request),
            None => {
                let shown: String = service.chars().take(64).collect();
                let status = Status::unimplemented(format!("this port has no service `{shown}`"));
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}
