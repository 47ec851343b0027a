# Functions that bring what is missing on a Debian machine. Sourced by `./run` and `./test`.

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

install_packages() {
    [ $# -gt 0 ] || return 0
    echo "installing $*"
    as_root apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"
}

# What it takes to build Hearth: a C compiler and CMake for SQLite and the cryptography, Rust for the rest.
build_tools() {
    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    command -v cmake >/dev/null || missing+=(cmake)
    command -v make >/dev/null || missing+=(make)
    command -v curl >/dev/null || missing+=(curl ca-certificates)
    install_packages "${missing[@]}" || return 1
    if ! command -v cargo >/dev/null && [ ! -x "$HOME/.cargo/bin/cargo" ]; then
        curl -fsS --proto '=https' https://sh.rustup.rs | sh -s -- -y --profile default
    fi
}
