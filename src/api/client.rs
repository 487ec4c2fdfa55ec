//! A client of this API, for the command line, the lab and the tests. Blocking: it drives its connection itself, on the
//! thread that asks.
use super::Problem;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, UnixStream};

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    Https { host: String, port: u16 },
}

/// What makes an HTTPS server the right one.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Its certificate is signed by one of these, PEM, and names the host.
    Ca(String),
    /// SHA-256 of its CA's certificate, which must have signed the server's own for this host; or of the server's own.
    Fingerprint([u8; 32]),
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("not a server: {0:?}; it is unix:PATH or https://HOST[:PORT]")]
    BadAddress(String),
    #[error("the CA file holds no certificate")]
    BadCa,
    #[error("HTTPS needs to know which server is the right one")]
    NoTrust,
    #[error("the server at {address} cannot be reached")]
    Unreachable {
        address: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server answered, and refused.
    #[error("{}", .0.message)]
    Problem(Box<Problem>),
    #[error("the answer of the server is not one of this API: {0}")]
    BadAnswer(String),
}

impl std::str::FromStr for Address {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let bad = || ClientError::BadAddress(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let rest = text
            .strip_prefix("https://")
            .ok_or_else(bad)?
            .trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            // A colon inside brackets belongs to an IPv6 address.
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| bad())?),
            _ => (rest, 8443),
        };
        if host.is_empty() || host.contains('/') {
            return Err(bad());
        }
        Ok(Self::Https {
            host: host.to_owned(),
            port,
        })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Https { host, port } => write!(f, "https://{host}:{port}"),
        }
    }
}

/// Accepts what one CA has signed, or one certificate, and no other.
#[derive(Debug)]
struct Pinned {
    digest: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn is_it(&self, certificate: &CertificateDer<'_>) -> bool {
        ring::digest::digest(&ring::digest::SHA256, certificate).as_ref() == self.digest
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.is_it(end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        let unknown = || rustls::Error::from(rustls::CertificateError::UnknownIssuer);
        let ca = intermediates
            .iter()
            .find(|certificate| self.is_it(certificate))
            .ok_or_else(unknown)?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|_| unknown())?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn tls(trust: &Trust) -> Result<rustls::ClientConfig, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| ClientError::BadAnswer(error.to_string()))?;
    Ok(match trust {
        Trust::Ca(pem) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|_| ClientError::BadCa)?;
                roots.add(certificate).map_err(|_| ClientError::BadCa)?;
            }
            if roots.is_empty() {
                return Err(ClientError::BadCa);
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        Trust::Fingerprint(digest) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned {
                digest: *digest,
                provider,
            }))
            .with_no_client_auth(),
    })
}

/// What a server answered with success.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub etag: Option<String>,
    pub body: Bytes,
}

impl Answer {
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| ClientError::BadAnswer(error.to_string()))
    }
}

pub struct Client {
    address: Address,
    tls: Option<Arc<rustls::ClientConfig>>,
    token: Option<String>,
    runtime: tokio::runtime::Runtime,
    sender: Option<SendRequest<Full<Bytes>>>,
    used: Instant,
    observer: Option<Observer>,
}

/// Told of each request before it is sent: method, address, body.
type Observer = Box<dyn Fn(&Method, &str, Option<&Value>)>;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longer than the server's own limit, so that its answer arrives.
const ANSWER_LIMIT: Duration = Duration::from_secs(75);
/// Less than the server's limit.
const IDLE_MAX: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 64 << 20;

impl Client {
    pub fn new(address: Address, trust: Option<&Trust>, token: Option<String>) -> Result<Self, ClientError> {
        let tls = match (&address, trust) {
            (Address::Unix(_), _) => None,
            (Address::Https { .. }, Some(trust)) => Some(Arc::new(tls(trust)?)),
            (Address::Https { .. }, None) => return Err(ClientError::NoTrust),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| ClientError::Unreachable {
                address: address.to_string(),
                source: source.into(),
            })?;
        Ok(Self {
            address,
            tls,
            token,
            runtime,
            sender: None,
            used: Instant::now(),
            observer: None,
        })
    }

    pub fn observe(&mut self, observer: impl Fn(&Method, &str, Option<&Value>) + 'static) {
        self.observer = Some(Box::new(observer));
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    pub fn set_token(&mut self, token: Option<String>) {
        self.token = token;
    }

    /// The runtime that this client lives on, for waiting between requests.
    pub fn runtime(&self) -> &tokio::runtime::Runtime {
        &self.runtime
    }

    pub fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        self.request(Method::GET, path, None, &[])?.json()
    }

    pub fn post<T: DeserializeOwned>(&mut self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_value(body).map_err(|error| ClientError::BadAnswer(error.to_string()))?;
        self.request(Method::POST, path, Some(&body), &[])?.json()
    }

    /// A list, whole: follows the cursor.
    pub fn list(&mut self, path: &str, limit: usize) -> Result<Vec<Value>, ClientError> {
        let mut all: Vec<Value> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let join = if path.contains('?') { '&' } else { '?' };
            let part = limit.saturating_sub(all.len()).clamp(1, 1000);
            let mut address = format!("{path}{join}limit={part}");
            if let Some(cursor) = &cursor {
                address = format!("{address}&cursor={cursor}");
            }
            let page: super::Page<Value> = self.get(&address)?;
            all.extend(page.items);
            match page.next_cursor {
                Some(next) if all.len() < limit => cursor = Some(next),
                _ => return Ok(all),
            }
        }
    }

    pub fn request(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, ClientError> {
        if let Some(observer) = &self.observer {
            let separator = match &self.address {
                Address::Unix(_) => " ",
                Address::Https { .. } => "",
            };
            observer(&method, &format!("{}{separator}{path}", self.address), body);
        }
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.host());
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bytes = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let request = request
            .body(Full::new(bytes))
            .map_err(|error| ClientError::BadAnswer(error.to_string()))?;
        // The server ends an idle connection, and nobody looks here between two requests.
        if self.used.elapsed() > IDLE_MAX {
            self.sender = None;
        }
        let address = self.address.to_string();
        let answer = {
            let Self {
                address,
                tls,
                runtime,
                sender,
                ..
            } = self;
            runtime.block_on(async {
                tokio::time::timeout(ANSWER_LIMIT, send(address, tls.as_ref(), sender, request)).await
            })
        };
        self.used = Instant::now();
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(source)) => {
                self.sender = None;
                return Err(ClientError::Unreachable { address, source });
            }
            Err(_) => {
                self.sender = None;
                return Err(ClientError::Unreachable {
                    address,
                    source: format!("no answer within {} s", ANSWER_LIMIT.as_secs()).into(),
                });
            }
        };
        if answer.status.is_success() {
            return Ok(answer);
        }
        match serde_json::from_slice(&answer.body) {
            Ok(problem) => Err(ClientError::Problem(Box::new(problem))),
            Err(_) => Err(ClientError::BadAnswer(format!("status {}", answer.status))),
        }
    }

    fn host(&self) -> String {
        match &self.address {
            Address::Unix(_) => "localhost".to_owned(),
            Address::Https { host, port } => format!("{host}:{port}"),
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn connect(
    address: &Address,
    tls: Option<&Arc<rustls::ClientConfig>>,
) -> Result<SendRequest<Full<Bytes>>, BoxError> {
    match address {
        Address::Unix(path) => handshake(UnixStream::connect(path).await?).await,
        Address::Https { host, port } => {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let stream = TcpStream::connect((bare, *port)).await?;
            stream.set_nodelay(true)?;
            let config = tls.ok_or(ClientError::NoTrust)?;
            let name = ServerName::try_from(bare.to_owned())?;
            let stream = tokio_rustls::TlsConnector::from(config.clone())
                .connect(name, stream)
                .await?;
            handshake(stream).await
        }
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, BoxError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // Its end is seen by the next request.
        let _ = connection.await;
    });
    Ok(sender)
}

/// Sends over the open connection, or over a new one when it is closed. A request that was sent is not sent again: it may
/// have been carried out.
async fn send(
    address: &Address,
    tls: Option<&Arc<rustls::ClientConfig>>,
    kept: &mut Option<SendRequest<Full<Bytes>>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, BoxError> {
    if let Some(sender) = kept
        && (sender.is_closed() || sender.ready().await.is_err())
    {
        *kept = None;
    }
    if kept.is_none() {
        let connecting = tokio::time::timeout(CONNECT_LIMIT, connect(address, tls)).await;
        *kept = Some(connecting.map_err(|_| format!("no connection within {} s", CONNECT_LIMIT.as_secs()))??);
    }
    let Some(sender) = kept else {
        return Err("no connection".into());
    };
    let response = sender.send_request(request).await?;
    let status = response.status();
    let etag = response
        .headers()
        .get(header::ETAG)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let body = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await?
        .to_bytes();
    Ok(Answer { status, etag, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let https = |host: &str, port| Address::Https {
            host: host.to_owned(),
            port,
        };
        for (text, expected) in [
            ("unix:/run/api.sock", Address::Unix("/run/api.sock".into())),
            ("https://vault", https("vault", 8443)),
            ("https://vault:9000/", https("vault", 9000)),
            ("https://[::1]", https("[::1]", 8443)),
            ("https://[::1]:1", https("[::1]", 1)),
        ] {
            assert_eq!(text.parse::<Address>().unwrap(), expected);
        }
        for bad in [
            "",
            "unix:",
            "http://vault",
            "https://",
            "https://a:b",
            "vault:8443",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
