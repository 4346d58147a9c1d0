//! A link that can be slow: bytes go through this process, which holds them back.
//!
//! The kernels this runs on have no netem. A relay delays both ways of the connections that others make to a node; those
//! that the node makes itself go straight. So one direction of Raft is slow and the other is not, which is the worse case.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_io::{Async, Timer};
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use smol::net::{TcpListener, TcpStream};

const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks under way in one direction of one connection; then the sender is not read any further.
const CHUNKS_MAX: usize = 64;

/// Listens for as long as the test runs.
pub struct Relay {
    delay_ms: Arc<AtomicU64>,
}

impl Relay {
    /// Whoever connects to `from` reaches `to`.
    pub fn start(from: &str, to: &str) -> Relay {
        let delay_ms = Arc::new(AtomicU64::new(0));
        let listener = std::net::TcpListener::bind(from).expect("the address is ours");
        let listener = TcpListener::from(Async::new(listener).expect("it is a socket"));
        let (to, delay) = (to.parse().expect("an address"), delay_ms.clone());
        std::thread::spawn(move || {
            let executor = smol::LocalExecutor::new();
            future::block_on(executor.run(async {
                // Only a lack of descriptors ends it, and then the test with it.
                while let Ok((near, _)) = listener.accept().await {
                    executor.spawn(pass(near, to, delay.clone())).detach();
                }
            }));
        });
        Relay { delay_ms }
    }

    /// Bytes that come from now on arrive so much later.
    pub fn delay(&self, ms: u64) {
        self.delay_ms.store(ms, Ordering::Relaxed);
    }
}

async fn pass(near: TcpStream, to: SocketAddr, delay: Arc<AtomicU64>) {
    // Nobody there: the caller's connection closes, as it would without us.
    let Ok(far) = TcpStream::connect(to).await else { return };
    let (_, _) = (near.set_nodelay(true), far.set_nodelay(true));
    // When one side goes, so does the other.
    future::or(way(near.clone(), far.clone(), &delay), way(far, near, &delay)).await;
}

async fn way(mut from: TcpStream, mut to: TcpStream, delay: &AtomicU64) {
    let (send, receive) = async_channel::bounded::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let reading = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + Duration::from_millis(delay.load(Ordering::Relaxed));
            if send.send((due, buffer[..read].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let writing = async move {
        while let Ok((due, bytes)) = receive.recv().await {
            Timer::at(due).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    // What was read before the end is still delivered.
    future::zip(reading, writing).await;
}
