//! Keys at rest: the vault key wraps a data key per disk; a layer's key is derived from it.
//!
//! Rotation of the vault key re-wraps data keys only; layers stay as they are.
use super::ReplicaError;
use crate::block::DiskId;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// 256 bits that everything in the store hangs on.
#[derive(Clone)]
pub struct VaultKey(Zeroizing<[u8; 32]>);

/// The key of one disk's data.
#[derive(Clone)]
pub(super) struct DataKey(Zeroizing<[u8; 32]>);

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the kernel gives random bytes");
    bytes
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has 32 bytes"))
}

impl VaultKey {
    pub fn generate() -> Self {
        Self(Zeroizing::new(random()))
    }

    /// Reads a key file: 64 hexadecimal digits.
    pub fn load(path: &Path) -> Result<Self, ReplicaError> {
        let mut text = Zeroizing::new(String::new());
        std::fs::File::open(path)
            .and_then(|file| file.take(256).read_to_string(&mut text))
            .map_err(|e| ReplicaError::io("read the vault key", path, e))?;
        let mut key = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim(), &mut *key).map_err(|_| ReplicaError::WrongKey)?;
        Ok(Self(key))
    }

    /// Writes a new key file, readable by its owner only; never over one that exists.
    pub fn save(&self, path: &Path) -> Result<(), ReplicaError> {
        let text = Zeroizing::new(hex::encode(*self.0) + "\n");
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .map_err(|e| ReplicaError::io("write the vault key", path, e))
    }

    /// A key for another purpose, from which this one cannot be told.
    pub(super) fn derived(&self, context: &str) -> DataKey {
        DataKey(Zeroizing::new(blake3::derive_key(context, &*self.0)))
    }

    pub(super) fn wrap(&self, disk: DiskId, key: &DataKey) -> String {
        let nonce: [u8; NONCE_LEN] = random();
        let mut sealed = key.0.to_vec();
        cipher(&self.0)
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(disk.as_bytes()),
                &mut sealed,
            )
            .expect("32 bytes can be sealed");
        hex::encode([nonce.as_slice(), &sealed].concat())
    }

    pub(super) fn unwrap(&self, disk: DiskId, wrapped: &str) -> Result<DataKey, ReplicaError> {
        let bytes = hex::decode(wrapped).map_err(|_| ReplicaError::WrongKey)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or(ReplicaError::WrongKey)?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| ReplicaError::WrongKey)?;
        let key = cipher(&self.0)
            .open_in_place(nonce, Aad::from(disk.as_bytes()), &mut sealed)
            .map_err(|_| ReplicaError::WrongKey)?;
        Ok(DataKey(Zeroizing::new(
            <[u8; 32]>::try_from(&*key).map_err(|_| ReplicaError::WrongKey)?,
        )))
    }
}

impl DataKey {
    pub(super) fn generate() -> Self {
        Self(Zeroizing::new(random()))
    }

    pub(super) fn for_layer(&self, salt: &[u8; 32]) -> LayerKey {
        LayerKey(cipher(blake3::keyed_hash(&self.0, salt).as_bytes()))
    }
}

pub(super) fn new_salt() -> [u8; 32] {
    random()
}

/// Seals and opens the records of one layer.
pub(super) struct LayerKey(LessSafeKey);

fn counter_nonce(counter: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

impl LayerKey {
    /// Appends the tag to `frame`. `counter` must be new in this layer.
    pub(super) fn seal(&self, counter: u64, header: &[u8], frame: &mut Vec<u8>) {
        self.0
            .seal_in_place_append_tag(counter_nonce(counter), Aad::from(header), frame)
            .expect("a frame is far below the limit of AES-GCM");
    }

    pub(super) fn open<'a>(&self, counter: u64, header: &[u8], sealed: &'a mut [u8]) -> Option<&'a mut [u8]> {
        self.0
            .open_in_place(counter_nonce(counter), Aad::from(header), sealed)
            .ok()
    }
}
