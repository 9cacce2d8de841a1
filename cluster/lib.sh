# To be sourced by the scripts in cluster/: where things are stored, and how messages are printed.
# shellcheck shell=bash
# shellcheck disable=SC2034
set -euo pipefail
shopt -s inherit_errexit

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=cluster/versions.env
source "$root/cluster/versions.env"

build="$root/build"
export HOME="${HOME:-$(getent passwd "$(id -u)" | cut -d : -f 6)}"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/django-task-operator"
# build/bin comes first, so that kind, kubectl, helm and docker are the ones that ensure_* has chosen. The
# system's folders are added because not every login has them on PATH.
case ":$PATH:" in
  *":$build/bin:"*) ;;
  *) export PATH="$build/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin" ;;
esac
cluster_name="${CLUSTER_NAME:-django-task-operator}"
kubeconfig="${CLUSTER_KUBECONFIG:-$build/kubeconfig}"
mkdir -p "$build/bin" "$cache"

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Packages are installed only on Debian and by root; on other systems, a message says what is missing.
is_debian_root() { [ "$(id -u)" = 0 ] && grep -qsx 'ID=debian' /etc/os-release; }

# apt_install PACKAGE...: installs those packages that are missing.
apt_install() {
  local missing=() package
  for package in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null)" = 'ii ' ] || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return
  say "installing Debian packages: ${missing[*]}"
  {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
  } >"$build/apt.log" 2>&1 </dev/null || {
    tail -n 20 "$build/apt.log" >&2
    die "apt could not install ${missing[*]}"
  }
}

# Two simultaneous runs would build the same things twice and fight over the cluster. The lock is held until
# this process ends.
one_at_a_time() {
  exec 9>"$cache/lock"
  flock --nonblock 9 || {
    say "waiting for another run to end"
    flock 9
  }
}

# version_at_least HAVE WANTED
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }
