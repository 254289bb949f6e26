//! Waiting for a core to grow, without a runtime: a condition variable for threads, a plain `std` future
//! for tasks. Replication and `bee_wait_for` wait here.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::wakers::{Wakers, wake};
use crate::position::{Fork, Length};

/// Where a core stands: what is waited for. A truncation shows as a new fork.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// How often history was rewritten.
    pub fork: Fork,
    /// How many blocks there are.
    pub length: Length,
}

/// The meeting point of who appends and who waits. Shared behind an `Arc`, so that a future may outlive
/// the core it waits for.
#[derive(Debug, Default)]
pub struct Watch {
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct State {
    position: Position,
    wakers: Wakers,
}

impl Watch {
    /// At a position.
    pub fn new(position: Position) -> Arc<Watch> {
        let state = State { position, ..State::default() };
        Arc::new(Watch { state: Mutex::new(state), grown: Condvar::new() })
    }

    /// Where it stands.
    pub fn position(&self) -> Position {
        self.state.lock().position
    }

    /// The core has moved: wake all who wait.
    pub fn publish(&self, position: Position) {
        let wakers = {
            let mut state = self.state.lock();
            if state.position == position {
                return;
            }
            state.position = position;
            state.wakers.take()
        };
        self.grown.notify_all();
        wake(wakers);
    }

    /// Block this thread until the core stands elsewhere than `seen`, or the time is over. Where it
    /// stands then, which is `seen` if it did not move.
    pub fn wait(&self, seen: Position, timeout: Duration) -> Position {
        let mut state = self.state.lock();
        self.grown.wait_while_for(&mut state, |state| state.position == seen, timeout);
        state.position
    }

    /// Block this thread until the core has so many blocks, or the time is over. Whether it has.
    pub fn wait_for(&self, length: Length, timeout: Duration) -> bool {
        let mut state = self.state.lock();
        self.grown.wait_while_for(&mut state, |state| state.position.length < length, timeout);
        state.position.length >= length
    }

    /// A future that is ready once the core stands elsewhere than `seen`.
    pub fn changed(self: &Arc<Self>, seen: Position) -> Changed {
        Changed { watch: self.clone(), seen, waiter: None }
    }
}

/// Ready once a core stands elsewhere; see [`Watch::changed`]. Dropped before that, it leaves nothing behind.
#[derive(Debug)]
pub struct Changed {
    watch: Arc<Watch>,
    seen: Position,
    /// Its number among those who wait, once it has waited.
    waiter: Option<u64>,
}

impl Future for Changed {
    type Output = Position;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Position> {
        let this = self.get_mut();
        let mut state = this.watch.state.lock();
        if state.position != this.seen {
            return Poll::Ready(state.position);
        }
        let before = state.wakers.keep(&mut this.waiter, context.waker());
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        let waker = self.waiter.and_then(|waiter| self.watch.state.lock().wakers.forget(waiter));
        drop(waker); // not under the lock, as above
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    fn at(length: u64) -> Position {
        Position { fork: Fork(0), length: Length(length) }
    }

    #[test]
    fn threads_are_woken() {
        let watch = Watch::new(at(1));
        assert!(!watch.wait_for(Length(2), Duration::from_millis(1)));
        assert_eq!(watch.wait(at(1), Duration::from_millis(1)), at(1));
        let waiting = watch.clone();
        let thread = std::thread::spawn(move || waiting.wait_for(Length(3), Duration::from_secs(60)));
        watch.publish(at(2));
        watch.publish(at(3));
        assert!(thread.join().unwrap());
        assert_eq!(watch.wait(at(1), Duration::from_secs(60)), at(3));
    }

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_waits_no_more_is_forgotten() {
        let watch = Watch::new(at(0));
        let (left, stays) = (Arc::new(Count(AtomicUsize::new(0))), Arc::new(Count(AtomicUsize::new(0))));
        let mut waiting = watch.changed(at(0));
        let waker = Waker::from(stays.clone());
        assert!(Pin::new(&mut waiting).poll(&mut Context::from_waker(&waker)).is_pending());
        for _ in 0..100 {
            let waker = Waker::from(left.clone());
            let mut changed = watch.changed(at(0));
            assert!(Pin::new(&mut changed).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!((watch.state.lock().wakers.len(), Arc::strong_count(&left)), (1, 1));
        watch.publish(at(1));
        assert_eq!((left.0.load(Ordering::Relaxed), stays.0.load(Ordering::Relaxed)), (0, 1));
    }

    #[test]
    fn tasks_are_woken_once() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        let watch = Watch::new(at(0));
        let mut changed = watch.changed(at(0));
        assert!(Pin::new(&mut changed).poll(&mut context).is_pending());
        assert!(Pin::new(&mut changed).poll(&mut context).is_pending());
        watch.publish(at(0));
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        watch.publish(at(5));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(Pin::new(&mut changed).poll(&mut context), Poll::Ready(at(5)));
    }
}
