//! What every command that talks to a server shares: where it is, who we are, and what an answer looks like.
use super::failure::Failure;
use crate::api::client::{Address, Client, ClientError, Trust};
use crate::vault::age;
use clap::Args;
use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

#[derive(Args, Clone)]
pub struct Remote {
    /// Where the server is: unix:PATH or https://HOST[:8443]. Default: the last login, else the socket in the data folder of
    /// this host
    #[arg(
        long,
        global = true,
        env = "LIFEBOAT_SERVER",
        value_name = "ADDRESS",
        help_heading = "Server"
    )]
    pub server: Option<String>,
    /// Certificate of the server's CA, PEM
    #[arg(
        long,
        global = true,
        env = "LIFEBOAT_CA_FILE",
        value_name = "FILE",
        help_heading = "Server"
    )]
    pub ca_file: Option<PathBuf>,
    /// Fingerprint of the server's CA, as `lifeboat serve` prints it, in place of --ca-file
    #[arg(
        long,
        global = true,
        env = "LIFEBOAT_FINGERPRINT",
        value_name = "sha256:HEX",
        conflicts_with = "ca_file",
        help_heading = "Server"
    )]
    pub fingerprint: Option<String>,
    /// File with an API token. Default: that of the last login. Also LIFEBOAT_TOKEN
    #[arg(
        long,
        global = true,
        env = "LIFEBOAT_TOKEN_FILE",
        value_name = "FILE",
        help_heading = "Server"
    )]
    pub token_file: Option<PathBuf>,
    /// Vault to work in
    #[arg(
        long,
        global = true,
        env = "LIFEBOAT_VAULT",
        default_value = "default",
        help_heading = "Server"
    )]
    pub vault: String,
    /// Print data as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Print each request to the API on standard error, as it is sent
    #[arg(long, global = true)]
    pub explain: bool,
}

/// For lists that are shown again and again.
#[derive(Args, Clone)]
pub struct Watching {
    /// Show the list anew every two seconds, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

const WATCH_EVERY: std::time::Duration = std::time::Duration::from_secs(2);

impl Watching {
    /// Shows once, or again and again. On a terminal each list takes the place of the one before.
    pub fn show(&self, mut list: impl FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
        loop {
            if self.watch && std::io::stdout().is_terminal() {
                let _ = write!(std::io::stdout(), "\x1b[H\x1b[2J");
            }
            list()?;
            // Whoever read it has gone.
            if !self.watch || std::io::stdout().flush().is_err() {
                return Ok(());
            }
            std::thread::sleep(WATCH_EVERY);
        }
    }
}

/// A request as a person could send it with curl; what is secret is left out.
fn explained(method: &hyper::Method, address: &str, body: Option<&Value>) -> String {
    let mut text = format!("{method} {address}");
    if let Some(Value::Object(body)) =
        body.filter(|body| body.as_object().is_some_and(|body| !body.is_empty()))
    {
        let mut shown = body.clone();
        for (name, value) in &mut shown {
            let name = name.to_lowercase();
            if ["password", "secret", "token", "passphrase"]
                .iter()
                .any(|word| name.contains(word))
            {
                *value = Value::String("...".to_owned());
            }
        }
        text = format!("{text}\n  {}", Value::Object(shown));
    }
    text
}

/// What `lifeboat login` keeps, readable for its user only.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedLogin {
    pub server: String,
    pub ca_pem: Option<String>,
    pub fingerprint: Option<String>,
    pub token: String,
}

pub fn login_file() -> Option<PathBuf> {
    let folder = match std::env::var_os("LIFEBOAT_CONFIG_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => match std::env::var_os("XDG_CONFIG_HOME") {
            Some(folder) => PathBuf::from(folder).join("lifeboat"),
            None => PathBuf::from(std::env::var_os("HOME")?).join(".config/lifeboat"),
        },
    };
    Some(folder.join("login.json"))
}

impl SavedLogin {
    pub fn load() -> Option<Self> {
        serde_json::from_slice(&std::fs::read(login_file()?).ok()?).ok()
    }
}

/// Folder of the server on this host.
pub fn data_folder() -> PathBuf {
    match std::env::var_os("LIFEBOAT_DATA_DIR") {
        Some(folder) => PathBuf::from(folder),
        None if rustix::process::geteuid().is_root() => PathBuf::from("/var/lib/lifeboat"),
        None => PathBuf::from("lifeboat-data"),
    }
}

pub fn usage(message: impl Into<String>, action: &'static str) -> Failure {
    Failure {
        code: 2,
        message: message.into(),
        causes: "a value is misspelt, missing or outside its range".into(),
        action: action.into(),
    }
}

fn read_file(what: &str, path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| super::failure::on_file(what, path, error))
}

pub fn fingerprint_bytes(text: &str) -> Result<[u8; 32], Failure> {
    let digits: String = text
        .trim()
        .trim_start_matches("sha256:")
        .chars()
        .filter(|letter| *letter != ':')
        .collect();
    hex::decode(digits)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| {
            usage(
                "a fingerprint is sha256: and 64 hexadecimal digits",
                "lifeboat serve prints it at its start",
            )
        })
}

impl Remote {
    /// Trust from the flags.
    pub fn trust(&self) -> Result<Option<Trust>, Failure> {
        if let Some(fingerprint) = &self.fingerprint {
            return Ok(Some(Trust::Fingerprint(fingerprint_bytes(fingerprint)?)));
        }
        match &self.ca_file {
            Some(path) => Ok(Some(Trust::Ca(read_file("read", path)?))),
            None => Ok(None),
        }
    }

    pub fn client(&self) -> Result<Client, Failure> {
        let saved = SavedLogin::load().filter(|saved| {
            // A login is for its own server only.
            self.server.as_ref().is_none_or(|server| *server == saved.server)
        });
        let address: Address = match (&self.server, &saved) {
            (Some(server), _) => server.parse()?,
            (None, Some(saved)) => saved.server.parse()?,
            (None, None) => Address::Unix(data_folder().join("api.sock")),
        };
        let mut trust = self.trust()?;
        if trust.is_none()
            && let Some(saved) = &saved
        {
            trust = match (&saved.ca_pem, &saved.fingerprint) {
                (Some(pem), _) => Some(Trust::Ca(pem.clone())),
                (None, Some(fingerprint)) => Some(Trust::Fingerprint(fingerprint_bytes(fingerprint)?)),
                (None, None) => None,
            };
        }
        let token = match (&self.token_file, std::env::var("LIFEBOAT_TOKEN").ok()) {
            (Some(path), _) => Some(read_file("read", path)?.trim().to_owned()),
            (None, Some(token)) => Some(token),
            (None, None) => saved.map(|saved| saved.token),
        };
        let mut client = Client::new(address, trust.as_ref(), token)?;
        if self.explain {
            client.observe(|method, address, body| hint(&explained(method, address, body)));
        }
        Ok(client)
    }

    /// A path in the vault.
    pub fn path(&self, rest: &str) -> String {
        format!("/api/v1/vaults/{}{rest}", segment(&self.vault))
    }

    /// A path of a replicated item.
    pub fn item(&self, name: &str, rest: &str) -> String {
        self.path(&format!("/replicated-items/{}{rest}", segment(name)))
    }
}

/// One part of a path, whatever a person typed.
pub fn segment(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Code of the problem that ends this process; one is enough.
static PROBLEM: OnceLock<String> = OnceLock::new();

/// A failure as a program reads it.
pub fn exit_error(failure: &Failure) -> String {
    serde_json::json!({
        "message_type": "exit_error",
        "exitCode": failure.code,
        "code": PROBLEM.get(),
        "message": failure.message,
        "possibleCauses": failure.causes,
        "recommendedAction": failure.action,
    })
    .to_string()
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = match &error {
            ClientError::Unreachable { source, .. } => format!("{error}: {source}"),
            _ => error.to_string(),
        };
        let (code, causes, action) = match error {
            ClientError::Problem(problem) => {
                let code = match problem.status {
                    401 | 403 | 429 => 4,
                    404 => 5,
                    409 | 412 => 6,
                    400 | 413 | 415 | 422 => 2,
                    504 => 7,
                    _ => 1,
                };
                let _ = PROBLEM.set(problem.code);
                return Self {
                    code,
                    message: if problem.status >= 500 {
                        format!("{} (request {})", problem.message, problem.request_id)
                    } else {
                        problem.message
                    },
                    causes: problem.possible_causes.into(),
                    action: problem.recommended_action.into(),
                };
            }
            ClientError::BadAddress(_) => (
                2,
                "--server or LIFEBOAT_SERVER is misspelt",
                "for example unix:/var/lib/lifeboat/api.sock or https://vault:8443",
            ),
            ClientError::BadCa => (
                2,
                "--ca-file names another file",
                "get it from the server: lifeboat server passphrase --json, field caPem",
            ),
            ClientError::NoTrust => (
                2,
                "neither --ca-file nor --fingerprint was given, and there is no login for this server",
                "give --ca-file FILE or --fingerprint sha256:HEX; lifeboat login keeps it for later",
            ),
            ClientError::Unreachable { .. } => (
                8,
                "the server is not running, listens elsewhere, is not the one that is trusted, or this user may not use its socket",
                "start it: lifeboat serve; or say where it is: --server; not root: lifeboat login --server https://HOST:8443",
            ),
            ClientError::BadAnswer(_) => (
                1,
                "something else listens there, or it is of another version",
                "check --server and the versions on both sides",
            ),
        };
        Self {
            code,
            message,
            causes: causes.into(),
            action: action.into(),
        }
    }
}

/// Prints data; a reader that went away is no error.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

pub fn say_json(value: &Value) {
    say(&serde_json::to_string_pretty(value).unwrap_or_default());
}

/// For a person, on standard error.
pub fn hint(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

pub fn table(header: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    // The padding at the ends of lines helps nobody.
    for line in table.to_string().lines() {
        say(line.trim_end());
    }
}

/// Name and value, one per line.
pub fn facts(rows: &[(&str, String)]) {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        say(&format!("{name:width$}  {value}"));
    }
}

/// A field of an answer as text; empty when it is not there.
pub fn text(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// How long ago, from a field with an instant.
pub fn ago(value: &Value, field: &str) -> String {
    match serde_json::from_value::<crate::api::Time>(value[field].clone()) {
        Ok(time) => age(crate::rt::now_unix_nanos() - time.0),
        Err(_) => String::new(),
    }
}

/// An instant to the second.
pub fn instant(value: &Value, field: &str) -> String {
    match serde_json::from_value::<crate::api::Time>(value[field].clone()) {
        Ok(time) => super::size::instant(time.0),
        Err(_) => String::new(),
    }
}

pub fn size(value: &Value, field: &str) -> String {
    value[field].as_u64().map(super::size::bytes).unwrap_or_default()
}

pub fn seconds(value: &Value, field: &str) -> String {
    value[field]
        .as_f64()
        .map(|seconds| age((seconds * 1e9) as i64))
        .unwrap_or_default()
}

/// For what cannot be taken back: the name of the machine must be given or typed.
pub fn confirm(name: &str, given: Option<&str>, question: &str) -> Result<(), Failure> {
    let typed = match given {
        Some(given) => given.to_owned(),
        None if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() => {
            let _ = write!(
                std::io::stderr(),
                "{question}\nType the machine's name to go on: "
            );
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap_or(0);
            line.trim().to_owned()
        }
        None => {
            return Err(usage(
                format!("{question} Nothing was done: it was not confirmed."),
                "give --confirm with the machine's name",
            ));
        }
    };
    if typed == name {
        return Ok(());
    }
    Err(usage(
        format!("nothing was done: {typed:?} is not the machine's name"),
        "give --confirm with the machine's name exactly as it is",
    ))
}

/// A secret from a file, from standard input (`-`), or typed without being shown.
pub fn secret(prompt: &str, file: Option<&Path>) -> Result<String, Failure> {
    let text = match file {
        Some(path) if path.as_os_str() == "-" => {
            let mut text = String::new();
            std::io::stdin()
                .take(4096)
                .read_to_string(&mut text)
                .map_err(|error| super::failure::on_file("read", path, error))?;
            text
        }
        Some(path) => read_file("read", path)?,
        None if std::io::stdin().is_terminal() => typed_secret(prompt)?,
        None => {
            return Err(usage(
                format!("{prompt} was not given"),
                "give it in a file, or on standard input with -",
            ));
        }
    };
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

fn typed_secret(prompt: &str) -> Result<String, Failure> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let input = std::io::stdin();
    let failed = |error: std::io::Error| super::failure::on_file("read", Path::new("the terminal"), error);
    let _ = write!(std::io::stderr(), "{prompt}: ");
    let before = tcgetattr(&input).map_err(|error| failed(error.into()))?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&input, OptionalActions::Flush, &quiet).map_err(|error| failed(error.into()))?;
    let mut line = String::new();
    let read = input.read_line(&mut line);
    let _ = tcsetattr(&input, OptionalActions::Flush, &before);
    let _ = writeln!(std::io::stderr());
    read.map_err(failed)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_typed_stays_one_part_of_a_path() {
        assert_eq!(segment("web-1.a_b~"), "web-1.a_b~");
        assert_eq!(segment("../x?y=ä"), "..%2Fx%3Fy%3D%C3%A4");
    }

    #[test]
    fn pins_are_read_as_tools_print_them() {
        let hex = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        for text in [hex.clone(), format!("sha256:{hex}"), colons] {
            assert_eq!(fingerprint_bytes(&text).unwrap(), [0xab; 32]);
        }
        assert!(fingerprint_bytes("abcd").is_err());
    }

    #[test]
    fn an_explained_request_tells_no_secret() {
        let body = serde_json::json!({ "user": "olga", "newPassword": "hush", "bearer": true });
        let text = explained(
            &hyper::Method::POST,
            "https://vault:8443/api/v1/password",
            Some(&body),
        );
        assert!(
            text.starts_with("POST https://vault:8443/api/v1/password\n"),
            "{text}"
        );
        assert!(text.contains("olga") && !text.contains("hush"), "{text}");
    }

    #[test]
    fn only_the_exact_name_confirms() {
        assert!(confirm("web1", Some("web1"), "?").is_ok());
        assert_eq!(confirm("web1", Some("web2"), "?").unwrap_err().code, 2);
    }
}
