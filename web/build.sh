#!/usr/bin/env bash
# Builds the web interface into web/dist; `--test` also checks its types and runs its tests. Before cargo: a release embeds it.
# Needs Node.js 20.19 or newer; where it is older (Debian 12 has 18) one is fetched with npm and kept for the next time.
set -euo pipefail
cd "$(dirname "$0")"
. ../examples/install.sh
install_missing "npm npm builds-the-web-interface"

new_enough() { "$1" -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a === 22 && b >= 12) || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null; }
if ! new_enough node; then
    own=${XDG_CACHE_HOME:-$HOME/.cache}/lifeboat-node
    new_enough "$own/node_modules/node/bin/node" || npm install --silent --no-audit --no-fund --prefix "$own" node@22
    export PATH="$own/node_modules/node/bin:$PATH"
fi
if [ ! -d node_modules ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    npm ci --no-audit --no-fund
fi
npm run build
if [ "${1-}" = --test ]; then
    if ! git diff --quiet -- src/lib/schema.d.ts src/lib/roles.json 2>/dev/null; then
        echo "the types are not those of proto/openapi.json: commit src/lib/schema.d.ts and src/lib/roles.json" >&2
        exit 1
    fi
    npm run check
    npm test
fi
