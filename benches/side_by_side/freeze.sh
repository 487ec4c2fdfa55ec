#!/usr/bin/env bash
# How long writers are stopped for a point: 4 KiB random writes on ext4 on a loop device, a point each second.
# Usage: freeze.sh [POINTS] [buffered|direct] [IOPS LIMIT, 0 = none]. As root.
. "$(dirname "$0")/lib.sh"
need fio losetup mkfs.ext4 awk fsfreeze
points=${1:-60} mode=${2:-buffered} limit=${3:-0}
truncate -s 2G "$work/image"
"$lifeboat" store create --dir "$work/store" >/dev/null 2>&1
loop=$(losetup --find --show --direct-io=on "$work/image")
mkfs.ext4 -q "$loop"
mkdir "$work/mnt"
mount "$loop" "$work/mnt"
direct=$([ "$mode" = direct ] && echo 1 || echo 0)
fio --name=w --directory="$work/mnt" --rw=randwrite --bs=4k --size=512M --direct="$direct" --ioengine=libaio --iodepth=8 \
    --fsync=64 --time_based --runtime=100000 --rate_iops="$limit" --output="$work/fio" &
pid=$!
# Until the file is laid out and the writes are random.
for ((i = 0; i < 600; i++)); do
    [ "$(stat -c %b "$work/mnt/w.0.0" 2>/dev/null || echo 0)" -lt $((512 * 2048)) ] || break
    sleep 0.1
done
# What the kernel alone takes to stop and let go, after the same flush: no reader, no tracking. Two short programs are in it.
bare() {
    for ((i = 0; i < points; i++)); do
        sync -f "$work/mnt"
        local begin=${EPOCHREALTIME/./}
        fsfreeze --freeze "$work/mnt"
        fsfreeze --unfreeze "$work/mnt"
        awk -v us=$((${EPOCHREALTIME/./} - begin)) 'BEGIN { print us / 1000 }'
        sleep 1
    done
}
bare >"$work/bare"
"$lifeboat" agent replicate --dir "$work/store" --name bench --every 1 --count "$points" --json "$loop" >"$work/points" 2>"$work/skipped"
field() { grep -o "\"$1\":[0-9.]*" "$work/points" | cut -d: -f2; }
echo "$points points, $mode writes, $(grep -c 'no recovery point' "$work/skipped" || true) skipped; load $(cut -d' ' -f1 /proc/loadavg) on $(nproc) processors"
echo "freeze in ms: p50 $(field freezeMs | percentile 50) p99 $(field freezeMs | percentile 99) max $(field freezeMs | percentile 100)"
echo "fsfreeze alone:  p50 $(percentile 50 <"$work/bare") p99 $(percentile 99 <"$work/bare") max $(percentile 100 <"$work/bare"); ratio of p50 $(awk -v a="$(field freezeMs | percentile 50)" -v b="$(percentile 50 <"$work/bare")" 'BEGIN { printf "%.2f", a / b }'), of p99 $(awk -v a="$(field freezeMs | percentile 99)" -v b="$(percentile 99 <"$work/bare")" 'BEGIN { printf "%.2f", a / b }')"
echo "cycle in s: p50 $(field seconds | tail -n +2 | percentile 50) p99 $(field seconds | tail -n +2 | percentile 99); passes p50 $(field passes | percentile 50)"
echo "MiB changed per point: p50 $(field changedRawBytes | tail -n +2 | awk '{ print $1 / 1048576 }' | percentile 50)"
echo "KiB read while frozen: p50 $(field frozenBytes | tail -n +2 | awk '{ print $1 / 1024 }' | percentile 50) p99 $(field frozenBytes | tail -n +2 | awk '{ print $1 / 1024 }' | percentile 99)"
