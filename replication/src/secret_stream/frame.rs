//! The frames of the raw byte stream: three bytes of length, then so many bytes.
//!
//! ```text
//! u24le length | payload          a handshake message, the stream header, or a sealed message
//! ```
//!
//! The three bytes are a stranger's claim. Space grows with the bytes that really arrived, never with the claim, and a claim above the bound of the
//! moment is refused as soon as it is read.

use bytes::{Buf, BytesMut};

use super::StreamError;

/// The length in front of each frame.
pub(crate) const LENGTH_BYTES: usize = 3;

/// The longest payload that three bytes can announce.
pub(crate) const PAYLOAD_BYTES_MAX: usize = (1 << 24) - 1;

/// Bytes that arrived, cut into frames.
#[derive(Default)]
pub(crate) struct Frames {
    /// Frames not yet taken, the first from its length on. Frames taken share this buffer until they are dropped.
    received: BytesMut,
}

impl Frames {
    /// Take bytes of the stream.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The payload of the next frame, once all of it is there.
    pub(crate) fn next(&mut self, payload_max: usize) -> Result<Option<BytesMut>, StreamError> {
        let Some(length) = self.received.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let len = read_length(length);
        if len > payload_max {
            return Err(StreamError::FrameTooLarge { len, max: payload_max });
        }
        if self.received.len() < LENGTH_BYTES + len {
            return Ok(None);
        }
        self.received.advance(LENGTH_BYTES);
        Ok(Some(self.received.split_to(len)))
    }

    /// How many bytes of a frame that is not whole are here.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.received.len()
    }

    /// How much memory frames that are not whole take.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.received.capacity()
    }
}

/// The three bytes in front of a payload.
pub(crate) fn length_bytes(len: usize) -> [u8; LENGTH_BYTES] {
    debug_assert!(len <= PAYLOAD_BYTES_MAX, "a payload of {len} bytes");
    [len as u8, (len >> 8) as u8, (len >> 16) as u8]
}

fn read_length(bytes: &[u8; LENGTH_BYTES]) -> usize {
    usize::from(bytes[0]) | usize::from(bytes[1]) << 8 | usize::from(bytes[2]) << 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_claim_reserves_nothing() {
        let mut frames = Frames::default();
        frames.push(&[0xff, 0xff, 0xff, 1, 2, 3]);
        assert_eq!(frames.next(PAYLOAD_BYTES_MAX), Ok(None));
        assert!(frames.capacity() < 1024, "{} bytes for 6", frames.capacity());
        for _ in 0..100 {
            frames.push(&[0; 1000]);
            assert_eq!(frames.next(PAYLOAD_BYTES_MAX), Ok(None));
        }
        assert!(frames.capacity() < 3 * 100_000, "{} bytes for 100000", frames.capacity());
    }

    #[test]
    fn a_claim_above_the_bound_is_refused_before_its_bytes_come() {
        let mut frames = Frames::default();
        frames.push(&[1, 1]);
        assert_eq!(frames.next(256), Ok(None));
        frames.push(&[0]);
        assert_eq!(frames.next(256), Err(StreamError::FrameTooLarge { len: 257, max: 256 }));
    }

    proptest! {
        /// However the stream is cut into pieces, the same frames come out.
        #[test]
        fn pieces_do_not_matter(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20), piece in 1..70usize) {
            let mut stream = Vec::new();
            for payload in &payloads {
                stream.extend_from_slice(&length_bytes(payload.len()));
                stream.extend_from_slice(payload);
            }
            let (mut frames, mut taken) = (Frames::default(), Vec::new());
            for piece in stream.chunks(piece) {
                frames.push(piece);
                while let Some(payload) = frames.next(300).expect("within the bound") {
                    taken.push(payload.to_vec());
                }
            }
            prop_assert_eq!(taken, payloads);
        }
    }
}
