//! Manifests: who may sign a core, and so what its key is. [`Verifier`] checks and makes signatures.
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
//! We write version 1 with one signer: 70 bytes beginning `01 00 00 01 01 00`. All are read and verified.
//! What is signed:
//!
//! ```text
//! TREE[32] || context[32] || tree hash[32] || u64le length || u64le fork        112 bytes
//!             context: the core key, or (v0) the signer's namespace
//! TREE[32]                || tree hash[32] || u64le length || u64le fork         80 bytes, compat
//! ```
//!
//! A core is *compat* when its key is its one signer's public key. Signatures are stored and sent as the
//! 64 raw bytes for compat cores and plain v0 cores, else as a [`MultiSignature`].
//!
//! Source: holepunchto/hypercore `lib/verifier.js`, `lib/messages.js`, `lib/caps.js`, `lib/multisig.js`.

use std::collections::HashMap;

use crate::crypto::hash::{self, DEFAULT_NAMESPACE, Hash, MANIFEST, TREE};
use crate::crypto::key::{CoreKey, KeyPair, PublicKey};
use crate::encoding::compact::{self, DecodeError, Decoder};
use crate::error::{Error, Result};
use crate::hypercore::merkle::{Roots, TreeNode};
use crate::hypercore::position::{Fork, Length, NodeIndex};

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
        SignerKey {
            namespace: DEFAULT_NAMESPACE,
            public_key,
        }
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
        let quorum = if signers.is_empty() {
            0
        } else {
            signers.len() as u64 / 2 + 1
        };
        Manifest {
            quorum,
            signers,
            ..Manifest::single(PublicKey([0; 32]))
        }
    }

    /// Version 1, nobody can sign: a log that is complete, and whose key is its content. Source:
    /// `staticify` in holepunchto/corestore.
    pub fn fixed(prologue: Prologue) -> Manifest {
        Manifest {
            prologue: Some(prologue),
            ..Manifest::several(Vec::new())
        }
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
        let extended =
            self.linked.as_ref().is_some_and(|keys| !keys.is_empty()) || self.user_data.is_some();
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
        let manifest =
            Manifest::read(from).map_err(|why| Error::InvalidManifest(why.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    fn read(from: &mut Decoder<'_>) -> std::result::Result<Manifest, DecodeError> {
        let version = from.uint()?;
        let mut manifest = Manifest {
            version,
            ..Manifest::several(Vec::new())
        };
        match version {
            0 => {
                known_zero(from, "hash")?;
                match from.uint()? {
                    0 => {
                        manifest.prologue = Some(Prologue {
                            hash: from.fixed()?,
                            length: 0,
                        })
                    }
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
                    manifest.prologue = Some(Prologue {
                        hash: from.fixed()?,
                        length: from.uint()?,
                    });
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
    Ok(SignerKey {
        namespace: from.fixed()?,
        public_key: PublicKey(from.fixed()?),
    })
}

/// An enumeration of which only the first value exists.
fn known_zero(from: &mut Decoder<'_>, what: &'static str) -> std::result::Result<(), DecodeError> {
    if from.uint()? == 0 {
        Ok(())
    } else {
        Err(DecodeError::Unknown(what))
    }
}

/// Checks and makes the signatures of one core.
#[derive(Clone, Debug)]
pub struct Verifier {
    key: CoreKey,
    manifest: Manifest,
    is_compat: bool,
}

impl Verifier {
    /// For a core and the manifest that came with it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidManifest`] unless the manifest hashes to the key or is compat with it.
    pub fn new(key: CoreKey, manifest: Manifest) -> Result<Verifier> {
        manifest.check()?;
        let is_compat = manifest.is_compat_with(key);
        if !is_compat && manifest.key() != key {
            return Err(Error::InvalidManifest(format!(
                "it is not the manifest of core {key}"
            )));
        }
        Ok(Verifier {
            key,
            manifest,
            is_compat,
        })
    }

    /// For a core of which no manifest is known: one signer, whose public key is the core's key. Nothing
    /// else can be tried without a manifest; signatures of other cores will not verify.
    pub fn compat(key: CoreKey) -> Verifier {
        let manifest = Manifest::single(PublicKey(key.0));
        Verifier {
            key,
            manifest,
            is_compat: true,
        }
    }

    /// Who may sign.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether the core's key is its signer's public key.
    pub fn is_compat(&self) -> bool {
        self.is_compat
    }

    /// The bytes that a signer signs.
    ///
    /// # Panics
    ///
    /// If there is no such signer.
    pub fn signable(&self, signer: usize, tree: &Hash, length: Length, fork: Fork) -> Vec<u8> {
        let mut out = Vec::with_capacity(112);
        out.extend_from_slice(&TREE);
        match (self.is_compat, self.manifest.version) {
            (true, _) => {}
            (false, 0) => out.extend_from_slice(&self.manifest.signers[signer].namespace),
            (false, _) => out.extend_from_slice(&self.key.0),
        }
        out.extend_from_slice(tree);
        compact::uint64(&mut out, length.0);
        compact::uint64(&mut out, fork.0);
        out
    }

    /// Whether a key pair alone can sign for this core.
    pub fn can_sign(&self, public_key: PublicKey) -> bool {
        self.manifest.quorum == 1 && self.signer(public_key).is_some()
    }

    fn signer(&self, public_key: PublicKey) -> Option<usize> {
        self.manifest
            .signers
            .iter()
            .position(|signer| signer.public_key == public_key)
    }

    /// Sign a tree, in the form that is stored and sent. Within the prologue that is no signature.
    ///
    /// # Errors
    ///
    /// [`Error::NotWritable`] if the pair cannot sign alone, or the prologue says otherwise.
    pub fn sign(&self, pair: &KeyPair, tree: &Hash, length: Length, fork: Fork) -> Result<Vec<u8>> {
        if let Some(fixed) = self.within_prologue(tree, length) {
            return if fixed {
                Ok(Vec::new())
            } else {
                Err(Error::NotWritable)
            };
        }
        let signer = self
            .signer(pair.public_key())
            .filter(|_| self.manifest.quorum == 1);
        let signer = signer.ok_or(Error::NotWritable)?;
        let signature = pair.sign(&self.signable(signer, tree, length, fork));
        if self.is_raw() {
            return Ok(signature.to_vec());
        }
        let proof = PartialSignature {
            signer: signer as u64,
            signature,
            patch: 0,
            placement: None,
        };
        let whole = MultiSignature {
            proofs: vec![proof],
            nodes: Vec::new(),
        };
        Ok(whole.encode(self.manifest.version))
    }

    /// Check that a tree was signed as the manifest asks.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSignature`], whatever the reason.
    pub fn verify(&self, roots: &Roots, fork: Fork, signature: &[u8]) -> Result<()> {
        let valid = match self.within_prologue(&roots.hash(), roots.length()) {
            Some(fixed) => fixed,
            None if self.is_raw() => self.verify_raw(roots, fork, signature),
            None => self.verify_several(roots, fork, signature),
        };
        if valid {
            Ok(())
        } else {
            Err(Error::InvalidSignature)
        }
    }

    /// `Some` when the length lies within the prologue, which needs no signature: whether it is just the
    /// prologue, the only length there that stands for itself.
    fn within_prologue(&self, tree: &Hash, length: Length) -> Option<bool> {
        let prologue = self
            .manifest
            .prologue
            .filter(|_| self.manifest.version >= 1)?;
        let within = length.0 <= prologue.length;
        within.then(|| length.0 == prologue.length && *tree == prologue.hash)
    }

    fn is_raw(&self) -> bool {
        let Manifest {
            version,
            signers,
            allow_patch,
            ..
        } = &self.manifest;
        self.is_compat || (*version == 0 && signers.len() == 1 && !allow_patch)
    }

    fn verify_raw(&self, roots: &Roots, fork: Fork, signature: &[u8]) -> bool {
        let Ok(signature) = signature.try_into() else {
            return false;
        };
        let signed = self.signable(0, &roots.hash(), roots.length(), fork);
        self.manifest.signers[0]
            .public_key
            .verify(&signed, signature)
    }

    /// Only the first `quorum` proofs count, and each of them must hold.
    fn verify_several(&self, roots: &Roots, fork: Fork, signature: &[u8]) -> bool {
        let Manifest {
            version,
            quorum,
            signers,
            allow_patch,
            ..
        } = &self.manifest;
        let Ok(whole) = MultiSignature::decode(*version, signature) else {
            return false;
        };
        if *quorum == 0 || (whole.proofs.len() as u64) < *quorum {
            return false;
        }
        let nodes: HashMap<NodeIndex, TreeNode> =
            whole.nodes.iter().map(|node| (node.index, *node)).collect();
        let mut tried = vec![false; signers.len()];
        whole.proofs.iter().take(*quorum as usize).all(|proof| {
            let longer = match proof.patch {
                0 => None,
                _ if !allow_patch => None,
                patch => match patched(roots, patch, &nodes) {
                    Some(longer) => Some(longer),
                    None => return false,
                },
            };
            let tree = longer.as_ref().unwrap_or(roots);
            let index = usize::try_from(proof.signer).unwrap_or(usize::MAX);
            let Some(signer) = signers.get(index) else {
                return false;
            };
            let fresh = !std::mem::replace(&mut tried[index], true);
            let signed = self.signable(index, &tree.hash(), tree.length(), fork);
            fresh && signer.public_key.verify(&signed, &proof.signature)
        })
    }
}

/// The tree `patch` blocks further on, out of the nodes that came with a signature.
fn patched(roots: &Roots, patch: u64, nodes: &HashMap<NodeIndex, TreeNode>) -> Option<Roots> {
    let to = roots
        .length()
        .0
        .checked_add(patch)
        .filter(|to| to.leading_zeros() >= 8)?;
    let mut longer = roots.clone();
    for index in roots.extension(Length(to)) {
        if !longer.push(*nodes.get(&index)?, |_| ()) {
            return None;
        }
    }
    Some(longer)
}

/// Signatures of several signers over one tree, or over longer ones that extend it.
///
/// ```text
/// v1 and later   array( uint signer || signature[64] || uint patch ) || array(node)
/// v0             array( uint flags || uint signer || signature[64] || [1] uint length || uint patch
///                       || array(uint) placement ) || array(node)
/// node           uint index || uint size || hash[32]
/// ```
///
/// One signer in version 1 is `01 00 <64 bytes> 00 00`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiSignature {
    /// One for each signer.
    pub proofs: Vec<PartialSignature>,
    /// The nodes that extend the tree to the longer ones which were signed.
    pub nodes: Vec<TreeNode>,
}

/// One signer's part of a [`MultiSignature`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialSignature {
    /// Which of the manifest's signers.
    pub signer: u64,
    /// Their signature.
    pub signature: [u8; 64],
    /// How many blocks longer the tree they signed is.
    pub patch: u64,
    /// Version 0 with a patch: the length of the tree they signed, and which of the nodes belong to it.
    /// Not used to verify.
    pub placement: Option<(u64, Vec<u64>)>,
}

impl MultiSignature {
    /// The bytes stored and sent for a core with a manifest of this version.
    pub fn encode(&self, version: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + 68 * self.proofs.len() + 40 * self.nodes.len());
        compact::array(&mut out, &self.proofs, |out, proof| {
            if version == 0 {
                compact::uint(out, u64::from(proof.patch > 0));
            }
            compact::uint(out, proof.signer);
            out.extend_from_slice(&proof.signature);
            if version > 0 {
                compact::uint(out, proof.patch);
            } else if proof.patch > 0 {
                let (length, nodes) = proof
                    .placement
                    .as_ref()
                    .map_or((0, &[][..]), |(s, n)| (*s, n));
                compact::uint(out, length);
                compact::uint(out, proof.patch);
                compact::array(out, nodes, |out, &node| compact::uint(out, node));
            }
        });
        compact::array(&mut out, &self.nodes, |out, node| {
            compact::uint(out, node.index.0);
            compact::uint(out, node.size);
            out.extend_from_slice(&node.hash);
        });
        out
    }

    /// Read the signature of a core with a manifest of this version.
    ///
    /// # Errors
    ///
    /// Any [`DecodeError`]; bytes behind the end are ignored, as JavaScript does.
    pub fn decode(version: u64, bytes: &[u8]) -> std::result::Result<MultiSignature, DecodeError> {
        let mut from = Decoder::new(bytes);
        let proofs = from.array(|from| {
            let flags = if version == 0 { from.uint()? } else { 0 };
            let (signer, signature) = (from.uint()?, from.fixed()?);
            let (patch, placement) = if version > 0 {
                (from.uint()?, None)
            } else if flags & 1 != 0 {
                let (length, patch) = (from.uint()?, from.uint()?);
                (patch, Some((length, from.array(|from| from.uint())?)))
            } else {
                (0, None)
            };
            Ok(PartialSignature {
                signer,
                signature,
                patch,
                placement,
            })
        })?;
        let nodes = from.array(|from| {
            let (index, size) = (NodeIndex(from.uint()?), from.uint()?);
            Ok(TreeNode {
                index,
                size,
                hash: from.fixed()?,
            })
        })?;
        Ok(MultiSignature { proofs, nodes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_manifest_and_its_signature() {
        let pair = KeyPair::from_seed(&[1; 32]);
        let manifest = Manifest::single(pair.public_key());
        let bytes = manifest.encode();
        assert_eq!((bytes.len(), &bytes[..6]), (70, &[1, 0, 0, 1, 1, 0][..]));
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);

        let verifier = Verifier::new(manifest.key(), manifest.clone()).unwrap();
        let mut roots = Roots::new();
        roots.append(b"block", |_| ());
        let signature = verifier
            .sign(&pair, &roots.hash(), roots.length(), Fork(3))
            .unwrap();
        assert_eq!((signature.len(), signature[0], signature[1]), (68, 1, 0));
        verifier.verify(&roots, Fork(3), &signature).unwrap();
        assert_eq!(
            verifier.verify(&roots, Fork(4), &signature),
            Err(Error::InvalidSignature)
        );
        for bit in 0..signature.len() * 8 {
            let mut altered = signature.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            // The last two bytes hold a patch length, ignored without allow_patch, and a node count.
            if bit / 8 < 66 {
                assert!(
                    verifier.verify(&roots, Fork(3), &altered).is_err(),
                    "bit {bit}"
                );
            }
        }
        let stranger = KeyPair::from_seed(&[2; 32]);
        let refused = verifier.sign(&stranger, &roots.hash(), roots.length(), Fork(0));
        assert_eq!(refused, Err(Error::NotWritable));
        assert!(Verifier::new(CoreKey([0; 32]), manifest.clone()).is_err());
        assert!(
            Verifier::new(CoreKey(pair.public_key().0), manifest)
                .unwrap()
                .is_compat()
        );
    }

    #[test]
    fn a_fixed_log_verifies_by_its_content_alone() {
        let mut roots = Roots::new();
        roots.append(b"one", |_| ());
        let shorter = roots.clone();
        roots.append(b"two", |_| ());
        let manifest = Manifest::fixed(Prologue {
            hash: roots.hash(),
            length: 2,
        });
        let verifier = Verifier::new(manifest.key(), manifest).unwrap();
        verifier.verify(&roots, Fork(0), &[]).unwrap();
        assert!(verifier.verify(&shorter, Fork(0), &[]).is_err());
        roots.append(b"three", |_| ());
        assert!(verifier.verify(&roots, Fork(0), &[]).is_err());
        let pair = KeyPair::from_seed(&[1; 32]);
        assert!(
            verifier
                .sign(&pair, &roots.hash(), roots.length(), Fork(0))
                .is_err()
        );
    }

    #[test]
    fn impossible_manifests_are_refused() {
        let signer = SignerKey::new(PublicKey([1; 32]));
        let manifest = Manifest::several(vec![signer; 4]);
        assert_eq!(manifest.quorum, 3);
        assert!(
            Manifest {
                quorum: 5,
                ..manifest.clone()
            }
            .check()
            .is_err()
        );
        assert!(
            Manifest {
                linked: Some(vec![[1; 32]]),
                ..manifest.clone()
            }
            .check()
            .is_err()
        );
        assert!(
            Manifest {
                user_data: Some(vec![1]),
                ..manifest.clone()
            }
            .check()
            .is_err()
        );
        assert!(
            Manifest {
                version: 2,
                user_data: Some(vec![1]),
                ..manifest.clone()
            }
            .check()
            .is_ok()
        );
        assert!(
            Manifest {
                version: 4,
                ..manifest.clone()
            }
            .check()
            .is_err()
        );
        let bytes = Manifest {
            quorum: 4,
            ..manifest
        }
        .encode();
        for len in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..len]).is_err(), "cut to {len}");
        }
    }
}
