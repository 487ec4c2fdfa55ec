//! The lab's source site: machines' disks as loop devices, mounted, with their workload running on this host.
//!
//! Everything is owned by [`SourceMachine`] and goes away with it. For the case that nobody is left to drop it, the
//! file `site.json` names what is attached before it is: the next [`Site::open`] of the same folder cleans up exactly that.
use super::error::LabError;
use super::image::ROOT_PARTITION;
use super::machine::{DATA_FOLDER, MachineImage};
use super::packages::run;
use super::workload::Workload;
use super::{image, ledger};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For states that the kernel reaches by itself at once, or never.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one machine holds of this host, by its name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Held {
    image: PathBuf,
    mount: PathBuf,
    workload: Option<Process>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    pid: u32,
    /// Ids are used again; the start time tells one process from the next.
    start_ticks: u64,
}

impl Process {
    fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in brackets, may hold blanks; field 22 is the 20th behind it.
        let start_ticks = stat
            .rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(19)?
            .parse()
            .ok()?;
        Some(Self { pid, start_ticks })
    }

    fn end(self) {
        let still = || Self::of(self.pid) == Some(self);
        let Some(pid) = i32::try_from(self.pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        else {
            return;
        };
        if still() {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _ = wait_for(|| (!still() || is_zombie(self.pid)).then_some(()));
    }
}

fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// Asks again and again until there is an answer, at most for [`PATIENCE`].
fn wait_for<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The folder of a lab, held by one process at a time.
#[derive(Clone)]
pub struct Site(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    held: Mutex<BTreeMap<String, Held>>,
    _lock: File,
}

impl Site {
    /// Opens or makes the folder, and removes what a killed lab left attached. The second value says what that was.
    pub fn open(folder: &Path) -> Result<(Self, Vec<String>), LabError> {
        std::fs::create_dir_all(folder).map_err(LabError::io("make", folder))?;
        let folder = folder.canonicalize().map_err(LabError::io("open", folder))?;
        let lock_path = folder.join("lock");
        let lock = File::create(&lock_path).map_err(LabError::io("make", &lock_path))?;
        lock.try_lock()
            .map_err(io::Error::from)
            .map_err(LabError::io("take (another lab runs in this folder)", &lock_path))?;
        let state = folder.join("site.json");
        let left: BTreeMap<String, Held> = match std::fs::read(&state) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| LabError::Malformed {
                object: state.clone(),
                detail: error.to_string(),
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(LabError::io("read", &state)(error)),
        };
        let removed = left.values().flat_map(remove_leftovers).collect();
        let site = Self(Arc::new(Inner {
            folder,
            held: Mutex::default(),
            _lock: lock,
        }));
        site.note(|_| ())?;
        Ok((site, removed))
    }

    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Changes the list of what is held and makes it durable.
    fn note(&self, change: impl FnOnce(&mut BTreeMap<String, Held>)) -> Result<(), LabError> {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut held);
        let (path, new) = (
            self.0.folder.join("site.json"),
            self.0.folder.join("site.json.new"),
        );
        serde_json::to_vec(&*held)
            .map_err(io::Error::from)
            .and_then(|bytes| std::fs::write(&new, bytes))
            .and_then(|()| File::open(&new)?.sync_all())
            .and_then(|()| std::fs::rename(&new, &path))
            .and_then(|()| File::open(&self.0.folder)?.sync_all())
            .map_err(LabError::io("write", &path))
    }

    /// Attaches a machine's disk and mounts its root.
    pub fn attach(&self, image: &MachineImage) -> Result<SourceMachine, LabError> {
        let path = image
            .path
            .canonicalize()
            .map_err(LabError::io("open", &image.path))?;
        let folder = self.0.folder.join("machines").join(&image.name);
        let mount = folder.join("root");
        std::fs::create_dir_all(&mount).map_err(LabError::io("make", &mount))?;
        self.note(|held| {
            held.insert(
                image.name.clone(),
                Held {
                    image: path.clone(),
                    mount: mount.clone(),
                    workload: None,
                },
            );
        })?;
        // From here on dropping it undoes what was done so far.
        let mut machine = SourceMachine {
            name: image.name.clone(),
            image: path,
            device: PathBuf::new(),
            partition: PathBuf::new(),
            mount,
            workload: None,
            site: self.clone(),
        };
        machine.device = attach_loop(&machine.image)?;
        machine.partition = root_partition(&machine.device, &machine.image, &folder)?;
        mount_root(&machine.partition, &machine.mount)?;
        Ok(machine)
    }
}

/// A machine that "runs": its disk is attached and mounted, its workload is a process of this host.
/// Dropped, the workload is killed and all is undone.
pub struct SourceMachine {
    pub name: String,
    pub image: PathBuf,
    /// `/dev/loopN`: the disk.
    pub device: PathBuf,
    /// Its root partition.
    pub partition: PathBuf,
    /// Where the root is mounted.
    pub mount: PathBuf,
    workload: Option<Workload>,
    site: Site,
}

impl SourceMachine {
    /// Folder of the ledger, for [`ledger::entries_at`] and [`super::verify::verify`].
    pub fn data_folder(&self) -> PathBuf {
        self.mount.join(DATA_FOLDER)
    }

    /// `program`: this executable.
    pub fn start_workload(&mut self, program: &Path, rate: u32) -> Result<(), LabError> {
        self.kill_workload();
        let workload = Workload::start(program, &self.data_folder(), rate)
            .map_err(LabError::io("start the workload with", program))?;
        let process = Process::of(workload.pid());
        self.workload = Some(workload);
        self.site.note(|held| {
            if let Some(held) = held.get_mut(&self.name) {
                held.workload = process;
            }
        })
    }

    /// Lets the workload end its entry; afterwards every entry of the ledger is durable.
    pub fn stop_workload(&mut self) -> Result<(), LabError> {
        match self.workload.take() {
            Some(workload) => workload.stop().map_err(|detail| LabError::Workload {
                machine: self.name.clone(),
                detail,
            }),
            None => Ok(()),
        }
    }

    /// Ends it in the middle of whatever it does, as the end of its machine would.
    pub fn kill_workload(&mut self) {
        if let Some(workload) = self.workload.take() {
            workload.kill();
        }
    }

    /// An error when the workload should run and does not.
    pub fn check_workload(&mut self) -> Result<(), LabError> {
        match &mut self.workload {
            Some(workload) => workload.check().map_err(|detail| LabError::Workload {
                machine: self.name.clone(),
                detail,
            }),
            None => Ok(()),
        }
    }

    pub fn workload_pid(&self) -> Option<u32> {
        self.workload.as_ref().map(Workload::pid)
    }

    /// Switches it off, but its disk stays in the machine: nothing of this host uses it any more.
    pub fn lay_down(&mut self) -> Result<(), LabError> {
        self.kill_workload();
        let unmounted = wait_for(
            || match rustix::mount::unmount(&self.mount, UnmountFlags::empty()) {
                Err(rustix::io::Errno::BUSY) => None,
                result => Some(result),
            },
        );
        unmounted
            .unwrap_or(Err(rustix::io::Errno::BUSY))
            .map_err(|error| LabError::io("unmount", &self.mount)(error.into()))?;
        // A process of another mount namespace may still have its own copy of the mount, and ends by itself.
        let free = wait_for(|| {
            let exclusive = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
            match rustix::fs::open(&self.device, exclusive, Mode::empty()) {
                Err(rustix::io::Errno::BUSY) => None,
                result => Some(result.map(drop)),
            }
        });
        free.unwrap_or(Err(rustix::io::Errno::BUSY))
            .map_err(|error| LabError::io("take", &self.device)(error.into()))
    }

    /// Switches it on again from whatever its disk holds now; the workload is another call.
    pub fn get_up(&mut self) -> Result<(), LabError> {
        let folder = self.site.0.folder.join("machines").join(&self.name);
        // Whoever had the whole disk open may have made the kernel forget its partitions.
        self.partition = root_partition(&self.device, &self.image, &folder)?;
        mount_root(&self.partition, &self.mount)
    }

    /// Entries in the ledger by now.
    pub fn entries(&self) -> Result<u64, LabError> {
        Ok(ledger::entries(&self.data_folder())?)
    }

    /// Entries that were stamped at or before an instant; see [`ledger::entries_at`].
    pub fn entries_at(&self, instant_unix_nanos: i64) -> Result<u64, LabError> {
        Ok(ledger::entries_at(&self.data_folder(), instant_unix_nanos)?)
    }

    /// Switches the machine off properly: workload, file system, device.
    pub fn detach(mut self) -> Result<(), LabError> {
        self.stop_workload()?;
        // A process that is about to end may hold it a moment longer.
        let unmounted = wait_for(
            || match rustix::mount::unmount(&self.mount, UnmountFlags::empty()) {
                Err(rustix::io::Errno::BUSY) => None,
                result => Some(result),
            },
        );
        unmounted
            .unwrap_or(Err(rustix::io::Errno::BUSY))
            .map_err(|error| LabError::io("unmount", &self.mount)(error.into()))?;
        detach_loop(&self.device)?;
        self.device = PathBuf::new();
        let name = std::mem::take(&mut self.name);
        self.site.note(|held| drop(held.remove(&name)))
    }
}

impl Drop for SourceMachine {
    fn drop(&mut self) {
        self.kill_workload();
        if is_mounted(&self.mount) {
            let _ = rustix::mount::unmount(&self.mount, UnmountFlags::DETACH);
        }
        if !self.device.as_os_str().is_empty() {
            let _ = detach_loop(&self.device);
        }
        if !self.name.is_empty() {
            let _ = self.site.note(|held| drop(held.remove(&self.name)));
        }
    }
}

fn mount_root(partition: &Path, at: &Path) -> Result<(), LabError> {
    rustix::mount::mount(partition, at, "ext4", MountFlags::NOATIME, None)
        .map_err(|error| LabError::io("mount", partition)(error.into()))
}

fn attach_loop(path: &Path) -> Result<PathBuf, LabError> {
    let attach = |direct: &str| {
        run(Command::new("losetup")
            .env("PATH", image::with_system_programs())
            .args(["--find", "--show", "--partscan", direct])
            .arg(path))
    };
    // Some file systems (that of /tmp, often) do not know direct I/O; the loop device then works through the page cache.
    let output = attach("--direct-io=on").or_else(|_| attach("--direct-io=off"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(PathBuf::from(text.trim()))
}

/// Detached at once, or by the kernel as soon as the last user closes it.
fn detach_loop(device: &Path) -> Result<(), LabError> {
    run(Command::new("losetup")
        .env("PATH", image::with_system_programs())
        .arg("--detach")
        .arg(device))
    .map(drop)
}

/// The device file of the root partition; made in `folder` where `/dev` is not kept by the kernel, as in containers.
fn root_partition(device: &Path, image: &Path, folder: &Path) -> Result<PathBuf, LabError> {
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    let partition = format!("{name}p{ROOT_PARTITION}");
    let sys = PathBuf::from(format!("/sys/block/{name}/{partition}/dev"));
    if !sys.exists() {
        add_partitions(device, image)?;
    }
    let text = std::fs::read_to_string(&sys).map_err(LabError::io("find the partition", &sys))?;
    let numbers = text
        .trim()
        .split_once(':')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let Some((major, minor)) = numbers else {
        return Err(LabError::Malformed {
            object: sys,
            detail: "no device number".to_owned(),
        });
    };
    let wanted = rustix::fs::makedev(major, minor);
    let path = Path::new("/dev").join(&partition);
    if std::fs::metadata(&path).is_ok_and(|meta| meta.rdev() == wanted) {
        return Ok(path);
    }
    let path = folder.join("root-partition");
    let _ = std::fs::remove_file(&path);
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::BlockDevice,
        mode,
        wanted,
    )
    .map_err(|error| LabError::io("make", &path)(error.into()))?;
    Ok(path)
}

/// Tells the kernel where the partitions are. Small kernels read no partition table, but all take them one by one.
fn add_partitions(device: &Path, image: &Path) -> Result<(), LabError> {
    let table = gpt::GptConfig::new()
        .open(image)
        .map_err(|error| LabError::PartitionTable {
            action: "read",
            object: image.to_owned(),
            detail: error.to_string(),
        })?;
    for (number, partition) in table.partitions() {
        let sectors = partition.last_lba - partition.first_lba + 1;
        run(Command::new("addpart")
            .env("PATH", image::with_system_programs())
            .arg(device)
            .args([
                number.to_string(),
                partition.first_lba.to_string(),
                sectors.to_string(),
            ]))?;
    }
    Ok(())
}

fn is_mounted(path: &Path) -> bool {
    // A mount point has another device than its folder.
    let device = |path: &Path| std::fs::symlink_metadata(path).map(|meta| meta.dev()).ok();
    path.parent()
        .is_some_and(|parent| device(parent) != device(path) && device(path).is_some())
}

/// Undoes what one machine of a killed lab held; what that was, in words.
fn remove_leftovers(held: &Held) -> Vec<String> {
    let mut removed = Vec::new();
    if let Some(process) = held.workload
        && Process::of(process.pid) == Some(process)
    {
        process.end();
        removed.push(format!("workload {}", process.pid));
    }
    // More than once: a lab that was killed while it cleaned up may have left two.
    while is_mounted(&held.mount) {
        if rustix::mount::unmount(&held.mount, UnmountFlags::DETACH).is_err() {
            break;
        }
        removed.push(format!("mount {}", held.mount.display()));
    }
    for device in loops_of(&held.image) {
        if detach_loop(&device).is_ok() {
            removed.push(format!("loop device {}", device.display()));
        }
    }
    removed
}

/// Loop devices over a file.
fn loops_of(image: &Path) -> Vec<PathBuf> {
    let Ok(devices) = std::fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    let is_ours = |file: String| {
        let file = file.trim_end_matches('\n');
        Path::new(file.strip_suffix(" (deleted)").unwrap_or(file)) == image
    };
    devices
        .flatten()
        .filter(|entry| std::fs::read_to_string(entry.path().join("loop/backing_file")).is_ok_and(is_ours))
        .map(|entry| Path::new("/dev").join(entry.file_name()))
        .collect()
}
