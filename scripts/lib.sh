# Shared by the scripts: words for the person at the terminal, and where things are.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# An ordinary user's PATH on Debian lacks the sbin directories; Go's own installer adds no PATH at all.
export PATH=$PATH:/usr/local/go/bin:/usr/sbin:/sbin
export PODMAN_IGNORE_CGROUPSV1_WARNING=1   # the Node object says what cgroup v1 costs

say()  { printf '\033[1m==> %s\033[0m\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die()  { printf 'error: %s\n' "$*" >&2; exit 1; }

# as_root CMD...: run as root, by sudo when we are not.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "root is needed, and there is no sudo here. As root run: $* ; then again: make ${MAKECMDGOALS:-up}"; fi
}

# Where `make up` keeps its swarm.
if [ "$(id -u)" = 0 ]; then DATA_DIR=${SWARM_DATA_DIR:-/var/lib/podman-swarm}
else DATA_DIR=${SWARM_DATA_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/podman-swarm}; fi
PID_FILE=$DATA_DIR/run/agent.pid
LOG_FILE=$DATA_DIR/agent.log
HELLO_IMAGE=localhost/podman-swarm-hello:1

# agent_pid: the pid of the running agent, nothing when it does not run.
agent_pid() {
  local p; p=$(cat "$PID_FILE" 2>/dev/null) || return 1
  [ -n "$p" ] && tr '\0' ' ' 2>/dev/null <"/proc/$p/cmdline" | grep -q 'podman-swarm agent' && echo "$p"
}

# failures LOG...: what Go tests wrote that failed, each test's own lines (its last 60) under its name, then panics
# and what did not build. CI shows the end of a run only, so print this last.
failures() {
  awk '
    function add(line) { if (line !~ /^[EWI][0-9][0-9][0-9][0-9] /) { n[name]++; text[name, n[name]] = line } }   # klog of client-go
    FNR == 1 { name = "" }
    /^=== (RUN|CONT|NAME|PAUSE) / { name = $3; next }
    /^ *--- FAIL: / { name = $3; if (!(name in failed)) { failed[name]; order[++count] = name } head[name] = $0; next }
    /^ *--- (PASS|SKIP): / || /^(ok|PASS|\?) *\t?/ { name = ""; next }
    /^panic: |^fatal error: / && !(name in failed) { if (name == "") name = "(no test)"; failed[name]; order[++count] = name; head[name] = "--- FAIL: " name " (" $0 ")" }
    /^FAIL[ \t].*\[(build|setup) failed\]/ { broken = broken $0 "\n" }
    /^# / { name = $0; if (!(name in failed)) { failed[name]; order[++count] = name; head[name] = $0 } next }   # the compiler, on a package
    /^FAIL/ { name = ""; next }
    name != "" { add($0) }
    END {
      for (i = 1; i <= count; i++) {
        f = order[i]; print head[f]
        from = n[f] > 60 ? n[f] - 59 : 1
        if (from > 1) print "    ... " from - 1 " lines before"
        for (j = from; j <= n[f]; j++) print text[f, j]
      }
      printf "%s", broken
    }' "$@"
}

# reasons LOG...: what the failed tests said themselves, at most 4 lines of a message and 20 of a test. Shorter than
# failures, for the very last lines of a run: where only they are seen, a test's logs must not push out why it failed.
reasons() {
  awk '
    function add(line) { if (n[name] < 20) text[name, ++n[name]] = "  " substr(line, 1, 300) }
    /^=== (RUN|CONT|NAME) / { name = $3; more = 0; next }
    /^ *--- FAIL: / { print $3 ":"; for (i = 1; i <= n[$3]; i++) print text[$3, i]; more = 0; next }
    /^ +[a-z0-9_]+_test\.go:[0-9]+: / { more = /log of the agent/ ? 0 : 3; if (more) { sub(/^ +/, ""); add($0) } next }
    /^        / && more > 0 { more--; add(substr($0, 7)); next }
    { more = 0 }
  ' "$@"
}
