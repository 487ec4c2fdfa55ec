//! Webhooks: one POST of JSON, signed. A receiver checks that the signature is right and the time is near, and drops an id
//! that it has seen.
use super::{AlertError, message};
use crate::rt::now_unix_nanos;
use crate::vault::{Delivery, Secret, WebhookSettings, webhook_address};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use ring::hmac;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::sync::Arc;
use tokio::net::TcpStream;

/// `sha256=` and the HMAC-SHA256, in hexadecimal, of the timestamp, a full stop and the body.
pub const SIGNATURE_HEADER: &str = "x-lifeboat-signature";
/// Unix seconds of this attempt; signed, so that an old message cannot be sent again by somebody else.
pub const TIMESTAMP_HEADER: &str = "x-lifeboat-timestamp";
const DELIVERY_HEADER: &str = "x-lifeboat-delivery";

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub fn signature(secret: &str, timestamp: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(timestamp.as_bytes());
    context.update(b".");
    context.update(body);
    format!("sha256={}", hex::encode(context.sign()))
}

fn tls(ca_pem: Option<&str>) -> Result<rustls::ClientConfig, AlertError> {
    let mut roots = rustls::RootCertStore::empty();
    match ca_pem {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|error| AlertError::BadTrust(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| AlertError::BadTrust(error.to_string()))?;
            }
        }
        // One bad file among the system's authorities must not hide the others.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(AlertError::BadTrust("there are none".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| AlertError::BadTrust(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

async fn post<S>(stream: S, request: Request<Full<Bytes>>) -> Result<u16, BoxError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    // The body of the answer is of no interest, however long it is.
    connection.abort();
    Ok(answer?.status().as_u16())
}

pub(super) async fn send(
    hook: &WebhookSettings,
    secret: &Secret,
    delivery: &Delivery,
) -> Result<(), AlertError> {
    let (with_tls, host, port) = webhook_address(&hook.url)
        .ok_or_else(|| AlertError::BadMessage("the address is not one of a webhook".to_owned()))?;
    let uri: hyper::Uri = hook
        .url
        .parse()
        .map_err(|error: hyper::http::uri::InvalidUri| AlertError::BadMessage(error.to_string()))?;
    let body = Bytes::from(message::webhook_body(delivery).to_string());
    let timestamp = (now_unix_nanos() / 1_000_000_000).to_string();
    let request = Request::post(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(
            header::HOST,
            uri.authority().map_or(host.as_str(), |host| host.as_str()),
        )
        .header(header::CONTENT_TYPE, "application/json")
        .header(
            header::USER_AGENT,
            concat!("lifeboat/", env!("CARGO_PKG_VERSION")),
        )
        .header(DELIVERY_HEADER, delivery.id.to_string())
        .header(TIMESTAMP_HEADER, &timestamp)
        .header(SIGNATURE_HEADER, signature(secret.reveal(), &timestamp, &body))
        .body(Full::new(body))
        .map_err(|error| AlertError::BadMessage(error.to_string()))?;
    let config = match with_tls {
        true => {
            let pem = hook.ca_pem.clone();
            Some(super::blocking(move || tls(pem.as_deref())).await?)
        }
        false => None,
    };
    let sent = async {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, port)).await?;
        stream.set_nodelay(true)?;
        match config {
            Some(config) => {
                let name = ServerName::try_from(bare.to_owned())?;
                let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
                post(connector.connect(name, stream).await?, request).await
            }
            None => post(stream, request).await,
        }
    };
    let status = sent.await.map_err(|source: BoxError| AlertError::Unreachable {
        address: format!("{host}:{port}"),
        source,
    })?;
    // A redirect is not followed: it would carry the message to somebody the settings do not name.
    if (200..300).contains(&status) {
        Ok(())
    } else {
        Err(AlertError::Status(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_others_reckon() {
        // RFC 4231, test case 2: key "Jefe", data "what do ya want for nothing?"; here the full stop stands at its place.
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
        let plain = hex::encode(hmac::sign(&key, b"what do ya want for nothing?"));
        assert_eq!(
            plain,
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        let expected = hex::encode(hmac::sign(&key, b"17.{\"a\":1}"));
        assert_eq!(
            signature("Jefe", "17", b"{\"a\":1}"),
            format!("sha256={expected}")
        );
    }
}
