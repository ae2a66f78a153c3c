# shellcheck shell=bash
# What script/test and script/demo share: installing packages, finding the server, the staged copy that
# leaves the system's PostgreSQL alone, and the unprivileged user. To be sourced; sets `root`, the tree.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Where Debian's packages put each major version.
servers=/usr/lib/postgresql

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

is_root() { [ "$(id -u)" -eq 0 ]; }

# ---- packages

as_root() {
  if is_root; then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    die "this needs root and there is no sudo: $*"
  fi
}

# not_installed <package>...: those that are not.
not_installed() {
  local package
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
      printf '%s ' "$package"
  done
}

# known_packages <package>...: those that the package lists name.
known_packages() {
  local package
  for package in "$@"; do
    if apt-cache show "$package" >/dev/null 2>&1; then printf '%s ' "$package"; fi
  done
}

# newest_server: the newest major version that is installed, or else the one that this distribution offers.
newest_server() {
  local binary
  binary=$(printf '%s\n' "$servers"/*/bin/postgres | sort -rV | head -n 1)
  if [ -x "$binary" ]; then
    binary=${binary#"$servers"/}
    printf '%s\n' "${binary%%/*}"
  else
    apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1
  fi
}

# build_packages: what a build needs. A pg_config that the user names brings its own server and headers.
build_packages() {
  local major
  printf 'gcc libc6-dev make perl '
  [ -z "${PG_CONFIG:-}" ] || return 0
  major=$(newest_server)
  printf 'postgresql-%s postgresql-server-dev-%s ' "$major" "$major"
}

# apt_get <argument>...: quiet unless it fails.
apt_get() {
  local log status=0
  log=$(mktemp)
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" \
    >"$log" 2>&1 </dev/null || status=$?
  if [ "$status" -ne 0 ]; then cat "$log" >&2; fi
  rm -f "$log"
  return "$status"
}

# apt_install <package>...: without the cluster that Debian would make and start along with a first server, and
# without starting the services of others. In a shell of its own, so that what tells Debian so goes away again
# when it is interrupted, too.
apt_install() (
  guards=/etc/postgresql-common/createcluster.d/rillflow.conf
  services=/usr/sbin/policy-rc.d
  printf 'installing: %s\n' "$*"
  trap 'as_root rm -f $guards' EXIT
  as_root mkdir -p "${guards%/*}"
  echo 'create_main_cluster = false' | as_root tee "$guards" >/dev/null
  # What a machine has there already is its own way to say which services may start.
  if [ ! -e "$services" ]; then
    guards="$guards $services"
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$services" >/dev/null
    as_root chmod 755 "$services"
  fi
  apt_get install -y --no-install-recommends "$@"
)

# install_missing [package]...: these and what a build needs; apt is asked for nothing when all are there.
install_missing() {
  local needed missing
  have apt-get || return 0
  read -ra needed <<<"$(build_packages) $*"
  [ -n "$(not_installed "${needed[@]}")" ] || return 0
  apt_get update || die "the package lists can't be fetched"
  # Only now it is sure that the lists know which server this distribution offers.
  read -ra needed <<<"$(build_packages) $*"
  read -ra missing <<<"$(not_installed "${needed[@]}")"
  apt_install "${missing[@]}" || die "these could not be installed: ${missing[*]}"
}

# install_optional <package>...: left out where they can't be had; the tests that need them are skipped then.
install_optional() {
  local missing
  have apt-get || return 0
  read -ra missing <<<"$(not_installed "$@")"
  read -ra missing <<<"$(known_packages "${missing[@]}")"
  [ ${#missing[@]} -gt 0 ] || return 0
  { is_root || sudo -n true 2>/dev/null; } && apt_install "${missing[@]}" ||
    echo "going on without: ${missing[*]}"
}

# ---- the server to build against

usable_pg_config() {
  have "$1" && [ -f "$("$1" --includedir-server)/postgres.h" ] && [ -f "$("$1" --pgxs)" ] &&
    [ -x "$("$1" --bindir)/postgres" ]
}

# find_pg_config: sets PG_CONFIG to the newest server that has its headers, unless the user named one.
find_pg_config() {
  local candidate
  if [ -n "${PG_CONFIG:-}" ]; then
    usable_pg_config "$PG_CONFIG" || die "PG_CONFIG=$PG_CONFIG has no server with headers"
    return
  fi
  for candidate in $(printf '%s\n' "$servers"/*/bin/pg_config | sort -rV) pg_config; do
    if usable_pg_config "$candidate"; then
      PG_CONFIG=$candidate
      return
    fi
  done
  die "no PostgreSQL server with headers; set PG_CONFIG"
}

server_major() { "$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/'; }

# ---- the user that runs the server

# PostgreSQL refuses to run as root, so root's work goes on as the user that the packages made for it.
unprivileged=postgres

# as_runner <command>...: as that user if we are root, else as ourselves.
as_runner() {
  local home
  if ! is_root; then
    "$@"
    return
  fi
  home=$(getent passwd "$unprivileged" | cut -d: -f6)
  [ -n "$home" ] || die "there is no user $unprivileged; run this as an ordinary user"
  # From a directory that this user may not enter, every program would begin with a complaint.
  (cd / && runuser -u "$unprivileged" -- env -u XDG_CACHE_HOME -u XDG_RUNTIME_DIR -u MAKEFLAGS \
    HOME="$home" USER="$unprivileged" LOGNAME="$unprivileged" "$@")
}

# make_run_dir: a fresh directory, mode 0700, of the user that runs the server. Its path is short, since
# that of a socket in it may have 107 bytes only; TMPDIR is left aside where it is long or closed to that user.
make_run_dir() {
  local dir
  dir=$(as_runner mktemp -d -t rf.XXXXXX 2>/dev/null) || dir=
  if [ -z "$dir" ] || [ ${#dir} -gt 60 ]; then
    [ -z "$dir" ] || as_runner rmdir "$dir"
    dir=$(as_runner env -u TMPDIR mktemp -d -t rf.XXXXXX)
  fi
  printf '%s\n' "$dir"
}

# copy_tree <directory>: the sources, without what is built or was left by tests, given to as_runner's user.
copy_tree() {
  as_runner mkdir -p "$1"
  tar -C "$root" -cf - --exclude=./.git --exclude=./build --exclude=./results --exclude=./output_iso \
    --exclude=./log --exclude='./regression.*' --exclude='tmp_check*' --exclude='*.o' --exclude='*.so' \
    --exclude='*.bc' . | as_runner tar -C "$1" --no-same-owner -xf -
}

# stop_servers <directory>: stops every server whose data lie below it, when a run was broken off.
stop_servers() {
  local pid_file bin
  bin=$("$PG_CONFIG" --bindir)
  as_runner find "$1" -name postmaster.pid 2>/dev/null | while read -r pid_file; do
    as_runner "$bin/pg_ctl" stop -D "${pid_file%/*}" -m immediate -w >/dev/null 2>&1 || true
  done || true # files vanish under find while servers stop
}

# ---- build

# build_stage <tree> <stage> [make variable]...: builds the tree and installs it below the stage.
build_stage() {
  local tree=$1 stage=$2
  shift 2
  as_runner make -C "$tree" -s -j"$(nproc)" all with_llvm=no PG_CONFIG="$PG_CONFIG" "$@" &&
    as_runner make -C "$tree" -s install with_llvm=no PG_CONFIG="$PG_CONFIG" "$@" DESTDIR="$stage" >/dev/null
}

# stage_settings <stage>: the lines of postgresql.conf by which a server finds the staged extension.
stage_settings() {
  printf "dynamic_library_path = '%s%s:\$libdir'\n" "$1" "$("$PG_CONFIG" --pkglibdir)"
  if [ "$(server_major)" -ge 18 ]; then
    printf "extension_control_path = '%s%s:\$system'\n" "$1" "$("$PG_CONFIG" --sharedir)"
  else
    printf "extension_destdir = '%s'\n" "$1"
  fi
}
