# Sourced by the scripts: installs what a command needs, on Debian; elsewhere says what to install.
# install_missing "COMMAND-OR-FILE PACKAGE WHY" ...   (WHY with hyphens for blanks)
install_missing() {
    local packages=() entry wanted package why
    for entry in "$@"; do
        read -r wanted package why <<<"$entry"
        case "$wanted" in
            /*) compgen -G "$wanted" >/dev/null && continue ;;
            *) PATH="$PATH:/usr/sbin:/sbin" command -v "$wanted" >/dev/null && continue ;;
        esac
        echo "missing: $wanted (Debian package $package): ${why//-/ }" >&2
        [[ " ${packages[*]-} " == *" $package "* ]] || packages+=("$package")
    done
    [ ${#packages[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "This is no Debian: install the above by hand, then run this again." >&2
        exit 1
    fi
    local as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq >&2
    # QEMU's tools and its emulator must be of one version, or apt takes the one away for the other.
    if [[ " ${packages[*]} " == *" qemu-system-x86 "* ]]; then
        local version
        version=$(apt-cache madison qemu-system-x86 | awk 'NR==1 {print $3}')
        packages=("${packages[@]/#qemu-system-x86/qemu-system-x86=$version}")
        packages=("${packages[@]/#qemu-utils/}")
        packages+=("qemu-utils=$version")
    fi
    local list=()
    for package in "${packages[@]}"; do [ -z "$package" ] || list+=("$package"); done
    echo "installing: ${list[*]}" >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --allow-downgrades \
        "${list[@]}" >&2
}

# What builds the program.
need_build() {
    install_missing "cc gcc the-C-parts-of-SQLite,-zstd-and-ring"
    [ -d "$HOME/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"
    command -v cargo >/dev/null && return 0
    echo "cargo is missing. Debian's is too old: install Rust 1.95 or newer with rustup, then run this again." >&2
    exit 1
}

# What the lab and starting machines need.
need_lab() {
    install_missing \
        "qemu-system-x86_64 qemu-system-x86 starts-machines-at-the-target" \
        "qemu-img qemu-utils belongs-to-the-emulator" \
        "/usr/share/seabios/bios-256k.bin seabios firmware-of-machines" \
        "ip iproute2 isolated-networks" \
        "mkfs.ext4 e2fsprogs disks-of-the-lab's-machines" \
        "losetup mount disks-of-the-lab's-machines" \
        "addpart util-linux disks-of-the-lab's-machines" \
        "strip binutils keeps-the-lab's-machines-small"
}
