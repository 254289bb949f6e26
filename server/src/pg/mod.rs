//! PostgreSQL's wire protocol: one task a connection, which takes a thread while its client is busy, messages by `pgwire`, statements by a [`pgbee_sql::session::Session`].
//!
//! ```text
//! accept       takes sockets, counts them, gives each a task
//! startup      SSL and GSS requests, cancel requests, authentication, the first parameters
//! connection   bytes in, messages out of them, answers into one buffer, written when the client waits for it
//! query        what each message does to the session
//! encode       rows and errors as bytes
//! gone         notices clients that go while a statement runs
//! spin         a busy client's next message, without sleep while a processor is free
//! ```
//!
//! Must stay true: output is written only when the client waits for it (Sync, Flush, end of a simple query, COPY) or the buffer is
//! full, so that a pipelined statement costs one write; bytes of a client are bounded before anything is allocated for them; whatever a client
//! sends costs at most its own connection.

mod connection;
mod encode;
mod gone;
mod query;
mod spin;
mod startup;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pgbee_sql::session::{Activity, End, Instance};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Sockets that may wait for their startup packet or authenticate at a time; further ones wait to be accepted.
pub const STRANGERS_MAX: usize = 128;

/// All connections: how many there may be, how to cancel one, how to end all.
pub struct Clients {
    max: usize,
    max_message_bytes: usize,
    count: AtomicUsize,
    next_pid: AtomicI32,
    sessions: Mutex<HashMap<i32, Known>>,
    stopping: watch::Sender<Stopping>,
    /// One for each socket without a session: they hold a file descriptor, which the store needs too.
    strangers: Arc<Semaphore>,
    busy: Arc<spin::Busy>,
}

/// A session, to those who do not serve it.
struct Known {
    /// What a cancel request must know.
    secret: u32,
    activity: Arc<Activity>,
    watched: Arc<gone::Watched>,
}

/// How far a stop has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stopping {
    /// None was asked for.
    Not,
    /// Idle clients leave, statements go on.
    Draining,
    /// Everyone leaves.
    Now,
}

impl Clients {
    /// None yet.
    pub fn new(max: usize, max_message_bytes: usize) -> Clients {
        Clients {
            max,
            max_message_bytes,
            count: AtomicUsize::new(0),
            next_pid: AtomicI32::new(1),
            sessions: Mutex::new(HashMap::new()),
            stopping: watch::Sender::new(Stopping::Not),
            strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
            busy: Arc::new(spin::Busy::new()),
        }
    }
    /// A place for one more, or None when all are taken.
    fn enter(self: &Arc<Self>) -> Option<Place> {
        let taken = self.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < self.max).then_some(n + 1));
        taken.is_ok().then(|| Place { clients: self.clone(), pid: self.next_pid.fetch_add(1, Ordering::Relaxed) })
    }
    /// Cancels the statement a connection runs, if the secret is right. Says nothing either way, as PostgreSQL.
    fn cancel(&self, pid: i32, secret: u32) {
        let found = self.sessions.lock().get(&pid).filter(|known| known.secret == secret).map(|k| k.activity.clone());
        if let Some(activity) = found {
            activity.cancel();
        }
    }
    /// All sessions, with the sockets of those that are busy.
    fn watched(&self) -> Vec<(Arc<Activity>, Arc<gone::Watched>)> {
        self.sessions.lock().values().map(|k| (k.activity.clone(), k.watched.clone())).collect()
    }
    /// Tells idle connections to end, gives running statements `drain`, then cancels them and waits a little for their tasks.
    pub async fn stop(&self, drain: Duration) {
        self.stopping.send_replace(Stopping::Draining);
        if !self.empty_within(drain).await {
            self.stopping.send_replace(Stopping::Now);
            for (activity, _) in self.watched() {
                activity.terminate(End::Administrator);
            }
            if !self.empty_within(Duration::from_secs(5)).await {
                tracing::warn!("{} connections did not end in time", self.count.load(Ordering::Acquire));
            }
        }
    }
    async fn empty_within(&self, limit: Duration) -> bool {
        let empty = async {
            while self.count.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(limit, empty).await.is_ok()
    }
}

/// A counted connection; dropping it makes room.
struct Place {
    clients: Arc<Clients>,
    pid: i32,
}

impl Place {
    /// From now on a cancel request with this secret reaches the session.
    fn register(&self, secret: u32, activity: Arc<Activity>, watched: Arc<gone::Watched>) {
        self.clients.sessions.lock().insert(self.pid, Known { secret, activity, watched });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.sessions.lock().remove(&self.pid);
        self.clients.count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Takes connections for ever.
pub async fn accept(listener: TcpListener, instance: Arc<Instance>, clients: Arc<Clients>) {
    tokio::spawn(gone::watch(clients.clone()));
    loop {
        let Ok(stranger) = clients.strangers.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => {
                tokio::spawn(serve(socket, stranger, instance.clone(), clients.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: waiting beats spinning.
                tracing::warn!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(socket: TcpStream, stranger: OwnedSemaphorePermit, instance: Arc<Instance>, clients: Arc<Clients>) {
    let peer = socket.peer_addr().map_or_else(|_| "unknown".to_owned(), |a| a.to_string());
    // A client whose machine vanished is noticed by the operating system's probes; until then it holds its locks.
    if let Err(error) = socket.set_nodelay(true).and_then(|()| SockRef::from(&socket).set_keepalive(true)) {
        tracing::debug!("{peer}: {error}");
        return;
    }
    let connection = connection::Connection::new(socket, clients.max_message_bytes, clients.stopping.subscribe());
    match startup::start(connection, instance, clients).await {
        Ok(Some(client)) => {
            drop(stranger);
            tracing::debug!("{peer}: connected");
            if let Err(error) = client.run().await {
                tracing::debug!("{peer}: {error}");
            }
            tracing::debug!("{peer}: gone");
        }
        Ok(None) => {}
        Err(error) => tracing::debug!("{peer}: {error}"),
    }
}
