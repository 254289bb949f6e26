//! Keys and their text forms: [`CoreKey`], [`DiscoveryKey`], [`PublicKey`], [`KeyPair`], [`EncryptionKey`].
//!
//! A core's key is normally the hash of its manifest, not an Ed25519 public key; only a "compat" core
//! uses the public key itself. Whoever has a core's key can read it, so the key is shared with readers
//! and kept from others: peers find a core by its discovery key, which reveals nothing.
//!
//! Ids are written as 52 characters of z-base-32 or as 64 hex digits; both are read, also behind
//! `pear://` and before a `/`. Source: holepunchto/hypercore-id-encoding.
//!
//! A secret key is wiped from memory when dropped and no `Debug` or `Display` shows it.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::crypto::hash;
use crate::error::{Error, Result};

/// The key of a core: what readers are given, and what every block is verified against.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreKey(pub [u8; 32]);

/// The name peers find a core by without learning its key: BLAKE2b-256 of `hypercore`, keyed with the
/// core's 32-byte key. Source: `discoveryKey` in holepunchto/hypercore-crypto.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiscoveryKey(pub [u8; 32]);

/// An Ed25519 public key: one signer of a core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

macro_rules! id {
    ($name:ident) => {
        impl $name {
            /// The 32 bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// 64 hex digits.
            pub fn to_hex(&self) -> String {
                to_hex(&self.0)
            }

            /// 52 characters of z-base-32, as the JavaScript stack prints ids.
            pub fn to_z32(&self) -> String {
                to_z32(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_z32())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.to_z32())
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<$name> {
                parse_id(text).map($name)
            }
        }

        impl From<[u8; 32]> for $name {
            fn from(bytes: [u8; 32]) -> $name {
                $name(bytes)
            }
        }
    };
}

id!(CoreKey);
id!(DiscoveryKey);
id!(PublicKey);

impl CoreKey {
    /// The name under which peers look for this core.
    pub fn discovery_key(&self) -> DiscoveryKey {
        DiscoveryKey(hash::keyed(&self.0, &[b"hypercore"]))
    }
}

impl PublicKey {
    /// Whether this key signed the message.
    ///
    /// Strict, as libsodium is: keys and nonces of small order are refused, so that no signature is
    /// valid for two messages.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&self.0) else {
            return false;
        };
        key.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

/// An Ed25519 key pair. Wiped when dropped, never printed; not `Clone`-happy: pass it behind an `Arc`.
pub struct KeyPair {
    signing: SigningKey,
}

impl KeyPair {
    /// The pair that libsodium and the JavaScript stack derive from a 32-byte seed.
    pub fn from_seed(seed: &[u8; 32]) -> KeyPair {
        KeyPair { signing: SigningKey::from_bytes(seed) }
    }

    /// A new random pair.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`] if the operating system has no randomness to give.
    pub fn random() -> Result<KeyPair> {
        Ok(KeyPair::from_seed(&*random_bytes()?))
    }

    /// From libsodium's 64 bytes: seed, then public key.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the public half does not belong to the seed.
    pub fn from_secret_key(bytes: &[u8; 64]) -> Result<KeyPair> {
        match SigningKey::from_keypair_bytes(bytes) {
            Ok(signing) => Ok(KeyPair { signing }),
            Err(_) => Err(Error::invalid("the public half of this secret key does not match")),
        }
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.signing.verifying_key().to_bytes())
    }

    /// The 32-byte seed, in memory that is wiped when dropped.
    pub fn seed(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.signing.to_bytes())
    }

    /// libsodium's 64 bytes (seed, then public key), in memory that is wiped when dropped.
    pub fn secret_key(&self) -> zeroize::Zeroizing<[u8; 64]> {
        zeroize::Zeroizing::new(self.signing.to_keypair_bytes())
    }

    /// Sign a message. Deterministic, as Ed25519 is.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({}, secret)", self.public_key().to_z32())
    }
}

/// What readers of an encrypted core need beside the core's key. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptionKey {
    bytes: zeroize::Zeroizing<[u8; 32]>,
    is_block_key: bool,
}

impl EncryptionKey {
    /// A key that a core's block key is derived from: the normal kind.
    pub fn new(bytes: [u8; 32]) -> EncryptionKey {
        EncryptionKey { bytes: zeroize::Zeroizing::new(bytes), is_block_key: false }
    }

    /// A core's block key itself: opens that core and no other.
    pub fn block_key(bytes: [u8; 32]) -> EncryptionKey {
        EncryptionKey { bytes: zeroize::Zeroizing::new(bytes), is_block_key: true }
    }

    /// A new random key.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`] if the operating system has no randomness to give.
    pub fn random() -> Result<EncryptionKey> {
        Ok(EncryptionKey { bytes: random_bytes()?, is_block_key: false })
    }

    /// From 64 hex digits or 52 characters of z-base-32.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for anything else; the message does not repeat the text.
    pub fn parse(text: &str) -> Result<EncryptionKey> {
        match parse_id(text) {
            Ok(bytes) => Ok(EncryptionKey::new(bytes)),
            Err(_) => Err(Error::invalid("not an encryption key: 64 hex digits or 52 characters of z-base-32")),
        }
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Whether it is a core's block key itself.
    pub fn is_block_key(&self) -> bool {
        self.is_block_key
    }

    /// 64 hex digits, in memory that is wiped when dropped.
    pub fn to_hex(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(to_hex(&*self.bytes))
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptionKey(secret)")
    }
}

/// 32 bytes from the operating system, wiped when dropped.
///
/// # Errors
///
/// [`Error::Storage`] if the operating system has no randomness to give.
pub fn random_bytes() -> Result<zeroize::Zeroizing<[u8; 32]>> {
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(|error| {
        Error::Storage(crate::error::StorageError {
            message: format!("no randomness from the operating system: {error}"),
            kind: crate::error::StorageErrorKind::Other,
        })
    })?;
    Ok(bytes)
}

/// Read a key's text form: 52 characters of z-base-32 or 64 hex digits, with or without `pear://` in
/// front and anything from a `/` on behind.
///
/// # Errors
///
/// [`Error::Invalid`] for anything else.
pub fn parse_id(text: &str) -> Result<[u8; 32]> {
    let text = text.trim();
    let id = text.strip_prefix("pear://").unwrap_or(text);
    let id = id.split('/').next().unwrap_or(id);
    let bytes = match id.len() {
        64 => from_hex(id),
        52 => from_z32(id),
        _ => None,
    };
    let bytes: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| Error::invalid(format!("{text:?} is not a key: 52 characters of z-base-32 or 64 hex digits")))
}

const Z32: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";

/// z-base-32: five bits a character, the last one padded with zero bits.
pub fn to_z32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity((bytes.len() * 8).div_ceil(5));
    let (mut held, mut bits) = (0u32, 0);
    for &byte in bytes {
        held = (held << 8) | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(Z32[(held >> bits) as usize & 31] as char);
        }
    }
    if bits > 0 {
        text.push(Z32[(held << (5 - bits)) as usize & 31] as char);
    }
    text
}

/// The bytes of a z-base-32 text, or `None` for a foreign character or padding bits that are not zero.
pub fn from_z32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut held, mut bits) = (0u32, 0);
    for letter in text.bytes() {
        let value = Z32.iter().position(|&z| z == letter.to_ascii_lowercase())?;
        held = (held << 5) | value as u32;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
        held &= (1 << bits) - 1;
    }
    (held == 0).then_some(bytes)
}

/// Lower case hex digits.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

/// The bytes of an even number of hex digits of either case.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |letter: u8| (letter as char).to_digit(16).map(|digit| digit as u8);
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_refuse_nonsense() {
        let key = CoreKey([0xa7; 32]);
        assert_eq!(key.to_z32().len(), 52);
        for text in [
            key.to_z32(),
            key.to_hex(),
            key.to_hex().to_uppercase(),
            format!("pear://{}/some/path", key.to_z32()),
            format!("{}/x", key.to_hex()),
        ] {
            assert_eq!(text.parse::<CoreKey>().unwrap(), key, "{text}");
        }
        let mut padded = key.to_z32();
        padded.pop();
        padded.push('9');
        for bad in ["", "short", &"g".repeat(64), &"l".repeat(52), &padded] {
            assert!(bad.parse::<CoreKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let pair = KeyPair::from_seed(&[7; 32]);
        let shown = format!("{pair:?}");
        assert!(!shown.contains(&to_hex(&[7; 32])) && !shown.contains("[7, 7"), "{shown}");
        assert_eq!(KeyPair::from_secret_key(&pair.secret_key()).unwrap().public_key(), pair.public_key());
        let mut broken = *pair.secret_key();
        broken[40] ^= 1;
        assert!(KeyPair::from_secret_key(&broken).is_err());
    }
}
