# What ./test and ./peers install with, for both to source. Everything goes into
# .tools/ (ignored by git), exactly as lock files have it, or comes by apt-get.
# shellcheck shell=bash

readonly TOOLS=$PWD/.tools
readonly INSTALL_LOG=$TOOLS/install.log

# Two runs in one work tree must not install over each other. The lock goes
# before the work starts, which may well be done side by side.
begin_install() {
    mkdir -p "$TOOLS"
    exec 9>"$TOOLS/lock"
    flock 9
    : >"$INSTALL_LOG"
    if ! command -v cargo >/dev/null; then
        echo 'Rust is missing: install rustup, rust-toolchain.toml does the rest.' >&2
        return 1
    fi
    # Rust links with it, and one dependency (the cryptography of rustls) is C.
    if ! command -v cc >/dev/null && ! apt_install gcc libc6-dev; then
        echo 'A C compiler is missing and could not be installed.' >&2
        return 1
    fi
}

end_install() {
    exec 9>&-
}

declare -A apt_tried=()

# Installs Debian packages. Tries without `apt-get update` first, which is
# quicker wherever the package lists are already there.
apt_install() {
    command -v apt-get >/dev/null || return 1
    # Three judges come from one package: what failed for the first is not tried
    # again for the others, each time until the network gives up.
    [[ -z ${apt_tried[$*]-} ]] || return 1
    apt_tried[$*]=yes
    local -a as_root=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || return 1
        as_root=(sudo)
        # Nobody is there to type a password.
        [[ -t 0 ]] || as_root+=(--non-interactive)
    fi
    # Set behind sudo, which clears the environment. The lock may be held by the
    # machine's own unattended upgrade: wait for it rather than fail.
    local -a apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive
        apt-get --option DPkg::Lock::Timeout=300 --quiet --yes)
    printf '    apt-get install %s\n' "$*"
    {
        "${apt[@]}" install --no-install-recommends "$@" \
            || { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "$@"; }
    } >>"$INSTALL_LOG" 2>&1 </dev/null
}

# npm_ci FOLDER NAME: what the lock file in FOLDER has, into .tools/NAME. The
# stamp is written last, so that an installation that was cut short is done again.
npm_ci() {
    command -v npm >/dev/null || return 1
    local -a files=("$1/package.json" "$1/package-lock.json" "$1/.npmrc")
    local place=$TOOLS/$2 wanted
    wanted=$(cat "${files[@]}" | sha256sum)
    [[ -f $place/.installed && $(<"$place/.installed") == "$wanted" ]] && return 0
    printf '    npm ci in .tools/%s\n' "$2"
    mkdir -p "$place" || return 1
    rm -f "$place/.installed"
    cp "${files[@]}" "$place/" || return 1
    (cd "$place" && npm ci) >>"$INSTALL_LOG" 2>&1 </dev/null || return 1
    printf '%s\n' "$wanted" >"$place/.installed"
}

# pip_install REQUIREMENTS NAME: what the requirements have, each with its hashes,
# into a venv .tools/NAME of its own, as its packages are no business of others.
pip_install() {
    command -v python3 >/dev/null || return 1
    local place=$TOOLS/$2 wanted
    # A venv has the interpreter's version in its paths: another one needs another venv.
    wanted=$({ cat "$1" && python3 --version; } | sha256sum)
    [[ -f $place/.installed && $(<"$place/.installed") == "$wanted" ]] && return 0
    printf '    pip install in .tools/%s\n' "$2"
    # On Debian the module venv is there without python3-venv, but cannot make a
    # venv with pip in it: only trying tells.
    make_venv "$place" || { apt_install python3-venv && make_venv "$place"; } || return 1
    "$place/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        --requirement "$1" >>"$INSTALL_LOG" 2>&1 </dev/null || return 1
    printf '%s\n' "$wanted" >"$place/.installed"
}

make_venv() {
    python3 -m venv --clear "$1" >>"$INSTALL_LOG" 2>&1
}
