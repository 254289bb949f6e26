//! libsodium's secretstream (`crypto_secretstream_xchacha20poly1305`): each frame encrypted, and bound to all frames before it.
//!
//! ```text
//! header     24 random bytes, sent once in clear: key = HChaCha20(key, header[0..16]), nonce = u32le(1) || header[16..24]
//!
//! sealed     tag (1, encrypted) | body (n, encrypted) | MAC (16)
//!
//! ChaCha20 under (key, nonce):   block 0 -> Poly1305 key     block 1 ^ (tag, 00 x 63)     blocks 2.. ^ body
//! Poly1305 over:                 encrypted block 1 (64) | body (n) | 00 x (n mod 16) | u64le(0) | u64le(64 + n)
//! afterwards:                    nonce[4..12] ^= MAC[0..8], counter nonce[0..4] += 1; at 0, or after a tag with bit 2, a new key
//! ```
//!
//! The number of zeros is libsodium's: not what fills a block of 16, and for that no AEAD crate can make these MACs. Both sides of the chain must
//! see the same frames in the same order, so a frame that is lost, repeated, moved or changed does not open.
//!
//! Everything happens in place. Keys are wiped when dropped. Source: libsodium `crypto_secretstream/xchacha20poly1305`.

use chacha20::cipher::{KeyIvInit, StreamCipher};
use chacha20::{ChaCha20, R20, hchacha};
use poly1305::universal_hash::{KeyInit, UniversalHash};
use poly1305::{Block, Poly1305, Tag};
use zeroize::{Zeroize, Zeroizing};

/// The header that starts a sending chain.
pub(crate) const HEADER_BYTES: usize = 24;

/// What sealing adds to a body: the tag and the MAC.
pub(crate) const SEAL_BYTES: usize = 1 + MAC_BYTES;

const MAC_BYTES: usize = 16;
const CHACHA_BLOCK: usize = 64;

/// The tag of every message we send; peers send no other, and no meaning is given to the others.
const TAG_MESSAGE: u8 = 0;
/// The bit of a tag that asks for a new key.
const TAG_REKEY: u8 = 2;

/// A frame that is not the next one of its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forged;

/// One direction of a stream. The sender seals and the receiver opens; both advance the same chain.
pub(crate) struct Chain {
    key: [u8; 32],
    /// Counter (4), then what the MACs so far left (8).
    nonce: [u8; 12],
}

impl Chain {
    /// The chain that a header starts.
    pub(crate) fn new(key: &[u8; 32], header: &[u8; HEADER_BYTES]) -> Chain {
        let (input, inonce) = header.split_first_chunk::<16>().expect("a header has more than 16 bytes");
        let mut derived = hchacha::<R20>(key.into(), input.into());
        let mut chain = Chain { key: derived.into(), nonce: [0; 12] };
        derived.zeroize();
        chain.reset_counter();
        chain.nonce[4..].copy_from_slice(inonce);
        chain
    }

    /// Encrypt a frame in place: one byte for the tag, the body, and 16 bytes for the MAC.
    ///
    /// # Panics
    ///
    /// If the frame is too short for tag and MAC.
    pub(crate) fn seal(&mut self, frame: &mut [u8]) {
        let body_end = frame.len() - MAC_BYTES;
        let (sealed, mac) = frame.split_at_mut(body_end);
        let (tag, body) = sealed.split_first_mut().expect("a frame has room for its tag");
        let Start { mut cipher, mac: keyed, mut block } = Start::new(&self.key, &self.nonce);
        block[0] ^= TAG_MESSAGE;
        *tag = block[0];
        cipher.apply_keystream(body);
        let made = authenticate(keyed, &block, body);
        mac.copy_from_slice(&made);
        self.advance(&made, TAG_MESSAGE);
    }

    /// Decrypt a frame in place; the plaintext is `frame[1..len - 16]`. After an error the frame is as it was and the chain is stuck.
    pub(crate) fn open(&mut self, frame: &mut [u8]) -> Result<(), Forged> {
        let body_end = frame.len().checked_sub(MAC_BYTES).ok_or(Forged)?;
        let (sealed, mac) = frame.split_at_mut(body_end);
        let (sealed_tag, body) = sealed.split_first_mut().ok_or(Forged)?;
        let Start { mut cipher, mac: keyed, mut block } = Start::new(&self.key, &self.nonce);
        let tag = block[0] ^ *sealed_tag;
        block[0] = *sealed_tag;
        let made = authenticate(keyed, &block, body);
        if !same(&made, mac) {
            return Err(Forged);
        }
        cipher.apply_keystream(body);
        *sealed_tag = tag;
        self.advance(&made, tag);
        Ok(())
    }

    fn advance(&mut self, mac: &Tag, tag: u8) {
        for (byte, mac) in self.nonce[4..].iter_mut().zip(mac) {
            *byte ^= mac;
        }
        let counter = u32::from_le_bytes([self.nonce[0], self.nonce[1], self.nonce[2], self.nonce[3]]).wrapping_add(1);
        self.nonce[..4].copy_from_slice(&counter.to_le_bytes());
        if counter == 0 || tag & TAG_REKEY != 0 {
            self.rekey();
        }
    }

    fn rekey(&mut self) {
        let mut next = [0; 40];
        next[..32].copy_from_slice(&self.key);
        next[32..].copy_from_slice(&self.nonce[4..]);
        ChaCha20::new((&self.key).into(), (&self.nonce).into()).apply_keystream(&mut next);
        self.key.copy_from_slice(&next[..32]);
        self.nonce[4..].copy_from_slice(&next[32..]);
        self.reset_counter();
        next.zeroize();
    }

    fn reset_counter(&mut self) {
        self.nonce[..4].copy_from_slice(&1u32.to_le_bytes());
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.key.zeroize();
        self.nonce.zeroize();
    }
}

/// The ciphers of one message. `block` is keystream block 1; once its first byte carries the encrypted tag it is what the MAC starts with.
struct Start {
    cipher: ChaCha20,
    mac: Poly1305,
    block: Zeroizing<[u8; CHACHA_BLOCK]>,
}

impl Start {
    fn new(key: &[u8; 32], nonce: &[u8; 12]) -> Start {
        let mut cipher = ChaCha20::new(key.into(), nonce.into());
        // Blocks 0 and 1 at once; the cipher then stands at block 2, where the body begins.
        let mut start = Zeroizing::new([0; 2 * CHACHA_BLOCK]);
        cipher.apply_keystream(&mut *start);
        let (mac_key, rest) = start.split_at(CHACHA_BLOCK);
        let mac = Poly1305::new_from_slice(&mac_key[..poly1305::KEY_SIZE]).expect("a Poly1305 key has 32 bytes");
        let mut block = Zeroizing::new([0; CHACHA_BLOCK]);
        block.copy_from_slice(rest);
        Start { cipher, mac, block }
    }
}

/// The MAC over the encrypted block and the encrypted body.
fn authenticate(mut mac: Poly1305, block: &[u8; CHACHA_BLOCK], body: &[u8]) -> Tag {
    let (block, _) = Block::slice_as_chunks(block);
    mac.update(block);
    let (whole, rest) = Block::slice_as_chunks(body);
    mac.update(whole);
    // As many zeros as there are bytes left over, then the two lengths: at most 15 + 15 + 16 bytes.
    let mut tail = [0; 46];
    tail[..rest.len()].copy_from_slice(rest);
    let lengths = 2 * rest.len() + 8;
    tail[lengths..lengths + 8].copy_from_slice(&((CHACHA_BLOCK + body.len()) as u64).to_le_bytes());
    mac.compute_unpadded(&tail[..lengths + 8])
}

/// Whether two MACs are equal, in a time that does not tell where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |acc, (a, b)| acc | (a ^ b))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair() -> (Chain, Chain) {
        (Chain::new(&[7; 32], &[9; 24]), Chain::new(&[7; 32], &[9; 24]))
    }

    fn sealed(chain: &mut Chain, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; body.len() + SEAL_BYTES];
        frame[1..=body.len()].copy_from_slice(body);
        chain.seal(&mut frame);
        frame
    }

    #[test]
    fn a_new_key_when_the_counter_wraps_and_when_a_tag_asks() {
        let (mut sender, mut receiver) = pair();
        for chain in [&mut sender, &mut receiver] {
            chain.nonce[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        }
        let before = sender.key;
        let mut frame = sealed(&mut sender, b"last of its key");
        assert_ne!(sender.key, before);
        assert_eq!(sender.nonce[..4], [1, 0, 0, 0]);
        receiver.open(&mut frame).expect("the last frame of the old key");
        assert_eq!((receiver.key, receiver.nonce), (sender.key, sender.nonce));
        let mut frame = sealed(&mut sender, b"first of the new");
        receiver.open(&mut frame).expect("the first frame of the new key");
        assert_eq!(&frame[1..frame.len() - 16], b"first of the new");

        receiver.advance(&Tag::default(), TAG_REKEY);
        sender.advance(&Tag::default(), TAG_MESSAGE);
        assert_ne!(receiver.key, sender.key);
    }

    /// Lengths around the blocks of both ciphers, where libsodium's padding differs from the usual one.
    #[test]
    fn every_length_opens_and_no_changed_bit_does() {
        let (mut sender, mut receiver) = pair();
        for len in (0..200).chain([1023, 1024, 1025, 65_535, 65_536, 65_537]) {
            let body: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let frame = sealed(&mut sender, &body);
            for at in [0, len / 2, len, len + 16] {
                let mut changed = frame.clone();
                changed[at] ^= 1;
                assert_eq!(receiver.open(&mut changed), Err(Forged), "length {len}, byte {at}");
            }
            let mut opened = frame.clone();
            receiver.open(&mut opened).expect("unchanged");
            assert_eq!(opened[1..=len], body, "length {len}");
            assert_eq!(receiver.open(&mut frame.clone()), Err(Forged), "again, length {len}");
        }
    }

    proptest! {
        #[test]
        fn strange_bytes_do_not_open(mut frame in proptest::collection::vec(any::<u8>(), 0..80)) {
            let (_, mut receiver) = pair();
            prop_assert_eq!(receiver.open(&mut frame), Err(Forged));
        }
    }
}
