//! Passwords: SCRAM-SHA-256 verifiers as PostgreSQL stores them, `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>` (base64).
//! The password itself is never kept.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pgwire::api::auth::sasl::scram::{SCRAM_ITERATIONS, ScramSecret, gen_salted_password};

/// A fresh verifier of a password.
///
/// # Errors
/// The operating system gave no random bytes.
pub fn verifier(password: &str) -> Result<String, String> {
    let mut salt = [0u8; 16];
    getrandom::fill(&mut salt).map_err(|e| format!("no random bytes: {e}"))?;
    let salted = gen_salted_password(password, &salt, SCRAM_ITERATIONS);
    match ScramSecret::verifier_from_salted_password(salt.to_vec(), salted, SCRAM_ITERATIONS) {
        ScramSecret::Verifier { salt, iterations, stored_key, server_key } => Ok(format!(
            "SCRAM-SHA-256${iterations}:{}${}:{}",
            STANDARD.encode(salt),
            STANDARD.encode(stored_key),
            STANDARD.encode(server_key)
        )),
        ScramSecret::SaltedPassword { .. } => Err("no verifier came of the password".into()),
    }
}

/// Reads a stored verifier.
pub fn parse(verifier: &str) -> Option<ScramSecret> {
    let mut parts = verifier.strip_prefix("SCRAM-SHA-256$")?.split('$');
    let (iterations, salt) = parts.next()?.split_once(':')?;
    let (stored, server) = parts.next()?.split_once(':')?;
    let decode = |text: &str| STANDARD.decode(text).ok();
    Some(ScramSecret::Verifier {
        salt: decode(salt)?,
        iterations: iterations.parse().ok()?,
        stored_key: decode(stored)?,
        server_key: decode(server)?,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_verifier_reads_back_and_holds_no_password() {
        let text = super::verifier("correct horse").expect("random bytes");
        assert!(super::parse(&text).is_some() && !text.contains("horse"));
        assert_ne!(text, super::verifier("correct horse").expect("random bytes"), "the salt is fresh");
        assert!(super::parse("md5abc").is_none() && super::parse("SCRAM-SHA-256$x:y$z").is_none());
    }
}
