//! Block encryption: what is stored, hashed, signed and sent is ciphertext; who has the encryption key reads plain blocks.
//!
//! ```text
//! block key     H( DEFAULT_ENCRYPTION || core key || encryption key )      a core whose key is the hash of its manifest
//!               H( key = core key, encryption key )                        a compat core
//!               encryption key                                             when it is given as the block key itself
//! blinding key  H( block key )
//!
//! stored block  pad (8 bytes) || body
//! pad           u64le(fork)  XOR  XSalsa20(blinding key, nonce = u64le(index) || 16 zero bytes)
//! body          plain        XOR  XSalsa20(block key,    nonce = u64le(index) || pad || 8 zero bytes)
//! ```
//!
//! Reading needs the index and the pad that is stored, never the fork. There is no authentication tag: what is stored is verified by the Merkle tree, which
//! covers the ciphertext, so a wrong key gives garbage, not an error; the layer above finds that out.
//!
//! What must stay true: no two blocks of a core are encrypted under one nonce and key. Index and fork make the nonce, so a block that was appended and
//! truncated is never followed by another under the same fork. What was staged and then dropped was shown to nobody.
//!
//! Source: `lib/default-encryption.js` in holepunchto/hypercore.

use std::fmt;

use bytes::Bytes;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

use crate::crypto::hash::{self, DEFAULT_ENCRYPTION};
use crate::crypto::key::CoreKey;
pub use crate::crypto::key::EncryptionKey;
use crate::position::{BlockIndex, Fork};

/// Bytes in front of every encrypted block.
pub const PADDING_BYTES: usize = 8;

/// Encrypts and decrypts the blocks of one core.
pub struct BlockCipher {
    block_key: Zeroizing<[u8; 32]>,
    blinding_key: Zeroizing<[u8; 32]>,
}

impl BlockCipher {
    /// For a core with this key; `is_compat` if that is its signer's public key.
    pub fn new(encryption_key: &EncryptionKey, core: CoreKey, is_compat: bool) -> BlockCipher {
        let secret = encryption_key.as_bytes();
        let block_key = Zeroizing::new(match (encryption_key.is_block_key(), is_compat) {
            (true, _) => *secret,
            (false, true) => hash::keyed(&core.0, &[secret]),
            (false, false) => hash::hash(&[&DEFAULT_ENCRYPTION, &core.0, secret]),
        });
        let blinding_key = Zeroizing::new(hash::hash(&[&*block_key]));
        BlockCipher { block_key, blinding_key }
    }

    /// What is stored of a block.
    pub fn encrypt(&self, index: BlockIndex, fork: Fork, plain: &[u8]) -> Bytes {
        let mut stored = Vec::with_capacity(PADDING_BYTES + plain.len());
        stored.extend_from_slice(&fork.0.to_le_bytes());
        stored.extend_from_slice(plain);
        let (pad, body) = stored.split_at_mut(PADDING_BYTES);
        apply(&self.blinding_key, index, &[0; PADDING_BYTES], pad);
        apply(&self.block_key, index, pad, body);
        stored.into()
    }

    /// The block that was stored like this; `None` for one too short to be encrypted.
    pub fn decrypt(&self, index: BlockIndex, stored: &[u8]) -> Option<Bytes> {
        let (pad, body) = stored.split_at_checked(PADDING_BYTES)?;
        let mut plain = body.to_vec();
        apply(&self.block_key, index, pad, &mut plain);
        Some(plain.into())
    }

    /// What body and pad are encrypted with, for tests.
    #[doc(hidden)]
    pub fn keys(&self) -> (&[u8; 32], &[u8; 32]) {
        (&self.block_key, &self.blinding_key)
    }
}

impl fmt::Debug for BlockCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlockCipher(secret)")
    }
}

fn apply(key: &[u8; 32], index: BlockIndex, pad: &[u8], bytes: &mut [u8]) {
    let mut nonce = [0; 24];
    nonce[..8].copy_from_slice(&index.0.to_le_bytes());
    nonce[8..8 + PADDING_BYTES].copy_from_slice(pad);
    XSalsa20::new(key.into(), (&nonce).into()).apply_keystream(bytes);
}
