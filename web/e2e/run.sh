#!/usr/bin/env bash
# The web interface before a real site: `lifeboat lab`, machines that join it, a browser that does what people do. Stories:
# run.sh (all pages), run.sh plans, run.sh lifecycle. Needs root (loop devices), QEMU, Node.js 20.19 or newer, and chromium. LIFEBOAT=path of the executable.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-../target}
bin=$(realpath "${LIFEBOAT:-$target/debug/lifeboat}")
browser=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}

if [ "$(id -u)" != 0 ]; then echo "skipped: the lab needs root for its loop devices"; exit 0; fi
if [ -z "$browser" ]; then echo "chromium is missing: apt-get install --no-install-recommends chromium fonts-dejavu-core" >&2; exit 1; fi
own=${XDG_CACHE_HOME:-$HOME/.cache}/lifeboat-node/node_modules/node/bin
if [ -x "$own/node" ]; then PATH="$own:$PATH"; fi
if [ ! -d node_modules/playwright-core ] || [ ! -d dist/assets ]; then ./build.sh; fi

story=${1:-story}
# The story of the lifecycle has a machine of its own besides.
machines=2
if [ "$story" = lifecycle ]; then machines=1; fi
work=$(mktemp -d)
log=$work/lab.log
"$bin" lab --machines "$machines" --folder "$work/lab" >"$log" 2>&1 &
lab=$!
clean() {
    # Processes of the story's own agent end with the story; the lab ends its own.
    kill -TERM "$lab" 2>/dev/null || true
    wait "$lab" 2>/dev/null || true
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

deadline=$((SECONDS + 180))
until grep -q "the lab runs" "$log"; do
    if ! kill -0 "$lab" 2>/dev/null || [ $SECONDS -ge $deadline ]; then echo "the lab did not start:" >&2; cat "$log" >&2; exit 1; fi
    read -rt 0.2 <> <(:) || true
done
begin=$SECONDS
export WORK=$work LAB_LOG=$log LIFEBOAT=$bin CHROMIUM=$browser SHOTS=${SHOTS:-}
node "e2e/$story.mjs"
echo "the browser's story took $((SECONDS - begin)) s"
# All pages in turn, again and again: no error, flat memory. It logs in with the password that the story set.
if [ "$story" = story ]; then node e2e/soak.mjs; fi
