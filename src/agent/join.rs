//! Joining the configuration server: pin its CA, show the passphrase, a join token or a registration key, get a client
//! certificate.
//!
//! Either travels only inside TLS to a server whose CA has the fingerprint that the person gave.
use super::identity::{Identity, IdentityError, endpoint};
use super::ship::{of_status, reason};
use super::sink::ShipError;
use crate::rt::{chain, now_unix_nanos};
use crate::wire::proto::control_client::ControlClient;
use crate::wire::proto::{EnrolRequest, RenewRequest};
use crate::wire::tls::{TlsError, fetch_ca};
use crate::wire::{JOIN_TOKEN_PREFIX, PROTOCOL_VERSION, REGISTRATION_KEY_PREFIX, Refused, SERVER_NAME};
use rcgen::{CertificateParams, KeyPair};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("{0}")]
    Refused(Refused),
    #[error("the configuration server cannot be reached: {0}")]
    Unreachable(String),
    #[error("a key or a request cannot be made: {0}")]
    Key(String),
    #[error("the configuration server did not answer within {0} s")]
    TimedOut(u64),
}

pub struct JoinSpec {
    /// Host and port.
    pub server: String,
    /// `sha256:…` of the server's CA.
    pub fingerprint: String,
    /// The passphrase, a join token or a registration key.
    pub passphrase: String,
    /// None: the vault of the token or key; with the passphrase the vault `default`.
    pub vault: Option<String>,
    pub name: String,
    /// What tells this machine from every other, also under another name.
    pub machine_key: String,
    pub disks: Vec<PathBuf>,
}

const LIMIT: Duration = Duration::from_secs(30);

/// Enrols and keeps the identity in `folder`. Safe to repeat: the machine keeps its id.
pub async fn join(spec: &JoinSpec, folder: &Path) -> Result<Identity, JoinError> {
    match tokio::time::timeout(LIMIT, join_now(spec, folder)).await {
        Ok(joined) => joined,
        Err(_) => Err(JoinError::TimedOut(LIMIT.as_secs())),
    }
}

async fn join_now(spec: &JoinSpec, folder: &Path) -> Result<Identity, JoinError> {
    let ca_pem = fetch_ca(&spec.server, &spec.fingerprint).await?;
    let (key_pem, csr_pem) = request(&spec.name)?;
    let tls = ClientTlsConfig::new()
        .domain_name(SERVER_NAME)
        .ca_certificate(Certificate::from_pem(&ca_pem));
    let channel = endpoint(&spec.server)?
        .tls_config(tls)
        .map_err(|e| JoinError::Unreachable(e.to_string()))?
        .connect()
        .await
        .map_err(|e| JoinError::Unreachable(chain(&e)))?;
    let given = spec.passphrase.trim().to_owned();
    let none = String::new;
    let (passphrase, join_token, registration_key) = if given.starts_with(JOIN_TOKEN_PREFIX) {
        (none(), given, none())
    } else if given.starts_with(REGISTRATION_KEY_PREFIX) {
        (none(), none(), given)
    } else {
        (given, none(), none())
    };
    let enrolled = ControlClient::new(channel)
        .enrol(EnrolRequest {
            passphrase,
            join_token,
            registration_key,
            vault: spec.vault.clone().unwrap_or_default(),
            machine_name: spec.name.clone(),
            csr_pem,
            agent_version: crate::rt::executable::version().to_owned(),
            protocol_version: PROTOCOL_VERSION,
            clock_unix_nanos: now_unix_nanos(),
            machine_key: spec.machine_key.clone(),
        })
        .await
        .map_err(|status| refused_or_unreachable(&status))?
        .into_inner();
    let machine_id = crate::block::MachineId::from_slice(&enrolled.machine_id)
        .map_err(|_| JoinError::Unreachable("the server gave no machine id".to_owned()))?;
    let identity = Identity {
        server: spec.server.clone(),
        name: spec.name.clone(),
        machine_id: machine_id.to_string(),
        ca_pem: enrolled.ca_pem,
        certificate_pem: enrolled.certificate_pem,
        key_pem,
        not_before_unix: now_unix_nanos() / 1_000_000_000,
        not_after_unix: enrolled.not_after_unix,
        disks: spec.disks.clone(),
    };
    identity.save(folder)?;
    Ok(identity)
}

/// Asks for the next certificate, with a new key, and keeps it.
pub async fn renew(identity: &Identity, channel: Channel, folder: &Path) -> Result<Identity, JoinError> {
    let (key_pem, csr_pem) = request(&identity.name)?;
    let renewed = ControlClient::new(channel)
        .renew(RenewRequest { csr_pem })
        .await
        .map_err(|status| refused_or_unreachable(&status))?
        .into_inner();
    let fresh = Identity {
        certificate_pem: renewed.certificate_pem,
        key_pem,
        not_before_unix: now_unix_nanos() / 1_000_000_000,
        not_after_unix: renewed.not_after_unix,
        ..identity.clone()
    };
    fresh.save(folder)?;
    Ok(fresh)
}

fn request(name: &str) -> Result<(String, String), JoinError> {
    let broken = |e: rcgen::Error| JoinError::Key(e.to_string());
    let key = KeyPair::generate().map_err(broken)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let csr = params.serialize_request(&key).map_err(broken)?;
    Ok((key.serialize_pem(), csr.pem().map_err(broken)?))
}

fn refused_or_unreachable(status: &tonic::Status) -> JoinError {
    match Refused::of_status(status) {
        Some(refused) => JoinError::Refused(refused),
        None => JoinError::Unreachable(match of_status(status) {
            ShipError::Disconnected(why) => why,
            _ => reason(status),
        }),
    }
}
