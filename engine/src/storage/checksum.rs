//! CRC-32C (Castagnoli), eight bytes a step: four bytes that tell damaged bytes from sound ones.
//!
//! It guards against accidents, on every read and for some tens of nanoseconds a block; against malice
//! there are the Merkle tree and its signature. Written here because it is fifty lines and `unsafe`,
//! which the processor's own instruction would need, is forbidden.

/// Reflected polynomial of CRC-32C.
const POLYNOMIAL: u32 = 0x82f6_3b78;

static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// The checksum of the concatenated parts.
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    !parts.iter().fold(!0, |crc, part| update(crc, part))
}

fn update(mut crc: u32, bytes: &[u8]) -> u32 {
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        let word = u64::from_le_bytes(*eight) ^ u64::from(crc);
        let at = |shift: u32| (word >> shift & 0xff) as usize;
        crc = TABLES[7][at(0)]
            ^ TABLES[6][at(8)]
            ^ TABLES[5][at(16)]
            ^ TABLES[4][at(24)]
            ^ TABLES[3][at(32)]
            ^ TABLES[2][at(40)]
            ^ TABLES[1][at(48)]
            ^ TABLES[0][at(56)];
    }
    for &byte in rest {
        crc = crc >> 8 ^ TABLES[0][((crc ^ u32::from(byte)) & 0xff) as usize];
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[&[0; 32]]), 0x8a91_36aa);
        assert_eq!(crc32c(&[&[0xff; 32]]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&[&rising]), 0x46dd_794e);
        assert_eq!(crc32c(&[b"123456789"]), 0xe306_9283);
        assert_eq!(crc32c(&[]), 0);
    }

    #[test]
    fn parts_do_not_matter() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).map(|b: u8| b.wrapping_mul(31)).collect();
        let whole = crc32c(&[&bytes]);
        for cut in 0..bytes.len() {
            assert_eq!(crc32c(&[&bytes[..cut], &bytes[cut..]]), whole);
        }
    }
}
