//! Fits smol's sockets, timers and executor under hyper.
//!
//! hyper hands a read a buffer that may be uninitialised; futures' `AsyncRead` wants an initialised one. Zeroing
//! hyper's buffer on each poll (what ready-made adapters do) costs a memset of kilobytes per frame; a buffer per
//! connection costs memory for the connection's whole life. A read is over when its poll returns, so one scratch
//! buffer per thread serves all connections: read into it, copy what came.

use std::{
    cell::Cell,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures_lite::{AsyncRead, AsyncWrite};

use crate::explain::explain;

/// One HTTP/2 frame of the default size (RFC 9113, 4.2) fits.
const SCRATCH_BYTES: usize = 16 * 1024;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The executor that connections and requests run on.
#[derive(Clone)]
pub struct Spawner(pub Arc<smol::Executor<'static>>);

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future).detach();
    }
}

/// A futures-style stream as hyper wants it.
pub(crate) struct HyperIo<S>(pub S);

impl<S: AsyncRead + Unpin> hyper::rt::Read for HyperIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: hyper::rt::ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        // Taken out rather than borrowed: a nested read would get a new buffer instead of a panic.
        let mut scratch = SCRATCH.take();
        scratch.resize(SCRATCH_BYTES, 0);
        let wanted = buf.remaining().min(SCRATCH_BYTES);
        let read = Pin::new(&mut self.0).poll_read(cx, &mut scratch[..wanted]);
        if let Poll::Ready(Ok(count)) = &read {
            buf.put_slice(&scratch[..*count]);
        }
        SCRATCH.set(scratch);
        ready!(read).map_err(worded)?;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> hyper::rt::Write for HyperIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

/// h2 keeps of an error only its text, so TLS's errors become words here.
fn worded(error: io::Error) -> io::Error {
    match error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
        true => io::Error::new(error.kind(), explain(&error)),
        false => error,
    }
}

/// hyper's clock.
#[derive(Clone, Copy)]
pub(crate) struct SmolTimer;

struct SmolSleep(async_io::Timer);

impl Future for SmolSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

impl hyper::rt::Sleep for SmolSleep {}

impl hyper::rt::Timer for SmolTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(SmolSleep(async_io::Timer::after(duration)))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(SmolSleep(async_io::Timer::at(deadline)))
    }
}

/// `future`, unless it takes longer than `limit`: then `None`.
pub(crate) async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    futures_lite::future::or(async { Some(future.await) }, async {
        async_io::Timer::after(limit).await;
        None
    })
    .await
}
