//! QEMU's monitor: one JSON object per line over a Unix socket.
//!
//! QEMU serves one client at a time, so a connection is made for a question or two and closed again. Its answers are bytes from
//! outside: lines have a limit, every wait has a deadline.
use crate::target::connect_unix;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest line of an answer; the longest of what is asked here has a few kilobytes.
const LINE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum QmpError {
    #[error("no answer from QEMU's monitor")]
    Io(#[from] io::Error),
    #[error("QEMU says: {0}")]
    Said(String),
}

pub(super) struct Qmp {
    input: BufReader<UnixStream>,
    deadline: Instant,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Qmp {
    /// `limit`: for all that is asked on this connection together.
    pub fn connect(folder: &Path, socket: &str, limit: Duration) -> Result<Self, QmpError> {
        let mut qmp = Self {
            deadline: Instant::now() + limit,
            input: BufReader::new(connect_unix(&folder.join(socket), limit)?),
        };
        if qmp.line()?.get("QMP").is_none() {
            return Err(invalid("no greeting").into());
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let request = json!({ "execute": command, "arguments": arguments });
        self.input
            .get_mut()
            .write_all(format!("{request}\n").as_bytes())?;
        loop {
            let mut answer = self.line()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                let text = error["desc"].as_str().unwrap_or("an error without a text");
                return Err(QmpError::Said(text.chars().take(500).collect()));
            }
            // An event: nobody waits for it here.
        }
    }

    fn line(&mut self) -> io::Result<Value> {
        let mut line = Vec::new();
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.input.get_ref().set_read_timeout(Some(left))?;
            let room = LINE_BYTES_MAX - line.len() as u64;
            let read = self.input.by_ref().take(room).read_until(b'\n', &mut line);
            match read {
                Ok(0) if room == 0 => return Err(invalid("a line without an end")),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) if line.ends_with(b"\n") => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        serde_json::from_slice(&line).map_err(|error| invalid(&error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A monitor that says these lines, whatever it is asked.
    fn talk(lines: &[&str], limit: Duration) -> Result<Value, QmpError> {
        let folder = tempfile::tempdir().unwrap();
        // Deeper than the path of a socket may be long.
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let near = folder.path().join("s");
        let listener = UnixListener::bind(&near).unwrap();
        std::fs::rename(near, deep.join("qmp.sock")).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = listener.accept().unwrap().0;
                for line in lines {
                    let _ = stream.write_all(line.as_bytes());
                }
                // Until the client has enough.
                let _ = stream.read_to_end(&mut Vec::new());
            });
            Qmp::connect(&deep, "qmp.sock", limit).and_then(|mut qmp| qmp.execute("query-status", json!({})))
        })
    }

    #[test]
    fn answers_are_found_between_events_and_nonsense_is_an_error() {
        let long = Duration::from_secs(60);
        let greeting = "{\"QMP\": {}}\n{\"return\": {}}\n";
        let event = "{\"event\": \"STOP\"}\n{\"retu";
        assert_eq!(talk(&[greeting, event, "rn\": 7}\n"], long).unwrap(), 7);
        let answer = talk(&[greeting, "{\"error\": {\"desc\": \"no such\"}}\n"], long);
        assert!(matches!(answer, Err(QmpError::Said(text)) if text == "no such"));
        let kind = |lines: &[&str], limit| match talk(lines, limit) {
            Err(QmpError::Io(error)) => error.kind(),
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(&["hello\n"], long), io::ErrorKind::InvalidData);
        assert_eq!(
            kind(&[greeting, "{\"return\""], Duration::from_millis(50)),
            io::ErrorKind::TimedOut
        );
        let endless = "x".repeat(LINE_BYTES_MAX as usize + 1);
        assert_eq!(kind(&[&endless], long), io::ErrorKind::InvalidData);
    }
}
