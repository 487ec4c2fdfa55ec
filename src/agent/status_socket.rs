//! `agent.sock` in the state folder: whoever connects (root) is told the status as JSON. A socket and not a file, so that telling
//! costs no write on a protected disk.
use super::status::{Board, Status};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

const FILE: &str = "agent.sock";
const STATUS_BYTES_MAX: u64 = 1 << 20;

pub(super) async fn serve(folder: PathBuf, board: Board, stop: CancellationToken) {
    let path = folder.join(FILE);
    let _ = std::fs::remove_file(&path);
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, "no status can be asked for"),
    };
    let _ = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        if let Ok((mut peer, _)) = accepted
            && let Ok(text) = serde_json::to_vec(&board.now())
        {
            let _ = tokio::time::timeout(Duration::from_secs(5), peer.write_all(&text)).await;
        }
    }
    let _ = std::fs::remove_file(path);
}

/// The status of the agent that runs with this state folder.
pub fn ask(folder: &Path) -> std::io::Result<Status> {
    let peer = std::os::unix::net::UnixStream::connect(folder.join(FILE))?;
    peer.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut text = Vec::new();
    peer.take(STATUS_BYTES_MAX).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}
