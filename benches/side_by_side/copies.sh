#!/usr/bin/env bash
# A first full copy and a copy after 1 % of the blocks changed, of the same disk, by several tools, in turns.
# Usage: copies.sh [MIB] [ROUNDS]. Prints medians and ratios. As root: then the tracked copy is measured too.
. "$(dirname "$0")/lib.sh"
need restic qemu-img zstd dd awk
mib=${1:-1024} rounds=${2:-3}
image=$work/image

# Half of it files of this system, a quarter noise, a quarter never written.
truncate -s "${mib}M" "$image"
set +o pipefail
tar -C / -cf - usr/lib usr/share usr/bin 2>/dev/null | head -c $((mib / 2 * 1048576)) |
    dd of="$image" bs=1M iflag=fullblock conv=notrunc status=none
head -c $((mib / 4 * 1048576)) /dev/urandom | dd of="$image" bs=1M iflag=fullblock seek=$((mib / 2)) conv=notrunc status=none
set -o pipefail
sync "$image"
blocks=$((mib * 256))

# Every hundredth block, at random places.
change() {
    local target=$1
    fio --name=change --filename="$target" --rw=randwrite --bs=4k --size="${mib}M" --io_size=$((blocks / 100 * 4))k \
        --direct=1 --ioengine=libaio --iodepth=16 --randseed="$RANDOM" --norandommap --output=/dev/null
}
need fio

dd_zstd() { dd if="$image" iflag=direct bs=1M status=none | zstd -1 -q -c >"$work/copy.zst" && sync "$work/copy.zst"; }
export RESTIC_PASSWORD=bench RESTIC_CACHE_DIR=$work/cache
restic_backup() { restic -q -r "$work/restic" backup "$image" && sync -f "$work"; }
qemu_convert() { qemu-img convert -f raw -O qcow2 "$image" "$work/copy.qcow2" && sync "$work/copy.qcow2"; }
lifeboat_import() { "$lifeboat" store import --dir "$work/store" --name bench "$image"; }
lifeboat_tracked() { "$lifeboat" agent replicate --dir "$work/tracked" --name bench --count 1 "$loop"; }

row() { printf '%-34s %10s %10s %9s\n' "$@"; }
declare -A full part stored
tools=(dd_zstd restic_backup qemu_convert lifeboat_import)
[ "$(id -u)" != 0 ] || tools+=(lifeboat_tracked)
for ((round = 0; round < rounds; round++)); do
    rm -rf "$work"/{restic,store,tracked,copy.zst,copy.qcow2}
    restic -q -r "$work/restic" init
    "$lifeboat" store create --dir "$work/store" >/dev/null 2>&1
    "$lifeboat" store create --dir "$work/tracked" >/dev/null 2>&1
    [ "$(id -u)" != 0 ] || loop=$(losetup --find --show --direct-io=on "$image")
    for tool in "${tools[@]}"; do full[$tool]+="$(seconds "$tool") "; done
    for tool in "${tools[@]}"; do
        case $tool in
            dd_zstd) path=$work/copy.zst ;; restic_backup) path=$work/restic ;; qemu_convert) path=$work/copy.qcow2 ;;
            lifeboat_import) path=$work/store ;; *) path=$work/tracked ;;
        esac
        stored[$tool]=$(du -sm "$path" | cut -f1)
    done
    change "${loop:-$image}"
    sync "$image"
    for tool in "${tools[@]}"; do part[$tool]+="$(seconds "$tool") "; done
    [ -z "$loop" ] || { unpin; losetup --detach "$loop"; loop=; }
done
echo "disk of $mib MiB, median of $rounds rounds, seconds; load $(cut -d' ' -f1 /proc/loadavg) on $(nproc) processors"
row tool full "1 % later" "MiB"
base=$(tr ' ' '\n' <<<"${full[dd_zstd]}" | grep . | median)
for tool in "${tools[@]}"; do
    row "$tool" "$(tr ' ' '\n' <<<"${full[$tool]}" | grep . | median)" "$(tr ' ' '\n' <<<"${part[$tool]}" | grep . | median)" "${stored[$tool]}"
done
echo "ratio to dd | zstd, full copy:"
for tool in "${tools[@]:1}"; do
    tr ' ' '\n' <<<"${full[$tool]}" | grep . | median | awk -v b="$base" -v t="$tool" '{ printf "  %-32s %.2f\n", t, $1 / b }'
done
if [ "$(id -u)" = 0 ]; then
    grep -o 'recovery point.*' "$work/out" || true
fi
