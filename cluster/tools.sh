# To be sourced by scripts that need kind, kubectl, helm, prometheus or promtool: ensure_TOOL puts a suitable one into
# build/bin. One on PATH is linked; otherwise it is built from its Go module, once per version.
# shellcheck shell=bash
# shellcheck source=cluster/go.sh
source "$(dirname "${BASH_SOURCE[0]}")/go.sh"

# link_tool NAME FITS BUILD: FITS is a command that says whether a version such as 1.34.4 is suitable, BUILD
# is one that builds the tool and prints its path.
link_tool() {
  local name=$1 fits=$2 build_tool=$3 candidate version path
  version=$(version_of "$name" "$build/bin/$name")
  if [ -n "$version" ] && "$fits" "$version"; then return; fi
  while read -r candidate; do
    [ "$candidate" != "$build/bin/$name" ] || continue
    version=$(version_of "$name" "$candidate")
    if [ -n "$version" ] && "$fits" "$version"; then
      ln -sfn "$candidate" "$build/bin/$name"
      return
    fi
  done < <(type -ap "$name")
  path=$("$build_tool")
  ln -sfn "$path" "$build/bin/$name"
}

# version_of NAME PATH: prints the version of a tool; nothing if it does not run.
version_of() {
  local arguments=(version)
  case "$1" in
    kubectl) arguments=(version --client) ;;
    helm) arguments=(version --template '{{.Version}}') ;;
    prometheus | promtool) arguments=(--version) ;;
  esac
  "$2" "${arguments[@]}" 2>/dev/null | grep -oE -m 1 '(v|version )[0-9]+\.[0-9]+\.[0-9]+' | head -n 1 |
    grep -oE '[0-9.]+$' || true
}

ensure_kind() { link_tool kind fits_kind build_kind; }
ensure_kubectl() { link_tool kubectl fits_kubectl build_kubectl; }
ensure_helm() { link_tool helm fits_helm build_helm; }
ensure_prometheus() {
  link_tool promtool fits_prometheus get_promtool
  link_tool prometheus fits_prometheus get_prometheus
}

# A newer kind still runs the node images of an older one, but not the other way round.
fits_kind() { version_at_least "$1" "$KIND_VERSION"; }

# One minor version of skew is what Kubernetes supports.
fits_kubectl() {
  local skew=$(($(minor "$1") - $(minor "$KUBERNETES_VERSION")))
  [ "$skew" -ge -1 ] && [ "$skew" -le 1 ]
}

# --take-ownership came with 3.17.
fits_helm() { version_at_least "$1" 3.17.0 && ! version_at_least "$1" 4; }

# What Debian bookworm has; what it says of rules holds for every later version.
fits_prometheus() { version_at_least "$1" 2.42.0; }

minor() { cut -d . -f 2 <<<"$1"; }

build_kind() {
  local target="$cache/kind-$KIND_VERSION"
  if [ ! -x "$target/kind" ]; then
    say "building kind $KIND_VERSION (about a minute, once)"
    go_tools "$target" "require sigs.k8s.io/kind v$KIND_VERSION" sigs.k8s.io/kind
  fi
  echo "$target/kind"
}

build_kubectl() {
  local target="$cache/kubernetes-$KUBERNETES_VERSION"
  if [ ! -x "$target/kubectl" ]; then
    say "building kubectl $KUBERNETES_VERSION (about two minutes, once)"
    kubernetes_tools "$target" kubectl
  fi
  echo "$target/kubectl"
}

build_helm() {
  local target="$cache/helm-$HELM_VERSION" module=helm.sh/helm/v3 flags package
  if [ ! -x "$target/helm" ]; then
    say "building helm $HELM_VERSION (about three minutes, once)"
    # Without these flags, templates that use the cluster's version would get a very old one.
    flags="-X $module/internal/version.version=v$HELM_VERSION"
    for package in chartutil lint/rules; do
      flags+=" -X $module/pkg/$package.k8sVersionMajor=1"
      flags+=" -X $module/pkg/$package.k8sVersionMinor=$(minor "$KUBERNETES_VERSION")"
    done
    GO_LDFLAGS=$flags go_tools "$target" "require $module v$HELM_VERSION" "$module/cmd/helm"
  fi
  echo "$target/helm"
}

get_promtool() { echo "$(prometheus_tools)/promtool"; }
get_prometheus() { echo "$(prometheus_tools)/prometheus"; }

# prometheus_tools: prints where the server and promtool are. From Debian's package, but not installed: that would start
# a server. Elsewhere they are built; the server then lacks its web pages, which come from another build.
prometheus_tools() {
  local target="$cache/prometheus-debian" module=github.com/prometheus/prometheus major minor patch
  if is_debian_root; then
    if [ ! -x "$target/usr/bin/prometheus" ]; then
      say "getting prometheus and promtool from Debian's package"
      unpack_debian prometheus "$target"
    fi
    echo "$target/usr/bin"
    return
  fi
  target="$cache/prometheus-$PROMETHEUS_VERSION"
  if [ ! -x "$target/prometheus" ]; then
    say "building prometheus and promtool $PROMETHEUS_VERSION (six minutes of processor time, once)"
    # As a Go module, Prometheus 3.5.0 has the version 0.305.0.
    IFS=. read -r major minor patch <<<"$PROMETHEUS_VERSION"
    GO_LDFLAGS="-X github.com/prometheus/common/version.Version=$PROMETHEUS_VERSION" \
      go_tools "$target" "require $module v0.$((major * 100 + minor)).$patch" "$module/cmd/promtool" "$module/cmd/prometheus"
  fi
  echo "$target"
}

# What a release is made with, and what its tests need: always the pinned version, from its Go module.
ensure_crane() { built_tool crane "$CRANE_VERSION" github.com/google/go-containerregistry cmd/crane; }
ensure_actionlint() { built_tool actionlint "$ACTIONLINT_VERSION" github.com/rhysd/actionlint cmd/actionlint; }

# built_tool NAME VERSION MODULE PACKAGE
built_tool() {
  local target="$cache/$1-$2"
  if [ ! -x "$target/$1" ]; then
    say "building $1 $2 (once)"
    go_tools "$target" "require $3 v$2" "$3/$4"
  fi
  ln -sfn "$target/$1" "$build/bin/$1"
}

# A real image registry, for tests. From Debian's package, but not installed: that would start it.
ensure_registry() {
  local target="$cache/docker-registry-debian"
  if is_debian_root; then
    [ -x "$target/usr/bin/docker-registry" ] || unpack_debian docker-registry "$target"
    ln -sfn "$target/usr/bin/docker-registry" "$build/bin/docker-registry"
    return
  fi
  built_tool registry "$REGISTRY_VERSION" github.com/distribution/distribution/v3 cmd/registry
  ln -sfn "$cache/registry-$REGISTRY_VERSION/registry" "$build/bin/docker-registry"
}

# unpack_debian PACKAGE DIRECTORY: unpacks a package without installing it.
unpack_debian() {
  local work
  work=$(mktemp -d)
  # apt hands the download to a user of its own.
  chmod 755 "$work"
  (
    cd "$work" || exit
    { apt-get update -qq && apt-get download -qq "$1" && dpkg-deb -x ./*.deb tree; } >"$build/apt.log" 2>&1 </dev/null
  ) || {
    tail -n 20 "$build/apt.log" >&2
    die "apt could not download the Debian package $1"
  }
  rm -rf "$2"
  mv "$work/tree" "$2"
  rm -rf "$work"
}
