//! Signatures: what exactly is signed, how it is stored and sent, and whether it holds. [`Verifier`].
//!
//! ```text
//! TREE[32] || context[32] || tree hash[32] || u64le length || u64le fork        112 bytes
//!             context: the core key, or (v0) the signer's namespace
//! TREE[32]                || tree hash[32] || u64le length || u64le fork         80 bytes, compat
//! ```
//!
//! Signatures are stored and sent as the 64 raw bytes for compat cores and plain v0 cores, else as a
//! [`MultiSignature`], also with a single signer.
//!
//! Source: holepunchto/hypercore `lib/verifier.js`, `lib/caps.js`, `lib/multisig.js`, `lib/messages.js`.

use std::collections::HashMap;

use crate::crypto::hash::{Hash, TREE};
use crate::crypto::key::{CoreKey, KeyPair, PublicKey};
use crate::crypto::manifest::{Manifest, Prologue};
use crate::crypto::merkle::{Roots, TreeNode};
use crate::encoding::compact::{self, DecodeError, Decoder};
use crate::error::{Error, Result};
use crate::position::{Fork, Length, NodeIndex};

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
            return Err(Error::InvalidManifest(format!("it is not the manifest of core {key}")));
        }
        Ok(Verifier { key, manifest, is_compat })
    }

    /// For a core of which no manifest is known: one signer, whose public key is the core's key. Nothing
    /// else can be tried without a manifest; signatures of other cores will not verify.
    pub fn compat(key: CoreKey) -> Verifier {
        let manifest = Manifest::single(PublicKey(key.0));
        Verifier { key, manifest, is_compat: true }
    }

    /// Who may sign.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether the core's key is its signer's public key.
    pub fn is_compat(&self) -> bool {
        self.is_compat
    }

    /// The beginning of the log that the manifest fixes, if it does.
    pub fn prologue(&self) -> Option<Prologue> {
        self.manifest.prologue.filter(|_| self.manifest.version >= 1 && !self.is_compat)
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
        self.manifest.signers.iter().position(|signer| signer.public_key == public_key)
    }

    /// Sign a tree, in the form that is stored and sent. Within the prologue that is no signature.
    ///
    /// # Errors
    ///
    /// [`Error::NotWritable`] if the pair cannot sign alone, or the prologue says otherwise.
    pub fn sign(&self, pair: &KeyPair, tree: &Hash, length: Length, fork: Fork) -> Result<Vec<u8>> {
        if let Some(fixed) = self.within_prologue(tree, length) {
            return if fixed { Ok(Vec::new()) } else { Err(Error::NotWritable) };
        }
        let signer = self.signer(pair.public_key()).filter(|_| self.manifest.quorum == 1);
        let signer = signer.ok_or(Error::NotWritable)?;
        let signature = pair.sign(&self.signable(signer, tree, length, fork));
        if self.is_raw() {
            return Ok(signature.to_vec());
        }
        let proof = PartialSignature { signer: signer as u64, signature, patch: 0, placement: None };
        let whole = MultiSignature { proofs: vec![proof], nodes: Vec::new() };
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
        if valid { Ok(()) } else { Err(Error::InvalidSignature) }
    }

    /// `Some` when the length lies within the prologue, which needs no signature: whether it is just the
    /// prologue, the only length there that stands for itself. A compat core has none: its key does not stand for what a manifest
    /// says beside its signer, which anyone can have made up.
    fn within_prologue(&self, tree: &Hash, length: Length) -> Option<bool> {
        let prologue = self.prologue()?;
        let within = length.0 <= prologue.length;
        within.then(|| length.0 == prologue.length && *tree == prologue.hash)
    }

    fn is_raw(&self) -> bool {
        let Manifest { version, signers, allow_patch, .. } = &self.manifest;
        self.is_compat || (*version == 0 && signers.len() == 1 && !allow_patch)
    }

    fn verify_raw(&self, roots: &Roots, fork: Fork, signature: &[u8]) -> bool {
        let Ok(signature) = signature.try_into() else {
            return false;
        };
        let signed = self.signable(0, &roots.hash(), roots.length(), fork);
        self.manifest.signers[0].public_key.verify(&signed, signature)
    }

    /// Only the first `quorum` proofs count, and each of them must hold.
    fn verify_several(&self, roots: &Roots, fork: Fork, signature: &[u8]) -> bool {
        let Manifest { version, quorum, signers, allow_patch, .. } = &self.manifest;
        let Ok(whole) = MultiSignature::decode(*version, signature) else {
            return false;
        };
        if *quorum == 0 || (whole.proofs.len() as u64) < *quorum {
            return false;
        }
        let nodes: HashMap<NodeIndex, TreeNode> = whole.nodes.iter().map(|node| (node.index, *node)).collect();
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
    let to = roots.length().0.checked_add(patch).filter(|to| to.leading_zeros() >= 8)?;
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
                let (length, nodes) = proof.placement.as_ref().map_or((0, &[][..]), |(s, n)| (*s, n));
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
            Ok(PartialSignature { signer, signature, patch, placement })
        })?;
        let nodes = from.array(|from| {
            let (index, size) = (NodeIndex(from.uint()?), from.uint()?);
            Ok(TreeNode { index, size, hash: from.fixed()? })
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
        let signature = verifier.sign(&pair, &roots.hash(), roots.length(), Fork(3)).unwrap();
        assert_eq!((signature.len(), signature[0], signature[1]), (68, 1, 0));
        verifier.verify(&roots, Fork(3), &signature).unwrap();
        assert_eq!(verifier.verify(&roots, Fork(4), &signature), Err(Error::InvalidSignature));
        for bit in 0..signature.len() * 8 {
            let mut altered = signature.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            // The last two bytes hold a patch length, ignored without allow_patch, and a node count.
            if bit / 8 < 66 {
                assert!(verifier.verify(&roots, Fork(3), &altered).is_err(), "bit {bit}");
            }
        }
        let stranger = KeyPair::from_seed(&[2; 32]);
        let refused = verifier.sign(&stranger, &roots.hash(), roots.length(), Fork(0));
        assert_eq!(refused, Err(Error::NotWritable));
        assert!(Verifier::new(CoreKey([0; 32]), manifest.clone()).is_err());
        assert!(Verifier::new(CoreKey(pair.public_key().0), manifest).unwrap().is_compat());
    }

    #[test]
    fn a_fixed_log_verifies_by_its_content_alone() {
        let mut roots = Roots::new();
        roots.append(b"one", |_| ());
        let shorter = roots.clone();
        roots.append(b"two", |_| ());
        let manifest = Manifest::fixed(Prologue { hash: roots.hash(), length: 2 });
        let verifier = Verifier::new(manifest.key(), manifest).unwrap();
        verifier.verify(&roots, Fork(0), &[]).unwrap();
        assert!(verifier.verify(&shorter, Fork(0), &[]).is_err());
        roots.append(b"three", |_| ());
        assert!(verifier.verify(&roots, Fork(0), &[]).is_err());
        let pair = KeyPair::from_seed(&[1; 32]);
        assert!(verifier.sign(&pair, &roots.hash(), roots.length(), Fork(0)).is_err());
    }
}
