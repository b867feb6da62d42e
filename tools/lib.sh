# Shell functions shared by the programs in tools/ and tests/. Sourced by bash, not run.

# Where the guest images live: an argument wins over BT86_GUEST_DIR, which wins over the XDG cache.
bt86_guest_dir() {
    printf '%s\n' "${1:-${BT86_GUEST_DIR:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/bt86/guest}}"
}

# die MESSAGE...: one line on stderr, exit status 1.
die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# step MESSAGE...: a progress line with the seconds since the program started.
step() {
    local us=$(( ${EPOCHREALTIME/[.,]/} - BT86_STARTED ))
    printf '[%3d.%02d s] %s: %s\n' $((us / 1000000)) $((us % 1000000 / 10000)) "${0##*/}" "$*" >&2
}
BT86_STARTED=${BT86_STARTED:-${EPOCHREALTIME/[.,]/}}

# deps_missing GROUP...: prints the packages of those groups that are not there. It looks for each
# package's witness (a command or a file) first and asks dpkg, which is slow, only without one.
deps_missing() {
    local file=${BASH_SOURCE[0]%/*}/deps group package witness
    while read -r group package witness; do
        case " $* " in *" $group "*) ;; *) continue ;; esac
        case $witness in
        /*) [ -e "$witness" ] && continue ;;
        ?*) command -v "$witness" >/dev/null && continue ;;
        esac
        dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed' ||
            printf '%s\n' "$package"
    done < <(grep -v '^#' "$file")
}

# deps_install GROUP...: installs what is missing. Returns non-zero, after one line on stderr, when it
# could not install everything; the caller decides whether it can go on without.
deps_install() {
    local missing sudo=() log
    mapfile -t missing < <(deps_missing "$@")
    [ ${#missing[@]} -eq 0 ] && return 0
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || {
            echo "${0##*/}: missing packages, and neither root nor sudo to install them: ${missing[*]}" >&2
            return 1
        }
        # Once and here, where a password is asked for on the terminal, not hidden and for each package.
        sudo true || {
            echo "${0##*/}: missing packages, and sudo does not let you install them: ${missing[*]}" >&2
            return 1
        }
        sudo=(sudo)
    fi
    step "installing ${missing[*]}"
    log=$(mktemp)
    # The package lists of a fresh machine are empty or old: refresh them, and let a source that does not
    # answer be a warning, since the others may well have everything.
    "${sudo[@]}" apt-get -qq update >"$log" 2>&1 || true
    if ! "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1; then
        # One package that does not exist must not keep the others out.
        for log_package in "${missing[@]}"; do
            "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
                apt-get -qq install -y --no-install-recommends "$log_package" >>"$log" 2>&1 || true
        done
    fi
    mapfile -t missing < <(deps_missing "$@")
    if [ ${#missing[@]} -ne 0 ]; then
        echo "${0##*/}: could not install ${missing[*]}: $(grep '^E: ' "$log" | tail -1 | grep . || tail -1 "$log")" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}
