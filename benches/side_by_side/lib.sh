# Shared by the scripts here. A folder of its own, and everything that was attached goes when the script ends.
set -euo pipefail
lifeboat=${LIFEBOAT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/target/release/lifeboat}
[ -x "$lifeboat" ] || { echo "build first: cargo build --release (or set LIFEBOAT)" >&2; exit 1; }
need() {
    for tool in "$@"; do
        command -v "$tool" >/dev/null || { echo "$tool is missing (Debian: fio restic qemu-utils zstd e2fsprogs util-linux)" >&2; exit 1; }
    done
}
work=$(mktemp -d "${TMPDIR:-/var/tmp}/lifeboat-bench.XXXXXX")
loop=
pid=
pins_before=$(ls /sys/fs/bpf/lifeboat 2>/dev/null || true)
# Ends the tracking that this script began.
unpin() {
    local id
    for id in $(ls /sys/fs/bpf/lifeboat 2>/dev/null); do
        grep -qx "$id" <<<"$pins_before" && continue
        # Only those of this script's own store.
        [ -n "$(find "$work" -path "*$id*" -print -quit)" ] || continue
        rm -f "/sys/fs/bpf/lifeboat/$id"/*
        rmdir "/sys/fs/bpf/lifeboat/$id"
    done
}
cleanup() {
    ! mountpoint -q "$work/mnt" || fsfreeze --unfreeze "$work/mnt" 2>/dev/null || true
    [ -z "$pid" ] || { kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null; } || true
    ! mountpoint -q "$work/mnt" || umount "$work/mnt"
    unpin
    [ -z "$loop" ] || losetup --detach "$loop"
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
now() { date +%s.%N; }
# Seconds that the command takes.
seconds() {
    local begin
    begin=$(now)
    "$@" >"$work/out" 2>&1 || { cat "$work/out" >&2; return 1; }
    awk -v a="$begin" -v b="$(now)" 'BEGIN { printf "%.3f\n", b - a }'
}
# The given percentile of numbers on standard input.
percentile() { sort -g | awk -v p="$1" '{ v[NR] = $1 } END { i = int((NR - 1) * p / 100 + 0.5) + 1; printf "%.3f\n", v[i] }'; }
median() { percentile 50; }
