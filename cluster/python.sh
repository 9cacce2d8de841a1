#!/usr/bin/env bash
# Creates build/venv: a virtual environment with the locked requirements. If it already exists, this takes
# a second.
# shellcheck source=cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

venv="$build/venv"
stamp="$venv/requirements.sha256"
want=$({ cat "$root/requirements/dev.txt"; echo "uv $UV_VERSION"; } | sha256sum)

# Django 6 needs Python 3.12. Each candidate is run, because a command of that name may not work: pyenv leaves
# shims of versions that are not installed.
find_python() {
  local candidate
  for candidate in python3.13 python3.14 python3.12 python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python3; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$want" ] || ! "$venv/bin/python" -c '' 2>/dev/null; then
  # An existing environment is updated in place, so that programs that run in it can continue.
  if ! "$venv/bin/python" -c '' 2>/dev/null || [ "$("$venv/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" != "$UV_VERSION" ]; then
    if ! python=$(find_python); then
      if is_debian_root; then apt_install python3 python3-venv; fi
      python=$(find_python) || die "Python 3.12 or newer is needed and was not found: install it (with its venv module) and run this again"
    fi
    say "installing the Python requirements into build/venv ($("$python" --version))"
    "$python" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check "uv==$UV_VERSION"
  fi
  "$venv/bin/uv" pip install -q --python "$venv/bin/python" --require-hashes -r "$root/requirements/dev.txt"
  echo "$want" >"$stamp"
fi
