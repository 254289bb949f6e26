//! gen_random_uuid(), and randomness from the operating system.

use std::io::Read;

use super::registry::{Registry, ScalarFn, Volatility};
use crate::error::{Result, SqlError, state};
use crate::types::{Datum, Type};

/// Adds it.
pub fn register(r: &mut Registry) {
    r.scalar(ScalarFn {
        name: "gen_random_uuid",
        args: &[],
        variadic: None,
        optional: 0,
        ret: Type::UUID,
        strict: true,
        volatility: Volatility::Volatile,
        imp: |_, _| {
            let mut u = random_bytes::<16>()?;
            // Version 4, variant 1 of RFC 4122.
            u[6] = u[6] & 0x0f | 0x40;
            u[8] = u[8] & 0x3f | 0x80;
            Ok(Datum::Uuid(Box::new(u)))
        },
    });
}

/// Bytes of the operating system's generator.
pub fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    read.map_err(|e| SqlError::new(state::INTERNAL_ERROR, format!("could not generate random values: {e}")))?;
    Ok(bytes)
}
