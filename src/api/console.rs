//! The console of a machine at the target: the bytes of its VNC socket over a WebSocket, for the page's VNC client.
//!
//! Beside the block's way. Whoever has it holds the machine's keyboard, so it needs the role Operator, a request of the own
//! page, and stands in the audit log. The right is looked at again while the console is open: a role that was taken away,
//! or a session that ended, ends it.
use super::ApiState;
use super::access::Caller;
use super::failover::Which;
use super::items::find;
use super::problem::ApiError;
use super::websocket::{self, Decoder, Frame};
use crate::recovery::RecoveryError;
use crate::vault::Role;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Consoles at once, of all machines together.
pub(super) const CONSOLES_MAX: usize = 32;
const CHUNK_BYTES: usize = 32 * 1024;
/// A browser answers pings by itself; three that were not answered are a peer that is gone.
const PACE: Pace = Pace {
    ping_every: Duration::from_secs(15),
    silence_max: Duration::from_secs(50),
};
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy)]
struct Pace {
    /// Also how often the right is looked at.
    ping_every: Duration,
    silence_max: Duration,
}

fn no_console(message: String) -> ApiError {
    ApiError::new(
        StatusCode::BAD_GATEWAY,
        "NoConsole",
        message,
        "the machine does not run, is just starting, or its hypervisor offers no console",
        "look at its power and its serial log; the screenshot works without a console",
    )
}

fn no_websocket() -> ApiError {
    ApiError::new(
        StatusCode::UPGRADE_REQUIRED,
        "WebSocketRequired",
        "this address speaks WebSocket (RFC 6455, version 13) only",
        "a plain request, or a proxy before the server that does not pass WebSockets on",
        "use the console of the web interface; in a proxy pass the headers Upgrade and Connection on",
    )
}

/// The answer's key, where the request asks for a WebSocket.
fn accepted_key(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let asks = text(header::UPGRADE)?.eq_ignore_ascii_case("websocket")
        && text(header::CONNECTION)?
            .split(',')
            .any(|word| word.trim().eq_ignore_ascii_case("upgrade"))
        && text(header::SEC_WEBSOCKET_VERSION)? == "13";
    let key = text(header::SEC_WEBSOCKET_KEY)?;
    (asks && websocket::is_key(key)).then(|| websocket::accept(key))
}

/// The socket of the machine's screen. By the folder's descriptor: a socket's address may be 107 bytes long only.
fn socket_of(
    state: &ApiState,
    vault: &str,
    item: &str,
    test: bool,
) -> Result<std::os::unix::net::UnixStream, ApiError> {
    let machine = find(state, vault, item)?.item.machine;
    if state.runner.machine_status(machine, test)?.is_none() {
        return Err(RecoveryError::NoMachine.into());
    }
    let path = state
        .runner
        .console(machine, test)?
        .ok_or_else(|| no_console("this hypervisor offers no console".to_owned()))?;
    crate::target::connect_unix(&path, CONNECT_LIMIT)
        .map_err(|error| no_console(format!("the console cannot be reached: {error}")))
}

/// The machine's screen, keyboard and mouse: VNC (RFB 3.8, no password) over a WebSocket of binary frames.
#[utoipa::path(get, path = "/api/v1/vaults/{vault}/replicated-items/{item}/target-machine/console", tag = "Failover",
    params(Which), responses((status = 101, description = "The WebSocket is open")))]
pub async fn console(
    State(state): State<ApiState>,
    Path((vault, item)): Path<(String, String)>,
    Query(which): Query<Which>,
    Extension(caller): Extension<Caller>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let key = accepted_key(request.headers()).ok_or_else(no_websocket)?;
    let permit = state.consoles.clone().try_acquire_owned().map_err(|_| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "TooManyConsoles",
            format!("{CONSOLES_MAX} consoles are open"),
            "many people look at machines at once, or pages were left open",
            "close consoles that nobody looks at",
        )
    })?;
    let name = vault.clone();
    let machine = state
        .run(move |state| socket_of(state, &vault, &item, which.test))
        .await?;
    let machine = machine
        .set_nonblocking(true)
        .and_then(|()| UnixStream::from_std(machine))
        .map_err(|error| no_console(format!("the console cannot be used: {error}")))?;
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(peer) => serve(TokioIo::new(peer), machine, state, caller, name, permit).await,
            Err(error) => tracing::debug!(%error, "a console's connection ended before it began"),
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "upgrade")
        .header(header::SEC_WEBSOCKET_ACCEPT, key)
        .body(Body::empty())
        .map_err(|_| no_websocket())
}

async fn serve(
    peer: impl AsyncRead + AsyncWrite + Send,
    machine: UnixStream,
    state: ApiState,
    caller: Caller,
    vault: String,
    _permit: OwnedSemaphorePermit,
) {
    let user = caller.user.clone();
    let shutdown = state.shutdown.clone();
    let allowed = move || still_allowed(state.clone(), caller.token.clone(), vault.clone());
    let end = bridge(peer, machine, PACE, &shutdown, allowed).await;
    tracing::debug!(user, end, "a console ended");
}

/// Whether the caller may still hold the console; an error of the database takes it from nobody.
async fn still_allowed(state: ApiState, token: Option<String>, vault: String) -> bool {
    // Root of this host.
    let Some(token) = token else {
        return true;
    };
    let known = state
        .run(move |state| Ok(state.vault.authenticate(&token)?))
        .await;
    known.map_or(true, |principal| {
        principal
            .and_then(|principal| principal.role_in(&vault))
            .is_some_and(|role| role >= Role::Operator)
    })
}

/// What the half that reads from the peer asks the half that writes to it to send.
enum Say {
    Pong(Vec<u8>),
}

/// Passes bytes on in both directions until one side ends; says why.
async fn bridge<Allowed: Future<Output = bool> + Send>(
    peer: impl AsyncRead + AsyncWrite + Send,
    mut machine: impl AsyncRead + AsyncWrite + Send + Unpin,
    pace: Pace,
    shutdown: &tokio_util::sync::CancellationToken,
    allowed: impl Fn() -> Allowed + Send,
) -> &'static str {
    let (mut from_peer, mut to_peer) = tokio::io::split(peer);
    let (mut from_machine, mut to_machine) = tokio::io::split(&mut machine);
    let (say, mut told) = mpsc::channel::<Say>(4);
    let inward = async {
        let mut decoder = Decoder::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let len = match tokio::time::timeout(pace.silence_max, from_peer.read(&mut chunk)).await {
                Ok(Ok(0) | Err(_)) => return (websocket::NORMAL, "the peer went away"),
                Ok(Ok(len)) => len,
                Err(_) => return (websocket::GOING_AWAY, "the peer is silent"),
            };
            decoder.push(chunk.get(..len).unwrap_or_default());
            loop {
                match decoder.next() {
                    Ok(None) => break,
                    Ok(Some(Frame::Bytes(bytes))) => {
                        if to_machine.write_all(&bytes).await.is_err() {
                            return (websocket::NORMAL, "the machine's console ended");
                        }
                    }
                    // One pong for several pings is allowed.
                    Ok(Some(Frame::Ping(payload))) => drop(say.try_send(Say::Pong(payload))),
                    Ok(Some(Frame::Pong)) => {}
                    Ok(Some(Frame::Close)) => return (websocket::NORMAL, "closed by the peer"),
                    Err(error) => {
                        tracing::debug!(%error, "a console's peer broke the protocol");
                        return (websocket::PROTOCOL_ERROR, "the protocol was broken");
                    }
                }
            }
        }
    };
    let outward = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut tick = tokio::time::interval(pace.ping_every);
        tick.tick().await;
        loop {
            // All three may be dropped without a loss.
            let frame = tokio::select! {
                read = from_machine.read(&mut chunk) => match read {
                    Ok(0) | Err(_) => return (websocket::NORMAL, "the machine's console ended"),
                    Ok(len) => websocket::bytes(chunk.get(..len).unwrap_or_default()),
                },
                Some(Say::Pong(payload)) = told.recv() => websocket::pong(&payload),
                _ = tick.tick() => {
                    if !allowed().await {
                        return (websocket::NOT_ALLOWED, "no longer allowed");
                    }
                    websocket::ping()
                }
            };
            if to_peer.write_all(&frame).await.is_err() || to_peer.flush().await.is_err() {
                return (websocket::NORMAL, "the peer went away");
            }
        }
    };
    let (code, reason) = tokio::select! {
        end = inward => end,
        end = outward => end,
        () = shutdown.cancelled() => (websocket::GOING_AWAY, "the server stops"),
    };
    let goodbye = async {
        to_peer.write_all(&websocket::close(code, reason)).await?;
        to_peer.shutdown().await
    };
    let _ = tokio::time::timeout(GOODBYE_LIMIT, goodbye).await;
    reason
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio_util::sync::CancellationToken;

    #[test]
    fn only_a_request_for_a_websocket_is_one() {
        let mut headers = HeaderMap::new();
        let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
        set(header::UPGRADE, "WebSocket");
        set(header::CONNECTION, "keep-alive, Upgrade");
        set(header::SEC_WEBSOCKET_VERSION, "13");
        set(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(
            accepted_key(&headers).as_deref(),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        for (name, wrong) in [
            (header::UPGRADE, "h2c"),
            (header::CONNECTION, "keep-alive"),
            (header::SEC_WEBSOCKET_VERSION, "8"),
            (header::SEC_WEBSOCKET_KEY, "short"),
        ] {
            let mut other = headers.clone();
            other.insert(&name, HeaderValue::from_static(wrong));
            assert_eq!(accepted_key(&other), None, "{wrong}");
            other.remove(&name);
            assert_eq!(accepted_key(&other), None, "without {name}");
        }
    }

    const SLOW: Pace = PACE;
    const QUICK: Pace = Pace {
        ping_every: Duration::from_millis(50),
        silence_max: Duration::from_millis(400),
    };

    /// The browser's and the machine's end of a bridge that runs.
    fn running(
        allowed: &'static AtomicBool,
        pace: Pace,
    ) -> (
        tokio::io::DuplexStream,
        tokio::io::DuplexStream,
        CancellationToken,
        tokio::task::JoinHandle<&'static str>,
    ) {
        let (browser, peer) = tokio::io::duplex(1 << 20);
        let (guest, machine) = tokio::io::duplex(1 << 20);
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(async move {
            bridge(peer, machine, pace, &token, || async {
                allowed.load(Ordering::SeqCst)
            })
            .await
        });
        (browser, guest, stop, task)
    }

    static YES: AtomicBool = AtomicBool::new(true);
    static NO: AtomicBool = AtomicBool::new(false);

    async fn read(stream: &mut (impl AsyncRead + Unpin), len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut bytes))
            .await
            .expect("in time")
            .expect("open");
        bytes
    }

    #[tokio::test]
    async fn bytes_pass_in_both_directions_until_the_machine_ends() {
        let (mut browser, mut guest, _stop, task) = running(&YES, SLOW);
        guest.write_all(b"RFB 003.008\n").await.unwrap();
        assert_eq!(read(&mut browser, 14).await, b"\x82\x0cRFB 003.008\n");
        // Masked with zeros, that is: as it is. A ping between two fragments is answered.
        browser
            .write_all(b"\x02\x82\0\0\0\0ab\x89\x81\0\0\0\0!\x80\x81\0\0\0\0c")
            .await
            .unwrap();
        assert_eq!(read(&mut guest, 3).await, b"abc");
        assert_eq!(read(&mut browser, 3).await, b"\x8a\x01!");
        drop(guest);
        let goodbye = read(&mut browser, 4).await;
        assert_eq!(goodbye[0], 0x88);
        assert_eq!(goodbye[2..], websocket::NORMAL.to_be_bytes());
        assert_eq!(task.await.unwrap(), "the machine's console ended");
    }

    #[tokio::test]
    async fn a_broken_frame_and_a_stop_of_the_server_end_it() {
        let (mut browser, _guest, _stop, task) = running(&YES, SLOW);
        browser.write_all(b"\x82\x01a").await.unwrap();
        assert_eq!(
            read(&mut browser, 4).await[2..],
            websocket::PROTOCOL_ERROR.to_be_bytes()
        );
        assert_eq!(task.await.unwrap(), "the protocol was broken");
        let (mut browser, _guest, stop, task) = running(&YES, SLOW);
        stop.cancel();
        assert_eq!(
            read(&mut browser, 4).await[2..],
            websocket::GOING_AWAY.to_be_bytes()
        );
        assert_eq!(task.await.unwrap(), "the server stops");
    }

    #[tokio::test]
    async fn a_right_that_was_taken_away_ends_it() {
        let (mut browser, _guest, _stop, task) = running(&NO, QUICK);
        assert_eq!(
            read(&mut browser, 4).await[2..],
            websocket::NOT_ALLOWED.to_be_bytes()
        );
        assert_eq!(task.await.unwrap(), "no longer allowed");
    }

    #[tokio::test]
    async fn a_peer_that_answers_no_ping_is_given_up() {
        let (mut browser, _guest, _stop, task) = running(&YES, QUICK);
        assert_eq!(task.await.unwrap(), "the peer is silent");
        assert_eq!(read(&mut browser, 2).await, websocket::ping());
    }
}
