#!/usr/bin/env bash
# Builds the eBPF object into the file named. Exit code 3: a tool is missing (Debian: clang llvm libbpf-dev).
set -euo pipefail
target=$(realpath -m "$1")
cd "$(dirname "$0")"
command -v clang >/dev/null && command -v llvm-strip >/dev/null && [ -e /usr/include/bpf/bpf_helpers.h ] || exit 3
include=/usr/include/$(uname -m)-linux-gnu
clang -O2 -g -target bpf -mcpu=v3 -Wall -Werror -fdebug-compilation-dir=/lifeboat -I"$include" -c changed_blocks.bpf.c -o "$target"
# The folder of the source stands in the object: a fixed one, so that every checkout builds the same bytes.
# The types stay, the rest of what describes the source (and where it lies) goes.
llvm-strip -g "$target"
