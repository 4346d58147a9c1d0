//! Sends a snapshot in chunks, so that neither side holds a second copy of it on the wire.

use crate::model::{ids::MemberId, limits::SNAPSHOT_BYTES_MAX};
use futures_lite::{FutureExt, stream};
use proto::{Channel, v1::SnapshotChunk, v1::peer_client::PeerClient};
use std::{sync::Arc, time::Duration};
use tonic::Status;

const CHUNK_BYTES: usize = 32 * 1024;
/// A peer that has not taken all of it by then gets it again from the beginning.
const TIMEOUT: Duration = Duration::from_secs(60);

/// # Errors
/// The peer's refusal, or that it could not be reached, or did not take it in time.
pub(super) async fn send(mut peer: PeerClient<Channel>, to: MemberId, message: Vec<u8>, data: Arc<Vec<u8>>) -> Result<(), Status> {
    assert!(data.len() <= SNAPSHOT_BYTES_MAX, "the replica keeps its state smaller than a snapshot may be");
    let sent = async { peer.snapshot(chunks(to, message, data)).await.map(|_| ()) };
    let late = async {
        async_io::Timer::after(TIMEOUT).await;
        Err(Status::deadline_exceeded(format!("not taken within {} s", TIMEOUT.as_secs())))
    };
    sent.or(late).await
}

/// The head (message and length) first, then the data; each chunk is copied only when the wire asks for it.
fn chunks(to: MemberId, message: Vec<u8>, data: Arc<Vec<u8>>) -> impl futures_lite::Stream<Item = SnapshotChunk> + Send + 'static {
    let head = SnapshotChunk { message, total: data.len() as u64, to_member: to.0, data: Vec::new() };
    let starts = (0..data.len()).step_by(CHUNK_BYTES);
    let body = starts.map(move |start| {
        let end = data.len().min(start + CHUNK_BYTES);
        SnapshotChunk { message: Vec::new(), total: 0, to_member: 0, data: data[start..end].to_vec() }
    });
    stream::iter(std::iter::once(head).chain(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::{StreamExt, future::block_on};

    #[test]
    fn chunks_put_together_are_the_snapshot() {
        for size in [0, 1, CHUNK_BYTES, CHUNK_BYTES * 3 + 7] {
            let data = Arc::new((0..size).map(|i| i as u8).collect::<Vec<u8>>());
            let all: Vec<SnapshotChunk> = block_on(chunks(MemberId(3), vec![9], data.clone()).collect());
            assert_eq!((all[0].total, all[0].to_member, &all[0].message), (size as u64, 3, &vec![9]));
            assert!(all.iter().all(|chunk| chunk.data.len() <= CHUNK_BYTES));
            assert_eq!(all.iter().flat_map(|chunk| chunk.data.clone()).collect::<Vec<u8>>(), *data);
        }
    }
}
