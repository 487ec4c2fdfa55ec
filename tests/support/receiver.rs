//! What alerts are sent to: a webhook receiver in this process, a mail server beside it. Both are real and speak TLS.
#![allow(dead_code)] // each test file uses a part
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Certificate and key of localhost, PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
    config: Arc<rustls::ServerConfig>,
}

pub fn identity() -> Identity {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let signed = rcgen::generate_simple_self_signed(names).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key)
            .unwrap();
    Identity {
        certificate: signed.cert.pem(),
        key: signed.signing_key.serialize_pem(),
        config: Arc::new(config),
    }
}

#[derive(Debug)]
pub struct Posted {
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Posted {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks the signature as a receiver would, by its own reckoning.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let signed = [self.headers["x-lifeboat-timestamp"].as_bytes(), b".", &self.body].concat();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
        let given = self.headers["x-lifeboat-signature"]
            .strip_prefix("sha256=")
            .unwrap();
        ring::hmac::verify(&key, &signed, &hex::decode(given).unwrap()).is_ok()
    }
}

/// What the receiver does with the next request; behind the last one it answers 200.
#[derive(Clone, Copy)]
pub enum Answer {
    Status(u16),
    /// Takes the request and never answers.
    Silence,
}

pub struct Webhook {
    pub port: u16,
    pub posts: Receiver<Posted>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

impl Webhook {
    pub fn start(identity: Option<&Identity>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, posts) = sync_channel(100);
        let answers = Arc::new(Mutex::new(VecDeque::new()));
        let (config, queue) = (identity.map(|identity| identity.config.clone()), answers.clone());
        // Ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (config, queue, sender) = (config.clone(), queue.clone(), sender.clone());
                std::thread::spawn(move || match config {
                    Some(config) => {
                        let connection = rustls::ServerConnection::new(config).unwrap();
                        serve(rustls::StreamOwned::new(connection, stream), &queue, &sender);
                    }
                    None => serve(stream, &queue, &sender),
                });
            }
        });
        Self { port, posts, answers }
    }

    pub fn answer(&self, answers: &[Answer]) {
        self.answers.lock().unwrap().extend(answers);
    }

    pub fn next(&self, what: &str) -> Posted {
        self.posts
            .recv_timeout(Duration::from_secs(60))
            .unwrap_or_else(|_| panic!("not within 60 s: {what}"))
    }
}

fn serve(stream: impl Read + Write, answers: &Mutex<VecDeque<Answer>>, posts: &SyncSender<Posted>) {
    let mut reader = BufReader::new(stream);
    let Some(posted) = read(&mut reader) else { return };
    let answer = answers.lock().unwrap().pop_front().unwrap_or(Answer::Status(200));
    let _ = posts.send(posted);
    match answer {
        Answer::Status(status) => {
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = reader.get_mut().write_all(answer.as_bytes());
            let _ = reader.get_mut().flush();
        }
        // Until the sender goes away.
        Answer::Silence => {
            let _ = reader.read(&mut [0]);
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Posted> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Posted { path, headers, body })
}

/// aiosmtpd with STARTTLS and a login.
pub struct MailServer {
    pub port: u16,
    pub mails: Receiver<Value>,
    child: Child,
    _folder: tempfile::TempDir,
}

impl MailServer {
    pub fn start(identity: &Identity, user: &str, password: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        std::fs::write(&certificate, &identity.certificate).unwrap();
        std::fs::write(&key, &identity.key).unwrap();
        let python = std::env::var_os("LIFEBOAT_TEST_PYTHON").unwrap_or_else(|| "python3".into());
        let mut child = Command::new(python)
            .arg("tests/support/smtp.py")
            .args([&certificate, &key])
            .args([user, password])
            .stdout(Stdio::piped())
            // It complains of clients that do not trust it, as they should not.
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 is needed");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().and_then(Result::ok).unwrap_or_default();
        let Ok(port) = first.parse() else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("aiosmtpd is needed: tests/all.sh makes a venv with it and sets LIFEBOAT_TEST_PYTHON");
        };
        let (sender, mails) = sync_channel(100);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self {
            port,
            mails,
            child,
            _folder: folder,
        }
    }

    pub fn next(&self, what: &str) -> Value {
        self.mails
            .recv_timeout(Duration::from_secs(60))
            .unwrap_or_else(|_| panic!("not within 60 s: {what}"))
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
