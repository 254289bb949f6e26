//! Tokens: what shows that a requester can be reached where it says it is.
//!
//! ```text
//! token     keyed hash(secret, host as text)                       so it is good for one host, whatever its port
//! secrets   old, new; every 7.5 s: old, new = new, hash(old)       so it is good for 7.5 to 15 s
//! ```
//!
//! What must stay true: nobody but us can make one. Source: dht-rpc `lib/io.js`.

use std::net::Ipv4Addr;
use std::time::Duration;

use pgbee_engine::crypto::hash;

use crate::udp::{Now, Random};

const ROTATION: Duration = Duration::from_millis(7500);

/// The two secrets that are good at a time.
pub struct Tokens {
    old: [u8; 32],
    new: [u8; 32],
    next_rotation: Now,
}

impl Tokens {
    /// Fresh secrets.
    pub fn new(now: Now, random: &mut Random) -> Tokens {
        Tokens { old: random.bytes(), new: random.bytes(), next_rotation: now + ROTATION }
    }

    /// A token for a host.
    pub fn issue(&mut self, now: Now, host: Ipv4Addr) -> [u8; 32] {
        self.rotate(now);
        token(&self.new, host)
    }

    /// Whether we gave this token to that host a short while ago.
    pub fn is_valid(&mut self, now: Now, host: Ipv4Addr, shown: &[u8; 32]) -> bool {
        self.rotate(now);
        [&self.new, &self.old].into_iter().any(|secret| is_equal(&token(secret, host), shown))
    }

    fn rotate(&mut self, now: Now) {
        // After a long silence three turns are as good as all that were missed: nothing that was given before is valid any more.
        for _ in 0..3 {
            if now < self.next_rotation {
                return;
            }
            (self.old, self.new) = (self.new, hash::hash(&[&self.old]));
            self.next_rotation += ROTATION;
        }
        self.next_rotation = self.next_rotation.max(now + ROTATION);
    }
}

fn token(secret: &[u8; 32], host: Ipv4Addr) -> [u8; 32] {
    hash::keyed(secret, &[host.to_string().as_bytes()])
}

/// In the same time wherever they differ: a token must not be found byte by byte.
fn is_equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret_stream::vectors::{bytes, read, text};

    #[test]
    fn vectors() {
        let file = read("swarm/tokens");
        for case in file["cases"].as_array().expect("cases") {
            let secret = bytes(case, "secret").try_into().expect("32 bytes");
            assert_eq!(token(&secret, text(case, "host").parse().expect("a host")).to_vec(), bytes(case, "token"));
        }
        let next = &file["next_secret"];
        assert_eq!(hash::hash(&[&bytes(next, "from")]).to_vec(), bytes(next, "to"));
    }

    #[test]
    fn a_token_is_good_for_one_host_and_a_short_while() {
        let at = Duration::from_millis;
        let (host, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        for (gap, is_valid) in [(0, true), (7_400, true), (15_100, false), (22_600, false), (3_600_000, false)] {
            let mut tokens = Tokens::new(at(0), &mut Random::new([1; 32]));
            let shown = tokens.issue(at(100), host);
            assert_eq!(tokens.is_valid(at(100 + gap), host, &shown), is_valid, "after {gap} ms");
            assert!(!tokens.is_valid(at(100 + gap), other, &shown));
            let fresh = tokens.issue(at(100 + gap), host);
            assert!(tokens.is_valid(at(100 + gap), host, &fresh));
        }
    }
}
