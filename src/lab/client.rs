//! The lab as a client of the server's API, over the unix socket.
use super::error::LabError;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::Runtime;

const LIMIT: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: usize = 64 << 20;

pub(super) struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Result<Self, LabError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(LabError::io("start a client for", &socket))?;
        Ok(Self { socket, runtime })
    }

    pub(super) fn get(&self, path: &str) -> Result<Value, LabError> {
        self.json(Method::GET, path, None)
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, LabError> {
        self.json(Method::POST, path, Some(body))
    }

    pub(super) fn text(&self, path: &str) -> Result<String, LabError> {
        let (status, body) = self.exchange(Method::GET, path, None)?;
        if status == 404 {
            return Ok(String::new());
        }
        refuse(status, path, &body)?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, LabError> {
        let (status, body) = self.exchange(method, path, body)?;
        refuse(status, path, &body)?;
        serde_json::from_slice(&body).map_err(|error| LabError::Server {
            call: path.to_owned(),
            detail: error.to_string(),
        })
    }

    fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Bytes), LabError> {
        let failed = |detail: String| LabError::Server {
            call: path.to_owned(),
            detail,
        };
        let work = async {
            let stream = tokio::net::UnixStream::connect(&self.socket)
                .await
                .map_err(|error| failed(error.to_string()))?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| failed(error.to_string()))?;
            tokio::spawn(connection);
            let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
            let request = Request::builder()
                .method(method)
                .uri(format!("/api/v1/vaults/default/{path}"))
                .header("host", "localhost")
                .header("content-type", "application/json")
                .body(Full::new(bytes))
                .map_err(|error| failed(error.to_string()))?;
            let answer = sender
                .send_request(request)
                .await
                .map_err(|error| failed(error.to_string()))?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| failed(error.to_string()))?;
            Ok((status, body.to_bytes()))
        };
        self.runtime.block_on(async {
            tokio::time::timeout(LIMIT, work)
                .await
                .unwrap_or_else(|_| Err(failed("no answer".to_owned())))
        })
    }
}

fn refuse(status: u16, call: &str, body: &[u8]) -> Result<(), LabError> {
    if status < 400 {
        return Ok(());
    }
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| problem[key].as_str().unwrap_or_default().to_owned();
    Err(LabError::Server {
        call: call.to_owned(),
        detail: format!("{status} {}: {}", text("code"), text("message")),
    })
}
