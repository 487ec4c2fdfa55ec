#!/usr/bin/env bash
# Installs what is missing (and says what), builds, and runs every test.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/lifeboat-target}
export CARGO_TERM_COLOR=never
. examples/install.sh

need_build
need_lab
install_missing \
    "clang clang builds-the-eBPF-program" \
    "llvm-strip llvm builds-the-eBPF-program" \
    "/usr/include/bpf/bpf_helpers.h libbpf-dev builds-the-eBPF-program" \
    "nbdinfo libnbd-bin NBD-clients-to-judge-the-server" \
    "fio fio load-under-which-points-are-made" \
    "/usr/share/OVMF/OVMF_CODE*.fd ovmf UEFI-for-machines" \
    "mkfs.xfs xfsprogs file-systems-under-fire" \
    "mkfs.btrfs btrfs-progs file-systems-under-fire" \
    "mkfs.vfat dosfstools file-systems-under-fire" \
    "mcopy mtools vfat-where-the-kernel-has-none" \
    "sfdisk fdisk partitions-of-test-disks"

step() {
    echo "== $1"; shift
    local begin=$SECONDS
    "$@"
    echo "   $((SECONDS - begin)) s"
}

step "formatting" cargo fmt --check
step "lints" cargo clippy --locked --all-targets -- -D warnings
step "documentation" env RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --no-deps --quiet
if command -v cargo-deny >/dev/null; then
    step "licences and sources" cargo deny check licenses bans sources
fi
step "eBPF object" src/agent/capture/bpf/build.sh --check
step "tests" cargo test --locked
