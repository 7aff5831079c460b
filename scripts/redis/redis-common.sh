# shellcheck shell=bash
# Sourced by the redis-* scripts.
set -euo pipefail
die() { echo "$(basename "$0"): $*" >&2; exit 1; }

# A pid file alone is not enough: pids come round again. redis-server works in its node's folder, and the pid counts only
# while that process does.
node_pid() { # folder of the node -> pid on stdout, or rc 1
  local p
  p=$(cat "$1/pid" 2>/dev/null) || return 1
  [ -n "$p" ] && [ "$(readlink "/proc/$p/cwd" 2>/dev/null)" = "$1" ] || return 1
  echo "$p"
}
nodes() { # folders of the nodes in DIR, one a line
  local d
  for d in "$DIR"/nodes/*/; do [ ! -d "$d" ] || echo "${d%/}"; done
}
