#!/usr/bin/env bash
# Installs what is missing (and says what), builds, and runs every test.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/lifeboat-target}
export CARGO_TERM_COLOR=never
. examples/install.sh

# Servers that somebody installed before are theirs.
had=" $(cd /lib/systemd/system 2>/dev/null && echo {prometheus,postgresql,mariadb}.service | xargs ls -d 2>/dev/null | xargs || true) "
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
    "sfdisk fdisk partitions-of-test-disks" \
    "ip iproute2 networks-of-tests" \
    "/usr/lib/postgresql/*/bin/initdb postgresql a-database-under-load" \
    "mariadbd mariadb-server a-database-under-load" \
    "promtool prometheus judges-/metrics-and-the-alert-rules" \
    "chromium chromium the-web-interface-in-a-browser" \
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf fonts-dejavu-core the-web-interface-in-a-browser" \
    "/usr/lib/python3*/ensurepip/__init__.py python3-venv mail-server-for-tests"

# Debian's packages start servers that nobody asked for.
for unit in prometheus postgresql mariadb; do
    if [[ $had != *" $unit.service "* ]] && command -v systemctl >/dev/null && systemctl is-active --quiet "$unit" 2>/dev/null; then
        systemctl disable --quiet --now "$unit"
    fi
done
# A mail server to send alerts to.
venv=${LIFEBOAT_TEST_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/lifeboat-test-venv}
if ! "$venv/bin/python" -c 'import aiosmtpd' 2>/dev/null; then
    echo "making $venv with aiosmtpd: mail server for tests"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet 'aiosmtpd==1.4.*'
fi
export LIFEBOAT_TEST_PYTHON=$venv/bin/python

step() {
    echo "== $1"; shift
    local begin=$SECONDS
    "$@"
    echo "   $((SECONDS - begin)) s"
}

step "web interface" web/build.sh --test
step "formatting" cargo fmt --check
step "lints" cargo clippy --locked --all-targets -- -D warnings
step "documentation" env RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --no-deps --quiet
if command -v cargo-deny >/dev/null; then
    step "licences and sources" cargo deny check licenses bans sources
fi
step "eBPF object" src/agent/capture/bpf/build.sh --check
step "tests" cargo test --locked --no-fail-fast
step "calls by the API's document" tests/schemathesis.sh
step "web interface in a browser" web/e2e/run.sh
step "a recovery plan in a browser" web/e2e/run.sh plans
step "away and home again in a browser" web/e2e/run.sh lifecycle
