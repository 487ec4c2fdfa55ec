use super::*;
use std::os::unix::fs::PermissionsExt;

struct Bed {
    folder: tempfile::TempDir,
    quiesce: Quiesce,
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hooks = folder.path().join("quiesce.d");
        std::fs::create_dir(&hooks).unwrap();
        let quiesce = Quiesce {
            folder: hooks,
            state: folder.path().join("state"),
            machine: "web1".to_owned(),
            timeout: Duration::from_secs(20),
            hold: Duration::from_secs(20),
        };
        Self { folder, quiesce }
    }

    /// A hook that writes down how it was called, then does what it is told.
    fn hook(&self, name: &str, script: &str) {
        let path = self.quiesce.folder.join(name);
        let log = self.folder.path().join("log");
        let text = format!(
            "#!/bin/sh\necho \"{name} $1 $LIFEBOAT_REASON $LIFEBOAT_MACHINE $LIFEBOAT_FILE_SYSTEMS\" >> {}\n{script}\n",
            log.display()
        );
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// How they were called, and forgets it.
    fn calls(&self) -> Vec<String> {
        let path = self.folder.path().join("log");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(path);
        text.lines().map(str::to_owned).collect()
    }

    fn begin(&self) -> Result<Quiesced, QuiesceError> {
        let never = AtomicBool::new(false);
        let mounts = [PathBuf::from("/a"), PathBuf::from("/b")];
        self.quiesce.begin(Why::Request, &mounts, &never, &mut Vec::new())
    }
}

#[test]
fn pre_by_name_and_post_backwards() {
    let bed = Bed::new();
    assert!(matches!(bed.begin(), Err(QuiesceError::NoHooks(_))));
    bed.hook("20-b", "");
    bed.hook("10-a", "echo done");
    let mut quiesced = bed.begin().unwrap();
    assert_eq!(
        bed.calls(),
        ["10-a pre request web1 /a:/b", "20-b pre request web1 /a:/b"]
    );
    assert_eq!(bed.quiesce.left(), ["10-a", "20-b"]);
    assert_eq!(quiesced.names(), "10-a, 20-b");
    // One at a time.
    assert!(matches!(bed.begin(), Err(QuiesceError::Busy)));
    quiesced.thawed();
    let mut steps = Vec::new();
    quiesced.end(&mut steps).unwrap();
    assert_eq!(
        bed.calls(),
        ["20-b post request web1 /a:/b", "10-a post request web1 /a:/b"]
    );
    assert_eq!(steps.len(), 4);
    assert_eq!(steps[0].output, "done");
    assert!(bed.quiesce.left().is_empty());
    // Dropped, as after a failed freeze: post all the same.
    drop(bed.begin().unwrap());
    assert_eq!(bed.calls().len(), 4);
}

#[test]
fn a_failing_pre_lets_go_what_was_begun_and_says_why() {
    let bed = Bed::new();
    bed.hook("10-a", "");
    bed.hook("20-b", "[ $1 = post ] || { echo cannot log in >&2; exit 3; }");
    bed.hook("30-c", "");
    let error = bed.begin().err().unwrap();
    let text = error.to_string();
    assert!(
        text.contains("20-b failed in pre") && text.contains("status: 3") && text.contains("cannot log in"),
        "{text}"
    );
    let calls = bed.calls();
    let short: Vec<_> = calls
        .iter()
        .map(|call| call.split(" request").next().unwrap())
        .collect();
    assert_eq!(short, ["10-a pre", "20-b pre", "20-b post", "10-a post"]);
    assert!(bed.quiesce.left().is_empty());
}

#[test]
fn a_hook_that_hangs_is_ended_and_let_go() {
    let mut bed = Bed::new();
    bed.quiesce.timeout = Duration::from_secs(1);
    bed.hook("10-a", "[ $1 = post ] || sleep 600");
    let begin = Instant::now();
    let text = bed.begin().err().unwrap().to_string();
    assert!(text.contains("did not end within 1 s"), "{text}");
    assert!(begin.elapsed() < Duration::from_secs(15));
    assert_eq!(bed.calls().len(), 2, "pre and post");
}

#[test]
fn a_post_that_fails_stays_due() {
    let bed = Bed::new();
    bed.hook("10-a", "");
    let flag = bed.folder.path().join("flag");
    bed.hook("20-b", &format!("[ $1 = pre ] || test -e {}", flag.display()));
    let mut quiesced = bed.begin().unwrap();
    quiesced.thawed();
    let error = quiesced.end(&mut Vec::new()).unwrap_err();
    assert!(error.may_hold(), "{error}");
    assert_eq!(bed.quiesce.left(), ["20-b"]);
    bed.calls();
    // The next attempt tries it first, and begins nothing while it is held.
    assert!(matches!(bed.begin(), Err(QuiesceError::StillHeld(_))));
    assert_eq!(bed.calls().len(), 1);
    std::fs::write(flag, "").unwrap();
    assert_eq!(bed.quiesce.settle().unwrap().len(), 1);
    assert!(bed.calls()[0].starts_with("20-b post recovery"));
    assert!(bed.quiesce.left().is_empty());
}

#[test]
fn held_for_too_long_is_not_app_consistent() {
    let mut bed = Bed::new();
    bed.quiesce.hold = Duration::ZERO;
    bed.hook("10-a", "");
    let mut quiesced = bed.begin().unwrap();
    std::thread::sleep(Duration::from_millis(5));
    quiesced.thawed();
    assert!(matches!(
        quiesced.end(&mut Vec::new()),
        Err(QuiesceError::TooLong { .. })
    ));
}

#[test]
fn what_may_be_changed_by_others_is_not_run() {
    let bed = Bed::new();
    bed.hook("10-a", "");
    bed.hook("20-b", "");
    let path = bed.quiesce.folder.join("20-b");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
    let error = bed.begin().err().unwrap();
    assert!(
        matches!(&error, QuiesceError::Refused { hook, .. } if hook == "20-b"),
        "{error}"
    );
    std::fs::set_permissions(&bed.quiesce.folder, PermissionsExt::from_mode(0o777)).unwrap();
    assert!(matches!(bed.begin(), Err(QuiesceError::Folder { .. })));
    assert!(bed.calls().is_empty(), "nothing was run");
}

#[test]
fn cancelling_ends_a_hook_at_once() {
    let bed = Bed::new();
    bed.hook("10-a", "[ $1 = post ] || sleep 600");
    let cancel = AtomicBool::new(false);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            bed.quiesce
                .begin(Why::Schedule, &[], &cancel, &mut Vec::new())
                .err()
        });
        // Not before the hook itself runs.
        while !bed.folder.path().join("log").exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        cancel.store(true, Ordering::SeqCst);
        assert!(matches!(work.join().unwrap(), Some(QuiesceError::Cancelled)));
    });
    assert!(begin.elapsed() < Duration::from_secs(15));
    assert_eq!(bed.calls().len(), 2, "its post came");
}
