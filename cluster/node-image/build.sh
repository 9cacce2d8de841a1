# Sourced where kind's official node image cannot be pulled: node_image prints the name of one that
# is built here, of Debian packages and Go modules alone.
# shellcheck shell=bash
# shellcheck source=cluster/debian.sh
source "$(dirname "${BASH_SOURCE[0]}")/../debian.sh"
# shellcheck source=cluster/go.sh
source "$(dirname "${BASH_SOURCE[0]}")/../go.sh"

# Docker's own store is the cache: saving and loading 1 GB takes as long as making it again of the
# cached binaries, and only a Docker that was wiped has lost it.
node_image() {
  local tag
  tag=$(node_image_tag)
  if ! docker image inspect "$tag" >/dev/null 2>&1; then build_node_image "$tag" >&2; fi
  echo "$tag"
}

node_image_tag() {
  local inputs
  inputs=$(
    {
      cat "$root"/cluster/node-image/*
      echo "$ETCD_VERSION $COREDNS_VERSION $NODE_DEBIAN $KIND_VERSION"
    } | sha256sum | cut -c 1-12
  )
  echo "django-task-node:v$KUBERNETES_VERSION-$inputs"
}

build_node_image() {
  local tag=$1 base context kind kubernetes="$cache/kubernetes-$KUBERNETES_VERSION"
  is_debian_root || die "kind's node image cannot be pulled, and only root on Debian can build one: check the network to the image registry"
  apt_install gcc libc6-dev jq
  build_binaries
  base=$(debian_image "$NODE_DEBIAN")
  say "building the node image (about two minutes, once)"
  context=$(new_context)
  mkdir "$context"/{files,bin}
  kind=$(module_directory "sigs.k8s.io/kind@v$KIND_VERSION")
  cp -r --no-preserve=mode "$kind"/images/base/files/{usr,kind,etc} "$context/files/"
  # Without CAP_SYS_RESOURCE, nothing may lower the score by which the kernel picks what to kill.
  sed -i 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' "$context/files/etc/containerd/config.toml"
  cp -l "$kubernetes"/{kubeadm,kubelet,kubectl} "$context/bin/"
  cp "$root/cluster/node-image/bridge.conflist" "$context/"
  build_quietly -t "$tag-empty" -f "$root/cluster/node-image/Dockerfile" \
    --build-arg "BASE_IMAGE=$base" --build-arg "KUBERNETES_VERSION=$KUBERNETES_VERSION" "$context"
  rm -rf "$context"
  control_plane_images "$base" "$tag-empty" "$tag"
}

# In the cache, because the binaries are linked into it rather than copied.
new_context() {
  rm -rf "$cache/context"
  mkdir "$cache/context"
  echo "$cache/context"
}

build_binaries() {
  local target
  target="$cache/kubernetes-$KUBERNETES_VERSION"
  # The last one that is moved into place, by name.
  if [ ! -x "$target/kubelet" ]; then
    say "building Kubernetes $KUBERNETES_VERSION (about 12 minutes, once)"
    kubernetes_tools "$target" kube-{apiserver,controller-manager,scheduler,proxy} kubeadm kubectl kubelet
  fi
  target="$cache/etcd-$ETCD_VERSION"
  if [ ! -x "$target/etcd" ]; then
    say "building etcd $ETCD_VERSION (about a minute, once)"
    go_tools "$target" "require go.etcd.io/etcd/server/v3 v$ETCD_VERSION" go.etcd.io/etcd/server/v3
    # Go names the command after its module's last folder that is no version.
    mv "$target/server" "$target/etcd"
  fi
  target="$cache/coredns-$COREDNS_VERSION"
  if [ ! -x "$target/coredns" ]; then
    say "building CoreDNS $COREDNS_VERSION (about three minutes, once)"
    go_tools "$target" "require github.com/coredns/coredns v$COREDNS_VERSION" github.com/coredns/coredns
  fi
}

# control_plane_images BASE EMPTY TAG: adds the images that kubeadm asks for to the node's containerd.
control_plane_images() {
  local base=$1 empty=$2 tag=$3 context wanted image name images=() container
  context=$(new_context)
  cp -l "$cache/kubernetes-$KUBERNETES_VERSION"/kube-* "$cache/etcd-$ETCD_VERSION/etcd" "$cache/coredns-$COREDNS_VERSION/coredns" "$context/"
  gcc -Os -static -s -o "$context/pause" -x c "$(module_directory "k8s.io/kubernetes@v$KUBERNETES_VERSION")/build/pause/linux/pause.c"
  # kubeadm knows them by name; the pause image that containerd starts is named in its own config.
  wanted=$(
    "$cache/kubernetes-$KUBERNETES_VERSION/kubeadm" config images list --kubernetes-version "v$KUBERNETES_VERSION" |
      grep -v /pause:
    docker run --rm --entrypoint sed "$empty" -n 's/.*sandbox_image = "\(.*\)"/\1/p' /etc/containerd/config.toml
  )
  for image in $wanted; do
    name=${image##*/}
    name=${name%%:*}
    build_quietly -t "$image" --target "$name" -f "$root/cluster/node-image/control-plane.Dockerfile" \
      --build-arg "BASE_IMAGE=$base" "$context"
    images+=("$image")
  done
  rm -rf "$context"

  container=$(docker run -d --security-opt seccomp=unconfined --entrypoint containerd "$empty")
  until docker exec "$container" ctr version >/dev/null 2>&1; do sleep 0.2; done
  docker save "${images[@]}" |
    docker exec -i "$container" ctr --namespace=k8s.io images import --all-platforms --no-unpack --digests - >/dev/null
  docker stop "$container" >/dev/null
  docker commit --change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' "$container" "$tag" >/dev/null
  docker rm "$container" >/dev/null
  docker rmi "${images[@]}" "$empty" >/dev/null
}
