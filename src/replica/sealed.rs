//! Files that the vault key seals: backups of the vault's database (spec: `proto/vault-backup-format.md`).
use super::keys::{VaultKey, new_salt};
use std::io::{self, Read, Write};

const MAGIC: [u8; 4] = *b"LBVB";
const VERSION: u32 = 1;
const CONTEXT: &str = "lifeboat vault backup v1";
const PLAIN_BYTES: usize = 1 << 20;
const SEALED_BYTES_MAX: usize = 2 << 20;
const LAST: u32 = 1 << 31;

#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    #[error("it cannot be read or written")]
    Io(#[from] io::Error),
    #[error("it is not a backup of a version that this program knows")]
    Version,
    #[error("it was sealed by another vault key, or its bytes were changed")]
    Damaged,
}

/// As much as there is, up to the buffer's length.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

pub fn seal(key: &VaultKey, from: &mut impl Read, to: &mut impl Write) -> Result<(), SealedError> {
    let salt = new_salt();
    let cipher = key.derived(CONTEXT).for_layer(&salt);
    to.write_all(&MAGIC)?;
    to.write_all(&VERSION.to_le_bytes())?;
    to.write_all(&salt)?;
    let (mut plain, mut next) = (vec![0; PLAIN_BYTES], vec![0; PLAIN_BYTES]);
    let mut count = fill(from, &mut plain)?;
    for number in 0.. {
        let following = fill(from, &mut next)?;
        let mut sealed = zstd::bulk::compress(&plain[..count], 3)?;
        let length = u32::try_from(sealed.len() + 16).unwrap_or(LAST);
        let header = (length | if following == 0 { LAST } else { 0 }).to_le_bytes();
        cipher.seal(number, &header, &mut sealed);
        to.write_all(&header)?;
        to.write_all(&sealed)?;
        if following == 0 {
            break;
        }
        std::mem::swap(&mut plain, &mut next);
        count = following;
    }
    Ok(())
}

pub fn unseal(key: &VaultKey, from: &mut impl Read, to: &mut impl Write) -> Result<(), SealedError> {
    let cut = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => SealedError::Damaged,
        _ => SealedError::Io(error),
    };
    let (mut head, mut salt) = ([0; 8], [0; 32]);
    from.read_exact(&mut head).map_err(cut)?;
    if head[..4] != MAGIC || head[4..] != VERSION.to_le_bytes() {
        return Err(SealedError::Version);
    }
    from.read_exact(&mut salt).map_err(cut)?;
    let cipher = key.derived(CONTEXT).for_layer(&salt);
    for number in 0.. {
        let mut header = [0; 4];
        from.read_exact(&mut header).map_err(cut)?;
        let word = u32::from_le_bytes(header);
        let length = (word & !LAST) as usize;
        if length > SEALED_BYTES_MAX {
            return Err(SealedError::Damaged);
        }
        let mut sealed = vec![0; length];
        from.read_exact(&mut sealed).map_err(cut)?;
        let compressed = cipher
            .open(number, &header, &mut sealed)
            .ok_or(SealedError::Damaged)?;
        let plain = zstd::bulk::decompress(compressed, PLAIN_BYTES).map_err(|_| SealedError::Damaged)?;
        to.write_all(&plain)?;
        if word & LAST != 0 {
            break;
        }
    }
    if from.read(&mut [0])? != 0 {
        return Err(SealedError::Damaged);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_comes_back_and_any_change_is_seen() {
        let key = VaultKey::generate();
        for len in [0, 1, PLAIN_BYTES, PLAIN_BYTES + 1, 3 * PLAIN_BYTES] {
            let plain: Vec<u8> = (0..len).map(|at| (at * 7 % 251) as u8).collect();
            let mut sealed = Vec::new();
            seal(&key, &mut plain.as_slice(), &mut sealed).unwrap();
            let open = |key: &VaultKey, bytes: &[u8]| {
                let mut out = Vec::new();
                unseal(key, &mut &bytes[..], &mut out).map(|()| out)
            };
            assert!(open(&key, &sealed).unwrap() == plain);
            assert!(open(&VaultKey::generate(), &sealed).is_err());
            for at in 0..sealed.len().min(200) {
                let mut other = sealed.clone();
                other[at] ^= 0x80;
                assert!(open(&key, &other).is_err(), "byte {at} of {len}");
                assert!(open(&key, &sealed[..at]).is_err());
            }
            let longer = [sealed.as_slice(), b"x"].concat();
            assert!(open(&key, &longer).is_err());
        }
    }
}
