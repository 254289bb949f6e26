//! A UDX stream as tokio reads and writes bytes: [`UdxStream`].
//!
//! What must stay true: a stream that is not read tells its peer so, by its window, and one whose peer does not read takes no more than its buffer; what a task
//! waits for is looked at and its waker is left under one lock, so that no wake is lost; a dropped stream is destroyed, and forgotten once it is closed.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Machine, Shared, Udp};
use crate::udx::{CloseReason, Stats, StreamEvent};

/// Bytes of one stream, both ways. [`poll_shutdown`](AsyncWrite::poll_shutdown) ends our direction and waits until the peer has all of it, or the stream is
/// over.
pub struct UdxStream<M: Machine> {
    udp: Arc<Udp<M>>,
    id: u32,
    is_ended: bool,
}

/// Who waits for what of a stream.
#[derive(Default)]
pub(super) struct Waiting {
    read: Option<Waker>,
    write: Option<Waker>,
    shutdown: Option<Waker>,
    message: Option<Waker>,
    /// Nobody uses it any longer: it is forgotten when it is closed.
    pub(super) is_dropped: bool,
}

impl Waiting {
    /// Who is to be woken by an event.
    pub(super) fn wake(&mut self, event: &StreamEvent, woken: &mut Vec<Waker>) {
        match event {
            StreamEvent::Readable | StreamEvent::RemoteEnded => woken.extend(self.read.take()),
            StreamEvent::Writable => {
                woken.extend(self.write.take());
                woken.extend(self.shutdown.take());
            }
            StreamEvent::Message => woken.extend(self.message.take()),
            StreamEvent::PathConfirmed => {}
            StreamEvent::Closed(_) => woken.extend(self.take_all()),
        }
    }

    /// Everyone.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Waker> + use<> {
        [self.read.take(), self.write.take(), self.shutdown.take(), self.message.take()].into_iter().flatten()
    }
}

/// Why nothing more can be read.
fn over(reason: Option<CloseReason>) -> io::Error {
    io::Error::from(match reason {
        Some(CloseReason::TimedOut) => io::ErrorKind::TimedOut,
        Some(CloseReason::Reset) => io::ErrorKind::ConnectionReset,
        None => io::ErrorKind::ConnectionAborted,
    })
}

fn is_shut_down<M: Machine>(shared: &Shared<M>) -> bool {
    shared.events.is_none()
}

impl<M: Machine> UdxStream<M> {
    pub(super) fn new(udp: Arc<Udp<M>>, id: u32) -> UdxStream<M> {
        udp.shared.lock().waiting.insert(id, Waiting::default());
        UdxStream { udp, id, is_ended: false }
    }

    /// Its number here.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The sockets it goes over.
    pub fn udp(&self) -> &Arc<Udp<M>> {
        &self.udp
    }

    /// Numbers about it; None once the machine has forgotten it.
    pub fn stats(&self) -> Option<Stats> {
        self.udp.shared.lock().machine.mux().stream(self.id).map(|stream| stream.stats())
    }

    /// Send one datagram beside the stream; it may be lost, or overtake. False: too long, or too many wait.
    pub fn send_message(&self, message: &[u8]) -> bool {
        let is_taken =
            self.udp.shared.lock().machine.mux().stream(self.id).is_some_and(|stream| stream.send_message(message));
        if is_taken {
            self.udp.want_flush();
        }
        is_taken
    }

    /// The next datagram beside the stream; None when the stream is over. One task at a time may wait.
    pub async fn message(&self) -> Option<Bytes> {
        poll_fn(|cx| {
            let mut shared = self.udp.shared.lock();
            let Some(stream) = shared.machine.mux().stream(self.id) else { return Poll::Ready(None) };
            match stream.read_message() {
                Some(message) => Poll::Ready(Some(message)),
                None if stream.is_closed() || is_shut_down(&shared) => Poll::Ready(None),
                None => self.wait(&mut shared, |waiting| &mut waiting.message, cx),
            }
        })
        .await
    }

    /// Leave a waker; the lock is held since the look that found nothing.
    fn wait<R>(&self, shared: &mut Shared<M>, of: fn(&mut Waiting) -> &mut Option<Waker>, cx: &Context<'_>) -> Poll<R> {
        let slot = of(shared.waiting.entry(self.id).or_default());
        match slot {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *slot = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl<M: Machine> AsyncRead for UdxStream<M> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut shared = self.udp.shared.lock();
        let Some(stream) = shared.machine.mux().stream(self.id) else { return Poll::Ready(Err(over(None))) };
        let before = into.filled().len();
        while into.remaining() > 0
            && let Some(bytes) = stream.read(into.remaining())
        {
            into.put_slice(&bytes);
        }
        if into.filled().len() > before {
            drop(shared);
            // The window has opened: the peer may have to be told.
            self.udp.want_flush();
            return Poll::Ready(Ok(()));
        }
        if stream.is_read_to_end() {
            return Poll::Ready(Ok(()));
        }
        let (is_closed, reason) = (stream.is_closed(), stream.close_reason());
        if is_closed || is_shut_down(&shared) {
            return Poll::Ready(Err(over(reason)));
        }
        self.wait(&mut shared, |waiting| &mut waiting.read, cx)
    }
}

impl<M: Machine> AsyncWrite for UdxStream<M> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut shared = self.udp.shared.lock();
        let is_shut_down = is_shut_down(&shared);
        let is_over = self.is_ended || is_shut_down;
        let stream = shared.machine.mux().stream(self.id).filter(|stream| !stream.is_closed() && !is_over);
        let Some(stream) = stream else { return Poll::Ready(Err(io::Error::from(io::ErrorKind::BrokenPipe))) };
        match stream.write(bytes) {
            0 => self.wait(&mut shared, |waiting| &mut waiting.write, cx),
            taken => {
                drop(shared);
                self.udp.want_flush();
                Poll::Ready(Ok(taken))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was written is sent without being asked.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_ended = true;
        let mut shared = self.udp.shared.lock();
        let is_shut_down = is_shut_down(&shared);
        let stream = shared.machine.mux().stream(self.id).filter(|_| !is_shut_down);
        let Some(stream) = stream else { return Poll::Ready(Ok(())) };
        stream.end();
        if stream.is_closed() || stream.is_end_acked() {
            return Poll::Ready(Ok(()));
        }
        let pending = self.wait(&mut shared, |waiting| &mut waiting.shutdown, cx);
        drop(shared);
        self.udp.want_flush();
        pending
    }
}

impl<M: Machine> Drop for UdxStream<M> {
    fn drop(&mut self) {
        let mut shared = self.udp.shared.lock();
        let Some(stream) = shared.machine.mux().stream(self.id) else {
            shared.waiting.remove(&self.id);
            return;
        };
        if stream.is_closed() {
            shared.machine.mux().remove(self.id);
            shared.waiting.remove(&self.id);
            drop(shared);
            // Its last ack may be owed.
            return self.udp.want_flush();
        }
        stream.destroy();
        *shared.waiting.entry(self.id).or_default() = Waiting { is_dropped: true, ..Waiting::default() };
        // Its close may be told at once.
        let woken = shared.collect();
        drop(shared);
        super::wake(woken);
        self.udp.want_flush();
    }
}
