#!/usr/bin/env bash
# A whole site on this computer: installs what is missing (and says what), builds, and runs `lifeboat lab`.
#   ./examples/lab.sh                 two machines under replication, until Ctrl-C
#   ./examples/lab.sh --tour          the lifecycle of three machines, unattended, every ledger judged
#   ./examples/lab.sh --tour --json   the same; measured figures as JSON on standard output
#   ./examples/lab.sh --tour plan     all of them by a recovery plan, to the target and home
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/examples/install.sh"
need_build
need_lab
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/lifeboat-target}
[ -d "$here/web/dist/assets" ] || "$here/web/build.sh" >&2 || echo "the web interface is not built; its page says how" >&2
echo "building (the first time takes some minutes)" >&2
cargo build --release --locked --quiet --manifest-path "$here/Cargo.toml" >&2
program="$CARGO_TARGET_DIR/release/lifeboat"
if [ "$(id -u)" != 0 ] && sudo -n true 2>/dev/null; then
    exec sudo "$program" lab "$@"
fi
exec "$program" lab "$@"
