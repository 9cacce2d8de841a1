# To be sourced by scripts that build an image on Debian: debian_image finds a base image, or makes one.
# shellcheck shell=bash
# shellcheck source=cluster/docker.sh
source "$(dirname "${BASH_SOURCE[0]}")/docker.sh"

# debian_image SUITE: prints the name of the official slim image or, if it cannot be pulled, of a stand-in
# that debootstrap makes from the same packages.
debian_image() {
  local official="debian:$1-slim" stand_in="django-task-debian:$1" image
  for image in "$official" "$stand_in"; do
    if docker image inspect "$image" >/dev/null 2>&1; then
      echo "$image"
      return
    fi
  done
  if docker pull -q "$official" >/dev/null 2>&1; then
    echo "$official"
    return
  fi
  bootstrap "$1" "$stand_in" >&2
  echo "$stand_in"
}

bootstrap() {
  local suite=$1 tag=$2 tree
  is_debian_root || die "debian:$suite-slim cannot be pulled, and only root on Debian can make a stand-in: check the network to the image registry"
  apt_install debootstrap
  say "making a stand-in for debian:$suite-slim (about 40 s, once)"
  tree=$(mktemp -d)
  debootstrap --variant=minbase "$suite" "$tree" >"$build/debootstrap.log" 2>&1 </dev/null || {
    tail -n 20 "$build/debootstrap.log" >&2
    die "debootstrap could not make Debian $suite: the whole log is in build/debootstrap.log"
  }
  host_sources "$suite" >"$tree/etc/apt/sources.list"
  # Like the official slim image, without documentation, translations and package caches, now and for
  # packages that are installed later.
  printf 'path-exclude /usr/share/%s/*\n' doc man locale info >"$tree/etc/dpkg/dpkg.cfg.d/slim"
  cat >"$tree/etc/apt/apt.conf.d/slim" <<'CONF'
Acquire::Languages "none";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };
CONF
  rm -rf "$tree"/usr/share/{doc,man,locale,info}/* "$tree"/var/cache/apt/*.bin "$tree"/var/{cache/apt/archives,lib/apt/lists,log}/*
  tar -C "$tree" --one-file-system -c . | docker import -c 'CMD ["bash"]' - "$tag" >/dev/null
  rm -rf --one-file-system "$tree"
}

# Prints the Debian mirrors of this machine for another suite, with updates and security fixes.
host_sources() {
  local codename
  codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk -v host="$codename" -v suite="$1" '$3 == "main" && sub("^" host, suite, $2) && !seen[$0]++ {print "deb", $0}'
}
