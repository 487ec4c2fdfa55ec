#!/usr/bin/env bash
# Builds the committed eBPF object (Debian: clang llvm libbpf-dev) and records which source it came from and which
# compiler built it. With --check it changes nothing and fails when what is committed differs (same compiler only).
set -euo pipefail
cd "$(dirname "$0")"
built=$(mktemp)
trap 'rm -f "$built"' EXIT
./compile.sh "$built"
compiler=$(clang --version | head -1)
if [ "${1:-}" = --check ]; then
    if ! grep -qF "$compiler" changed_blocks.bpf.blake3; then
        echo "another compiler built the committed object; not compared" >&2
        exit 0
    fi
    cmp "$built" changed_blocks.bpf.o
    exit 0
fi
cp "$built" changed_blocks.bpf.o
{ cargo run --quiet --example blake3_of -- changed_blocks.bpf.c; echo "$compiler"; } > changed_blocks.bpf.blake3
