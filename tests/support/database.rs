//! Database servers of the distribution, each in a folder and on a socket of its own.
#![allow(dead_code)] // each test file uses a part
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::ok;
use crate::support::wait_for;

/// A process of the test, ended by this signal.
pub struct Process(pub Child, pub &'static str);

impl Process {
    pub fn start(command: &mut Command, log: &Path, signal: &'static str) -> Self {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "{:?} is needed (tests/all.sh installs it): {error}",
                    command.get_program()
                )
            });
        Self(child, signal)
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = Command::new("kill")
                .args([self.1, &self.0.id().to_string()])
                .status();
            let end = Instant::now() + Duration::from_secs(20);
            while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = self.0.kill();
        }
        // One that waits for a frozen file system ends when that is thawed, which may be after this test.
        let end = Instant::now() + Duration::from_secs(5);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// As this user of the system.
pub fn as_user(user: &str, program: &Path) -> Command {
    let group = ok("id", &["-g", user]);
    let mut command = Command::new("setpriv");
    command
        .args([&format!("--reuid={user}"), &format!("--regid={}", group.trim())])
        .args(["--init-groups", "--"])
        .arg(program)
        .current_dir("/");
    command
}

pub fn success(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} is needed (tests/all.sh installs it): {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Where the distribution keeps the server's programs.
pub fn postgres_programs() -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("postgresql is needed (tests/all.sh installs it)")
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    versions.sort();
    versions.pop().expect("postgresql is needed")
}

pub struct Postgres {
    pub bin: PathBuf,
    pub socket: PathBuf,
    pub server: Process,
}

impl Postgres {
    pub fn initialize(bin: &Path, data: &Path) {
        std::fs::create_dir(data).unwrap();
        ok("chown", &["postgres:", data.to_str().unwrap()]);
        success(
            as_user("postgres", &bin.join("initdb"))
                .arg("-D")
                .arg(data)
                .args(["--auth=trust", "--no-sync"]),
        );
    }

    pub fn start(bin: &Path, data: &Path, socket: &Path) -> Self {
        std::fs::create_dir_all(socket).unwrap();
        std::fs::set_permissions(socket, PermissionsExt::from_mode(0o777)).unwrap();
        let mut command = as_user("postgres", &bin.join("postgres"));
        command.arg("-D").arg(data).arg("-k").arg(socket).args([
            "-c",
            "listen_addresses=",
            "-c",
            "shared_buffers=48MB",
            "-c",
            "max_wal_size=256MB",
            "-c",
            "checkpoint_timeout=1h",
        ]);
        let mut server = Self {
            bin: bin.to_owned(),
            socket: socket.to_owned(),
            server: Process::start(&mut command, &socket.join("log"), "-INT"),
        };
        wait_for("PostgreSQL", || {
            assert!(
                server.server.is_running(),
                "{}",
                std::fs::read_to_string(socket.join("log")).unwrap()
            );
            server.try_ask("SELECT 1")
        });
        server
    }

    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command
            .env("PGHOST", &self.socket)
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres");
        command
    }

    pub fn try_ask(&self, sql: &str) -> Option<String> {
        let output = self.client("psql").args(["-XAtq", "-c", sql]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        output.status.success().then(|| text.trim().to_owned())
    }

    pub fn number(&self, sql: &str) -> i64 {
        let answer = self.try_ask(sql).unwrap_or_else(|| panic!("no answer to {sql}"));
        answer.parse().unwrap()
    }
}

pub struct MariaDb {
    pub socket: PathBuf,
    pub server: Process,
}

impl MariaDb {
    pub fn initialize(data: &Path) {
        std::fs::create_dir(data).unwrap();
        ok("chown", &["mysql:", data.to_str().unwrap()]);
        success(
            Command::new("mariadb-install-db")
                .args([
                    "--no-defaults",
                    "--user=mysql",
                    "--skip-test-db",
                    "--auth-root-authentication-method=socket",
                ])
                .arg(format!("--datadir={}", data.display())),
        );
    }

    pub fn start(data: &Path, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o777)).unwrap();
        let socket = folder.join("sock");
        let mut command = Command::new("/usr/sbin/mariadbd");
        command
            .args(["--no-defaults", "--user=mysql", "--skip-networking"])
            .args(["--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M"])
            // What was not closed must be seen, not mended.
            .args(["--myisam-recover-options=OFF", "--skip-log-bin"])
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--pid-file={}", folder.join("pid").display()));
        let mut server = Self {
            socket,
            server: Process::start(&mut command, &folder.join("log"), "-TERM"),
        };
        wait_for("MariaDB", || {
            assert!(
                server.server.is_running(),
                "{}",
                std::fs::read_to_string(folder.join("log")).unwrap()
            );
            server.try_ask("SELECT 1")
        });
        server
    }

    pub fn client(&self) -> Command {
        let mut command = Command::new("mariadb");
        command
            .args(["--no-defaults", "--batch", "--skip-column-names"])
            .arg(format!("--socket={}", self.socket.display()));
        command
    }

    pub fn try_ask(&self, sql: &str) -> Option<String> {
        let output = self.client().args(["-e", sql]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        output.status.success().then(|| text.trim().to_owned())
    }

    pub fn ask(&self, sql: &str) -> String {
        self.try_ask(sql).unwrap_or_else(|| panic!("no answer to {sql}"))
    }

    pub fn number(&self, sql: &str) -> i64 {
        self.ask(sql).parse().unwrap()
    }
}
