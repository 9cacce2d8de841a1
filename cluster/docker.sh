# Sourced where Docker is needed: ensure_docker makes sure that a daemon answers, and puts a client
# that can build with BuildKit into build/bin.
# shellcheck shell=bash
# shellcheck source=cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Clients from 23 on need the buildx plugin for BuildKit; older ones have it built in.
export DOCKER_BUILDKIT=1

# What leaves a node for these addresses is a packet that no Service or pod took (see keep_in).
service_subnet=10.96.0.0/16
pod_subnet=10.244.0.0/16

can_build() {
  local version
  version=$("$1" version --format '{{.Client.Version}}' 2>/dev/null) || true
  [ -n "$version" ] || return 1
  "$1" buildx version >/dev/null 2>&1 || ! version_at_least "${version%%[+-]*}" 23
}

# Prints the first client on PATH that reaches the daemon and can build; a newer client without its
# plugin may hide an older complete one.
find_client() {
  local client
  while read -r client; do
    # The client itself, not the link to it that this or another clone has on PATH.
    [ "${client%/build/bin/docker}" = "$client" ] || continue
    if can_build "$client" && "$client" info >/dev/null 2>&1; then
      echo "$client"
      return
    fi
  done < <(type -ap docker)
  return 1
}

ensure_docker() {
  local client
  if ! client=$(find_client); then
    if [ -n "$(any_daemon)" ]; then
      is_debian_root || die "Docker runs, but no client on PATH can build with BuildKit: install its buildx plugin"
      apt_install docker.io
    else
      start_docker
    fi
    client=$(find_client) || die "Docker runs, but no client on PATH can build with BuildKit: install its buildx plugin"
  fi
  ln -sfn "$client" "$build/bin/docker"
}

any_daemon() {
  local client
  while read -r client; do
    if "$client" info >/dev/null 2>&1; then
      echo "$client"
      return
    fi
  done < <(type -ap docker)
}

start_docker() {
  [ -z "${DOCKER_HOST:-}" ] || die "Docker does not answer at DOCKER_HOST: start it there, or unset DOCKER_HOST"
  is_debian_root || die "Docker is not running: install and start it, then run this again"
  apt_install docker.io containerd runc iptables jq ca-certificates procps
  if [ -d /run/systemd/system ]; then
    systemctl start docker
  else
    start_daemon
  fi
  any_daemon | grep -q . || die "Docker was started but does not answer: see build/dockerd.log"
}

# Starts dockerd in a session of its own, for a host without an init system.
start_daemon() {
  local arguments=() deadline
  say "starting Docker"
  if [ -n "$("$root/cluster/runc-within-bounds" --missing)" ]; then
    # Kept outside the repository, because containers outlive a clone.
    install -D -m 0755 "$root/cluster/runc-within-bounds" "$cache/bin/runc-within-bounds"
    arguments=(--add-runtime "within-bounds=$cache/bin/runc-within-bounds" --default-runtime within-bounds)
  fi
  # A killed daemon leaves these behind, and refuses to start when another process has got the id.
  pidof dockerd >/dev/null || rm -f /run/docker.pid
  pidof containerd >/dev/null || rm -f /run/docker/containerd/containerd.pid
  setsid dockerd "${arguments[@]}" </dev/null >"$build/dockerd.log" 2>&1 9>&- &
  echo $! >"$build/dockerd.pid"
  deadline=$((SECONDS + 60))
  until [ -n "$(any_daemon)" ]; do
    kill -0 "$(cat "$build/dockerd.pid")" 2>/dev/null || break
    [ "$SECONDS" -lt "$deadline" ] || break
    sleep 0.5
  done
  if [ -z "$(any_daemon)" ]; then
    tail -n 20 "$build/dockerd.log" >&2
    die "Docker does not start: the whole log is in build/dockerd.log"
  fi
  keep_in
}

# A packet for a Service that kube-proxy has not programmed yet would leave the node, and something
# beyond this machine may answer it. Refused at once, its sender tries again. From node to node, over
# Docker's own bridge, packets pass.
keep_in() {
  local subnet rule
  for subnet in "$service_subnet" "$pod_subnet"; do
    rule=(DOCKER-USER -d "$subnet" ! -o "br-+" -j REJECT)
    iptables -C "${rule[@]}" 2>/dev/null || iptables -I "${rule[@]}"
  done
}

# Stops the daemon that start_daemon has started from this clone, if it still runs.
stop_docker() {
  local pid deadline
  pid=$(cat "$build/dockerd.pid" 2>/dev/null) || return 0
  rm -f "$build/dockerd.pid"
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] || return 0
  kill "$pid"
  deadline=$((SECONDS + 60))
  while [ -e "/proc/$pid" ] && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.2; done
}

# build_quietly ARGUMENT...: docker build, whose output is shown only when it fails.
build_quietly() {
  local log
  log=$(mktemp)
  docker build --network host "$@" >"$log" 2>&1 </dev/null || {
    tail -n 40 "$log" >&2
    rm -f "$log"
    die "docker build failed: docker build --network host $*"
  }
  rm -f "$log"
}
