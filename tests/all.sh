#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test. Says what it installs.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/lifeboat-target}
export CARGO_TERM_COLOR=never
. examples/install.sh

install_missing \
    "cc gcc the-C-parts-of-SQLite,-zstd-and-ring" \
    "nbdinfo libnbd-bin NBD-clients-to-judge-the-server" \
    "nbdcopy libnbd-bin NBD-clients-to-judge-the-server" \
    "qemu-img qemu-utils NBD-clients-to-judge-the-server" \
    "clang clang the-eBPF-object-from-its-source" \
    "llvm-strip llvm the-eBPF-object-from-its-source" \
    "mkfs.ext4 e2fsprogs file-systems-under-fire" \
    "mkfs.xfs xfsprogs file-systems-under-fire" \
    "mkfs.btrfs btrfs-progs file-systems-under-fire" \
    "mkfs.vfat dosfstools file-systems-under-fire" \
    "mcopy mtools vfat-where-the-kernel-has-none" \
    "sfdisk fdisk partitions-of-test-disks"
[ -e /usr/include/bpf/bpf_helpers.h ] || install_missing "bpf_helpers.h libbpf-dev the-eBPF-object-from-its-source"
need_cargo

step() {
    echo "== $1"; shift
    local begin=$SECONDS
    "$@"
    echo "   $((SECONDS - begin)) s"
}

step "formatting" cargo fmt --check
step "lints" cargo clippy --locked --all-targets -- -D warnings
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet
step "eBPF object" src/agent/capture/bpf/build.sh --check
step "tests" cargo test --locked
