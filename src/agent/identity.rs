//! Who this agent is, and whom it talks to: one private file, replaced whole.
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as TlsIdentity};

const FILE: &str = "identity.json";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Host and port of the configuration server.
    pub server: String,
    pub name: String,
    pub machine_id: String,
    pub ca_pem: String,
    pub certificate_pem: String,
    pub key_pem: String,
    pub not_before_unix: i64,
    pub not_after_unix: i64,
    /// Only these devices are offered for protection; empty: all that are found.
    #[serde(default)]
    pub disks: Vec<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot {action} {object}")]
    Io {
        action: &'static str,
        object: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0} is damaged; join the machine again")]
    Damaged(PathBuf),
    #[error("this machine has not joined: {0} does not exist")]
    NotJoined(PathBuf),
    #[error("the server's address is not valid: {0}")]
    Address(String),
}

impl Identity {
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        let path = folder.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => IdentityError::NotJoined(path.clone()),
            _ => IdentityError::Io {
                action: "read",
                object: path.clone(),
                source,
            },
        })?;
        serde_json::from_str(&text).map_err(|_| IdentityError::Damaged(path))
    }

    /// Durable on return; after a crash either the old file or the new one is there.
    pub fn save(&self, folder: &Path) -> Result<(), IdentityError> {
        let path = folder.join(FILE);
        let write = || {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
            crate::rt::write_private(&path, &serde_json::to_vec_pretty(self)?)
        };
        write().map_err(|source| IdentityError::Io {
            action: "write",
            object: path.clone(),
            source,
        })
    }

    /// A connection of its own, dialled on first use, that notices a dead link within half a minute.
    pub fn channel(&self) -> Result<Channel, IdentityError> {
        let tls = ClientTlsConfig::new()
            .domain_name(crate::wire::SERVER_NAME)
            .ca_certificate(Certificate::from_pem(&self.ca_pem))
            .identity(TlsIdentity::from_pem(&self.certificate_pem, &self.key_pem));
        Ok(endpoint(&self.server)?
            .tls_config(tls)
            .map_err(|e| IdentityError::Address(e.to_string()))?
            .connect_lazy())
    }

    /// When the next certificate is to be asked for: when a third of this one's life is left.
    pub fn renew_at_unix(&self) -> i64 {
        self.not_after_unix - (self.not_after_unix - self.not_before_unix) / 3
    }
}

/// Endpoint of the data port, with limits on every wait.
pub fn endpoint(server: &str) -> Result<Endpoint, IdentityError> {
    let endpoint = Endpoint::from_shared(format!("https://{server}"))
        .map_err(|_| IdentityError::Address(server.to_owned()))?;
    Ok(endpoint
        .connect_timeout(Duration::from_secs(10))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true)
        .initial_connection_window_size(4 << 20)
        .initial_stream_window_size(2 << 20)
        .tcp_nodelay(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("deep/state");
        assert!(matches!(Identity::load(&at), Err(IdentityError::NotJoined(_))));
        let identity = Identity {
            server: "localhost:9443".into(),
            name: "web1".into(),
            machine_id: "id".into(),
            ca_pem: "ca".into(),
            certificate_pem: "certificate".into(),
            key_pem: "key".into(),
            not_before_unix: 0,
            not_after_unix: 90,
            disks: vec!["/dev/sdb".into()],
        };
        identity.save(&at).unwrap();
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(at.join(FILE)).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        let loaded = Identity::load(&at).unwrap();
        assert_eq!((loaded.name.as_str(), loaded.renew_at_unix()), ("web1", 60));
        std::fs::write(at.join(FILE), "{").unwrap();
        assert!(matches!(Identity::load(&at), Err(IdentityError::Damaged(_))));
    }
}
