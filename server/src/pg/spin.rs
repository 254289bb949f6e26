//! Waiting for a busy client's next message without sleep, while a processor has nothing else to do.
//!
//! ```text
//! answer written ... the client thinks ... next message      asked for again and again, for SPIN at most: heard by the next call
//!                                                            asleep: heard when the kernel has woken the thread and a processor
//! ```
//!
//! Most drivers that ask one statement after the other go on within some microseconds, and waking a thread on an idle processor takes longer than
//! that. What must stay true: a thread spins only while fewer clients are busy than there are processors, so that it takes nothing from those that have
//! work, nor from the clients' own programs, which often run here, too; and never for longer than [`SPIN`], so that a client who falls silent costs no
//! more than that once.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};

/// How long a socket is asked before its thread sleeps.
const SPIN: Duration = Duration::from_micros(50);

/// How many clients are busy: have a thread, which works or waits for their next message.
pub struct Busy {
    clients: AtomicUsize,
    processors: usize,
}

/// A client that is counted.
pub struct Counted<'a>(&'a Busy);

impl Busy {
    /// None yet, on this machine's processors.
    pub fn new() -> Busy {
        Busy::on(std::thread::available_parallelism().map_or(1, usize::from))
    }
    fn on(processors: usize) -> Busy {
        Busy { clients: AtomicUsize::new(0), processors }
    }
    /// Counts one more.
    pub fn begin(&self) -> Counted<'_> {
        self.clients.fetch_add(1, Ordering::Relaxed);
        Counted(self)
    }
    fn leave_a_processor(&self) -> bool {
        self.clients.load(Ordering::Relaxed) < self.processors
    }
    /// What a socket gives that is asked without sleep; None if nothing came in time, or others may need the processor.
    pub fn receive(&self, socket: &TcpStream, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        let mut start = None;
        while self.leave_a_processor() {
            match recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((_, length)) => return Some(Ok(length)),
                Err(error) if error == rustix::io::Errno::AGAIN => {}
                Err(error) => return Some(Err(error.into())),
            }
            if start.get_or_insert_with(Instant::now).elapsed() > SPIN {
                break;
            }
            std::hint::spin_loop();
        }
        None
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn asks_only_while_a_processor_is_free_and_not_for_long() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        let (busy, mut buffer) = (Busy::on(2), [0; 16]);
        let only = busy.begin();
        assert!(busy.receive(&socket, &mut buffer).is_none(), "nothing came");
        client.write_all(b"abc").unwrap();
        let other = busy.begin();
        assert!(busy.receive(&socket, &mut buffer).is_none(), "both processors are taken");
        drop(other);
        // What was written on loopback is there.
        assert_eq!(busy.receive(&socket, &mut buffer).unwrap().unwrap(), 3);
        drop(client);
        assert_eq!(busy.receive(&socket, &mut buffer).unwrap().unwrap(), 0);
        drop(only);
        assert_eq!(busy.clients.into_inner(), 0);
    }
}
