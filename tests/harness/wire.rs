//! A small wire client over a blocking socket. Unlike a driver it hides nothing: type oids, labels, tags, every field of an error, and it can send bytes that
//! make no sense.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A server that is silent for so long is taken for hung.
const PATIENCE: Duration = Duration::from_secs(120);

/// An error report by its field codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireError(pub HashMap<char, String>);

impl WireError {
    /// The SQLSTATE.
    pub fn state(&self) -> &str {
        self.0.get(&'C').map_or("", String::as_str)
    }
    /// The message.
    pub fn message(&self) -> &str {
        self.0.get(&'M').map_or("", String::as_str)
    }
    /// Another field.
    pub fn field(&self, code: char) -> Option<&str> {
        self.0.get(&code).map(String::as_str)
    }
}

/// What one statement of a simple query gave.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Answer {
    /// Labels.
    pub labels: Vec<String>,
    /// Type oids.
    pub types: Vec<u32>,
    /// Values as text.
    pub rows: Vec<Vec<Option<String>>>,
    /// Command tag.
    pub tag: String,
}

impl Answer {
    /// Rows as `a|b`, NULL as empty, one a line, as psql -At prints them.
    pub fn text(&self) -> String {
        self.rows
            .iter()
            .map(|row| row.iter().map(|v| v.clone().unwrap_or_default()).collect::<Vec<_>>().join("|"))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// A connection.
pub struct Client {
    socket: TcpStream,
    /// Process id and secret of BackendKeyData.
    pub cancel_key: (i32, i32),
    /// Messages of NoticeResponse so far.
    pub notices: Vec<String>,
    /// The last ReadyForQuery's status.
    pub status: char,
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Client {
    /// Connects without a password.
    ///
    /// # Errors
    /// The socket broke; a refusal is `ErrorKind::PermissionDenied` with the message.
    pub fn connect(port: u16, parameters: &[(&str, &str)]) -> io::Result<Client> {
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut client = Client { socket, cancel_key: (0, 0), notices: Vec::new(), status: '?' };
        let mut body = 196_608u32.to_be_bytes().to_vec();
        for (name, value) in parameters {
            body.extend_from_slice(name.as_bytes());
            body.push(0);
            body.extend_from_slice(value.as_bytes());
            body.push(0);
        }
        body.push(0);
        let mut packet = (body.len() as u32 + 4).to_be_bytes().to_vec();
        packet.extend(body);
        client.socket.write_all(&packet)?;
        loop {
            let (kind, body) = client.receive()?;
            match kind {
                b'R' if body == [0, 0, 0, 0] => {}
                b'R' => return Err(io::Error::new(io::ErrorKind::PermissionDenied, "a password is wanted")),
                b'K' => client.cancel_key = (word(&body, 0), word(&body, 4)),
                b'Z' => {
                    client.status = char::from(body[0]);
                    return Ok(client);
                }
                b'E' => {
                    let error = fields(&body);
                    return Err(io::Error::new(
                        io::ErrorKind::PermissionDenied,
                        format!("{} {}", error.state(), error.message()),
                    ));
                }
                _ => {}
            }
        }
    }
    /// Asks the server, on a connection of its own, to cancel what another one is doing.
    ///
    /// # Errors
    /// The socket broke.
    pub fn cancel(port: u16, (pid, secret): (i32, i32)) -> io::Result<()> {
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        let words = [16, 80_877_102, pid, secret].map(i32::to_be_bytes);
        socket.write_all(&words.concat())
    }
    /// The socket, to do with it what no client should.
    pub fn into_socket(self) -> TcpStream {
        self.socket
    }
    /// Sends raw bytes.
    ///
    /// # Errors
    /// The socket broke.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }
    /// Sends a message.
    ///
    /// # Errors
    /// The socket broke.
    pub fn send(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        let mut message = vec![kind];
        message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        message.extend_from_slice(body);
        self.socket.write_all(&message)
    }
    /// The next message.
    ///
    /// # Errors
    /// The socket broke or ended.
    pub fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0u8; 5];
        self.socket.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; length.checked_sub(4).ok_or_else(|| broken("a length below 4"))?];
        self.socket.read_exact(&mut body)?;
        if head[0] == b'N' {
            self.notices.push(fields(&body).message().to_owned());
            return self.receive();
        }
        if head[0] == b'Z' {
            self.status = char::from(body[0]);
        }
        Ok((head[0], body))
    }
    /// Does a byte come within this time? The end of the connection counts as one.
    ///
    /// # Errors
    /// The socket broke.
    pub fn readable(&self, within: Duration) -> io::Result<bool> {
        self.socket.set_read_timeout(Some(within.max(Duration::from_millis(1))))?;
        let peeked = self.socket.peek(&mut [0]);
        self.socket.set_read_timeout(Some(PATIENCE))?;
        match peeked {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(error),
        }
    }
    /// The values of a DataRow.
    pub fn row(body: &[u8]) -> Vec<Option<String>> {
        data_row(body)
    }
    /// The fields of an ErrorResponse.
    pub fn error(body: &[u8]) -> WireError {
        fields(body)
    }
    /// A simple query; the last statement's answer, or the first error.
    ///
    /// # Errors
    /// The connection broke.
    pub fn try_query(&mut self, sql: &str) -> io::Result<Result<Answer, WireError>> {
        let mut body = sql.as_bytes().to_vec();
        body.push(0);
        self.send(b'Q', &body)?;
        self.collect()
    }
    /// Reads up to ReadyForQuery.
    ///
    /// # Errors
    /// The connection broke.
    pub fn collect(&mut self) -> io::Result<Result<Answer, WireError>> {
        let (mut answer, mut error) = (Answer::default(), None);
        loop {
            let (kind, body) = self.receive()?;
            match kind {
                b'T' => {
                    answer = Answer::default();
                    (answer.labels, answer.types) = description(&body);
                }
                b'D' => answer.rows.push(data_row(&body)),
                b'C' => answer.tag = cstring(&body, 0).0,
                b'E' => error = error.or_else(|| Some(fields(&body))),
                b'Z' => return Ok(error.map_or(Ok(answer), Err)),
                b'd' => answer.rows.push(vec![Some(String::from_utf8_lossy(&body).trim_end_matches('\n').to_owned())]),
                _ => {}
            }
        }
    }
    /// A simple query that must succeed.
    pub fn query(&mut self, sql: &str) -> Answer {
        self.try_query(sql)
            .expect("the connection holds")
            .unwrap_or_else(|e| panic!("{sql}: {} {}", e.state(), e.message()))
    }
    /// A simple query that must fail: its SQLSTATE.
    pub fn fails(&mut self, sql: &str) -> WireError {
        match self.try_query(sql).expect("the connection holds") {
            Err(error) => error,
            Ok(answer) => panic!("{sql}: succeeded with {}", answer.text()),
        }
    }
    /// COPY ... FROM STDIN with this data, in pieces of `piece` bytes.
    ///
    /// # Errors
    /// The connection broke.
    pub fn copy_in(&mut self, sql: &str, data: &[u8], piece: usize) -> io::Result<Result<Answer, WireError>> {
        let mut body = sql.as_bytes().to_vec();
        body.push(0);
        self.send(b'Q', &body)?;
        loop {
            match self.receive()? {
                (b'G', _) => break,
                (b'E', body) => {
                    let error = fields(&body);
                    while self.receive()?.0 != b'Z' {}
                    return Ok(Err(error));
                }
                _ => {}
            }
        }
        for chunk in data.chunks(piece) {
            self.send(b'd', chunk)?;
        }
        self.send(b'c', &[])?;
        self.collect()
    }
}

fn word(body: &[u8], at: usize) -> i32 {
    i32::from_be_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]])
}
fn cstring(body: &[u8], from: usize) -> (String, usize) {
    let end = body[from..].iter().position(|b| *b == 0).map_or(body.len(), |n| from + n);
    (String::from_utf8_lossy(&body[from..end]).into_owned(), end + 1)
}
fn fields(body: &[u8]) -> WireError {
    let (mut fields, mut at) = (HashMap::new(), 0);
    while body.get(at).is_some_and(|b| *b != 0) {
        let (text, next) = cstring(body, at + 1);
        fields.insert(char::from(body[at]), text);
        at = next;
    }
    WireError(fields)
}
fn description(body: &[u8]) -> (Vec<String>, Vec<u32>) {
    let count = usize::from(u16::from_be_bytes([body[0], body[1]]));
    let (mut labels, mut types, mut at) = (Vec::new(), Vec::new(), 2);
    for _ in 0..count {
        let (label, next) = cstring(body, at);
        labels.push(label);
        types.push(word(body, next + 6) as u32);
        at = next + 18;
    }
    (labels, types)
}
fn data_row(body: &[u8]) -> Vec<Option<String>> {
    let count = usize::from(u16::from_be_bytes([body[0], body[1]]));
    let (mut values, mut at) = (Vec::new(), 2);
    for _ in 0..count {
        let length = word(body, at);
        at += 4;
        if length < 0 {
            values.push(None);
        } else {
            values.push(Some(String::from_utf8_lossy(&body[at..at + length as usize]).into_owned()));
            at += length as usize;
        }
    }
    values
}
