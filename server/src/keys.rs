//! Keys as people read and write them: z-base-32 (52 characters) and hex, as the Hypercore tools print them; `pear://` links are read, too.

use pgbee_sql::follow::{CoreKey, parse_key};

use crate::cli::Failure;

/// Reads a key.
///
/// # Errors
/// It is none; code 2.
pub fn parse(text: &str) -> Result<CoreKey, Failure> {
    parse_key(text).map_err(|_| Failure {
        message: format!("{text} is no key: 52 characters of z-base-32 or 64 hexadecimal digits; see pgbee help"),
        code: 2,
    })
}

/// z-base-32 without padding. Source: `hypercore-id-encoding`, alphabet of Zooko's base-32.
pub fn z_base_32(key: &[u8; 32]) -> String {
    const ALPHABET: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";
    let mut text = String::with_capacity(52);
    let (mut bits, mut count) = (0u16, 0);
    for byte in key {
        bits = bits << 8 | u16::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(char::from(ALPHABET[usize::from(bits >> count & 31)]));
        }
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        text.push(char::from(ALPHABET[usize::from(bits << (5 - count) & 31)]));
    }
    text
}

/// 64 lower case digits.
pub fn hex(key: &[u8; 32]) -> String {
    key.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_known_key_reads_as_the_javascript_stack_prints_it() {
        // From tests/vectors/crypto.json: a core key and its coreId.
        let text = include_str!("../../tests/vectors/crypto.json");
        let field = |name: &str| {
            let at = text.find(&format!("\"{name}\"")).expect("the vector has it");
            text[at..].split('"').nth(3).expect("a string").to_owned()
        };
        let hex = field("coreKey");
        let key: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex")).collect();
        let key: [u8; 32] = key.try_into().expect("32 bytes");
        assert_eq!(super::z_base_32(&key), field("coreId"));
        assert_eq!(super::hex(&key), hex);
        let id = field("coreId");
        for text in [hex.clone(), hex.to_uppercase(), id.clone(), format!("pear://{id}"), format!("pear://{id}/x/y")] {
            assert!(super::parse(&text).is_ok_and(|read| read.0 == key), "{text}");
        }
        for wrong in ["", "shop", &id[1..], &format!("{id}y"), &format!("l{}", &id[1..]), "pear://"] {
            assert!(super::parse(wrong).is_err(), "{wrong}");
        }
    }
}
