#!/usr/bin/env bash
# Checks for what pip cannot install (Python with venv, EGL, OpenGL, GLib, a C compiler and headers for evdev).
# Installs what is missing with apt-get where this user may; otherwise names the packages and fails.
set -uo pipefail
what=("$@") # nothing, or `tests` for what tests alone need
tools=$(cd "$(dirname "$0")" && pwd)
say() { echo "jepa-gym: $*" >&2; }

as_root=()
may_install() {
  command -v apt-get >/dev/null || return 1
  [ "$(id -u)" = 0 ] && return 0
  sudo -n true 2>/dev/null && as_root=(sudo -n)
}

apt_updated=no
apt_update() {
  [ "$apt_updated" = yes ] && return 0
  apt_updated=yes
  "${as_root[@]}" apt-get update -q || say "apt-get update failed (see above); trying with the package lists at hand."
}

install() {
  apt_update
  say "installing: $*"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=120 "$@" ||
    say "apt-get install failed (see above)."
}

install_python() {
  may_install || return 1
  apt_update
  for version in 3.11 3.12; do
    if apt-cache show "python$version" >/dev/null 2>&1; then
      install "python$version" "python$version-venv" "python$version-dev"
      return 0
    fi
  done
  return 1
}

# Package names go to stdout, one a line; a crash of the check itself is an error, not "nothing missing".
check() {
  report=$("$python" "$tools/missing_packages.py" "${what[@]}" 2>/dev/null) || {
    say "the check itself failed: run '$python $tools/missing_packages.py' to see why."
    exit 1
  }
  packages=$(cut -f1 <<<"$report")
}

if ! python=$("$tools/find_python.sh" 2>/dev/null); then
  [ -n "${PYTHON:-}" ] || install_python
  python=$("$tools/find_python.sh") || exit 1
fi

check
[ -z "$packages" ] && exit 0
say "this machine lacks (Debian package, what for):"
sed 's/^/  /' <<<"$report" >&2
if may_install; then
  # shellcheck disable=SC2086  # one word a package
  install $packages
  check
  [ -z "$packages" ] && exit 0
  say "still missing after apt-get:"
  sed 's/^/  /' <<<"$report" >&2
fi
say "please install them, then repeat the command. On Debian and Ubuntu:"
echo "  sudo apt-get update && sudo apt-get install --no-install-recommends $(tr '\n' ' ' <<<"$packages")" >&2
exit 1
