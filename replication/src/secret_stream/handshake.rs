//! Noise handshakes in the Ed25519 group: `Noise_XX_Ed25519_ChaChaPoly_BLAKE2b`, and IK for whoever knows the responder's key before.
//!
//! ```text
//! XX                                      IK, the responder's s known
//!   initiator -> e                          initiator -> e, es, s, ss
//!   responder -> e, ee, s, es               responder -> e, ee, se
//!   initiator -> s, se
//!
//! e, s    a public key, ephemeral or static; s is encrypted once there is a key
//! ee, es  both sides mix in a Diffie-Hellman secret of (initiator's, responder's) ephemeral or static key
//! every message ends with a payload (here empty; encrypted once there is a key)
//! ```
//!
//! What is not as in other Noise: the group is Edwards, not Montgomery. Key pairs are Ed25519 signing pairs (a seed and a point), a secret is the
//! compressed Edwards point `clamp(SHA-512(seed)[0..32]) * remote point`, and points that libsodium refuses are refused: non-canonical ones, those of
//! small order, those outside the main subgroup. Otherwise a peer could force the secret, or learn bits of a static key.
//!
//! After the last message both sides have two keys, one a direction, and the hash of all they said, which nobody else can have.
//!
//! Secrets are wiped when dropped. A handshake that failed stays failed. Vectors: `tests/vectors/noise.json`.
//! Sources: noise-handshake and noise-curve-ed in JavaScript; the Noise specification, revision 34.

use blake2::digest::consts::U64;
use blake2::{Blake2b, Digest};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use curve25519_dalek::edwards::CompressedEdwardsY;
use ed25519_dalek::{Signer, SigningKey};
use zeroize::{Zeroize, Zeroizing};

use super::Role;

/// The longest message that Noise allows.
pub const NOISE_MESSAGE_BYTES_MAX: usize = 65_535;

const KEY_BYTES: usize = 32;
const HASH_BYTES: usize = 64;
const MAC_BYTES: usize = 16;
/// Of BLAKE2b, for HMAC.
const HASH_BLOCK_BYTES: usize = 128;

type Hash = [u8; HASH_BYTES];

/// A static Ed25519 key pair: who a peer is on every stream. Wiped from memory when dropped.
#[derive(Clone)]
pub struct Identity {
    signing: SigningKey,
    /// Half of SHA-512 of the seed; clamped when used.
    scalar: Zeroizing<[u8; 32]>,
    public_key: [u8; 32],
}

impl Identity {
    /// The key pair grown from a seed, as in libsodium.
    pub fn from_seed(seed: [u8; 32]) -> Identity {
        let seed = Zeroizing::new(seed);
        let key = SigningKey::from_bytes(&seed);
        let (scalar, public_key) = (Zeroizing::new(key.to_scalar_bytes()), key.verifying_key().to_bytes());
        Identity { signing: key, scalar, public_key }
    }

    /// Sign a message, as libsodium does: what is announced on the DHT carries a signature of its announcer.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    /// What the other side learns.
    pub fn public_key(&self) -> [u8; 32] {
        self.public_key
    }

    /// The secret that this pair shares with the owner of a public key. `None` for points that libsodium refuses.
    fn shared_secret(&self, remote: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        let point = CompressedEdwardsY(*remote).decompress()?;
        // An encoding is canonical when it is what we would write for its point.
        if point.compress().0 != *remote || point.is_small_order() || !point.is_torsion_free() {
            return None;
        }
        Some(Zeroizing::new(point.mul_clamped(*self.scalar).compress().0))
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}

/// Who knows whose static key when the handshake begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Neither: both keys are sent, encrypted.
    Xx,
    /// The initiator knows the responder's.
    Ik,
}

impl Pattern {
    fn protocol(self) -> &'static [u8] {
        match self {
            Pattern::Xx => b"Noise_XX_Ed25519_ChaChaPoly_BLAKE2b",
            Pattern::Ik => b"Noise_IK_Ed25519_ChaChaPoly_BLAKE2b",
        }
    }

    /// The tokens of each message; the initiator sends the first, then they take turns.
    fn messages(self) -> &'static [&'static [Token]] {
        use Token::{E, Ee, Es, S, Se, Ss};
        match self {
            Pattern::Xx => &[&[E], &[E, Ee, S, Es], &[S, Se]],
            Pattern::Ik => &[&[E, Es, S, Ss], &[E, Ee, Se]],
        }
    }
}

#[derive(Clone, Copy)]
enum Token {
    E,
    S,
    Ee,
    Es,
    Se,
    Ss,
}

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// A message ends early or is longer than Noise allows.
    #[error("a handshake message of a wrong length")]
    Length,
    /// A public key that no honest peer has.
    #[error("a public key is not a point of the main subgroup")]
    Point,
    /// A message was changed, or made for someone else.
    #[error("a handshake message does not decrypt")]
    Forged,
    /// Not this side's turn, or all is said, or it failed before.
    #[error("the handshake expects no such message")]
    Turn,
}

/// What a finished handshake gives. Wiped from memory when dropped.
pub struct Session {
    /// Encrypts what we send.
    pub send_key: [u8; 32],
    /// Decrypts what we receive.
    pub receive_key: [u8; 32],
    /// What both sides and nobody else agree on.
    pub hash: [u8; 64],
    /// Who the other side has proved to be.
    pub remote_public_key: [u8; 32],
}

impl Drop for Session {
    fn drop(&mut self) {
        self.send_key.zeroize();
        self.receive_key.zeroize();
    }
}

/// One side of a handshake. A copy goes its own way: whoever may get several answers to one message tries each on a copy.
#[derive(Clone)]
pub struct Handshake {
    role: Role,
    messages: &'static [&'static [Token]],
    /// How many messages were said.
    said: usize,
    failed: bool,
    symmetric: Symmetric,
    statics: Identity,
    ephemeral: Identity,
    remote_static: Option<[u8; 32]>,
    remote_ephemeral: Option<[u8; 32]>,
}

impl Handshake {
    /// Before the first message. Both sides must give the same prologue.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Turn`] if the initiator of IK gives no remote key.
    pub fn new(
        pattern: Pattern,
        role: Role,
        identity: &Identity,
        ephemeral_seed: [u8; 32],
        prologue: &[u8],
        remote_static: Option<[u8; 32]>,
    ) -> Result<Handshake, HandshakeError> {
        let mut symmetric = Symmetric::new(pattern.protocol(), prologue);
        let mut known = None;
        if pattern == Pattern::Ik {
            let responder = match role {
                Role::Initiator => {
                    known = remote_static;
                    remote_static.ok_or(HandshakeError::Turn)?
                }
                Role::Responder => identity.public_key,
            };
            symmetric.mix_hash(&responder);
        }
        Ok(Handshake {
            role,
            messages: pattern.messages(),
            said: 0,
            failed: false,
            symmetric,
            statics: identity.clone(),
            ephemeral: Identity::from_seed(ephemeral_seed),
            remote_static: known,
            remote_ephemeral: None,
        })
    }

    /// Write our next message.
    pub fn send(&mut self, payload: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let tokens = self.take_turn(true)?;
        let written = self.write(tokens, payload);
        self.settle(written)
    }

    /// Read the other side's next message; gives its payload.
    pub fn receive(&mut self, message: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let tokens = self.take_turn(false)?;
        let read = self.read(tokens, message);
        self.settle(read)
    }

    /// Whether all messages are said.
    pub fn is_complete(&self) -> bool {
        !self.failed && self.said == self.messages.len()
    }

    /// Who the other side says it is: known from the beginning, or read from a message; proved only once all is said.
    pub fn remote_public_key(&self) -> Option<[u8; KEY_BYTES]> {
        self.remote_static
    }

    /// The keys, once all messages are said.
    pub fn finish(self) -> Option<Session> {
        if !self.is_complete() {
            return None;
        }
        let (first, second) = self.symmetric.split();
        let (send, receive) = match self.role {
            Role::Initiator => (first, second),
            Role::Responder => (second, first),
        };
        Some(Session {
            send_key: *send,
            receive_key: *receive,
            hash: self.symmetric.hash,
            remote_public_key: self.remote_static?,
        })
    }

    fn take_turn(&mut self, ours: bool) -> Result<&'static [Token], HandshakeError> {
        let initiators = self.said.is_multiple_of(2);
        let tokens = *self.messages.get(self.said).ok_or(HandshakeError::Turn)?;
        if self.failed || ((self.role == Role::Initiator) == initiators) != ours {
            return Err(HandshakeError::Turn);
        }
        Ok(tokens)
    }

    fn settle<T>(&mut self, done: Result<T, HandshakeError>) -> Result<T, HandshakeError> {
        self.failed = done.is_err();
        self.said += usize::from(done.is_ok());
        done
    }

    fn write(&mut self, tokens: &[Token], payload: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let mut message = Vec::new();
        for &token in tokens {
            match token {
                Token::E => {
                    self.symmetric.mix_hash(&self.ephemeral.public_key);
                    message.extend_from_slice(&self.ephemeral.public_key);
                }
                Token::S => message.extend_from_slice(&self.symmetric.encrypt(&self.statics.public_key)?),
                secret => self.mix_secret(secret)?,
            }
        }
        message.extend_from_slice(&self.symmetric.encrypt(payload)?);
        if message.len() > NOISE_MESSAGE_BYTES_MAX { Err(HandshakeError::Length) } else { Ok(message) }
    }

    fn read(&mut self, tokens: &[Token], message: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        if message.len() > NOISE_MESSAGE_BYTES_MAX {
            return Err(HandshakeError::Length);
        }
        let mut rest = message;
        let mut take = |len: usize| {
            let (taken, left) = rest.split_at_checked(len).ok_or(HandshakeError::Length)?;
            rest = left;
            Ok(taken)
        };
        for &token in tokens {
            match token {
                Token::E => {
                    let key = take(KEY_BYTES)?;
                    self.symmetric.mix_hash(key);
                    self.remote_ephemeral = key.try_into().ok();
                }
                Token::S => {
                    let encrypted = take(KEY_BYTES + if self.symmetric.key.is_some() { MAC_BYTES } else { 0 })?;
                    self.remote_static = self.symmetric.decrypt(encrypted)?.as_slice().try_into().ok();
                }
                secret => self.mix_secret(secret)?,
            }
        }
        self.symmetric.decrypt(rest)
    }

    fn mix_secret(&mut self, token: Token) -> Result<(), HandshakeError> {
        // The first letter is the initiator's key, the second the responder's.
        let (initiator_static, responder_static) = match token {
            Token::Ee => (false, false),
            Token::Es => (false, true),
            Token::Se => (true, false),
            Token::Ss | Token::E | Token::S => (true, true),
        };
        let (own_static, remote_static) = match self.role {
            Role::Initiator => (initiator_static, responder_static),
            Role::Responder => (responder_static, initiator_static),
        };
        let own = if own_static { &self.statics } else { &self.ephemeral };
        let remote = if remote_static { self.remote_static } else { self.remote_ephemeral };
        let secret = own.shared_secret(&remote.ok_or(HandshakeError::Turn)?).ok_or(HandshakeError::Point)?;
        self.symmetric.mix_key(&*secret);
        Ok(())
    }
}

/// What both sides keep in step: a hash of everything said, a chain of secrets, and the key these gave last.
#[derive(Clone)]
struct Symmetric {
    hash: Hash,
    chaining_key: Zeroizing<Hash>,
    key: Option<Zeroizing<[u8; KEY_BYTES]>>,
    nonce: u64,
}

impl Symmetric {
    fn new(protocol: &[u8], prologue: &[u8]) -> Symmetric {
        let mut hash = [0; HASH_BYTES];
        hash[..protocol.len()].copy_from_slice(protocol);
        let mut symmetric = Symmetric { hash, chaining_key: Zeroizing::new(hash), key: None, nonce: 0 };
        symmetric.mix_hash(prologue);
        symmetric
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = blake2b(&[&self.hash, data]);
    }

    fn mix_key(&mut self, secret: &[u8]) {
        let (chaining_key, key) = hkdf(&self.chaining_key, secret);
        self.chaining_key = chaining_key;
        self.key = Some(cipher_key(&key));
        self.nonce = 0;
    }

    fn encrypt(&mut self, plaintext: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let mut text = plaintext.to_vec();
        if let Some(key) = &self.key {
            let cipher = ChaCha20Poly1305::new((&**key).into());
            let nonce = nonce(self.nonce);
            cipher.encrypt_in_place(&nonce.into(), &self.hash, &mut text).map_err(|_| HandshakeError::Length)?;
            self.nonce += 1;
        }
        self.mix_hash(&text);
        Ok(text)
    }

    fn decrypt(&mut self, encrypted: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let mut text = encrypted.to_vec();
        if let Some(key) = &self.key {
            let cipher = ChaCha20Poly1305::new((&**key).into());
            let nonce = nonce(self.nonce);
            cipher.decrypt_in_place(&nonce.into(), &self.hash, &mut text).map_err(|_| HandshakeError::Forged)?;
            self.nonce += 1;
        }
        self.mix_hash(encrypted);
        Ok(text)
    }

    fn split(&self) -> (Zeroizing<[u8; KEY_BYTES]>, Zeroizing<[u8; KEY_BYTES]>) {
        let (first, second) = hkdf(&self.chaining_key, &[]);
        (cipher_key(&first), cipher_key(&second))
    }
}

/// Four zeros, then the counter.
fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

fn cipher_key(output: &Hash) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    key.copy_from_slice(&output[..KEY_BYTES]);
    key
}

/// Two outputs of HKDF over HMAC-BLAKE2b, without info.
fn hkdf(salt: &Hash, input: &[u8]) -> (Zeroizing<Hash>, Zeroizing<Hash>) {
    let secret = Zeroizing::new(hmac(salt, &[input]));
    let first = Zeroizing::new(hmac(&secret, &[&[1]]));
    let second = Zeroizing::new(hmac(&secret, &[&*first, &[2]]));
    (first, second)
}

fn hmac(key: &Hash, parts: &[&[u8]]) -> Hash {
    let pad = |byte: u8| {
        let mut pad = Zeroizing::new([byte; HASH_BLOCK_BYTES]);
        pad.iter_mut().zip(key).for_each(|(pad, key)| *pad ^= key);
        pad
    };
    let mut inner = Blake2b::<U64>::new_with_prefix(*pad(0x36));
    parts.iter().for_each(|part| inner.update(part));
    blake2b(&[&*pad(0x5c), &inner.finalize()])
}

fn blake2b(parts: &[&[u8]]) -> Hash {
    let mut hasher = Blake2b::<U64>::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret_stream::vectors::{bytes, read, text};
    use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
    use proptest::prelude::*;
    use serde_json::Value;

    fn seed(value: &Value, name: &str) -> [u8; 32] {
        bytes(value, name).try_into().expect("32 bytes")
    }

    /// Both sides of a vector.
    fn sides(vector: &Value) -> (Handshake, Handshake) {
        let pattern = match text(vector, "pattern") {
            "XX" => Pattern::Xx,
            "IK" => Pattern::Ik,
            other => panic!("pattern {other}"),
        };
        let initiator = Identity::from_seed(seed(vector, "initiatorStaticSeed"));
        let responder = Identity::from_seed(seed(vector, "responderStaticSeed"));
        assert_eq!(initiator.public_key, seed(vector, "initiatorStatic"));
        assert_eq!(responder.public_key, seed(vector, "responderStatic"));
        let prologue = bytes(vector, "prologue");
        let known = (pattern == Pattern::Ik).then_some(responder.public_key);
        let side = |role, identity, ephemeral, known| {
            Handshake::new(pattern, role, identity, seed(vector, ephemeral), &prologue, known).expect("keys are known")
        };
        (
            side(Role::Initiator, &initiator, "initiatorEphemeralSeed", known),
            side(Role::Responder, &responder, "responderEphemeralSeed", None),
        )
    }

    fn vectors() -> Vec<Value> {
        read("noise")["handshakes"].as_array().expect("handshakes").clone()
    }

    #[test]
    fn handshakes_are_those_of_javascript() {
        let mut patterns = std::collections::BTreeSet::new();
        for vector in vectors() {
            patterns.insert(text(&vector, "pattern").to_owned());
            let (mut initiator, mut responder) = sides(&vector);
            for side in [&initiator, &responder] {
                assert_eq!(side.symmetric.hash.to_vec(), bytes(&vector, "initialHash"));
                assert_eq!(side.symmetric.chaining_key.to_vec(), bytes(&vector, "initialChainingKey"));
            }
            let mut compared = 0;
            for said in vector["messages"].as_array().expect("messages") {
                let (from, to) = match text(said, "from") {
                    "initiator" => (&mut initiator, &mut responder),
                    _ => (&mut responder, &mut initiator),
                };
                let message = from.send(&bytes(said, "payload")).expect("its turn");
                assert_eq!(message, bytes(said, "message"));
                assert_eq!(to.receive(&message).expect("unchanged"), bytes(said, "payload"));
                // JavaScript forgets both after the last message; the hash is then the handshake's.
                if said["hashAfter"].is_null() {
                    continue;
                }
                compared += 1;
                for side in [&*from, &*to] {
                    assert_eq!(side.symmetric.hash.to_vec(), bytes(said, "hashAfter"));
                    assert_eq!(side.symmetric.chaining_key.to_vec(), bytes(said, "chainingKeyAfter"));
                }
            }
            assert_eq!(compared, vector["messages"].as_array().expect("messages").len() - 1);
            let (initiator, responder) = (initiator.finish().expect("done"), responder.finish().expect("done"));
            assert_eq!(initiator.hash.to_vec(), bytes(&vector, "handshakeHash"));
            assert_eq!(responder.hash, initiator.hash);
            assert_eq!(initiator.send_key.to_vec(), bytes(&vector, "initiatorTx"));
            assert_eq!(initiator.receive_key.to_vec(), bytes(&vector, "initiatorRx"));
            assert_eq!((responder.receive_key, responder.send_key), (initiator.send_key, initiator.receive_key));
            assert_eq!(initiator.remote_public_key, seed(&vector, "responderStatic"));
            assert_eq!(responder.remote_public_key, seed(&vector, "initiatorStatic"));
        }
        assert_eq!(patterns.into_iter().collect::<Vec<_>>(), ["IK", "XX"]);
    }

    /// Every byte of every message changed, and every message cut: refused at once, save for XX's first message, which nothing authenticates yet; there the
    /// responder's answer no longer fits the initiator, and never do both sides finish.
    #[test]
    fn no_changed_message_leads_to_a_session() {
        for vector in vectors() {
            let count = vector["messages"].as_array().expect("messages").len();
            for broken in 0..count {
                let len = bytes(&vector["messages"][broken], "message").len();
                let flips = (0..len).map(|at| (Some(at), len)).chain((0..len).map(|cut| (None, cut)));
                for (flip, cut) in flips.step_by(3) {
                    let (mut initiator, mut responder) = sides(&vector);
                    let mut refused = false;
                    for n in 0..count {
                        let (from, to) = if n % 2 == 0 {
                            (&mut initiator, &mut responder)
                        } else {
                            (&mut responder, &mut initiator)
                        };
                        let Ok(mut message) = from.send(&bytes(&vector["messages"][n], "payload")) else {
                            refused = true;
                            break;
                        };
                        if n == broken {
                            message.truncate(cut.min(message.len()));
                            if let Some(at) = flip.filter(|&at| at < message.len()) {
                                message[at] ^= 0x10;
                            } else if flip.is_some() {
                                message.push(0);
                            }
                        }
                        if to.receive(&message).is_err() {
                            assert_eq!(
                                to.receive(&message),
                                Err(HandshakeError::Turn),
                                "a failed handshake stays failed"
                            );
                            assert!(!to.is_complete());
                            refused = true;
                            break;
                        }
                    }
                    assert!(refused, "message {broken}, flip {flip:?}, cut {cut}");
                }
            }
        }
    }

    #[test]
    fn points_that_libsodium_refuses_are_refused() {
        let own = Identity::from_seed([3; 32]);
        let good = Identity::from_seed([4; 32]).public_key;
        assert!(own.shared_secret(&good).is_some());
        for torsion in EIGHT_TORSION {
            assert!(own.shared_secret(&torsion.compress().0).is_none(), "small order");
        }
        for torsion in &EIGHT_TORSION[1..] {
            assert!(
                own.shared_secret(&(ED25519_BASEPOINT_POINT + torsion).compress().0).is_none(),
                "outside the subgroup"
            );
        }
        // y = p + 1 and its like: the same point as y = 1, written differently; and x = 0 with a sign.
        for low in 0xed..=0xff {
            let mut encoding = [0xff; 32];
            encoding[0] = low;
            for sign in [0x7f, 0xff] {
                encoding[31] = sign;
                assert!(own.shared_secret(&encoding).is_none(), "not canonical: {low:x} {sign:x}");
            }
        }
        let mut signed_identity = [0; 32];
        signed_identity[0] = 1;
        signed_identity[31] = 0x80;
        assert!(own.shared_secret(&signed_identity).is_none());
    }

    #[test]
    fn nobody_speaks_out_of_turn() {
        let (mut initiator, mut responder) = sides(&vectors()[0]);
        assert_eq!(responder.send(&[]), Err(HandshakeError::Turn));
        assert_eq!(initiator.receive(&[0; 32]), Err(HandshakeError::Turn));
        let message = initiator.send(&[]).expect("its turn");
        assert_eq!(initiator.send(&[]), Err(HandshakeError::Turn));
        responder.receive(&message).expect("in turn");
        assert!(responder.finish().is_none(), "not all is said");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn strangers_do_not_panic_us(first in proptest::collection::vec(any::<u8>(), 0..120), answer in proptest::collection::vec(any::<u8>(), 0..120)) {
            for vector in vectors() {
                let (mut initiator, mut responder) = sides(&vector);
                let _ = responder.receive(&first);
                initiator.send(&[]).expect("its turn");
                prop_assert!(initiator.receive(&answer).is_err());
            }
        }
    }
}
