#!/usr/bin/env bash
# Builds the Debian package from what Cargo.toml says ([package] and [package.metadata.deb]); the same metadata serves
# cargo-deb. Needs dpkg-deb, binutils and python3.
#   examples/package.sh [--debug] [OUT-FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
profile=release
if [ "${1-}" = --debug ]; then
    profile=debug
    shift
fi
out=$(realpath -m "${1:-target/debian}")
flags=(--locked)
if [ "$profile" != debug ]; then
    flags+=(--release)
    web/build.sh
    export LIFEBOAT_REQUIRE_UI=1
fi
cargo build "${flags[@]}" --bin lifeboat
metadata=$(cargo metadata --no-deps --format-version 1)
field() { python3 -c "import json,sys; p=json.load(sys.stdin)['packages'][0]; d=p['metadata']['deb']; print($1)" <<<"$metadata"; }
program=$(python3 -c "import json,sys; print(json.load(sys.stdin)['target_directory'])" <<<"$metadata")/$profile/lifeboat
version=$(field "p['version']")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"

install -D -m 755 "$program" "$root/usr/bin/lifeboat"
strip --strip-unneeded "$root/usr/bin/lifeboat"
install -D -m 644 -t "$root/lib/systemd/system" packaging/lifeboat-server.service packaging/lifeboat-agent.service
install -D -m 755 -t "$root/usr/share/lifeboat/quiesce.d" packaging/quiesce.d/*
install -D -m 640 packaging/server.env "$root/etc/lifeboat/server.env"
for shell in bash zsh fish; do
    case $shell in
        bash) file=usr/share/bash-completion/completions/lifeboat ;;
        zsh) file=usr/share/zsh/vendor-completions/_lifeboat ;;
        fish) file=usr/share/fish/vendor_completions.d/lifeboat.fish ;;
    esac
    mkdir -p "$root/${file%/*}"
    "$program" completions "$shell" >"$root/$file"
done
"$program" man --out "$root/usr/share/man/man1"
gzip -9n "$root"/usr/share/man/man1/*.1
install -D -m 644 LICENSE "$root/usr/share/doc/lifeboat/copyright"
install -D -m 644 CHANGELOG.md "$root/usr/share/doc/lifeboat/changelog"
gzip -9n "$root/usr/share/doc/lifeboat/changelog"

# The newest C library that a symbol asks for; nothing else is linked.
libc=$(objdump -T "$root/usr/bin/lifeboat" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -1)
mkdir "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<CONTROL
Package: lifeboat
Version: $version
Architecture: $(dpkg --print-architecture)
Section: $(field "d['section']")
Priority: $(field "d['priority']")
Maintainer: $(field "d['maintainer']")
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Depends: libc6 (>= ${libc#GLIBC_}), libgcc-s1
Recommends: $(field "d['recommends']")
Description: $(field "p['description'].split(':')[0]")
$(field "chr(10).join(' ' + (line or '.') for line in d['extended-description'].strip().splitlines())")
CONTROL
echo /etc/lifeboat/server.env >"$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do
    install -m 755 "packaging/$script" "$root/DEBIAN/$script"
done
(cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
mkdir -p "$out"
dpkg-deb --root-owner-group --build "$root" "$out/lifeboat_${version}_$(dpkg --print-architecture).deb"
