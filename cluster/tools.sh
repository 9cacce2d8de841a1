# To be sourced by scripts that need kind, kubectl or helm: ensure_TOOL puts a suitable one into build/bin. One
# on PATH is linked; otherwise it is built from its Go module, once per version.
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
  esac
  "$2" "${arguments[@]}" 2>/dev/null | grep -oE -m 1 'v[0-9]+\.[0-9]+\.[0-9]+' | head -n 1 | cut -c 2- || true
}

ensure_kind() { link_tool kind fits_kind build_kind; }
ensure_kubectl() { link_tool kubectl fits_kubectl build_kubectl; }
ensure_helm() { link_tool helm fits_helm build_helm; }

# A newer kind still runs the node images of an older one, but not the other way round.
fits_kind() { version_at_least "$1" "$KIND_VERSION"; }

# One minor version of skew is what Kubernetes supports.
fits_kubectl() {
  local skew=$(($(minor "$1") - $(minor "$KUBERNETES_VERSION")))
  [ "$skew" -ge -1 ] && [ "$skew" -le 1 ]
}

# --take-ownership came with 3.17.
fits_helm() { version_at_least "$1" 3.17.0 && ! version_at_least "$1" 4; }

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
