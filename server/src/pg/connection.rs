//! A socket with its two buffers: messages are cut out of one, answers gathered in the other.
//!
//! An idle socket is waited for by its task, together with all others. One whose client is busy is read and written by a thread that blocks on it
//! ([`Connection::begin_blocking`]), as a PostgreSQL backend does: no statement then pays for waking another thread, and a statement that takes long or waits
//! for the disk holds up nobody.
//!
//! A message is cut off by its length word before `pgwire` reads it, so a lying length or a garbled body can neither reach into the next message nor
//! make us reserve more than was sent.

use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use pgbee_sql::SqlError;
use pgbee_sql::error::state;
use pgbee_sql::session::{Activity, WaitEvent};
use pgwire::messages::{DecodeContext, PgWireBackendMessage, PgWireFrontendMessage, ProtocolVersion};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::Stopping;
use super::gone::Watched;
use super::spin::Busy;

/// Answers beyond this are written even if nobody waits for them yet.
const OUT_BYTES_MAX: usize = 64 << 10;
/// Buffers larger than this are given back after use.
const BUFFER_BYTES_KEPT: usize = 256 << 10;
/// Longest packet before a session is there. Source: MAX_STARTUP_PACKET_LENGTH of PostgreSQL.
const STARTUP_BYTES_MAX: usize = 10_000;
/// Longest message of who has not authenticated. Source: PG_MAX_AUTH_TOKEN_LENGTH of PostgreSQL.
const AUTHENTICATION_BYTES_MAX: usize = 65_535;
/// How often a thread whose client does not read looks whether its session is to end.
const WRITE_TIMEOUT: Duration = Duration::from_millis(200);

/// How long a busy thread waits for the client's next message before the task waits instead.
const LINGER: Duration = Duration::from_millis(50);
/// The same where a notification may come, which only the task hears of.
const LINGER_LISTENING: Duration = Duration::from_millis(1);
/// Bytes read at once by a busy thread.
const READ_BYTES: usize = 32 << 10;

/// A socket and its buffers.
pub struct Connection {
    socket: Socket,
    input: BytesMut,
    /// Answers not written yet.
    pub out: BytesMut,
    max_message_bytes: usize,
    stopping: watch::Receiver<Stopping>,
    watched: Arc<Watched>,
    /// What others see of the session, once there is one.
    activity: Option<Arc<Activity>>,
}

/// Who waits for the socket.
enum Socket {
    /// The task.
    Idle(TcpStream),
    /// A thread, with the buffer it reads into, and how long a read waits.
    Busy(Arc<std::net::TcpStream>, Vec<u8>, Duration),
    /// Nobody: it broke on its way from one to the other.
    Broken,
}

/// What a read of a busy socket found.
#[derive(PartialEq, Eq)]
pub enum Arrived {
    /// Bytes.
    Some,
    /// Nothing for a while.
    Nothing,
    /// The end of the stream.
    End,
}

fn not_now() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket is not in this state")
}

/// A message cut out of the input.
pub enum Message {
    /// COPY data, which needs no decoding.
    CopyData(BytesMut),
    /// A whole message that cannot be followed, such as a statement whose text is not UTF-8: it fails, and nothing else does.
    Unfit {
        /// It is one of the extended protocol.
        extended: bool,
        /// Why.
        error: SqlError,
    },
    /// Anything else.
    Other(PgWireFrontendMessage),
}

/// A client that does not keep to the protocol; its connection ends with this error.
fn violation(what: impl Into<String>) -> SqlError {
    SqlError::new(state::PROTOCOL_VIOLATION, what)
}

impl Connection {
    /// Nothing read or written yet.
    pub fn new(socket: TcpStream, max_message_bytes: usize, stopping: watch::Receiver<Stopping>) -> Connection {
        let (input, out) = (BytesMut::new(), BytesMut::new());
        let socket = Socket::Idle(socket);
        Connection { socket, input, out, max_message_bytes, stopping, watched: Arc::default(), activity: None }
    }
    /// Where others may look at the socket while it is busy.
    pub fn watched(&self) -> Arc<Watched> {
        self.watched.clone()
    }
    /// From now on it is a session's: it shows what it waits for, and gives up waiting when that is to end.
    pub fn belongs_to(&mut self, activity: Arc<Activity>) {
        self.activity = Some(activity);
    }
    /// Gives the buffers back as far as nothing is in them: whoever is silent now may be for hours.
    pub fn shrink(&mut self) {
        for buffer in [&mut self.input, &mut self.out] {
            if buffer.is_empty() {
                *buffer = BytesMut::new();
            }
        }
    }
    /// Address of the client.
    pub fn peer(&self) -> Option<std::net::SocketAddr> {
        match &self.socket {
            Socket::Idle(socket) => socket.peer_addr().ok(),
            Socket::Busy(socket, ..) => socket.peer_addr().ok(),
            Socket::Broken => None,
        }
    }
    /// Waits for more bytes; false at the end of the stream. The socket is idle.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn read_some(&mut self) -> io::Result<bool> {
        if self.input.is_empty() && self.input.capacity() > BUFFER_BYTES_KEPT {
            self.input = BytesMut::new();
        }
        let Socket::Idle(socket) = &self.socket else { return Err(not_now()) };
        loop {
            socket.readable().await?;
            self.input.reserve(16 << 10);
            match socket.try_read_buf(&mut self.input) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    /// From now on the calling thread reads and writes, and may block.
    ///
    /// # Errors
    /// The socket broke.
    pub fn begin_blocking(&mut self) -> io::Result<()> {
        if let Socket::Idle(_) = self.socket {
            let Socket::Idle(socket) = std::mem::replace(&mut self.socket, Socket::Broken) else { return Ok(()) };
            let socket = socket.into_std()?;
            socket.set_nonblocking(false)?;
            socket.set_read_timeout(Some(LINGER))?;
            socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
            let socket = Arc::new(socket);
            self.watched.put(&socket);
            self.socket = Socket::Busy(socket, vec![0; READ_BYTES], LINGER);
        }
        Ok(())
    }
    /// From now on the task waits again.
    ///
    /// # Errors
    /// The socket broke.
    pub fn end_blocking(&mut self) -> io::Result<()> {
        if let Socket::Busy(..) = self.socket {
            self.watched.take();
            let Socket::Busy(socket, ..) = std::mem::replace(&mut self.socket, Socket::Broken) else { return Ok(()) };
            let socket = Arc::into_inner(socket).ok_or_else(not_now)?;
            socket.set_nonblocking(true)?;
            self.socket = Socket::Idle(TcpStream::from_std(socket)?);
        }
        Ok(())
    }
    /// Waits a little for more bytes. The socket is busy.
    ///
    /// # Errors
    /// The socket broke.
    pub fn read_blocking(&mut self, listens: bool, busy: &Busy) -> io::Result<Arrived> {
        let Socket::Busy(socket, buffer, waits) = &mut self.socket else { return Err(not_now()) };
        let wanted = if listens { LINGER_LISTENING } else { LINGER };
        if *waits != wanted {
            socket.set_read_timeout(Some(wanted))?;
            *waits = wanted;
        }
        let mut found = busy.receive(socket, buffer);
        loop {
            match found.take().unwrap_or_else(|| (&**socket).read(buffer)) {
                Ok(0) => return Ok(Arrived::End),
                Ok(n) => {
                    self.input.extend_from_slice(&buffer[..n]);
                    return Ok(Arrived::Some);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Ok(Arrived::Nothing),
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
    }
    /// Puts an answer into the buffer.
    pub fn put(&mut self, message: PgWireBackendMessage) {
        if let Err(error) = message.encode(&mut self.out) {
            // Only a name or message with a NUL in it could get here; the client misses an answer and will say so.
            tracing::error!("an answer could not be written: {error}");
        }
    }
    /// Writes what is buffered. The socket is idle.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn flush(&mut self) -> io::Result<()> {
        let Socket::Idle(socket) = &mut self.socket else { return Err(not_now()) };
        socket.write_all(&self.out).await?;
        self.written();
        Ok(())
    }
    /// Writes what is buffered. The socket is busy.
    ///
    /// # Errors
    /// The socket broke, or the session is to end and its client does not read.
    pub fn flush_blocking(&mut self) -> io::Result<()> {
        let activity = self.activity.as_ref();
        if let Some(activity) = activity {
            activity.wait(WaitEvent::ClientWrite);
        }
        let Socket::Busy(socket, ..) = &mut self.socket else { return Err(not_now()) };
        let is_over = || *self.stopping.borrow() == Stopping::Now || activity.is_some_and(|a| a.ending().is_some());
        while !self.out.is_empty() {
            match (&**socket).write(&self.out) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.out.advance(n),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut if !is_over() => {}
                    _ => return Err(error),
                },
            }
        }
        self.waits(WaitEvent::None);
        self.written();
        Ok(())
    }
    /// Shows what is waited for.
    pub fn waits(&self, event: WaitEvent) {
        if let Some(activity) = &self.activity {
            activity.wait(event);
        }
    }
    fn written(&mut self) {
        self.out.clear();
        // What was written from the front is given back by reserving; one that grew large is given up.
        if self.out.capacity() > BUFFER_BYTES_KEPT {
            self.out = BytesMut::new();
        }
        self.out.reserve(8 << 10);
    }
    /// Writes if much is buffered.
    ///
    /// # Errors
    /// The socket broke.
    pub fn flush_if_full(&mut self) -> io::Result<()> {
        if self.out.len() >= OUT_BYTES_MAX { self.flush_blocking() } else { Ok(()) }
    }

    /// Cuts the next message of a session off the input; None: more bytes are needed.
    ///
    /// # Errors
    /// 08P01 for a length or body that cannot be right: the stream is out of step and must be closed.
    pub fn next_message(&mut self) -> Result<Option<Message>, SqlError> {
        let Some((kind, mut bytes)) = self.cut(b"QPBDECHSXFdcfp", self.max_message_bytes)? else { return Ok(None) };
        if kind == b'd' {
            bytes.advance(5);
            return Ok(Some(Message::CopyData(bytes)));
        }
        if matches!(kind, b'Q' | b'P')
            && std::str::from_utf8(&bytes[5..bytes.len()]).is_err()
            && !only_types_are_binary(kind, &bytes[5..])
        {
            let message = "invalid byte sequence for encoding \"UTF8\"";
            let error = SqlError::new(state::CHARACTER_NOT_IN_REPERTOIRE, message);
            return Ok(Some(Message::Unfit { extended: kind == b'P', error }));
        }
        match kind {
            b'F' => {
                let error = SqlError::unsupported("the function call protocol");
                return Ok(Some(Message::Unfit { extended: false, error }));
            }
            b'Q' if bytes.last() != Some(&0) => return Err(violation("invalid string in message")),
            b'D' | b'C' if !matches!(bytes.get(5), Some(b'S' | b'P')) => {
                let what = if kind == b'D' { "DESCRIBE" } else { "CLOSE" };
                let subtype = bytes.get(5).copied().unwrap_or(0);
                let error = violation(format!("invalid {what} message subtype {subtype}"));
                return Ok(Some(Message::Unfit { extended: true, error }));
            }
            _ => {}
        }
        decode(&mut bytes, false).map(|message| Some(Message::Other(message)))
    }
    /// Cuts the next message of an authentication off the input; None: more bytes are needed.
    ///
    /// # Errors
    /// 08P01, as above.
    pub fn next_password(&mut self) -> Result<Option<PgWireFrontendMessage>, SqlError> {
        let Some((_, mut bytes)) = self.cut(b"p", AUTHENTICATION_BYTES_MAX)? else { return Ok(None) };
        decode(&mut bytes, false).map(Some)
    }
    fn cut(&mut self, kinds: &[u8], longest: usize) -> Result<Option<(u8, BytesMut)>, SqlError> {
        let Some(head) = self.input.get(..5) else { return Ok(None) };
        let (kind, length) = (head[0], u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize);
        if !kinds.contains(&kind) {
            return Err(violation(format!("invalid frontend message type {kind}")));
        }
        if length < 4 || length > longest {
            return Err(violation(format!("invalid message length {length}: at most {longest} bytes are taken")));
        }
        Ok((self.input.len() > length).then(|| (kind, self.input.split_to(length + 1))))
    }
    /// Cuts the next packet before a session is there; None: more bytes are needed.
    ///
    /// # Errors
    /// 08P01, as above.
    pub fn next_startup_packet(&mut self) -> Result<Option<PgWireFrontendMessage>, SqlError> {
        let Some(head) = self.input.get(..4) else { return Ok(None) };
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if !(8..=STARTUP_BYTES_MAX).contains(&length) {
            return Err(violation("invalid length of startup packet"));
        }
        if self.input.len() < length {
            return Ok(None);
        }
        let mut bytes = self.input.split_to(length);
        decode(&mut bytes, true).map(Some)
    }
}

/// The types and formats of a Parse message are bytes, its texts must be UTF-8.
fn only_types_are_binary(kind: u8, body: &[u8]) -> bool {
    let mut texts = body.splitn(3, |b| *b == 0);
    kind == b'P' && (0..2).all(|_| texts.next().is_some_and(|t| std::str::from_utf8(t).is_ok()))
}

/// Reads one whole message. `pgwire` indexes into a body without looking, so a short one panics: that is caught and told as what it is.
fn decode(bytes: &mut BytesMut, startup: bool) -> Result<PgWireFrontendMessage, SqlError> {
    let mut context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
    context.awaiting_frontend_ssl = false;
    context.awaiting_frontend_startup = startup;
    if startup && bytes.len() == 8 {
        context.awaiting_frontend_ssl = true;
    }
    match catch_unwind(AssertUnwindSafe(|| PgWireFrontendMessage::decode(bytes, &context))) {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(violation("message is shorter than its content")),
        Ok(Err(error)) => Err(violation(format!("invalid message: {error}"))),
        Err(_) => Err(violation("invalid message format")),
    }
}
