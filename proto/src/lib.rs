//! The wire: gRPC over HTTP/2 over mutual TLS 1.3, on smol.
//!
//! tonic generates the clients and servers; hyper speaks HTTP/2, rustls (ring) TLS. tonic's own transport would bring
//! tokio's runtime and its memory, so how bytes travel is ours: `io` fits smol under hyper, `server` accepts and
//! bounds, `channel` connects and connects again, `routes` finds the service a request names, `tls` fixes the settings.
//! This crate knows nothing of who may talk: the verifiers come from outside, the caller's certificate goes up.

#![forbid(unsafe_code)]

mod channel;
mod connection;
pub mod download;
mod explain;
mod io;
mod routes;
mod seats;
pub mod server;
mod socket_path;
mod tls;

pub use channel::{Channel, ChannelLimits};
pub use explain::{REFUSES_OURS, REFUSES_THEIRS};
pub use io::Spawner;
pub use routes::Routes;
pub use seats::Standing;
pub use server::{Caller, Listener, Room, RoomFor, ServerLimits, serve};
pub use tls::{SERVER_NAME, client_config, client_config_with, server_config};

/// Generated from `proto/disco.proto`: messages, clients and servers.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("disco.v1");
}

/// Paths of the methods that stream in either direction.
const STREAMING: &[&str] = include!(concat!(env!("OUT_DIR"), "/streaming.rs"));

/// Whether nodes call the method at this path, and nobody else.
fn is_between_nodes(path: &str) -> bool {
    path.starts_with("/disco.v1.Peer/")
}

/// Whether a caller that shows no certificate may ask at this path: it wants in, or asks for something that is not ours. Of
/// all else a service would learn only once the whole message is here, and in memory.
fn is_for_strangers(path: &str) -> bool {
    !path.starts_with("/disco.v1.") || path.starts_with("/disco.v1.Join/")
}

/// Whether the method at this path streams: then no deadline holds for the call as a whole.
fn is_streaming(path: &str) -> bool {
    STREAMING.contains(&path)
}

/// Whether the method at this path runs a person's script on the leader, or may pass on a request for that.
fn runs_a_script(path: &str) -> bool {
    ["/disco.v1.Disco/Plan", "/disco.v1.Disco/Eval", "/disco.v1.Peer/Forward"].contains(&path)
}
