//! The web interface: files of `web/dist`, part of the executable (a debug build reads them from the folder).
//!
//! Beside the block's way; owns no state. Every address that no route of the API takes ends here: a file, or the page
//! itself, whose own router knows the rest of the path. Without a built interface the page says how to build it.
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

#[derive(RustEmbed)]
#[folder = "web/dist"]
struct Dist;

/// Styles may be inline: positions of menus and bars are set on elements. Scripts may not.
pub const POLICY: &str = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                      img-src 'self' data: blob:; connect-src 'self'; object-src 'none'; frame-ancestors 'none'; \
                      base-uri 'none'; form-action 'self'";
/// Names below `assets/` hold a hash of the content.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
const ASK_AGAIN: &str = "no-cache";

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "txt" => "text/plain; charset=utf-8",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        "png" => "image/png",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}

/// Whether the browser takes brotli; `br;q=0` says that it does not.
fn takes_brotli(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok());
    accepted.unwrap_or_default().split(',').any(|part| {
        let (name, quality) = part.split_once(';').unwrap_or((part, ""));
        let refused = quality
            .trim()
            .strip_prefix("q=")
            .and_then(|number| number.parse::<f32>().ok());
        name.trim() == "br" && refused != Some(0.0)
    })
}

/// The file, compressed where it is kept so and the browser takes it.
fn find(path: &str, headers: &HeaderMap) -> Option<(EmbeddedFile, bool)> {
    if takes_brotli(headers)
        && let Some(file) = Dist::get(&format!("{path}.br"))
    {
        return Some((file, true));
    }
    Dist::get(path).map(|file| (file, false))
}

/// A file of the interface, or its page for every address that is not one.
pub async fn page(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    // What programs ask for and does not exist is an error in their own language.
    if path == "api" || path.starts_with("api/") {
        return StatusCode::NOT_FOUND.into_response();
    }
    if !matches!(method, Method::GET | Method::HEAD) {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let asset = path.starts_with("assets/");
    let (name, found) = match find(path, &headers) {
        Some(found) if !path.is_empty() => (path, Some(found)),
        // An old page that asks for a file of an older version must not get HTML for it.
        _ if asset => return StatusCode::NOT_FOUND.into_response(),
        _ => ("index.html", find("index.html", &headers)),
    };
    let Some((file, compressed)) = found else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let etag = format!("\"{}\"", hex::encode(&file.metadata.sha256_hash()[..16]));
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    let mut response = if known.is_some_and(|known| known.split(',').any(|tag| tag.trim() == etag)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Body::from(file.data.into_owned()).into_response()
    };
    let answer = response.headers_mut();
    let mut set = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            answer.insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, content_type(name));
    set(header::CACHE_CONTROL, if asset { FOR_EVER } else { ASK_AGAIN });
    set(header::ETAG, &etag);
    set(header::VARY, "accept-encoding");
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if compressed {
        set(header::CONTENT_ENCODING, "br");
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(path: &str, headers: &[(header::HeaderName, &str)]) -> Response {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(name, HeaderValue::from_str(value).unwrap());
        }
        page(Method::GET, path.parse().unwrap(), map).await
    }

    fn text(response: &Response, name: header::HeaderName) -> &str {
        response.headers()[name].to_str().unwrap()
    }

    #[tokio::test]
    async fn every_path_of_the_page_is_the_page() {
        for path in ["/", "/jobs/123", "/items/web1?tab=disks"] {
            let response = get(path, &[]).await;
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_eq!(text(&response, header::CONTENT_TYPE), "text/html; charset=utf-8");
            assert_eq!(text(&response, header::CACHE_CONTROL), ASK_AGAIN);
            let policy = text(&response, header::CONTENT_SECURITY_POLICY);
            assert!(policy.contains("script-src 'self';") && policy.contains("frame-ancestors 'none'"));
        }
    }

    #[tokio::test]
    async fn a_known_page_is_not_sent_again() {
        let first = get("/", &[]).await;
        let tag = text(&first, header::ETAG).to_owned();
        let second = get("/", &[(header::IF_NONE_MATCH, &tag)]).await;
        assert_eq!(second.status(), StatusCode::NOT_MODIFIED);
        let other = get("/", &[(header::IF_NONE_MATCH, "\"other\"")]).await;
        assert_eq!(other.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn what_is_not_a_page_is_not_found() {
        for path in ["/api/v1/nothing", "/api", "/assets/old-1234.js"] {
            assert_eq!(get(path, &[]).await.status(), StatusCode::NOT_FOUND, "{path}");
        }
        let posted = page(Method::POST, "/".parse().unwrap(), HeaderMap::new()).await;
        assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
        let above = get("/../Cargo.toml", &[]).await;
        assert_eq!(text(&above, header::CONTENT_TYPE), "text/html; charset=utf-8");
    }

    #[test]
    fn brotli_only_where_it_is_taken() {
        let takes = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
            takes_brotli(&headers)
        };
        assert!(takes("gzip, deflate, br"));
        assert!(takes("br;q=0.5"));
        assert!(!takes("br;q=0, gzip"));
        assert!(!takes("gzip"));
        assert!(!takes_brotli(&HeaderMap::new()));
    }
}
