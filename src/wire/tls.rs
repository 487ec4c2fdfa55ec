//! TLS 1.3 between agent and server: one private CA, client certificates, and the first contact of an agent that knows
//! only the CA's fingerprint.
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("a certificate or key cannot be read: {0}")]
    Pem(String),
    #[error("TLS refused the certificates")]
    Rustls(#[from] rustls::Error),
    #[error("the client verifier cannot be made: {0}")]
    Verifier(String),
    #[error("a fingerprint is `sha256:` and 64 hexadecimal digits")]
    Fingerprint,
    #[error("the server's CA has the fingerprint {found}, not the one that was given")]
    OtherCa { found: String },
    #[error("cannot reach {address}")]
    Io {
        address: String,
        #[source]
        source: std::io::Error,
    },
}

/// `sha256:` and the hash of the certificate in DER, in hexadecimal: what a person compares.
pub fn fingerprint(certificate: &CertificateDer) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    format!("sha256:{}", hex::encode(digest))
}

pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| TlsError::Pem(e.to_string()))?;
    if found.is_empty() {
        return Err(TlsError::Pem("no certificate".to_owned()));
    }
    Ok(found)
}

fn roots(ca_pem: &str) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_pem)? {
        roots.add(certificate)?;
    }
    Ok(Arc::new(roots))
}

/// For the data port: client certificates of this CA, or none at all, which lets an agent do no more than enrol.
/// `chain_pem`: the server's certificate, then the CA's, so that a first contact can check the fingerprint.
pub fn server_config(chain_pem: &str, key_pem: &str, ca_pem: &str) -> Result<rustls::ServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder(roots(ca_pem)?)
        .allow_unauthenticated()
        .build()
        .map_err(|e| TlsError::Verifier(e.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|e| TlsError::Pem(e.to_string()))?;
    let mut config = rustls::ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(chain_pem)?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// For people: no client certificate is asked for.
pub fn https_config(chain_pem: &str, key_pem: &str) -> Result<rustls::ServerConfig, TlsError> {
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|e| TlsError::Pem(e.to_string()))?;
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates(chain_pem)?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The CA that the server at `address` (host:port) presents, when it has this fingerprint and signed the server's own
/// certificate; its PEM. Nothing secret is sent.
pub async fn fetch_ca(address: &str, expected: &str) -> Result<String, TlsError> {
    let expected = expected.trim().to_ascii_lowercase();
    let digits = expected.strip_prefix("sha256:").ok_or(TlsError::Fingerprint)?;
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(TlsError::Fingerprint);
    }
    let io = |source| TlsError::Io {
        address: address.to_owned(),
        source,
    };
    let pin = Arc::new(PinnedCa {
        expected,
        found: Mutex::new(None),
    });
    let mut config = rustls::ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .dangerous()
        .with_custom_certificate_verifier(pin.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = tokio::net::TcpStream::connect(address).await.map_err(io)?;
    let name = ServerName::try_from(super::SERVER_NAME).map_err(|_| TlsError::Fingerprint)?;
    let outcome = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await;
    let found = pin.found.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (outcome, found) {
        (Ok(_), Some(Ok(ca))) => Ok(pem_of(&ca)),
        (_, Some(Err(found))) => Err(TlsError::OtherCa { found }),
        (Err(error), _) => Err(io(error)),
        (Ok(_), None) => Err(TlsError::Fingerprint),
    }
}

fn pem_of(certificate: &CertificateDer) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

/// Trusts a chain that ends in a CA of this fingerprint, and no other.
#[derive(Debug)]
struct PinnedCa {
    expected: String,
    /// The CA, or the fingerprint that another one has.
    found: Mutex<Option<Result<CertificateDer<'static>, String>>>,
}

impl PinnedCa {
    fn keep(&self, found: Result<CertificateDer<'static>, String>) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(ca) = intermediates
            .iter()
            .find(|certificate| fingerprint(certificate) == self.expected)
        else {
            let last = intermediates
                .last()
                .map_or_else(|| fingerprint(end_entity), fingerprint);
            self.keep(Err(last));
            return Err(CertificateError::UnknownIssuer.into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder(Arc::new(roots))
            .build()
            .map_err(|_| rustls::Error::from(CertificateError::UnknownIssuer))?;
        let verified = verifier.verify_server_cert(end_entity, &[], server_name, ocsp, now)?;
        self.keep(Ok(ca.clone().into_owned()));
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
