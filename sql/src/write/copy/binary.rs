//! The frames of the binary form.
//!
//! ```text
//! header   "PGCOPY\n\xff\r\n\0", flags i32, length of the extension i32, extension
//! row      number of fields i16, then for each: length i32 (-1: NULL), the type's binary form
//! trailer  -1 as i16
//! ```

use crate::error::{Result, SqlError, state};

/// What a file begins with.
pub const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// What a file ends with.
pub const TRAILER: [u8; 2] = (-1i16).to_be_bytes();

fn bad(message: impl Into<String>) -> SqlError {
    SqlError::new(state::BAD_COPY_FILE_FORMAT, message)
}

/// Length of the header at the front of `bytes`; None if more is needed.
pub fn header(bytes: &[u8]) -> Result<Option<usize>> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Err(bad("COPY file signature not recognized"));
    }
    let (Some(flags), Some(extension)) = (int(bytes, 11), int(bytes, 15)) else { return Ok(None) };
    if flags & 1 << 16 != 0 {
        return Err(bad("invalid COPY file header (WITH OIDS)"));
    }
    if flags as u32 >> 17 != 0 {
        return Err(bad("unrecognized critical flags in COPY file header"));
    }
    let extension = usize::try_from(extension).map_err(|_| bad("invalid COPY file header (missing length)"))?;
    let len = 19 + extension;
    Ok((bytes.len() >= len).then_some(len))
}

/// What stands at the front of the data.
pub enum Frame {
    /// A row of this length; its fields are in the list.
    Row(usize),
    /// The trailer.
    End,
}

/// Reads a row's frame; the fields' places go to `fields`. None if more is needed.
pub fn row(bytes: &[u8], columns: usize, fields: &mut Vec<super::lines::Field>) -> Result<Option<Frame>> {
    let Some(count) = bytes.get(..2) else { return Ok(None) };
    let count = i16::from_be_bytes([count[0], count[1]]);
    if count == -1 {
        return Ok(Some(Frame::End));
    }
    if usize::try_from(count) != Ok(columns) {
        return Err(bad(format!("row field count is {count}, expected {columns}")));
    }
    let mut at = 2;
    for _ in 0..columns {
        let Some(len) = int(bytes, at) else { return Ok(None) };
        at += 4;
        match usize::try_from(len) {
            Ok(len) => {
                fields.push(Some(at..at + len));
                at += len;
            }
            Err(_) if len == -1 => fields.push(None),
            Err(_) => return Err(bad("invalid field size")),
        }
    }
    Ok((bytes.len() >= at).then_some(Frame::Row(at)))
}

fn int(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
