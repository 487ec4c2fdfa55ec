//! What a machine that is to be protected fetches: the install script and this very executable. Without a login: nothing in
//! them is secret, and the machine knows the server by its public key, pinned in the command that it was given.
use super::ApiState;
use super::problem::ApiError;
use super::site::SiteError;
use crate::rt::executable;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use tokio_util::io::ReaderStream;

const SCRIPT: &str = include_str!("install.sh");

/// A host name or an address that is safe inside a script: no port, no user, no path.
pub(super) fn host_of(text: &str) -> Option<String> {
    let inside = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Ok(address) = inside.unwrap_or(text).parse::<std::net::Ipv6Addr>() {
        return Some(format!("[{address}]"));
    }
    let fine = (1..=253).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        && !text.starts_with(['-', '.']);
    fine.then(|| text.to_owned())
}

/// The host that the caller dialled: in the address of HTTP/2, in a header of HTTP/1.
pub(super) fn host_in(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let text = match uri.host() {
        Some(host) => host,
        None => headers.get(header::HOST)?.to_str().ok()?,
    };
    let host = match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => text,
    };
    host_of(host)
}

fn unreadable(error: std::io::Error) -> SiteError {
    SiteError {
        what: "the server's executable cannot be read".to_owned(),
        source: Some(Box::new(error)),
    }
}

/// The script that installs the agent on a machine, joins it and starts it.
#[utoipa::path(get, path = "/install.sh", tag = "Site",
    responses((status = 200, body = String, content_type = "text/x-shellscript")))]
pub async fn script(
    State(state): State<ApiState>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let called = host_in(&uri, &headers);
    let text = state
        .run(move |state| {
            let way_in = state.site.way_in()?;
            let digest = executable::digest().map_err(unreadable)?;
            let own = || way_in.names.first().cloned().unwrap_or_default();
            let host = called.unwrap_or_else(own);
            // All values are of the server itself, except the host, which `host_of` has let through.
            Ok(SCRIPT
                .replace("@URL@", &format!("https://{host}:{}", way_in.api_port))
                .replace("@DATA@", &format!("{host}:{}", way_in.data_port))
                .replace("@PIN@", &way_in.public_key_pin)
                .replace("@FINGERPRINT@", &way_in.ca_fingerprint)
                .replace("@DIGEST@", &hex::encode(digest.sha256))
                .replace("@ARCHITECTURE@", std::env::consts::ARCH)
                .replace("@VERSION@", executable::version()))
        })
        .await?;
    let kind = HeaderValue::from_static("text/x-shellscript; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// The executable of this server, which is the agent's too.
#[utoipa::path(get, path = "/agent/lifeboat", tag = "Site",
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream")))]
pub async fn executable(State(state): State<ApiState>) -> Result<Response, ApiError> {
    let (file, digest) = state
        .run(|_| {
            let file = executable::open().map_err(unreadable)?;
            Ok((file, executable::digest().map_err(unreadable)?))
        })
        .await?;
    let body = Body::from_stream(ReaderStream::with_capacity(
        tokio::fs::File::from_std(file),
        128 * 1024,
    ));
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (header::CONTENT_LENGTH, HeaderValue::from(digest.bytes)),
    ];
    Ok((headers, body).into_response())
}

/// SHA-256 of the executable, as `sha256sum` reads it.
#[utoipa::path(get, path = "/agent/lifeboat.sha256", tag = "Site",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn executable_digest(State(state): State<ApiState>) -> Result<String, ApiError> {
    let digest = state
        .run(|_| Ok(executable::digest().map_err(unreadable)?))
        .await?;
    Ok(format!("{}  lifeboat\n", hex::encode(digest.sha256)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_get_into_the_script() {
        for (given, expected) in [
            ("dr.example", Some("dr.example")),
            ("10.0.0.1", Some("10.0.0.1")),
            ("[fd00::1]", Some("[fd00::1]")),
            ("fd00::1", Some("[fd00::1]")),
            ("", None),
            ("-k", None),
            ("a'b", None),
            ("a b", None),
            ("$(reboot)", None),
            ("a:1", None),
            ("u@h", None),
            ("a/b", None),
        ] {
            assert_eq!(host_of(given).as_deref(), expected, "{given}");
        }
        let mut headers = HeaderMap::new();
        for (given, expected) in [
            ("dr.example:8443", Some("dr.example")),
            ("dr.example", Some("dr.example")),
            ("[fd00::1]:8443", Some("[fd00::1]")),
            ("[fd00::1]", Some("[fd00::1]")),
            ("'; reboot #:8443", None),
        ] {
            headers.insert(header::HOST, HeaderValue::from_static(given));
            let uri = Uri::from_static("/install.sh");
            assert_eq!(host_in(&uri, &headers).as_deref(), expected, "{given}");
        }
        let uri = Uri::from_static("https://dr.example:8443/install.sh");
        assert_eq!(host_in(&uri, &headers).as_deref(), Some("dr.example"));
    }
}
