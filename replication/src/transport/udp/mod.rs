//! UDP sockets of the operating system, and a machine that is driven by them: [`Udp`].
//!
//! ```text
//! receive task   one a socket: a batch of datagrams -> Machine::handle_datagram, then whatever is to be sent
//! driver task    one: Machine::handle_timeout when it is due; sends what others left; waits for sockets that are full
//! network task   one: looks every few seconds whether this computer's addresses have changed
//! UdxStream      reads and writes under the lock, then wakes the driver task
//!
//!   sockets -> receive tasks -+                              +-> wakers of streams
//!                             +-> lock { machine } -> events +-> sockets to open and close
//!   streams, owner, timeouts -+            |                 +-> the owner's channel
//!                                          +-> outbox -> sockets
//! ```
//!
//! Two locks, always taken in this order: the outbox, held by whoever sends, through its system calls; the machine's, held through none and for no longer than
//! one message's datagrams take. Who finds the outbox taken leaves a flag, and its holder looks again: datagrams leave in the order in which the machine gave them.
//!
//! What must stay true: nothing is awaited under a lock; a socket that is full holds what is to be sent back for `BLOCKED_MAX` at most, then it is lost as the
//! network loses it; an owner that does not take its events stops the receiving, so that they do not pile up; memory for receiving is held by as many sockets as
//! are received from at one time, not by all that are open; on a loopback host nothing reaches further than loopback.

mod interfaces;
mod machine;
mod socket;
mod stream;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

pub use interfaces::local_addresses;
pub use machine::{BareMux, Machine};
pub use stream::UdxStream;

use crate::udp::{Now, SocketChange, SocketId, Transmit};
use crate::udx::StreamEvent;
use socket::{Buffers, Sent, Socket};
use stream::Waiting;

/// How long what is to be sent waits for a socket that is full.
const BLOCKED_MAX: Duration = Duration::from_millis(50);
/// How often this computer's addresses are looked at.
const NETWORK_POLL: Duration = Duration::from_secs(5);
/// Events that wait for the owner, until receiving stops.
const EVENTS_MAX: usize = 4096;
/// Sockets open at one time: the two, and what punching asks for.
const SOCKETS_MAX: usize = 320;
/// How much is taken out of the machine at a time.
const ROUND_BYTES: usize = 256 << 10;
/// So many rounds, then others may run.
const ROUNDS_MAX: usize = 8;
/// Buffers kept for the next one who receives.
const BUFFERS_KEPT: usize = 4;
/// How long a shutdown may take to send what is left, and to hear what is answered to it.
const SHUTDOWN_MAX: Duration = Duration::from_millis(2000);

/// Where the sockets are bound.
#[derive(Clone, Copy, Debug)]
pub struct UdpOptions {
    /// 127.0.0.1 to stay on this computer, 0.0.0.0 for the network.
    pub host: Ipv4Addr,
    /// The server socket's wished port; the next four are tried too, then any. 0 for any.
    pub port: u16,
    /// The wished port or none.
    pub is_port_exact: bool,
}

impl Default for UdpOptions {
    /// Any port of loopback.
    fn default() -> UdpOptions {
        UdpOptions { host: Ipv4Addr::LOCALHOST, port: 0, is_port_exact: false }
    }
}

/// A machine with its sockets.
pub struct Udp<M: Machine> {
    began: Instant,
    host: Ipv4Addr,
    server: SocketAddrV4,
    client: SocketAddrV4,
    runtime: Handle,
    own: Weak<Udp<M>>,
    shared: Mutex<Shared<M>>,
    outbox: Mutex<Outbox>,
    /// Somebody changed the machine since the outbox was last filled.
    is_flush_wanted: AtomicBool,
    driver: Arc<Notify>,
    buffers: Mutex<Vec<Buffers>>,
    network: watch::Sender<Vec<SocketAddrV4>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// What the machine's lock guards.
struct Shared<M: Machine> {
    machine: M,
    waiting: HashMap<u32, Waiting>,
    changes: Vec<SocketChange>,
    /// Events for which the channel had no room.
    held: VecDeque<M::Event>,
    /// None once it is shut down.
    events: Option<mpsc::Sender<M::Event>>,
    /// When the driver task will wake by itself.
    alarm: Now,
}

struct Open {
    socket: Arc<Socket>,
    receiver: AbortHandle,
}

#[derive(Default)]
struct Outbox {
    sockets: HashMap<SocketId, Open>,
    /// Transmits, and how many of their bytes have left.
    queue: VecDeque<(Transmit, usize)>,
    /// To be closed when the queue is empty.
    closing: Vec<SocketId>,
    /// The socket that is full, and since when.
    blocked: Option<(SocketId, Instant)>,
}

/// How a round of sending ended.
#[derive(PartialEq)]
enum Round {
    Finished,
    More,
    Blocked,
}

impl<M: Machine> Udp<M> {
    /// Bind the server's and the client's socket and drive the machine that is made for them. Call it inside a runtime.
    ///
    /// Who drops the last reference without [`shutdown`](Udp::shutdown) drops the sockets, too, and no peer is told.
    ///
    /// # Errors
    /// If a socket cannot be bound.
    pub fn start(
        machine_of: impl FnOnce(Now, SocketAddrV4, SocketAddrV4) -> M,
        options: UdpOptions,
    ) -> io::Result<(Arc<Udp<M>>, mpsc::Receiver<M::Event>)> {
        let server = Socket::bind_near(options.host, options.port, options.is_port_exact)?;
        let client = Socket::bind(options.host, 0)?;
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let addresses = (server.local(), client.local());
        let network = watch::Sender::new(local_addresses(options.host, addresses.0.port()));
        let udp = Arc::new_cyclic(|own| Udp {
            began: Instant::now(),
            host: options.host,
            server: addresses.0,
            client: addresses.1,
            runtime: Handle::current(),
            own: own.clone(),
            shared: Mutex::new(Shared {
                machine: machine_of(Now::ZERO, addresses.0, addresses.1),
                waiting: HashMap::new(),
                changes: Vec::new(),
                held: VecDeque::new(),
                events: Some(events),
                alarm: Now::ZERO,
            }),
            outbox: Mutex::default(),
            is_flush_wanted: AtomicBool::new(false),
            driver: Arc::new(Notify::new()),
            buffers: Mutex::default(),
            network,
            tasks: Mutex::default(),
        });
        {
            let mut outbox = udp.outbox.lock();
            udp.open(&mut outbox, SocketId::SERVER, server);
            udp.open(&mut outbox, SocketId::CLIENT, client);
        }
        let tasks = [tokio::spawn(drive(Arc::downgrade(&udp))), tokio::spawn(watch_network(Arc::downgrade(&udp)))];
        udp.tasks.lock().extend(tasks.iter().map(|task| task.abort_handle()));
        Ok((udp, receiver))
    }

    /// Time since this began: what the machine calls now.
    pub fn now(&self) -> Now {
        self.began.elapsed()
    }

    /// Where the server socket is bound.
    pub fn server_address(&self) -> SocketAddrV4 {
        self.server
    }

    /// Where the client socket is bound.
    pub fn client_address(&self) -> SocketAddrV4 {
        self.client
    }

    /// The addresses that the server socket has on the networks this computer is in; it changes as they do.
    pub fn watch_addresses(&self) -> watch::Receiver<Vec<SocketAddrV4>> {
        self.network.subscribe()
    }

    /// Do something with the machine; what it wants sent is sent soon after. Nothing in `f` may block.
    pub fn with<R>(&self, f: impl FnOnce(&mut M, Now) -> R) -> R {
        let (result, woken) = {
            let mut shared = self.shared.lock();
            let now = self.now();
            let result = f(&mut shared.machine, now);
            (result, shared.collect())
        };
        wake(woken);
        self.want_flush();
        result
    }

    /// A stream of the machine as bytes to read and write. One at a time may exist of each; dropping it destroys the stream.
    pub fn stream(self: &Arc<Self>, id: u32) -> UdxStream<M> {
        UdxStream::new(self.clone(), id)
    }

    /// Destroy all streams, tell their peers, let the machine say that it goes, and close the sockets. Streams and events end. Takes two seconds at most.
    pub async fn shutdown(&self) {
        {
            let mut shared = self.shared.lock();
            let now = self.now();
            let ids: Vec<u32> = shared.waiting.keys().copied().collect();
            for id in ids {
                if let Some(stream) = shared.machine.mux().stream(id) {
                    stream.destroy();
                }
            }
            shared.machine.shutdown(now);
        }
        let end = Instant::now() + SHUTDOWN_MAX;
        while !self.is_sent() && Instant::now() < end {
            self.driver.notify_one();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.close();
    }

    /// Sends what there is to send; whether nothing is left.
    fn is_sent(&self) -> bool {
        self.flush();
        let is_shut_down = self.shared.lock().machine.is_shut_down();
        is_shut_down
            && self.outbox.try_lock().is_some_and(|outbox| outbox.queue.is_empty())
            && !self.is_flush_wanted.load(Ordering::SeqCst)
    }

    fn close(&self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        let mut outbox = self.outbox.lock();
        for (_, open) in outbox.sockets.drain() {
            open.receiver.abort();
        }
        let wakers = {
            let mut shared = self.shared.lock();
            shared.events = None;
            shared.held.clear();
            shared.waiting.values_mut().flat_map(Waiting::take_all).collect()
        };
        wake(wakers);
    }

    /// Open a socket under a number, and receive on it.
    fn open(&self, outbox: &mut Outbox, id: SocketId, socket: Socket) {
        let socket = Arc::new(socket);
        let receiver = self.runtime.spawn(receive(self.own.clone(), id, socket.clone())).abort_handle();
        if let Some(replaced) = outbox.sockets.insert(id, Open { socket, receiver }) {
            replaced.receiver.abort();
        }
    }

    /// Open what the machine wants open, and note what it wants closed.
    fn change(&self, outbox: &mut Outbox, changes: Vec<SocketChange>) {
        for change in changes {
            match change {
                SocketChange::Close(id) => outbox.closing.push(id),
                SocketChange::Open(_) if outbox.sockets.len() >= SOCKETS_MAX => {
                    tracing::debug!("no more UDP sockets are opened: {SOCKETS_MAX} are open");
                }
                SocketChange::Open(id) => {
                    let _in_runtime = self.runtime.enter();
                    match Socket::bind(self.host, 0) {
                        Ok(socket) => self.open(outbox, id, socket),
                        Err(error) => tracing::warn!(%error, "no further UDP socket"),
                    }
                }
            }
        }
    }

    /// The driver task sends, soon.
    fn want_flush(&self) {
        self.is_flush_wanted.store(true, Ordering::SeqCst);
        self.driver.notify_one();
    }

    /// Send what the machine has to send, here and now; the driver task goes on where that takes too long.
    fn flush(&self) {
        self.is_flush_wanted.store(true, Ordering::SeqCst);
        for _ in 0..ROUNDS_MAX {
            if !self.is_flush_wanted.load(Ordering::SeqCst) {
                return;
            }
            // Whoever holds it looks at the flag once more when it is done.
            let Some(mut outbox) = self.outbox.try_lock() else { return };
            self.is_flush_wanted.store(false, Ordering::SeqCst);
            match self.round(&mut outbox) {
                Round::Finished => {}
                Round::More => self.is_flush_wanted.store(true, Ordering::SeqCst),
                // The driver task waits for the socket.
                Round::Blocked => return self.want_flush(),
            }
        }
        if self.is_flush_wanted.load(Ordering::SeqCst) {
            self.driver.notify_one();
        }
    }

    /// Fill the outbox if it is empty, and send it.
    fn round(&self, outbox: &mut Outbox) -> Round {
        if outbox.blocked.is_some() {
            return Round::Blocked;
        }
        let mut is_last = false;
        if outbox.queue.is_empty() {
            let (changes, woken, is_driver_late) = {
                let mut shared = self.shared.lock();
                is_last = shared.fill(&mut outbox.queue, self.now());
                let woken = shared.collect();
                (std::mem::take(&mut shared.changes), woken, is_last && shared.is_driver_late())
            };
            wake(woken);
            if is_driver_late {
                self.driver.notify_one();
            }
            self.change(outbox, changes);
        }
        outbox.send();
        match (outbox.blocked, is_last) {
            (Some(_), _) => Round::Blocked,
            (None, true) => Round::Finished,
            (None, false) => Round::More,
        }
    }

    /// One batch from a socket.
    fn receive(&self, id: SocketId, socket: &Socket) -> io::Result<()> {
        let mut buffers = self.buffers.lock().pop().unwrap_or_else(Buffers::new);
        let received = socket.receive(&mut buffers);
        if received.is_ok() {
            for (from, datagrams) in buffers.messages() {
                let woken = {
                    let mut shared = self.shared.lock();
                    let now = self.now();
                    datagrams.for_each(|datagram| shared.machine.handle_datagram(now, id, from, datagram));
                    shared.collect()
                };
                wake(woken);
            }
            self.flush();
        }
        let mut kept = self.buffers.lock();
        if kept.len() < BUFFERS_KEPT {
            kept.push(buffers);
        }
        received
    }

    /// Do what is due. When the driver task has to come back, or which socket it has to wait for.
    fn turn(&self) -> Wait {
        let woken = {
            let mut shared = self.shared.lock();
            let now = self.now();
            if shared.machine.poll_timeout().is_some_and(|due| due <= now) {
                shared.machine.handle_timeout(now);
            }
            shared.collect()
        };
        wake(woken);
        self.flush();
        let blocked = self.outbox.lock().blocked_socket();
        if let Some((socket, since)) = blocked {
            return Wait::Writable(socket, since + BLOCKED_MAX);
        }
        // Whoever found the outbox taken by this look at it left the flag to us.
        if self.is_flush_wanted.load(Ordering::SeqCst) {
            return Wait::Until(Some(Instant::now()));
        }
        let mut shared = self.shared.lock();
        shared.alarm = shared.machine.poll_timeout().unwrap_or(Now::MAX);
        Wait::Until(self.began.checked_add(shared.alarm))
    }

    /// A full socket has room again, or was waited for long enough.
    fn unblock(&self, is_writable: bool) {
        let mut outbox = self.outbox.lock();
        if let Some((id, _)) = outbox.blocked.take()
            && !is_writable
        {
            outbox.queue.retain(|(transmit, _)| transmit.socket != id);
        }
    }

    /// Room in the owner's channel, if events wait for it.
    fn waits_for_owner(&self) -> Option<mpsc::Sender<M::Event>> {
        let shared = self.shared.lock();
        if shared.held.is_empty() { None } else { shared.events.clone() }
    }
}

impl<M: Machine> Drop for Udp<M> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<M: Machine> Shared<M> {
    /// Take out what is to be sent, about [`ROUND_BYTES`]; whether that was all.
    fn fill(&mut self, queue: &mut VecDeque<(Transmit, usize)>, now: Now) -> bool {
        let mut bytes = 0;
        while bytes < ROUND_BYTES {
            let Some(transmit) = self.machine.poll_transmit(now) else { return true };
            // Small ones cost a system call each: they count as more than their bytes.
            bytes += transmit.payload.len() + 1024;
            queue.push_back((transmit, 0));
        }
        false
    }

    /// Take out what happened; who has to be told once the lock is released.
    fn collect(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        while let Some(event) = self.machine.poll_event() {
            if let Some(change) = M::as_socket_change(&event) {
                self.changes.push(change);
            } else if let Some((id, happened)) = M::as_stream_event(&event) {
                let is_closed = matches!(happened, StreamEvent::Closed(_));
                if let Some(waiting) = self.waiting.get_mut(&id) {
                    waiting.wake(happened, &mut woken);
                    if is_closed && waiting.is_dropped {
                        self.waiting.remove(&id);
                        self.machine.mux().remove(id);
                    }
                }
                if is_closed || matches!(happened, StreamEvent::PathConfirmed) {
                    self.held.push_back(event);
                }
            } else {
                self.held.push_back(event);
            }
        }
        self.hand_out();
        woken
    }

    /// Whether the driver task means to wake later than the machine wants; it is told then. Asked when nothing is left to send: else the machine is always due.
    fn is_driver_late(&mut self) -> bool {
        let due = self.machine.poll_timeout().unwrap_or(Now::MAX);
        let is_late = due < self.alarm;
        self.alarm = self.alarm.min(due);
        is_late
    }

    /// Events to the owner, as far as there is room.
    fn hand_out(&mut self) {
        while let Some(event) = self.held.pop_front() {
            match self.events.as_ref().map(|events| events.try_send(event)) {
                Some(Ok(())) => {}
                Some(Err(mpsc::error::TrySendError::Full(event))) => return self.held.push_front(event),
                // Nobody wants to know.
                Some(Err(mpsc::error::TrySendError::Closed(_))) | None => self.held.clear(),
            }
        }
    }
}

impl Outbox {
    /// Send what is queued, except to sockets that are full; then close what is to be closed.
    fn send(&mut self) {
        let mut kept = VecDeque::new();
        while let Some((transmit, mut done)) = self.queue.pop_front() {
            let Some(open) = self.sockets.get(&transmit.socket) else { continue };
            let is_behind = self.blocked.is_some_and(|(id, _)| id == transmit.socket);
            if is_behind || open.socket.send(&transmit, &mut done) == Sent::Blocked {
                self.blocked.get_or_insert((transmit.socket, Instant::now()));
                kept.push_back((transmit, done));
            }
        }
        self.queue = kept;
        if self.queue.is_empty() {
            for id in self.closing.drain(..) {
                if let Some(open) = self.sockets.remove(&id) {
                    open.receiver.abort();
                }
            }
        }
    }

    fn blocked_socket(&mut self) -> Option<(Arc<Socket>, Instant)> {
        let (id, since) = self.blocked?;
        let socket = self.sockets.get(&id).map(|open| (open.socket.clone(), since));
        if socket.is_none() {
            self.blocked = None;
        }
        socket
    }
}

fn wake(woken: Vec<Waker>) {
    woken.into_iter().for_each(Waker::wake);
}

enum Wait {
    /// Until then, or for ever.
    Until(Option<Instant>),
    /// Until a socket has room, but no longer than that.
    Writable(Arc<Socket>, Instant),
}

async fn drive<M: Machine>(udp: Weak<Udp<M>>) {
    let Some(wake) = udp.upgrade().map(|udp| udp.driver.clone()) else { return };
    loop {
        // No reference is held while it waits: the owner's drop ends this.
        let wait = match udp.upgrade() {
            Some(udp) => udp.turn(),
            None => return,
        };
        match wait {
            Wait::Writable(socket, until) => {
                let is_writable = tokio::time::timeout_at(until.into(), socket.writable()).await.is_ok();
                let Some(udp) = udp.upgrade() else { return };
                udp.unblock(is_writable);
            }
            Wait::Until(Some(until)) => {
                tokio::select! {
                    () = wake.notified() => {}
                    () = tokio::time::sleep_until(until.into()) => {}
                }
            }
            Wait::Until(None) => wake.notified().await,
        }
    }
}

async fn receive<M: Machine>(udp: Weak<Udp<M>>, id: SocketId, socket: Arc<Socket>) {
    // `readable` gives others their turn now and then, even when there always is something.
    while socket.readable().await.is_ok() {
        let Some(waits) = udp.upgrade().map(|udp| udp.waits_for_owner()) else { return };
        if let Some(events) = waits {
            // An owner that has gone wants no events: then nothing is waited for.
            let _ = events.reserve().await;
        }
        let Some(udp) = udp.upgrade() else { return };
        if let Err(error) = udp.receive(id, &socket)
            && error.kind() != io::ErrorKind::WouldBlock
        {
            tracing::trace!(%error, "a socket reported what an earlier datagram met");
        }
    }
}

async fn watch_network<M: Machine>(udp: Weak<Udp<M>>) {
    loop {
        tokio::time::sleep(NETWORK_POLL).await;
        let Some(udp) = udp.upgrade() else { return };
        let found = local_addresses(udp.host, udp.server.port());
        let has_changed = udp.network.send_if_modified(|known| {
            let has_changed = *known != found;
            known.clone_from(&found);
            has_changed
        });
        if has_changed {
            tracing::debug!(?found, "this computer's addresses have changed");
            udp.with(|machine, now| machine.network_changed(now, &found));
        }
    }
}

#[cfg(test)]
mod tests;
