# shellcheck shell=bash
# Sourced by the kafka-* scripts.
#   KAFKA_LIBS  the broker's jars: by default in the user's cache, so that every clone shares them
#   KAFKA_DIR   the cluster's folder: by default .kafka in the repository
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
KAFKA_LIBS=${KAFKA_LIBS:-${XDG_CACHE_HOME:-$HOME/.cache}/belfry/kafka}
KAFKA_DIR=${KAFKA_DIR:-$(dirname "$(dirname "$here")")/.kafka}
die() { echo "$(basename "$0"): $*" >&2; exit 1; }

# A pid file alone is not enough: pids come round again. The JVM carries its node folder
# in -Dkafka.node.dir, and the pid counts only while that process has it.
node_pid() { # folder of the node -> pid on stdout, or rc 1
  local p
  p=$(cat "$1/pid" 2>/dev/null) || return 1
  [ -n "$p" ] && [ -r "/proc/$p/cmdline" ] || return 1
  tr '\0' '\n' <"/proc/$p/cmdline" 2>/dev/null | grep -qxF -- "-Dkafka.node.dir=$1" || return 1
  case $(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$p/status" 2>/dev/null) in Z | X | '') return 1 ;; esac
  echo "$p"
}

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
prop() { sed -n "s/^$2=//p" "$1/server.properties" | tail -1; }
nodes() { # the node numbers there are, in order
  local d
  for d in "$KAFKA_DIR"/nodes/*/; do [ ! -d "$d" ] || basename "$d"; done | sort -n
}

# Metadata v1 with no topics, by hand: prints how many unfenced brokers that node knows of.
live_brokers() { # port
  # shellcheck disable=SC2016
  timeout 4 bash -c '
    exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
    printf "\x00\x00\x00\x0e\x00\x03\x00\x01\x00\x00\x00\x2a\xff\xff\x00\x00\x00\x00" >&3
    set -- $(head -c 12 <&3 | od -An -v -tu1)
    [ $# -eq 12 ] && [ "$8" -eq 42 ] || exit 1          # size, correlation id, count
    echo $(( ($9 << 24) | (${10} << 16) | (${11} << 8) | ${12} ))' _ "$1" 2>/dev/null
}

# Wait until every named node says that $want brokers are live
wait_ready() { # want seconds node...
  local want=$1 end=$(($(date +%s) + $2)) i d n
  shift 2
  for i in "$@"; do
    d=$KAFKA_DIR/nodes/$i
    until n=$(live_brokers "$(prop "$d" x.client.port)") && [ "$n" -ge "$want" ]; do
      node_pid "$d" >/dev/null || { tail -n 25 "$d/stdout.log" "$d/server.log" >&2; die "node $i died while starting (logs in $d)"; }
      [ "$(date +%s)" -lt "$end" ] || { tail -n 15 "$d/server.log" >&2; die "node $i not ready in time (it sees ${n:-no} of $want brokers)"; }
      sleep 0.1
    done
  done
}

launch() { # node: starts its JVM, leaves the pid in the pid file
  local d=$KAFKA_DIR/nodes/$1 heap
  ! node_pid "$d" >/dev/null || return 0
  heap=$(prop "$d" x.heap)
  # A process group of its own, which a terminal's signals do not reach, but the caller's session: the kernel may share cores
  # by session (sched_autogroup_enabled), and then no priority counts from one to another.
  set -m
  (
    # Every inherited descriptor above 2 is closed, else the broker holds the caller's locks and pipes open.
    for fd in "/proc/$BASHPID/fd"/*; do
      fd=${fd##*/}
      [ "$fd" -le 2 ] || eval "exec $fd>&-" 2>/dev/null || true
    done
    cd "$d"
    ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
    # Half of the heap for what is young, and all of it touched at once: a pause stops everybody whom the broker serves, and
    # these are seldom. With the usual goal of 20 ms a pause, G1 made them 20 to 90 ms long, and twice a second.
    exec java -Xms"$heap" -Xmx"$heap" -XX:+AlwaysPreTouch -XX:+UseG1GC -XX:NewRatio=1 -XX:+ExplicitGCInvokesConcurrent \
      -XX:+ExitOnOutOfMemoryError -Xshare:auto -Djava.awt.headless=true -Djava.net.preferIPv4Stack=true \
      -Dlog4j2.configurationFile="file:$d/log4j2.properties" -Dkafka.node.dir="$d" \
      -cp "$KAFKA_LIBS/*" kafka.Kafka "$d/server.properties" </dev/null >>"$d/stdout.log" 2>&1
  ) &
  echo $! >"$d/pid"
  disown $!
  set +m
}
