#!/usr/bin/env bash
# Builds the committed eBPF object (Debian: clang llvm libbpf-dev) and records which source it came from.
set -euo pipefail
cd "$(dirname "$0")"
clang -O2 -g -target bpf -mcpu=v3 -Wall -Werror -I"/usr/include/$(gcc -print-multiarch)" -c changed_blocks.bpf.c -o changed_blocks.bpf.o
llvm-strip -g changed_blocks.bpf.o
cargo run --quiet --example blake3_of -- changed_blocks.bpf.c > changed_blocks.bpf.blake3
