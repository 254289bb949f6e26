//! Manifests: who may sign a core, and so what its key is.
//!
//! ```text
//! core key = H( MANIFEST || manifest )
//!
//! signer   = 00 (ed25519) || namespace[32] || public key[32]          prologue = hash[32] || uint length
//! v0       = 00 || 00 (blake2b) || 00 prologue hash[32]               (no signers)
//!                                | 01 signer                          (one signer, no patches)
//!                                | 02 uint patches? || uint quorum || array(signer)
//! v1 to 3  = version || flags || 00 (blake2b) || uint quorum || array(signer)
//!            || [2] prologue || [4] array(key[32]) linked || [8] buffer user data        flag 1: patches
//! ```
//!
//! We write version 1 with one signer: 70 bytes beginning `01 00 00 01 01 00`. All are read. A core is
//! *compat* when its key is its one signer's public key instead of the hash.
//!
//! Source: holepunchto/hypercore `lib/verifier.js`, `lib/messages.js`.

use crate::crypto::hash::{self, DEFAULT_NAMESPACE, Hash, MANIFEST};
use crate::crypto::key::{CoreKey, PublicKey};
use crate::encoding::compact::{self, DecodeError, Decoder};
use crate::error::{Error, Result};

/// The newest version that is decoded.
const VERSION_MAX: u64 = 3;

/// Who may sign a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Which encoding, and with it which rules.
    pub version: u64,
    /// Whether a signer's signature may be over a longer tree than the one it is shown for.
    pub allow_patch: bool,
    /// How many signers must sign. 0 only where nobody can.
    pub quorum: u64,
    /// Who may sign.
    pub signers: Vec<SignerKey>,
    /// The beginning of the log, fixed for good and needing no signature.
    pub prologue: Option<Prologue>,
    /// Keys of related cores: carried and hashed, never interpreted here.
    pub linked: Option<Vec<[u8; 32]>>,
    /// The application's own: carried and hashed, never interpreted here.
    pub user_data: Option<Vec<u8>>,
}

/// One who may sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignerKey {
    /// Keeps signatures of one key for several purposes apart (in version 0; later ones sign the core
    /// key, of which this is a part).
    pub namespace: Hash,
    /// The Ed25519 key.
    pub public_key: PublicKey,
}

/// The beginning of a log that its manifest fixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prologue {
    /// The tree hash at that length.
    pub hash: Hash,
    /// How many blocks. 0 in version 0, which does not store it.
    pub length: u64,
}

impl SignerKey {
    /// A signer in the default namespace.
    pub fn new(public_key: PublicKey) -> SignerKey {
        SignerKey { namespace: DEFAULT_NAMESPACE, public_key }
    }
}

impl Manifest {
    /// What new cores get: version 1, one signer.
    pub fn single(public_key: PublicKey) -> Manifest {
        Manifest {
            version: 1,
            allow_patch: false,
            quorum: 1,
            signers: vec![SignerKey::new(public_key)],
            prologue: None,
            linked: None,
            user_data: None,
        }
    }

    /// Version 1, several signers, more than half of which must sign.
    pub fn several(signers: Vec<SignerKey>) -> Manifest {
        let quorum = if signers.is_empty() { 0 } else { signers.len() as u64 / 2 + 1 };
        Manifest { quorum, signers, ..Manifest::single(PublicKey([0; 32])) }
    }

    /// Version 1, nobody can sign: a log that is complete, and whose key is its content. Source:
    /// `staticify` in holepunchto/corestore.
    pub fn fixed(prologue: Prologue) -> Manifest {
        Manifest { prologue: Some(prologue), ..Manifest::several(Vec::new()) }
    }

    /// Refuses what no core can have.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidManifest`].
    pub fn check(&self) -> Result<()> {
        let refuse = |why: &str| Err(Error::InvalidManifest(why.to_string()));
        if self.version > VERSION_MAX {
            return refuse("unknown version");
        }
        if self.quorum > self.signers.len() as u64 {
            return refuse("the quorum is larger than the number of signers");
        }
        let extended = self.linked.as_ref().is_some_and(|keys| !keys.is_empty()) || self.user_data.is_some();
        if self.version < 2 && extended {
            return refuse("linked keys and user data need version 2");
        }
        Ok(())
    }

    /// The bytes that are stored, sent and hashed.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(70 * self.signers.len().max(1));
        compact::uint(&mut out, self.version);
        if self.version == 0 {
            self.encode_v0(&mut out);
            return out;
        }
        let flags = u64::from(self.allow_patch)
            | u64::from(self.prologue.is_some()) << 1
            | u64::from(self.linked.is_some()) << 2
            | u64::from(self.user_data.is_some()) << 3;
        compact::uint(&mut out, flags);
        compact::uint(&mut out, 0);
        compact::uint(&mut out, self.quorum);
        compact::array(&mut out, &self.signers, encode_signer);
        if let Some(prologue) = &self.prologue {
            out.extend_from_slice(&prologue.hash);
            compact::uint(&mut out, prologue.length);
        }
        if let Some(linked) = &self.linked {
            compact::array(&mut out, linked, |out, key| out.extend_from_slice(key));
        }
        if let Some(data) = &self.user_data {
            compact::buffer(&mut out, data);
        }
        out
    }

    fn encode_v0(&self, out: &mut Vec<u8>) {
        compact::uint(out, 0);
        match (&self.prologue, &self.signers[..]) {
            (Some(prologue), []) => {
                compact::uint(out, 0);
                out.extend_from_slice(&prologue.hash);
            }
            (_, [signer]) if self.quorum == 1 && !self.allow_patch => {
                compact::uint(out, 1);
                encode_signer(out, signer);
            }
            (_, signers) => {
                compact::uint(out, 2);
                compact::uint(out, self.allow_patch.into());
                compact::uint(out, self.quorum);
                compact::array(out, signers, encode_signer);
            }
        }
    }

    /// Reads a manifest from its bytes; what follows it is left alone.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidManifest`], also for manifests that [`check`](Manifest::check) refuses.
    pub fn decode(bytes: &[u8]) -> Result<Manifest> {
        Manifest::decode_from(&mut Decoder::new(bytes))
    }

    /// [`decode`](Manifest::decode), as a part of a message.
    ///
    /// # Errors
    ///
    /// As [`decode`](Manifest::decode).
    pub fn decode_from(from: &mut Decoder<'_>) -> Result<Manifest> {
        let manifest = Manifest::read(from).map_err(|why| Error::InvalidManifest(why.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    fn read(from: &mut Decoder<'_>) -> std::result::Result<Manifest, DecodeError> {
        let version = from.uint()?;
        let mut manifest = Manifest { version, ..Manifest::several(Vec::new()) };
        match version {
            0 => {
                known_zero(from, "hash")?;
                match from.uint()? {
                    0 => manifest.prologue = Some(Prologue { hash: from.fixed()?, length: 0 }),
                    1 => {
                        manifest.quorum = 1;
                        manifest.signers = vec![read_signer(from)?];
                    }
                    2 => {
                        manifest.allow_patch = from.uint()? & 1 != 0;
                        manifest.quorum = from.uint()?;
                        manifest.signers = from.array(read_signer)?;
                    }
                    _ => return Err(DecodeError::Unknown("type of manifest")),
                }
            }
            1..=VERSION_MAX => {
                let flags = from.uint()?;
                known_zero(from, "hash")?;
                manifest.allow_patch = flags & 1 != 0;
                manifest.quorum = from.uint()?;
                manifest.signers = from.array(read_signer)?;
                if flags & 2 != 0 {
                    manifest.prologue = Some(Prologue { hash: from.fixed()?, length: from.uint()? });
                }
                if flags & 4 != 0 {
                    manifest.linked = Some(from.array(|from| from.fixed())?);
                }
                if flags & 8 != 0 {
                    manifest.user_data = Some(from.buffer()?.to_vec());
                }
            }
            _ => return Err(DecodeError::Unknown("version of manifest")),
        }
        Ok(manifest)
    }

    /// The key of the core this manifest belongs to.
    pub fn key(&self) -> CoreKey {
        CoreKey(hash::hash(&[&MANIFEST, &self.encode()]))
    }

    /// Whether this is the manifest of a core whose key is its one signer's public key.
    pub fn is_compat_with(&self, key: CoreKey) -> bool {
        matches!(&self.signers[..], [signer] if signer.public_key.0 == key.0)
    }
}

fn encode_signer(out: &mut Vec<u8>, signer: &SignerKey) {
    compact::uint(out, 0);
    out.extend_from_slice(&signer.namespace);
    out.extend_from_slice(&signer.public_key.0);
}

fn read_signer(from: &mut Decoder<'_>) -> std::result::Result<SignerKey, DecodeError> {
    known_zero(from, "kind of signature")?;
    Ok(SignerKey { namespace: from.fixed()?, public_key: PublicKey(from.fixed()?) })
}

/// An enumeration of which only the first value exists.
fn known_zero(from: &mut Decoder<'_>, what: &'static str) -> std::result::Result<(), DecodeError> {
    if from.uint()? == 0 { Ok(()) } else { Err(DecodeError::Unknown(what)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_manifests_are_refused() {
        let signer = SignerKey::new(PublicKey([1; 32]));
        let manifest = Manifest::several(vec![signer; 4]);
        assert_eq!(manifest.quorum, 3);
        assert!(Manifest { quorum: 5, ..manifest.clone() }.check().is_err());
        assert!(Manifest { linked: Some(vec![[1; 32]]), ..manifest.clone() }.check().is_err());
        assert!(Manifest { user_data: Some(vec![1]), ..manifest.clone() }.check().is_err());
        assert!(Manifest { version: 2, user_data: Some(vec![1]), ..manifest.clone() }.check().is_ok());
        assert!(Manifest { version: 4, ..manifest.clone() }.check().is_err());
        let bytes = Manifest { quorum: 4, ..manifest }.encode();
        for len in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..len]).is_err(), "cut to {len}");
        }
    }
}
