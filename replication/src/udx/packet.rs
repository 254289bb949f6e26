//! A UDX packet's bytes.
//!
//! ```text
//! offset  0     1        2      3            4          8       12   16   20
//!         0xff  version  flags  data offset  stream id  window  seq  ack  SACK pairs, padding, payload
//!         u8    u8 = 1   u8     u8           u32le      u32le   u32le u32le
//! ```
//!
//! The stream id is the receiver's. The window is how many more bytes the sender can take. `data offset` bytes between the header and the payload are
//! skipped: a search for the path's MTU pads real packets with them, and SACK pairs lie there when a packet has payload, too. With the flag SACK, u32le pairs
//! (start, end exclusive) fill the data offset if that is neither 0 nor past the end, otherwise all the rest.
//!
//! What must stay true: [`Packet::decode`] never panics and allocates nothing; [`Seq`]s compare as if numbers never wrapped, which holds while those compared
//! are less than 2^31 apart on the wire.

/// Bytes of a header.
pub const HEADER_BYTES: usize = 20;
/// Bytes of an IPv4, a UDP and a UDX header: what an MTU has on top of a payload.
pub const OVERHEAD_BYTES: usize = 20 + 8 + HEADER_BYTES;
/// SACK pairs in one packet, at most.
pub const SACKS_MAX: usize = 50;

const MAGIC: u8 = 0xff;
const VERSION: u8 = 1;

/// Flags of a packet.
pub mod flag {
    /// Payload of the ordered stream.
    pub const DATA: u8 = 1;
    /// The last packet of this direction.
    pub const END: u8 = 2;
    /// SACK pairs follow the header.
    pub const SACK: u8 = 4;
    /// A datagram beside the stream.
    pub const MESSAGE: u8 = 8;
    /// Abort now.
    pub const DESTROY: u8 = 16;
    /// Answer with an ack.
    pub const HEARTBEAT: u8 = 32;
}

/// Number of a packet in its direction. On the wire it has 32 bits and wraps; here it has 64 and does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The first number of a direction. One whole turn is added, so that what a stranger claims to come before it is a number, too.
    pub fn first(wire: u32) -> Seq {
        Seq((1 << 32) + u64::from(wire))
    }
    /// What a packet carries.
    pub fn wire(self) -> u32 {
        self.0 as u32
    }
    /// The number nearest to this one that looks like `wire`.
    pub fn expand(self, wire: u32) -> Seq {
        let distance = wire.wrapping_sub(self.wire()) as i32;
        Seq(self.0.saturating_add_signed(i64::from(distance)))
    }
    /// `count` further.
    pub fn plus(self, count: u64) -> Seq {
        Seq(self.0 + count)
    }
    /// How far this is behind `base`; 0 if before it.
    pub fn since(self, base: Seq) -> u64 {
        self.0.saturating_sub(base.0)
    }
}

/// The fixed part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// [`flag`]s.
    pub flags: u8,
    /// Bytes between header and payload.
    pub data_offset: u8,
    /// The receiver's number of the stream.
    pub stream_id: u32,
    /// Bytes the sender can take.
    pub window: u32,
    /// This packet's number, or the next one's if it uses up none.
    pub seq: u32,
    /// The number the sender expects next.
    pub ack: u32,
}

impl Header {
    /// Appends it.
    pub fn encode(&self, into: &mut Vec<u8>) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&[MAGIC, VERSION, self.flags, self.data_offset]);
        bytes[4..8].copy_from_slice(&self.stream_id.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.window.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.seq.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.ack.to_le_bytes());
        into.extend_from_slice(&bytes);
    }
    /// Whether it has this flag, or one of these.
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }
}

/// A packet that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its header.
    pub header: Header,
    /// Bytes of SACK pairs; a rest that makes no pair is not looked at.
    sacks: &'a [u8],
    /// What comes after the data offset; None if that is past the end.
    pub payload: Option<&'a [u8]>,
}

impl<'a> Packet<'a> {
    /// Reads a datagram; None if it is no UDX packet.
    pub fn decode(datagram: &'a [u8]) -> Option<Packet<'a>> {
        let (header, rest) = datagram.split_at_checked(HEADER_BYTES)?;
        if header[0] != MAGIC || header[1] != VERSION {
            return None;
        }
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let header = Header {
            flags: header[2],
            data_offset: header[3],
            stream_id: word(4),
            window: word(8),
            seq: word(12),
            ack: word(16),
        };
        let offset = usize::from(header.data_offset);
        let sacks = match header.has(flag::SACK) {
            true if offset > 0 && offset < rest.len() => &rest[..offset],
            true => rest,
            false => &[],
        };
        Some(Packet { header, sacks, payload: rest.get(offset..) })
    }
    /// The SACK pairs, start and exclusive end.
    pub fn sacks(&self) -> impl Iterator<Item = (u32, u32)> + 'a {
        let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        self.sacks.chunks_exact(8).map(move |pair| (word(&pair[..4]), word(&pair[4..])))
    }
}
