//! The bytes of frames: control messages read and written, and batches as they grow.

use bytes::{BufMut, BytesMut};
use pgbee_engine::encoding::compact::{self, DecodeError, Decoder};

/// The control channel.
pub(crate) const CONTROL: u64 = 0;

/// Kinds of control messages.
pub(crate) const BATCH: u64 = 0;
const OPEN: u64 = 1;
const REJECT: u64 = 2;
const CLOSE: u64 = 3;

/// A batch that has grown so far is sent before anything is added, as in JavaScript.
pub(crate) const BATCH_BYTES_MAX: usize = 8 << 20;

/// What a single message adds to its body at most: channel and kind, or a marker, channel, length and kind.
pub(crate) const OVERHEAD_MAX: usize = 2 + 1 + 3 * 9;

/// A control message other than a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control<'a> {
    Open {
        number: u64,
        protocol: &'a str,
        id: &'a [u8],
        handshake: &'a [u8],
    },
    Reject {
        number: u64,
    },
    Close {
        number: u64,
    },
    /// Of a newer version.
    Unknown,
}

impl<'a> Control<'a> {
    /// What follows the kind. Bytes behind what is known belong to newer versions.
    pub(crate) fn decode(kind: u64, body: &'a [u8]) -> Result<Control<'a>, DecodeError> {
        let mut body = Decoder::new(body);
        Ok(match kind {
            OPEN => Control::Open {
                number: body.uint()?,
                protocol: body.string()?,
                id: body.buffer()?,
                handshake: body.rest(),
            },
            REJECT => Control::Reject { number: body.uint()? },
            CLOSE => Control::Close { number: body.uint()? },
            _ => Control::Unknown,
        })
    }

    /// Kind and body.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Control::Open { number, protocol, id, handshake } => {
                compact::uint(&mut out, OPEN);
                compact::uint(&mut out, *number);
                compact::string(&mut out, protocol);
                compact::buffer(&mut out, id);
                out.extend_from_slice(handshake);
            }
            Control::Reject { number } => {
                compact::uint(&mut out, REJECT);
                compact::uint(&mut out, *number);
            }
            Control::Close { number } => {
                compact::uint(&mut out, CLOSE);
                compact::uint(&mut out, *number);
            }
            Control::Unknown => {}
        }
        out
    }
}

/// Append a message as a frame of its own.
pub(crate) fn put_message(out: &mut BytesMut, channel: u64, kind: u64, body: &[u8]) {
    out.reserve(OVERHEAD_MAX + body.len());
    put_uint(out, channel);
    put_uint(out, kind);
    out.put_slice(body);
}

/// A batch under a cork.
#[derive(Default)]
pub(crate) struct Batch {
    bytes: BytesMut,
    /// The channel of the last entry.
    channel: u64,
}

impl Batch {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Append an entry, and in front of it the channel if it is another one.
    pub(crate) fn put(&mut self, channel: u64, kind: u64, body: &[u8]) {
        self.begin_entry(channel, compact::uint_len(kind) + body.len());
        put_uint(&mut self.bytes, kind);
        self.bytes.put_slice(body);
    }

    /// Append a control message that has its kind in front.
    pub(crate) fn put_control(&mut self, message: &[u8]) {
        self.begin_entry(CONTROL, message.len());
        self.bytes.put_slice(message);
    }

    /// The whole frame; the batch is empty again.
    pub(crate) fn take(&mut self) -> BytesMut {
        self.bytes.split()
    }

    fn begin_entry(&mut self, channel: u64, len: usize) {
        self.bytes.reserve(OVERHEAD_MAX + len);
        if self.is_empty() {
            put_uint(&mut self.bytes, CONTROL);
            put_uint(&mut self.bytes, BATCH);
            put_uint(&mut self.bytes, channel);
        } else if channel != self.channel {
            put_uint(&mut self.bytes, 0);
            put_uint(&mut self.bytes, channel);
        }
        self.channel = channel;
        put_uint(&mut self.bytes, len as u64);
    }
}

/// compact-encoding's `uint`, in its shortest form.
fn put_uint(out: &mut BytesMut, n: u64) {
    match n {
        0..=0xfc => out.put_u8(n as u8),
        0xfd..=0xffff => {
            out.put_u8(0xfd);
            out.put_u16_le(n as u16);
        }
        0x1_0000..=0xffff_ffff => {
            out.put_u8(0xfe);
            out.put_u32_le(n as u32);
        }
        _ => {
            out.put_u8(0xff);
            out.put_u64_le(n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..40)
    }

    proptest! {
        #[test]
        fn numbers_are_compact_encodings(n: u64, shift in 0..64u32) {
            let (mut ours, mut theirs) = (BytesMut::new(), Vec::new());
            put_uint(&mut ours, n >> shift);
            compact::uint(&mut theirs, n >> shift);
            prop_assert_eq!(&ours[..], &theirs[..]);
        }

        #[test]
        fn controls_round_trip(number in 0..1u64 << 53, protocol in ".{0,30}", id in bytes(), handshake in bytes()) {
            let open = Control::Open { number, protocol: &protocol, id: &id, handshake: &handshake };
            for control in [open, Control::Reject { number }, Control::Close { number }] {
                let encoded = control.encode();
                prop_assert_eq!(Control::decode(encoded[0].into(), &encoded[1..]), Ok(control));
            }
        }

        #[test]
        fn no_control_panics(kind in 0..6u64, body in bytes()) {
            let _ = Control::decode(kind, &body);
        }
    }
}
