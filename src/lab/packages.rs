//! Debian packages as parts of machines: downloaded and unpacked into a cache, never installed.
//!
//! Cache folder: `NAME_VERSION_ARCH/` per unpacked package, made under another name and renamed, so that what has its
//! name is whole. apt checks the archive's signatures and the hashes of what it downloads.
use super::error::LabError;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Which kernel a machine boots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernel {
    /// Small, quickly unpacked; drivers of virtual machines: virtio (block, SCSI, network) and NVMe.
    #[default]
    Cloud,
    /// That of servers: AHCI, IDE and Intel network adapters as well. Twice as long to boot where there is no KVM.
    Generic,
}

/// Unpacked packages that a machine is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    pub kernel: PathBuf,
    pub busybox: PathBuf,
    pub grub_common: PathBuf,
    pub grub_pc: PathBuf,
    pub grub_efi: PathBuf,
    /// A library of grub-mkimage that small systems lack.
    pub device_mapper: PathBuf,
}

/// `$XDG_CACHE_HOME/lifeboat/lab`, or the same under `~/.cache`.
pub fn cache_folder() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    set("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("lifeboat/lab")
}

/// Finds every part in the cache, or downloads it; `tell` gets a line for each package that is fetched.
pub fn fetch(cache: &Path, kernel: Kernel, tell: &mut dyn FnMut(&str)) -> Result<Parts, LabError> {
    std::fs::create_dir_all(cache).map_err(LabError::io("make", cache))?;
    // Two labs that start together: the second one finds what the first one fetched.
    let lock_path = cache.join("lock");
    let lock = std::fs::File::create(&lock_path).map_err(LabError::io("make", &lock_path))?;
    lock.lock().map_err(LabError::io("lock", &lock_path))?;
    let mut get = |name: &str| package(cache, name, tell);
    Ok(Parts {
        kernel: {
            let name = match kernel {
                Kernel::Cloud => "linux-image-cloud-amd64",
                Kernel::Generic => "linux-image-amd64",
            };
            get(&dependency(cache, name)?)?
        },
        busybox: get("busybox-static")?,
        grub_common: get("grub-common")?,
        grub_pc: get("grub-pc-bin")?,
        grub_efi: get("grub-efi-amd64-bin")?,
        device_mapper: get("libdevmapper1.02.1")?,
    })
}

pub(super) fn run(command: &mut Command) -> Result<Output, LabError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => LabError::Missing {
            program: program.clone(),
            source,
        },
        _ => LabError::Program {
            program: program.clone(),
            detail: source.to_string(),
        },
    })?;
    if output.status.success() {
        return Ok(output);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last_lines: Vec<&str> = text.trim().lines().rev().take(3).collect();
    Err(LabError::Program {
        program,
        detail: format!(
            "{}: {}",
            output.status,
            last_lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
        ),
    })
}

/// The package that an empty one of a changing name stands for: `linux-image-cloud-amd64` -> `linux-image-6.1.0-…`.
fn dependency(cache: &Path, name: &str) -> Result<String, LabError> {
    let asked = run(Command::new("apt-cache")
        .args(["depends", "--important", name])
        .env("LC_ALL", "C"));
    let found = asked.and_then(|output| {
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: ").map(str::to_owned))
            .filter(|found| is_package_name(found))
            .ok_or_else(|| LabError::NoPackage(name.to_owned()))
    });
    // Without package lists (no network, lists never fetched) an earlier kernel of the same kind serves.
    let cloud = name.contains("cloud");
    found.or_else(|error| {
        newest(cache, |package| {
            package.starts_with("linux-image-")
                && package.ends_with("-amd64")
                && package.contains("-cloud-") == cloud
        })
        .and_then(|path| Some(path.file_name()?.to_str()?.split('_').next()?.to_owned()))
        .ok_or(error)
    })
}

fn is_package_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'+' | b'-')
        })
}

/// The unpacked folder of a package.
fn package(cache: &Path, name: &str, tell: &mut dyn FnMut(&str)) -> Result<PathBuf, LabError> {
    let older = || newest(cache, |package| package == name);
    let file = match current_file(name) {
        Ok(file) => file,
        Err(error) => return older().ok_or(error),
    };
    let folder = cache.join(file.trim_end_matches(".deb"));
    if folder.is_dir() {
        return Ok(folder);
    }
    tell(&format!("downloading the Debian package {name}"));
    let new = tempfile::Builder::new()
        .prefix("new-")
        .tempdir_in(cache)
        .map_err(LabError::io("make a folder in", cache))?;
    let downloaded = run(Command::new("apt-get")
        .args(["-q", "-o", "APT::Sandbox::User=root", "download", name])
        .env("LC_ALL", "C")
        .current_dir(new.path()));
    if let Err(error) = downloaded {
        return older().ok_or(error);
    }
    let deb = std::fs::read_dir(new.path())
        .map_err(LabError::io("read", new.path()))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| LabError::NoPackage(name.to_owned()))?;
    let unpacked = new.path().join("unpacked");
    run(Command::new("dpkg-deb").arg("-x").args([&deb, &unpacked]))?;
    // What has its final name must be whole after a power cut as well.
    run(Command::new("sync").arg("-f").arg(&unpacked))?;
    std::fs::rename(&unpacked, &folder).map_err(LabError::io("name", &folder))?;
    Ok(folder)
}

/// Name of the archive's file of the newest version that apt knows.
fn current_file(name: &str) -> Result<String, LabError> {
    let output = run(Command::new("apt-get")
        .args(["-q", "download", "--print-uris", name])
        .env("LC_ALL", "C"))?;
    parse_uri_line(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| LabError::NoPackage(name.to_owned()))
}

/// `'http://…/busybox.deb' busybox-static_1%3a1.35.0_amd64.deb 928188 SHA256:…` -> the second word.
fn parse_uri_line(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with('\''))?;
    let file = line.split_whitespace().nth(1)?;
    (file.ends_with(".deb") && !file.contains('/')).then(|| file.to_owned())
}

/// The unpacked package with the newest change time among those whose name fits.
fn newest(cache: &Path, fits: impl Fn(&str) -> bool) -> Option<PathBuf> {
    std::fs::read_dir(cache)
        .ok()?
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            name.to_str()
                .and_then(|name| name.split_once('_'))
                .is_some_and(|(package, _)| fits(package))
        })
        .filter_map(|entry| Some((entry.metadata().ok()?.created().ok(), entry.path())))
        .max()
        .map(|(_, path)| path)
}

/// Finds a file of a package under one of the paths that releases have used.
pub(super) fn file_of(package: &Path, candidates: &[&str]) -> Result<PathBuf, LabError> {
    candidates
        .iter()
        .map(|candidate| package.join(candidate))
        .find(|path| path.exists())
        .ok_or_else(|| LabError::NotInPackage {
            package: package
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            wanted: candidates.first().copied().unwrap_or_default().to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_apt_prints() {
        let text =
            "Get:1 x\n'http://deb.debian.org/b.deb' busybox-static_1%3a1.35.0-4_amd64.deb 928188 SHA256:00\n";
        assert_eq!(
            parse_uri_line(text).unwrap(),
            "busybox-static_1%3a1.35.0-4_amd64.deb"
        );
        assert_eq!(parse_uri_line("E: no"), None);
        assert_eq!(parse_uri_line("'http://x' ../../x.deb 1"), None);
        assert!(is_package_name("linux-image-6.1.0-56-cloud-amd64"));
        assert!(!is_package_name("-oEvil=$(x)") && !is_package_name("<linux-image>"));
    }

    #[test]
    fn an_earlier_kernel_of_the_same_kind_serves_without_lists() {
        let cache = tempfile::tempdir().unwrap();
        for name in [
            "linux-image-6.1.0-9-amd64_6.1_amd64",
            "linux-image-6.1.0-9-cloud-amd64_6.1_amd64",
        ] {
            std::fs::create_dir(cache.path().join(name)).unwrap();
        }
        let found = newest(cache.path(), |name| name.contains("-cloud-")).unwrap();
        assert!(found.ends_with("linux-image-6.1.0-9-cloud-amd64_6.1_amd64"));
        assert_eq!(newest(cache.path(), |name| name == "busybox-static"), None);
    }
}
