//! Which hooks there are, and whether they may be run: the agent is root, so what anybody else can write to is refused.
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One executable of the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub name: String,
    pub path: PathBuf,
    /// Why it is not run.
    pub refused: Option<String>,
}

/// What a folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// By name.
    pub hooks: Vec<Hook>,
    /// Files that are no hooks since nobody made them executable.
    pub ignored: Vec<String>,
    /// Why nothing of the folder is run.
    pub refused: Option<String>,
}

impl Found {
    pub fn is_empty(&self) -> bool {
        self.hooks.is_empty()
    }
}

/// A folder that is not there has no hooks.
pub fn find(folder: &Path) -> std::io::Result<Found> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::default()),
        entries => entries?,
    };
    let mut found = Found {
        refused: why_unsafe(folder),
        ..Found::default()
    };
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if is_left_over(name) {
            continue;
        }
        let name = name.to_owned();
        match std::fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => {}
            Ok(meta) if meta.mode() & 0o111 == 0 => found.ignored.push(name),
            Ok(meta) => {
                let refused = if meta.is_file() {
                    why_unsafe(&path).or_else(|| why_settings_unsafe(folder, &name))
                } else {
                    Some("is no file".to_owned())
                };
                found.hooks.push(Hook { name, path, refused });
            }
            Err(error) => found.hooks.push(Hook {
                name,
                path,
                refused: Some(format!("cannot be looked at: {error}")),
            }),
        }
    }
    found.hooks.sort_by(|a, b| a.name.cmp(&b.name));
    found.ignored.sort();
    Ok(found)
}

/// Of editors and package managers.
fn is_left_over(name: &str) -> bool {
    name.starts_with('.')
        || name.ends_with('~')
        || [".dpkg-", ".rpmnew", ".rpmsave", ".swp", ".bak", ".ucf-"]
            .iter()
            .any(|part| name.contains(part))
}

/// `40-postgresql` reads `postgresql.env` beside the folder as a part of itself: who may write there is root as well.
fn why_settings_unsafe(folder: &Path, name: &str) -> Option<String> {
    let (_, plain) = name.split_once('-')?;
    let settings = folder.join("..").join(format!("{plain}.env"));
    if !settings.exists() {
        return None;
    }
    let why = why_unsafe(&settings)?;
    Some(format!("reads {plain}.env beside the folder, which {why}"))
}

/// Why somebody else than root could change what lies there; looks behind links and at every folder above.
pub fn why_unsafe(path: &Path) -> Option<String> {
    let whole = match std::fs::canonicalize(path) {
        Ok(whole) => whole,
        Err(error) => return Some(format!("cannot be looked at: {error}")),
    };
    let own = rustix::process::geteuid().as_raw();
    for (depth, at) in whole.ancestors().enumerate() {
        let meta = match std::fs::metadata(at) {
            Ok(meta) => meta,
            Err(error) => return Some(format!("{} cannot be looked at: {error}", at.display())),
        };
        let what = if depth == 0 {
            String::new()
        } else {
            format!("lies in {}, which ", at.display())
        };
        if meta.uid() != 0 && meta.uid() != own {
            return Some(format!("{what}belongs to the user {}, not to root", meta.uid()));
        }
        // In a sticky folder nobody takes away what is another's.
        let shared = depth > 0 && meta.mode() & 0o1000 != 0;
        if meta.mode() & 0o002 != 0 && !shared {
            return Some(format!(
                "{what}can be written by everybody (mode {:o})",
                meta.mode() & 0o7777
            ));
        }
        if meta.mode() & 0o020 != 0 && meta.gid() != 0 && !shared {
            return Some(format!(
                "{what}can be written by the group {} (mode {:o})",
                meta.gid(),
                meta.mode() & 0o7777
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn put(path: &Path, mode: u32) {
        std::fs::write(path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn hooks_come_by_name_and_left_overs_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert_eq!(find(&at("none")).unwrap(), Found::default());
        for name in ["60-b", "40-a", ".hidden", "x~", "y.dpkg-old"] {
            put(&at(name), 0o755);
        }
        put(&at("README"), 0o644);
        std::fs::create_dir(at("folder")).unwrap();
        let found = find(folder.path()).unwrap();
        let names: Vec<_> = found.hooks.iter().map(|hook| hook.name.as_str()).collect();
        assert_eq!(names, ["40-a", "60-b"]);
        assert_eq!(found.ignored, ["README"]);
        assert!(found.refused.is_none() && found.hooks.iter().all(|hook| hook.refused.is_none()));
    }

    #[test]
    fn settings_that_others_can_write_to_are_refused_with_their_hook() {
        let folder = tempfile::tempdir().unwrap();
        let hooks = folder.path().join("quiesce.d");
        std::fs::create_dir(&hooks).unwrap();
        put(&hooks.join("40-postgresql"), 0o755);
        put(&hooks.join("50-other"), 0o755);
        let settings = folder.path().join("postgresql.env");
        put(&settings, 0o600);
        let refused = || {
            let found = find(&hooks).unwrap().hooks;
            (found[0].refused.clone(), found[1].refused.clone())
        };
        assert_eq!(refused(), (None, None));
        put(&settings, 0o666);
        let (first, second) = refused();
        let why = first.unwrap();
        assert!(
            why.starts_with("reads postgresql.env") && why.contains("everybody"),
            "{why}"
        );
        assert_eq!(second, None);
    }

    #[test]
    fn what_others_can_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let hooks = folder.path().join("quiesce.d");
        std::fs::create_dir(&hooks).unwrap();
        put(&hooks.join("a"), 0o757);
        let found = find(&hooks).unwrap();
        let why = found.hooks[0].refused.clone().unwrap();
        assert!(why.contains("everybody") && why.contains("757"), "{why}");
        put(&hooks.join("a"), 0o755);
        assert!(find(&hooks).unwrap().hooks[0].refused.is_none());

        // Behind a link: the folder that the target lies in counts.
        let open = folder.path().join("open");
        std::fs::create_dir(&open).unwrap();
        put(&open.join("target"), 0o755);
        symlink(open.join("target"), hooks.join("b")).unwrap();
        assert!(find(&hooks).unwrap().hooks[1].refused.is_none());
        std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
        let why = find(&hooks).unwrap().hooks[1].refused.clone().unwrap();
        assert!(
            why.contains("lies in") && why.contains(open.to_str().unwrap()),
            "{why}"
        );
        symlink(folder.path().join("gone"), hooks.join("c")).unwrap();
        assert!(find(&hooks).unwrap().hooks[2].refused.is_some());

        std::fs::set_permissions(&hooks, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(find(&hooks).unwrap().refused.unwrap().contains("everybody"));

        if rustix::process::geteuid().is_root() {
            std::fs::set_permissions(&hooks, PermissionsExt::from_mode(0o755)).unwrap();
            std::os::unix::fs::chown(hooks.join("a"), Some(65534), None).unwrap();
            let why = find(&hooks).unwrap().hooks[0].refused.clone().unwrap();
            assert!(why.contains("65534"), "{why}");
        }
    }
}
