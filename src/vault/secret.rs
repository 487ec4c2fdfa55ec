//! Passwords and tokens: made, hashed, compared. Nothing here is ever logged.
use super::VaultError;
use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng as _;
use zeroize::Zeroizing;

pub const PASSWORD_LEN_MIN: usize = 10;
const PASSWORD_LEN_MAX: usize = 512;

/// 256 random bits with a prefix that tells what it is, so that one found in a file is recognised.
pub(super) fn token(prefix: &str) -> String {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::rng().fill_bytes(bytes.as_mut());
    format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(bytes.as_ref()))
}

/// A password for the first login: 100 random bits in letters and digits that are not mistaken for each other.
pub(super) fn one_time_password() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789A";
    let mut bytes = Zeroizing::new([0; 20]);
    rand::rng().fill_bytes(bytes.as_mut());
    let mut text = String::new();
    for (place, byte) in bytes.iter().enumerate() {
        if place > 0 && place % 5 == 0 {
            text.push('-');
        }
        text.push(char::from(LETTERS[usize::from(byte % 32)]));
    }
    text
}

/// A token is random already: a fast hash is enough, and a look-up by it tells nothing by its time.
pub(super) fn digest(token: &str) -> [u8; 32] {
    *blake3::hash(token.as_bytes()).as_bytes()
}

pub(super) fn check_new(password: &str) -> Result<(), VaultError> {
    if (PASSWORD_LEN_MIN..=PASSWORD_LEN_MAX).contains(&password.len()) {
        return Ok(());
    }
    Err(VaultError::Invalid {
        field: "newPassword",
        rule: format!("{PASSWORD_LEN_MIN} to {PASSWORD_LEN_MAX} bytes"),
    })
}

pub(super) fn hash(password: &str) -> Result<String, VaultError> {
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|error| VaultError::Database(error.to_string().into()))
}

/// `hash` None: there is no such user; it takes as long as if there were.
pub(super) fn verify(password: &str, hash: Option<&str>) -> Result<bool, VaultError> {
    if password.len() > PASSWORD_LEN_MAX {
        return Ok(false);
    }
    let Some(hash) = hash else {
        self::hash(password)?;
        return Ok(false);
    };
    let parsed = PasswordHash::new(hash).map_err(|error| VaultError::Database(error.to_string().into()))?;
    Ok(Argon2::default()
        .verify_password(password.as_bytes(), &parsed)
        .is_ok())
}
