//! The lab: a whole site with protected machines on one computer, for trying and for training.
use clap::Args;

/// `lifeboat lab`: flags.
#[derive(Debug, Clone, Args)]
pub struct LabArgs {
    /// How many machines to build and protect
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=8))]
    pub machines: u16,
    /// Size of each machine's disk, for example 512M or 4G
    #[arg(long, default_value = "512M")]
    pub disk_size: String,
    /// Walk the whole lifecycle unattended, verify at each step, print measured figures and end
    #[arg(long)]
    pub tour: bool,
    /// One JSON object on standard output, everything else on standard error
    #[arg(long)]
    pub json: bool,
    /// Leave the lab's folder (store, logs, disks of started machines) behind
    #[arg(long)]
    pub keep: bool,
    /// Folder of the lab (default: a new one under the temporary folder)
    #[arg(long)]
    pub dir: Option<std::path::PathBuf>,
}

/// Hidden `lifeboat lab-workload`: the ledger writer of one machine.
#[derive(Debug, Clone, Args)]
pub struct WorkloadArgs {
    /// Folder that gets the ledger and the table
    #[arg(long)]
    pub dir: std::path::PathBuf,
    /// Ledger entries per second
    #[arg(long, default_value_t = 50)]
    pub entries_per_second: u32,
    /// Table writes per second
    #[arg(long, default_value_t = 20)]
    pub table_writes_per_second: u32,
    /// Slots of the table (each 4 KiB, kept twice)
    #[arg(long, default_value_t = 2048)]
    pub table_slots: u32,
}

/// Hidden `lifeboat lab-guest`: what a booted machine of the lab runs as its service.
#[derive(Debug, Clone, Args)]
pub struct GuestArgs {
    /// Folder that holds the ledger and the table
    #[arg(long, default_value = "/data")]
    pub dir: std::path::PathBuf,
    /// Port of the small HTTP server (0: none)
    #[arg(long, default_value_t = 80)]
    pub port: u16,
}

/// `lifeboat lab`: exit code.
pub fn run(_args: LabArgs) -> i32 {
    1
}
/// `lifeboat lab-workload`: exit code.
pub fn run_workload(_args: WorkloadArgs) -> i32 {
    1
}
/// `lifeboat lab-guest`: exit code.
pub fn run_guest(_args: GuestArgs) -> i32 {
    1
}
