//! Machines that a test started.
use std::path::Path;
use std::process::Command;

/// Ends the machines that run below this folder: they outlive their server on purpose.
pub fn end_machines(folder: &Path) {
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let works_in = std::fs::read_link(process.path().join("cwd")).unwrap_or_default();
        let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        if works_in.starts_with(folder) && name.starts_with("qemu-system") {
            let pid = process.file_name();
            let _ = Command::new("kill").arg("-KILL").arg(pid).status();
        }
    }
}
