//! Looks after clients whose sessions cannot: a statement that waits for a lock, sleeps or computes reads nothing, so nobody would notice that its client has gone.
//!
//! A connection puts its socket here while a thread blocks on behalf of its client, and takes it out again before the task waits for it. One task looks at those whose statement has
//! been running for client_connection_check_interval, and ends the sessions whose client has closed its end or lost it. As in PostgreSQL, bytes that are still to be read do not hide that.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pgbee_sql::session::{Activity, End};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Clients;

/// How often is looked.
const TICK: Duration = Duration::from_millis(250);

/// The socket of a busy client, for others to look at.
#[derive(Default)]
pub struct Watched(Mutex<Option<Arc<std::net::TcpStream>>>);

impl Watched {
    /// From now on it is looked at.
    pub fn put(&self, socket: &Arc<std::net::TcpStream>) {
        *self.0.lock() = Some(socket.clone());
    }
    /// It is not any more, and nobody else has it.
    pub fn take(&self) {
        *self.0.lock() = None;
    }
    /// Whether the client has closed its end. Does not block.
    fn is_gone(&self) -> bool {
        let socket = self.0.lock();
        let Some(socket) = &*socket else { return false };
        #[cfg(target_os = "linux")]
        let closed = PollFlags::RDHUP;
        #[cfg(not(target_os = "linux"))]
        let closed = PollFlags::HUP;
        let mut asked = [PollFd::new(&**socket, closed)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut asked, Some(&now)).is_ok_and(|found| found > 0)
            && asked[0].revents().intersects(closed | PollFlags::HUP | PollFlags::ERR)
    }
}

/// Looks for ever.
pub async fn watch(clients: Arc<Clients>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for (activity, watched) in clients.watched() {
            if is_due(&activity) && watched.is_gone() {
                activity.terminate(End::ClientGone);
            }
        }
    }
}

fn is_due(activity: &Activity) -> bool {
    matches!(activity.running(), Some((since, Some(interval))) if since >= interval)
}
