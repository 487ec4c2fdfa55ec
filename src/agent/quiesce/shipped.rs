//! Hooks that come with Lifeboat, and putting them into the folder.
use super::QuiesceError;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Where a package puts them, and where the executable puts its own copies.
const OF_PACKAGE: &str = "/usr/share/lifeboat/quiesce.d";
const OF_EXECUTABLE: &str = "/usr/local/share/lifeboat/quiesce.d";

pub struct Shipped {
    /// Also the order in which it is called.
    pub file: &'static str,
    pub name: &'static str,
    script: &'static str,
    /// Any of these tells that the server is installed.
    servers: &'static [&'static str],
}

pub const SHIPPED: [Shipped; 2] = [
    Shipped {
        file: "40-postgresql",
        name: "postgresql",
        script: include_str!("../../../packaging/quiesce.d/40-postgresql"),
        servers: &["usr/lib/postgresql", "usr/bin/postgres", "usr/pgsql"],
    },
    Shipped {
        file: "60-mariadb",
        name: "mariadb",
        script: include_str!("../../../packaging/quiesce.d/60-mariadb"),
        servers: &["usr/sbin/mariadbd", "usr/sbin/mysqld", "usr/libexec/mysqld"],
    },
];

pub fn by_name(name: &str) -> Option<&'static Shipped> {
    SHIPPED
        .iter()
        .find(|shipped| shipped.name == name || shipped.file == name)
}

impl Shipped {
    /// Whether its server is installed below this root.
    pub fn is_useful(&self, root: &Path) -> bool {
        self.servers.iter().any(|path| root.join(path).exists())
    }

    /// Links it into the folder; false: something of that name is there already and stays.
    /// `root`: where the machine's files lie, `/` except for images.
    pub fn enable(&self, root: &Path, folder: &Path) -> Result<bool, QuiesceError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| QuiesceError::Io { what, path, source }
        };
        let below = |path: &str| root.join(path.trim_start_matches('/'));
        let mut target = PathBuf::from(OF_PACKAGE).join(self.file);
        if !below(OF_PACKAGE).join(self.file).exists() {
            let own = below(OF_EXECUTABLE);
            target = PathBuf::from(OF_EXECUTABLE).join(self.file);
            make_folder(&own).map_err(failed("make", &own))?;
            let (path, fresh) = (own.join(self.file), own.join(format!(".{}.new", self.file)));
            // Always that of this executable.
            std::fs::write(&fresh, self.script)
                .and_then(|()| std::fs::set_permissions(&fresh, PermissionsExt::from_mode(0o755)))
                .and_then(|()| std::fs::rename(&fresh, &path))
                .map_err(failed("write", &path))?;
        }
        make_folder(folder).map_err(failed("make", folder))?;
        let link = folder.join(self.file);
        match symlink(&target, &link) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(failed("make", &link)(error)),
        }
    }

    /// Takes the link away; false: there is none. What an administrator put there in its place stays.
    pub fn disable(&self, folder: &Path) -> Result<bool, QuiesceError> {
        let link = folder.join(self.file);
        if !std::fs::symlink_metadata(&link).is_ok_and(|meta| meta.is_symlink()) {
            return Ok(false);
        }
        std::fs::remove_file(&link)
            .map(|()| true)
            .map_err(|source| QuiesceError::Io {
                what: "remove",
                path: link,
                source,
            })
    }
}

/// Readable by all, writable by its owner only, whatever the umask.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(folder)?;
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shipped_hook_is_linked_and_taken_away() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("etc/lifeboat/quiesce.d");
        let hook = by_name("postgresql").unwrap();
        assert!(!hook.is_useful(root.path()));
        std::fs::create_dir_all(root.path().join("usr/lib/postgresql")).unwrap();
        assert!(hook.is_useful(root.path()));
        assert!(hook.enable(root.path(), &folder).unwrap());
        assert!(!hook.enable(root.path(), &folder).unwrap(), "it is there already");
        let target = std::fs::read_link(folder.join(hook.file)).unwrap();
        assert_eq!(target, Path::new(OF_EXECUTABLE).join(hook.file));
        let copy = root.path().join(target.strip_prefix("/").unwrap());
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), hook.script);
        assert!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o111 != 0);
        assert!(hook.disable(&folder).unwrap());
        assert!(!hook.disable(&folder).unwrap());

        // The package's is preferred.
        let packaged = root.path().join("usr/share/lifeboat/quiesce.d");
        std::fs::create_dir_all(&packaged).unwrap();
        std::fs::write(packaged.join(hook.file), "x").unwrap();
        hook.enable(root.path(), &folder).unwrap();
        assert_eq!(
            std::fs::read_link(folder.join(hook.file)).unwrap(),
            Path::new(OF_PACKAGE).join(hook.file)
        );
        // Somebody's own file is not touched.
        let other = by_name("60-mariadb").unwrap();
        std::fs::write(folder.join(other.file), "own").unwrap();
        assert!(!other.enable(root.path(), &folder).unwrap());
        assert!(!other.disable(&folder).unwrap());
    }
}
