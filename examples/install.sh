# Sourced by the scripts: installs what a command needs, on Debian; elsewhere says what to install.
# install_missing "COMMAND PACKAGE WHY" ...
install_missing() {
    local packages=() entry command package why
    for entry in "$@"; do
        read -r command package why <<<"$entry"
        command -v "$command" >/dev/null && continue
        echo "missing: $command (Debian package $package): ${why//-/ }"
        [[ " ${packages[*]-} " == *" $package "* ]] || packages+=("$package")
    done
    [ ${#packages[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "This is no Debian: install the commands above by hand, then run this again." >&2
        exit 1
    fi
    local as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    echo "installing: ${packages[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
}

need_cargo() {
    [ -d "$HOME/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"
    command -v cargo >/dev/null && return 0
    echo "cargo is missing. Debian's is too old: install Rust 1.95 or newer with rustup, then run this again." >&2
    exit 1
}
