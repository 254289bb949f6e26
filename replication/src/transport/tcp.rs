//! TCP: a peer at a known address.
//!
//! What must stay true: small messages leave at once (no Nagle), for a request that waits for company costs its reader a round trip.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// Whether this can be an address: `host:port`.
pub fn is_address(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_plausible =
        |letter: char| !letter.is_whitespace() && !letter.is_control() && !matches!(letter, '/' | '@' | '?' | '#');
    !host.is_empty()
        && host.len() <= 255
        && host.chars().all(is_plausible)
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Listen. Call it inside a runtime.
///
/// # Errors
/// If the address is in use, or cannot be.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Connect to a `host:port`.
///
/// # Errors
/// If nobody answers in time.
pub async fn connect(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let connecting = tokio::time::timeout(timeout, TcpStream::connect(address));
    let stream = connecting.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::is_address;

    #[test]
    fn addresses() {
        for good in ["127.0.0.1:80", "[::1]:49737", "example.org:1", "a-b.c:65535"] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["", "host", ":80", "host:", "host:0", "host:65536", "host:x", "http://a:1", "a b:1", "[]:1"] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
