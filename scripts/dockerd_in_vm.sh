#!/usr/bin/env bash
# Start a Docker daemon of our own inside a small VM or sandbox, for building and testing images where none runs. Root.
#   scripts/dockerd_in_vm.sh start DIR     daemon's data, socket, log and pid under DIR; prints the DOCKER_HOST to export
#   scripts/dockerd_in_vm.sh stop DIR      ends it (SIGTERM, then waits); DIR stays: remove it to free the disk
# Needs dockerd, containerd and runc (Debian: apt-get install docker.io).
set -euo pipefail

usage() { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -eq 2 ] || usage
action=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)

start() {
  for tool in dockerd containerd runc; do
    command -v "$tool" >/dev/null || { echo "dockerd_in_vm: $tool is not installed; Debian: apt-get install docker.io" >&2; exit 1; }
  done
  # Without CAP_SYS_RESOURCE nothing may lower its oom_score_adj, which docker asks runc to do: ask for 0 instead.
  cat > "$dir/runc" <<'SHIM'
#!/usr/bin/env bash
bundle=""; args=("$@")
for ((i = 0; i < ${#args[@]}; i++)); do [ "${args[i]}" = "--bundle" ] && bundle=${args[i + 1]}; done
[ -n "$bundle" ] && sed -i -E 's/"oomScoreAdj":-[0-9]+/"oomScoreAdj":0/' "$bundle/config.json"
exec "$(PATH=/usr/local/sbin:/usr/sbin:/usr/bin command -v runc)" "$@"
SHIM
  chmod +x "$dir/runc"
  # An MTU below the VM's own: larger packets of containers vanish on some virtual networks.
  dockerd --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/dockerd.pid" -H "unix://$dir/docker.sock" \
    --storage-driver overlay2 --mtu 1400 --add-runtime "vm=$dir/runc" --default-runtime vm >"$dir/dockerd.log" 2>&1 &
  for _ in $(seq 150); do
    if DOCKER_HOST="unix://$dir/docker.sock" docker version >/dev/null 2>&1; then echo "export DOCKER_HOST=unix://$dir/docker.sock"; return; fi
    kill -0 $! 2>/dev/null || break
    sleep 0.2
  done
  echo "dockerd_in_vm: the daemon did not come up; the end of $dir/dockerd.log:" >&2
  tail -5 "$dir/dockerd.log" >&2
  exit 1
}

stop() {
  [ -f "$dir/dockerd.pid" ] || { echo "dockerd_in_vm: no daemon was started in $dir" >&2; exit 1; }
  pid=$(cat "$dir/dockerd.pid")
  kill "$pid"
  while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
}

case $action in start) start ;; stop) stop ;; *) usage ;; esac
