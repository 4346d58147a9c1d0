//! Bytes by plain HTTP: a reply that is a file, for callers that speak no gRPC.
//!
//! `curl` fetches a node's program before there is a program that could fetch it. The reply's length is told first, so that
//! a cut connection is no shorter file; the sender makes one chunk when the one before is on its way, so that a large file is never in memory.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_lite::Stream;
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};

/// A reply of `length` bytes, which `chunks` brings.
pub fn download(length: u64, chunks: impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin + 'static) -> http::Response<Body> {
    let reply = http::Response::builder().header(http::header::CONTENT_TYPE, "application/octet-stream");
    let reply = reply.header(http::header::CONTENT_LENGTH, length).body(Body::new(Download { left: length, chunks }));
    reply.expect("these are headers")
}

/// A refusal in plain words.
pub fn refusal(status: http::StatusCode, why: &str) -> http::Response<Body> {
    let text = Bytes::from(format!("{why}\n"));
    let mut reply = download(text.len() as u64, futures_lite::stream::iter([Ok(text)]));
    *reply.status_mut() = status;
    reply
}

struct Download<S> {
    left: u64,
    chunks: S,
}

impl<S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin> http_body::Body for Download<S> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let broken = |why: String| Poll::Ready(Some(Err(Status::unavailable(why))));
        match Pin::new(&mut self.chunks).poll_next(cx) {
            Poll::Pending => Poll::Pending,
            // An error resets the stream: the caller sees that the file is not whole.
            Poll::Ready(None) => broken("the file is shorter than it was".into()),
            Poll::Ready(Some(Err(error))) => broken(error.to_string()),
            Poll::Ready(Some(Ok(mut chunk))) => {
                chunk.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= chunk.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
