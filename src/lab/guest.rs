//! What a booted machine of the lab does: it judges its data, says so on its serial port and over HTTP, and goes on working.
//!
//! On the serial port, each a line of its own:
//! ```text
//! LEDGER OK last=<number of entries> <hash of the last one>      or   LEDGER BROKEN <what is broken>
//! TABLE OK                                                       or   TABLE BROKEN <what is broken>
//! ```
//! Over HTTP on port 80: [`Report`] as JSON, with status 200 when all is well and 503 when something is broken.
use super::verify::{Part, Verdict, verify};
use super::workload::{self, Stop};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// `/sbin/init` of the machine.
pub(super) const INIT: &str = include_str!("guest.sh");
pub(super) const DHCP: &str = include_str!("dhcp.sh");
pub(super) const POWER_BUTTON: &str = include_str!("power.sh");

/// A request line and headers that are longer are nobody's whom we serve.
const REQUEST_LIMIT: usize = 8 << 10;
const REQUEST_TIME: Duration = Duration::from_secs(3);

/// Hidden `lifeboat lab-guest`: runs inside a machine of the lab, from its init.
#[derive(Debug, Clone, clap::Args)]
pub struct GuestArgs {
    /// Folder of the ledger and the table
    #[arg(long)]
    pub folder: PathBuf,
    /// File that holds the rate of the workload; where it is missing, the machine does not go on working
    #[arg(long)]
    pub workload: PathBuf,
    #[arg(long, default_value_t = 80)]
    pub port: u16,
    /// Terminals that get the verdict; those that are missing are left out
    #[arg(long, default_values = ["/dev/ttyS0", "/dev/tty0"])]
    pub terminal: Vec<PathBuf>,
}

/// What the machine says of itself over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The data as it was found at boot.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Whether it writes its ledger again.
    pub working: bool,
    /// Entries by now.
    pub entries_now: u64,
    /// Why it stopped working.
    pub workload_problem: Option<String>,
    /// The newest message that it held at boot, where it exchanges some with other machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<u64>,
}

/// What was read from a serial log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleVerdict {
    /// Entries and the hash of the last one, or what is broken.
    pub ledger: Result<(u64, String), String>,
    pub table: Result<(), String>,
}

impl ConsoleVerdict {
    pub fn ok(&self) -> bool {
        self.ledger.is_ok() && self.table.is_ok()
    }
}

fn lines(verdict: &Verdict) -> String {
    let of = |part| {
        verdict
            .first_problem(part)
            .unwrap_or_else(|| "but not said how".to_owned())
    };
    let ledger = match verdict.ledger_ok {
        true => format!("LEDGER OK last={} {}", verdict.entries, verdict.last_hash),
        false => format!("LEDGER BROKEN {}", of(Part::Ledger)),
    };
    let table = match verdict.table_ok {
        true => "TABLE OK".to_owned(),
        false => format!("TABLE BROKEN {}", of(Part::Table)),
    };
    format!("\n{ledger}\n{table}\n")
}

/// Reads the newest verdict from a serial log; None while it is not there in full.
pub fn parse_console(text: &str) -> Option<ConsoleVerdict> {
    // A line without its end is still being written.
    let whole = &text[..text.rfind('\n')? + 1];
    let newest = |prefix: &str| {
        let mut found = whole.lines().map(str::trim).enumerate();
        found.by_ref().filter(|(_, line)| line.starts_with(prefix)).last()
    };
    let (ledger_at, ledger) = newest("LEDGER ")?;
    let (table_at, table) = newest("TABLE ")?;
    if table_at < ledger_at {
        return None;
    }
    let ledger = match ledger.strip_prefix("LEDGER OK last=") {
        Some(rest) => {
            let (number, hash) = rest.split_once(' ')?;
            Ok((number.parse().ok()?, hash.to_owned()))
        }
        None => Err(ledger.strip_prefix("LEDGER BROKEN ")?.to_owned()),
    };
    let table = match table {
        "TABLE OK" => Ok(()),
        _ => Err(table.strip_prefix("TABLE BROKEN ")?.to_owned()),
    };
    Some(ConsoleVerdict { ledger, table })
}

struct Shared {
    folder: PathBuf,
    verdict: Verdict,
    message: Option<u64>,
    /// None: not working. Some(None): working. Some(Some(why)): it was.
    work: Mutex<Option<Option<String>>>,
}

impl Shared {
    fn report(&self) -> Report {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Report {
            verdict: self.verdict.clone(),
            working: work == Some(None),
            entries_now: super::ledger::entries(&self.folder).unwrap_or(self.verdict.entries),
            workload_problem: work.flatten(),
            message: self.message,
        }
    }
}

/// The whole of `lifeboat lab-guest`. Ends only when it cannot listen.
pub fn main(args: &GuestArgs) -> io::Result<()> {
    let verdict = verify(&args.folder);
    say(&args.terminal, &lines(&verdict));
    let listener = TcpListener::bind(("0.0.0.0", args.port))?;
    let rate = std::fs::read_to_string(&args.workload)
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        .filter(|_| verdict.ok());
    let shared = Arc::new(Shared {
        folder: args.folder.clone(),
        verdict,
        message: super::messages::newest(&args.folder),
        work: Mutex::new(rate.map(|_| None)),
    });
    if let Some(rate) = rate {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || {
            // Nobody tells it to stop: it works until the machine is switched off.
            let ended = workload::run(&shared.folder, rate, &Stop::default());
            let why = ended
                .err()
                .map_or_else(|| "it ended".to_owned(), |error| error.to_string());
            *shared.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(Some(why));
        });
    }
    for stream in listener.incoming().flatten() {
        // A peer that hangs up or sends nonsense is no reason to end.
        let _ = answer(stream, &shared);
    }
    Ok(())
}

fn say(terminals: &[PathBuf], text: &str) {
    for terminal in terminals {
        let _ = open_terminal(terminal).and_then(|mut terminal| terminal.write_all(text.as_bytes()));
    }
}

fn open_terminal(path: &Path) -> io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::File::options()
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(path)
}

fn answer(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_write_timeout(Some(REQUEST_TIME))?;
    let request = read_request(&mut stream)?;
    let (status, body) = match request_target(&request) {
        Some("/") => {
            let report = shared.report();
            let status = match report.verdict.ok() {
                true => "200 OK",
                false => "503 Service Unavailable",
            };
            (status, serde_json::to_string(&report)? + "\n")
        }
        Some(_) => ("404 Not Found", "{}\n".to_owned()),
        None => ("400 Bad Request", "{}\n".to_owned()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Everything up to the empty line, within the limits.
fn read_request(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let end = Instant::now() + REQUEST_TIME;
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || request.len() > REQUEST_LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => request.extend(&part[..count]),
        }
    }
    Ok(request)
}

/// The path of a GET request; None for anything else.
fn request_target(request: &[u8]) -> Option<&str> {
    let line = request.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    (method == "GET" && version.starts_with("HTTP/1.")).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::ledger::{Ledger, create};

    #[test]
    fn the_console_says_what_is_parsed() {
        let folder = tempfile::tempdir().unwrap();
        create(folder.path(), "web1", 4).unwrap();
        let mut ledger = Ledger::open(folder.path()).unwrap();
        for number in 0..9 {
            ledger.append(number).unwrap();
        }
        let verdict = verify(folder.path());
        let text = lines(&verdict).replace('\n', "\r\n");
        let log = format!("[    1.2] Linux version 6.1\r\n{text}");
        let parsed = parse_console(&log).unwrap();
        assert!(parsed.ok());
        assert_eq!(parsed.ledger, Ok((9, verdict.last_hash.clone())));
        // Not before the last line is whole.
        assert_eq!(parse_console(log.trim_end()), None);
        assert_eq!(parse_console(&log[..log.find("TABLE").unwrap()]), None);
        // A second boot counts only once it has said everything, too.
        let again = format!("{log}LEDGER BROKEN entry 3 is damaged\r\n");
        assert_eq!(parse_console(&again), None);
        let again = format!("{again}TABLE BROKEN slot 1 is damaged\r\n");
        let parsed = parse_console(&again).unwrap();
        assert_eq!(parsed.ledger, Err("entry 3 is damaged".to_owned()));
        assert_eq!(parsed.table, Err("slot 1 is damaged".to_owned()));
    }

    #[test]
    fn http_answers_within_limits() {
        let folder = tempfile::tempdir().unwrap();
        create(folder.path(), "web1", 4).unwrap();
        let shared = Arc::new(Shared {
            folder: folder.path().to_owned(),
            verdict: verify(folder.path()),
            message: None,
            work: Mutex::new(None),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ask = |request: &[u8]| {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.write_all(request).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            let _ = answer(listener.accept().unwrap().0, &shared);
            let mut text = Vec::new();
            let _ = client.read_to_end(&mut text);
            String::from_utf8(text).unwrap()
        };
        let text = ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        let report: Report = serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(report, shared.report());
        assert!(report.verdict.ok() && !report.working);
        assert!(ask(b"GET /x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(ask(b"POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 400"));
        assert!(ask(b"\xff\xff\r\n\r\n").starts_with("HTTP/1.1 400"));
        assert_eq!(ask(&vec![b'a'; REQUEST_LIMIT * 2]), "");
        assert_eq!(ask(b""), "");
    }
}
