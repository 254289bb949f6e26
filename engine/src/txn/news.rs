//! Who is called back when there is a new version. Who wants to wait for one asks the core's watch.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::position::Version;

type Callback = Arc<dyn Fn(Version) + Send + Sync>;

/// Who is told.
#[derive(Default)]
pub(crate) struct News {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    callbacks: Vec<(u64, Callback)>,
}

/// Callbacks end when this is dropped. One that is running at that moment may still finish.
pub struct Subscription {
    id: u64,
    news: Weak<News>,
}

impl News {
    /// Tells everyone of a version. Called without locks held; callbacks run in the caller's thread.
    pub fn tell(&self, version: Version) {
        let callbacks: Vec<Callback> =
            self.state.lock().callbacks.iter().map(|(_, callback)| callback.clone()).collect();
        for callback in callbacks {
            callback(version);
        }
    }

    /// Calls back with every version told from now on.
    pub fn subscribe(self: &Arc<News>, callback: impl Fn(Version) + Send + Sync + 'static) -> Subscription {
        let mut state = self.state.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.callbacks.push((id, Arc::new(callback)));
        Subscription { id, news: Arc::downgrade(self) }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(news) = self.news.upgrade() {
            let mut state = news.state.lock();
            let gone = state.callbacks.iter().position(|(id, _)| *id == self.id);
            let gone = gone.map(|place| state.callbacks.swap_remove(place));
            drop(state);
            drop(gone); // a callback may own something that subscribes or waits in its turn
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn callbacks_end_with_their_subscription() {
        let news = Arc::new(News::default());
        let heard = Arc::new(AtomicU64::new(0));
        let ear = heard.clone();
        let subscription = news.subscribe(move |v| ear.store(v.0, Ordering::Relaxed));
        news.tell(Version(3));
        assert_eq!(heard.load(Ordering::Relaxed), 3);
        drop(subscription);
        news.tell(Version(5));
        assert_eq!(heard.load(Ordering::Relaxed), 3);
    }
}
