//! Digests: md5, SHA-2 (FIPS 180-4) and PostgreSQL's own hash of hash indexes, hashtext().
//!
//! SHA-2's constants are the fractional parts of roots of primes; they are computed in whole numbers when first needed and checked by the tests'
//! known answers.

use std::sync::OnceLock;

use md5::{Digest, Md5};

use super::args;
use super::registry::Registry;
use crate::types::bytea::write_hex;
use crate::types::{Datum, Type};

/// Adds them all.
pub fn register(r: &mut Registry) {
    r.pure("md5", &[Type::TEXT], Type::TEXT, |a, _| Ok(Datum::text(md5_hex(args::text(a, 0)?.as_bytes()))));
    r.pure("md5", &[Type::BYTEA], Type::TEXT, |a, _| Ok(Datum::text(md5_hex(args::bytes(a, 0)?))));
    r.pure("sha224", &[Type::BYTEA], Type::BYTEA, |a, _| Ok(Datum::bytea(sha224(args::bytes(a, 0)?))));
    r.pure("sha256", &[Type::BYTEA], Type::BYTEA, |a, _| Ok(Datum::bytea(sha256(args::bytes(a, 0)?))));
    r.pure("sha384", &[Type::BYTEA], Type::BYTEA, |a, _| Ok(Datum::bytea(sha384(args::bytes(a, 0)?))));
    r.pure("sha512", &[Type::BYTEA], Type::BYTEA, |a, _| Ok(Datum::bytea(sha512(args::bytes(a, 0)?))));
    r.pure("hashtext", &[Type::TEXT], Type::INT4, |a, _| {
        Ok(Datum::Int4(hash_bytes(args::text(a, 0)?.as_bytes()).cast_signed()))
    });
}

fn md5_hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(32);
    write_hex(&Md5::digest(bytes), &mut out);
    out
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    sha2_small(bytes, std::array::from_fn(|i| (constants().sqrt[i] >> 32) as u32), 8)
}

fn sha224(bytes: &[u8]) -> Vec<u8> {
    // The second halves of the roots of the 9th to 16th primes.
    sha2_small(bytes, std::array::from_fn(|i| constants().sqrt[8 + i] as u32), 7)
}

fn sha512(bytes: &[u8]) -> Vec<u8> {
    sha2_large(bytes, std::array::from_fn(|i| constants().sqrt[i]), 8)
}

fn sha384(bytes: &[u8]) -> Vec<u8> {
    sha2_large(bytes, std::array::from_fn(|i| constants().sqrt[8 + i]), 6)
}

struct Constants {
    /// First 64 bits of the fractional parts of the square roots of the first 16 primes.
    sqrt: [u64; 16],
    /// The same of the cube roots of the first 80.
    cbrt: [u64; 80],
}

fn constants() -> &'static Constants {
    static CONSTANTS: OnceLock<Constants> = OnceLock::new();
    CONSTANTS.get_or_init(|| {
        let primes: Vec<u32> =
            (2u32..).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0)).take(80).collect();
        // floor(root(p << 64k)) holds the root with 64 fractional bits; its low half is the constant.
        let fraction = |p: u32, k: u32| {
            let root = (num_bigint::BigUint::from(p) << (64 * k)).nth_root(k);
            root.iter_u64_digits().next().unwrap_or(0)
        };
        Constants {
            sqrt: std::array::from_fn(|i| fraction(primes[i], 2)),
            cbrt: std::array::from_fn(|i| fraction(primes[i], 3)),
        }
    })
}

// The message, a one bit, zeros, and its length in bits, in whole blocks.
fn padded(bytes: &[u8], block: usize) -> Vec<u8> {
    let mut m = bytes.to_vec();
    m.push(0x80);
    let length_bytes = block / 8;
    while m.len() % block != block - length_bytes {
        m.push(0);
    }
    let bits = bytes.len() as u128 * 8;
    m.extend_from_slice(&bits.to_be_bytes()[16 - length_bytes..]);
    m
}

macro_rules! sha2 {
    ($name:ident, $word:ty, $rounds:literal, $block:literal, $k:expr, $s0:expr, $s1:expr, $t0:expr, $t1:expr) => {
        fn $name(bytes: &[u8], mut h: [$word; 8], words: usize) -> Vec<u8> {
            const SIZE: usize = std::mem::size_of::<$word>();
            let small = |x: $word, r: [u32; 3]| x.rotate_right(r[0]) ^ x.rotate_right(r[1]) ^ (x >> r[2]);
            let big = |x: $word, r: [u32; 3]| x.rotate_right(r[0]) ^ x.rotate_right(r[1]) ^ x.rotate_right(r[2]);
            for block in padded(bytes, $block).chunks_exact($block) {
                let mut w = [0 as $word; $rounds];
                for (word, chunk) in w.iter_mut().zip(block.chunks_exact(SIZE)) {
                    *word = chunk.iter().fold(0, |n, b| n << 8 | <$word>::from(*b));
                }
                for i in 16..$rounds {
                    w[i] = w[i - 16]
                        .wrapping_add(small(w[i - 15], $s0))
                        .wrapping_add(w[i - 7])
                        .wrapping_add(small(w[i - 2], $s1));
                }
                let mut v = h;
                for i in 0..$rounds {
                    let choice = (v[4] & v[5]) ^ (!v[4] & v[6]);
                    let majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
                    let t1 =
                        v[7].wrapping_add(big(v[4], $t1)).wrapping_add(choice).wrapping_add($k(i)).wrapping_add(w[i]);
                    let t2 = big(v[0], $t0).wrapping_add(majority);
                    v = [t1.wrapping_add(t2), v[0], v[1], v[2], v[3].wrapping_add(t1), v[4], v[5], v[6]];
                }
                for (sum, x) in h.iter_mut().zip(v) {
                    *sum = sum.wrapping_add(x);
                }
            }
            h.iter().take(words).flat_map(|x| x.to_be_bytes()).collect()
        }
    };
}

sha2!(
    sha2_small,
    u32,
    64,
    64,
    |i: usize| (constants().cbrt[i] >> 32) as u32,
    [7, 18, 3],
    [17, 19, 10],
    [2, 13, 22],
    [6, 11, 25]
);
sha2!(sha2_large, u64, 80, 128, |i: usize| constants().cbrt[i], [1, 8, 7], [19, 61, 6], [28, 34, 39], [14, 18, 41]);

/// PostgreSQL's `hash_any` (Bob Jenkins' lookup3), what hashtext() gives: people make advisory lock keys of it.
pub fn hash_bytes(bytes: &[u8]) -> u32 {
    let start = 0x9e37_79b9u32.wrapping_add(bytes.len() as u32).wrapping_add(3_923_095);
    let (mut a, mut b, mut c) = (start, start, start);
    let word = |w: &[u8]| w.iter().rev().fold(0u32, |n, x| n << 8 | u32::from(*x));
    let mut chunks = bytes.chunks_exact(12);
    for chunk in &mut chunks {
        a = a.wrapping_add(word(&chunk[..4]));
        b = b.wrapping_add(word(&chunk[4..8]));
        c = c.wrapping_add(word(&chunk[8..]));
        for (x, y) in [(4, 0), (6, 1), (8, 2), (16, 0), (19, 1), (4, 2)] {
            // Three rounds of two: a -= c; a ^= rot(c, r); c += b, with the letters turning.
            match y {
                0 => {
                    a = a.wrapping_sub(c) ^ c.rotate_left(x);
                    c = c.wrapping_add(b);
                }
                1 => {
                    b = b.wrapping_sub(a) ^ a.rotate_left(x);
                    a = a.wrapping_add(c);
                }
                _ => {
                    c = c.wrapping_sub(b) ^ b.rotate_left(x);
                    b = b.wrapping_add(a);
                }
            }
        }
    }
    let tail = chunks.remainder();
    let part = |from: usize| word(tail.get(from..).map_or(&[], |t| &t[..t.len().min(4)]));
    a = a.wrapping_add(part(0));
    b = b.wrapping_add(part(4));
    // The last byte of c is taken by the length.
    c = c.wrapping_add(part(8) << 8);
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        let mut out = String::new();
        write_hex(bytes, &mut out);
        out
    }

    /// Answers from PostgreSQL 15.
    #[test]
    fn known_answers() {
        assert_eq!(md5_hex(b"a"), "0cc175b9c0f1b6a831c399e269772661");
        assert_eq!(hex(&sha224(b"a")), "abd37534c7d9a2efb9465de931cd7055ffdb8879563ae98078d6d6d5");
        assert_eq!(hex(&sha256(b"a")), "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb");
        assert_eq!(
            hex(&sha384(b"a")),
            "54a59b9f22b0b80880d8427e548b7c23abd873486e1f035dce9cd697e85175033caa88e6d57bc35efae0b5afd3145f31"
        );
        assert_eq!(
            hex(&sha512(b"abc")),
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        );
        for (text, hash) in HASHES {
            assert_eq!(hash_bytes(text.as_bytes()).cast_signed(), *hash, "{text}");
        }
    }

    const HASHES: &[(&str, i32)] = &[
        ("abc", -785_388_649),
        ("", -1_477_818_771),
        ("abcdefghijkl", -1586087212),
        ("abcdefghijklmnopqrstuvwxyz", 167831483),
        ("abcdefgh", -1960928205),
    ];
}
