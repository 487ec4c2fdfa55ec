//! The built-in certificate authority, the server's own certificate, the passphrase, and the vault key: folder `pki/`.
//!
//! Everything is made at the first start, each file by write, fsync, rename, fsync of the folder; a crash in between leaves a
//! start that makes what is missing. Keys and the passphrase are of mode 0600 and never logged.
use crate::replica::VaultKey;
use crate::rt::write_private;
use crate::wire::SERVER_NAME;
use crate::wire::tls::{TlsError, certificates, fingerprint};
use rand::RngExt;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// A client certificate; its agent asks for the next one when a third of it is left.
pub const CLIENT_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
const SERVER_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// The server's certificate is made anew at a start within this time of its end.
const SERVER_RENEW_BEFORE: Duration = Duration::from_secs(60 * 24 * 3600);
const CA_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// Certificates begin a little in the past: a clock that is slow by less than this can use them at once.
const BACKDATE: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot {action} {object}")]
    Io {
        action: &'static str,
        object: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("a certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the vault key cannot be used")]
    VaultKey(#[from] crate::replica::ReplicaError),
    #[error("the certificate request is not valid")]
    Request,
}

fn failed(action: &'static str, object: &Path, source: std::io::Error) -> PkiError {
    PkiError::Io {
        action,
        object: object.to_owned(),
        source,
    }
}

/// A certificate that was issued to a machine.
pub struct Issued {
    pub pem: String,
    /// Hexadecimal.
    pub serial: String,
    pub not_after_unix: i64,
}

pub struct Pki {
    folder: PathBuf,
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
    passphrase: RwLock<String>,
    pub vault_key: VaultKey,
    /// Server's certificate, then the CA's.
    pub chain_pem: String,
    pub key_pem: String,
}

/// What the file holds; made first where it is missing.
fn kept(path: &Path, make: impl FnOnce() -> Result<String, PkiError>) -> Result<String, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = make()?;
            write_private(path, text.as_bytes()).map_err(|e| failed("write", path, e))?;
            Ok(text)
        }
        Err(error) => Err(failed("read", path, error)),
    }
}

/// 160 random bits in groups that a person can read out: no letter that looks like a digit.
fn new_passphrase() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789z";
    let mut random = rand::rng();
    let letters: Vec<u8> = (0..32).map(|_| LETTERS[random.random_range(0..31)]).collect();
    letters
        .chunks(4)
        .map(|group| String::from_utf8_lossy(group).into_owned())
        .collect::<Vec<_>>()
        .join("-")
}

fn params(common_name: &str, life: Duration, key_usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = (SystemTime::now() - BACKDATE).into();
    params.not_after = (SystemTime::now() + life).into();
    params.extended_key_usages = vec![key_usage];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let mut serial: [u8; 16] = rand::rng().random();
    // Positive and of a fixed length in its encoding.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

impl Pki {
    /// Opens the folder, or makes what is missing. `names`: host names and addresses of this server, for browsers.
    pub fn open(folder: &Path, names: &[String]) -> Result<Self, PkiError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|e| failed("make", folder, e))?;
        let key = KeyPair::from_pem(&kept(&folder.join("ca.key"), || {
            Ok(KeyPair::generate()?.serialize_pem())
        })?)?;
        let ca_pem = kept(&folder.join("ca.pem"), || {
            let mut params = params("Lifeboat CA", CA_LIFE, ExtendedKeyUsagePurpose::ServerAuth);
            params.extended_key_usages.clear();
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            Ok(params.self_signed(&key)?.pem())
        })?;
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, key)?;
        let key_pem = kept(&folder.join("server.key"), || {
            Ok(KeyPair::generate()?.serialize_pem())
        })?;
        let chain_pem = server_chain(folder, &issuer, &ca_pem, &key_pem, names)?;
        let passphrase = kept(&folder.join("passphrase"), || Ok(new_passphrase()))?;
        let vault_key_path = folder.join("vault.key");
        let vault_key = if vault_key_path.exists() {
            VaultKey::load(&vault_key_path)?
        } else {
            let key = VaultKey::generate();
            key.save(&vault_key_path)?;
            key
        };
        Ok(Self {
            folder: folder.to_owned(),
            ca_pem,
            issuer,
            passphrase: RwLock::new(passphrase.trim().to_owned()),
            vault_key,
            chain_pem,
            key_pem,
        })
    }

    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// What a person compares, and what `agent join` wants.
    pub fn fingerprint(&self) -> Result<String, PkiError> {
        let found = certificates(&self.ca_pem)?;
        found.first().map(fingerprint).ok_or(PkiError::Request)
    }

    /// What `curl --pinnedpubkey` compares: `sha256//` and the hash of the server's public key. The key stays when the
    /// certificate is made anew.
    pub fn public_key_pin(&self) -> Result<String, PkiError> {
        use base64::Engine;
        let chain = certificates(&self.chain_pem)?;
        let own = chain.first().ok_or(PkiError::Request)?;
        let (_, own) = x509_parser::parse_x509_certificate(own).map_err(|_| PkiError::Request)?;
        let digest = ring::digest::digest(&ring::digest::SHA256, own.public_key().raw);
        Ok(format!(
            "sha256//{}",
            base64::engine::general_purpose::STANDARD.encode(digest)
        ))
    }

    pub fn passphrase(&self) -> String {
        self.passphrase
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn is_passphrase(&self, given: &str) -> bool {
        // Compared as hashes: how long it takes tells nothing about the passphrase.
        blake3::hash(given.trim().as_bytes()) == blake3::hash(self.passphrase().as_bytes())
    }

    /// Replaces the passphrase; machines that have joined stay joined.
    pub fn rotate_passphrase(&self) -> Result<String, PkiError> {
        let mut held = self.passphrase.write().unwrap_or_else(PoisonError::into_inner);
        let fresh = new_passphrase();
        let path = self.folder.join("passphrase");
        write_private(&path, fresh.as_bytes()).map_err(|e| failed("write", &path, e))?;
        held.clone_from(&fresh);
        Ok(fresh)
    }

    /// A client certificate for a machine. Of the request only the public key is used.
    pub fn issue(&self, machine: &str, csr_pem: &str, life: Duration) -> Result<Issued, PkiError> {
        let mut request =
            CertificateSigningRequestParams::from_pem(csr_pem).map_err(|_| PkiError::Request)?;
        request.params = params(machine, life, ExtendedKeyUsagePurpose::ClientAuth);
        let not_after = SystemTime::now() + life;
        let serial = request
            .params
            .serial_number
            .as_ref()
            .map(|serial| hex::encode(serial.to_bytes()))
            .unwrap_or_default();
        Ok(Issued {
            pem: request.signed_by(&self.issuer)?.pem(),
            serial,
            not_after_unix: unix(not_after),
        })
    }
}

fn unix(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}

/// Keeps the server's certificate while it is fit: of this CA and key, for these names, and not near its end.
fn server_chain(
    folder: &Path,
    issuer: &Issuer<'static, KeyPair>,
    ca_pem: &str,
    key_pem: &str,
    names: &[String],
) -> Result<String, PkiError> {
    let (path, names_path) = (folder.join("server.pem"), folder.join("server.names"));
    let wanted = names.join("\n");
    let fit = std::fs::read_to_string(&names_path).is_ok_and(|known| known == wanted);
    if fit
        && let Ok(chain) = std::fs::read_to_string(&path)
        && chain.ends_with(ca_pem)
        && ends_after(&chain, SystemTime::now() + SERVER_RENEW_BEFORE)
    {
        return Ok(chain);
    }
    let mut params = params(
        "Lifeboat server",
        SERVER_LIFE,
        ExtendedKeyUsagePurpose::ServerAuth,
    );
    params.subject_alt_names = Vec::new();
    for name in std::iter::once(SERVER_NAME).chain(names.iter().map(String::as_str)) {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.try_into()?),
        });
    }
    let certificate = params.signed_by(&KeyPair::from_pem(key_pem)?, issuer)?;
    let chain = format!("{}{ca_pem}", certificate.pem());
    write_private(&path, chain.as_bytes()).map_err(|e| failed("write", &path, e))?;
    write_private(&names_path, wanted.as_bytes()).map_err(|e| failed("write", &names_path, e))?;
    Ok(chain)
}

fn ends_after(chain_pem: &str, limit: SystemTime) -> bool {
    certificates(chain_pem).is_ok_and(|chain| {
        chain.first().is_some_and(|first| {
            x509_parser::parse_x509_certificate(first)
                .is_ok_and(|(_, certificate)| certificate.validity().not_after.timestamp() > unix(limit))
        })
    })
}

/// Days until the server's own certificate ends.
pub fn days_left(chain_pem: &str) -> Option<i64> {
    Some((ends_unix(chain_pem)? - unix(SystemTime::now())) / DAY.as_secs() as i64)
}

/// When it ends, Unix seconds.
pub fn ends_unix(chain_pem: &str) -> Option<i64> {
    let chain = certificates(chain_pem).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_start_finds_the_same_authority_and_secrets_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let first = Pki::open(folder.path(), &names).unwrap();
        let second = Pki::open(folder.path(), &names).unwrap();
        assert_eq!(first.fingerprint().unwrap(), second.fingerprint().unwrap());
        assert_eq!(first.chain_pem, second.chain_pem);
        assert_eq!(first.passphrase(), second.passphrase());
        assert!(second.is_passphrase(&format!("{}\n", first.passphrase())));
        for entry in std::fs::read_dir(folder.path()).unwrap().flatten() {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", entry.path().display());
        }
        let fresh = second.rotate_passphrase().unwrap();
        assert!(!first.is_passphrase(&fresh) && second.is_passphrase(&fresh));
        assert!(days_left(&first.chain_pem).unwrap() > 300);
        // Other names: another certificate of the same authority.
        let third = Pki::open(folder.path(), &["other.example".to_owned()]).unwrap();
        assert_ne!(third.chain_pem, first.chain_pem);
        assert_eq!(third.ca_pem, first.ca_pem);
    }

    #[test]
    fn only_the_key_of_a_request_counts() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::open(folder.path(), &[]).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "another machine");
        let csr = params.serialize_request(&key).unwrap().pem().unwrap();
        let issued = pki.issue("machine-1", &csr, CLIENT_LIFE).unwrap();
        let der = certificates(&issued.pem).unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(&der[0]).unwrap();
        let name = certificate
            .subject()
            .iter_common_name()
            .next()
            .unwrap()
            .as_str()
            .unwrap();
        assert_eq!(name, "machine-1");
        assert_eq!(hex::encode(certificate.raw_serial()), issued.serial);
        assert!(certificate.subject_alternative_name().unwrap().is_none());
        assert!(!certificate.is_ca());
        assert!(matches!(
            pki.issue("m", "no request", CLIENT_LIFE),
            Err(PkiError::Request)
        ));
    }
}
