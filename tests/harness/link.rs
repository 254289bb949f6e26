//! A link between two processes that is slow, or cut: a TCP forwarder on loopback which holds every byte back for a while.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// Forwards connections to one port. Dropping it cuts them and takes no more.
pub struct Link {
    /// The port to connect to.
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    to: u16,
    delay_micros: AtomicU64,
    is_cut: AtomicBool,
    bytes: AtomicU64,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Link {
    /// To a port of this machine; each way takes `delay`, so a round trip takes twice that.
    pub fn to(port: u16, delay: Duration) -> Link {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let own = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            to: port,
            delay_micros: AtomicU64::new(delay.as_micros() as u64),
            is_cut: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            sockets: Mutex::default(),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if Arc::strong_count(&accepting) == 1 {
                    return;
                }
                accepting.carry(socket);
            }
        });
        Link { port: own, shared }
    }

    /// From now on each way takes this long.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.delay_micros.store(delay.as_micros() as u64, Ordering::Relaxed);
    }

    /// Breaks all connections; new ones are refused until [`mend`](Link::mend).
    pub fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::SeqCst);
        for socket in self.shared.sockets.lock().expect("no panic").drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.shared.is_cut.store(false, Ordering::SeqCst);
    }

    /// Bytes carried, both ways together.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Shared {
    fn carry(self: &Arc<Self>, near: TcpStream) {
        if self.is_cut.load(Ordering::SeqCst) {
            return;
        }
        let Ok(far) = TcpStream::connect(("127.0.0.1", self.to)) else { return };
        for socket in [&near, &far] {
            let _ = socket.set_nodelay(true);
            self.sockets.lock().expect("no panic").extend(socket.try_clone().ok());
        }
        let clone = |socket: &TcpStream| socket.try_clone().expect("a descriptor");
        self.clone().pump(clone(&near), clone(&far));
        self.clone().pump(far, near);
    }

    /// One direction: a thread reads and notes when the bytes are due, another writes them then.
    fn pump(self: Arc<Self>, mut from: TcpStream, mut to: TcpStream) {
        let (sender, due) = mpsc::sync_channel::<(Instant, Vec<u8>)>(4096);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                self.bytes.fetch_add(count as u64, Ordering::Relaxed);
                let delay = Duration::from_micros(self.delay_micros.load(Ordering::Relaxed));
                if sender.send((Instant::now() + delay, buffer[..count].to_vec())).is_err() {
                    break;
                }
            }
            let _ = from.shutdown(Shutdown::Read);
        });
        std::thread::spawn(move || {
            for (when, bytes) in due {
                std::thread::sleep(when.saturating_duration_since(Instant::now()));
                if to.write_all(&bytes).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
