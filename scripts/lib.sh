# Shared by the scripts beside it: where things are, how the release is built, what a bare machine still needs.
# shellcheck shell=bash
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
# What is fetched to build and test with, and kept.
tools=${DISCO_TOOLS:-$HOME/.cache/disco-tools}

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 2; }

# The triple that rustc builds for here. The release names it on its command line: without --target, RUSTFLAGS would
# reach proc-macros too, which cannot be linked statically.
host() { rustc -vV | sed -n 's/^host: //p'; }

# Functions below are also called as conditions, where bash does not end at a failure by itself: each step says `|| return`.

# install_missing COMMAND PACKAGE ...: Debian packages for commands that are not there.
install_missing() {
    local packages=() sudo=()
    while [ $# -gt 0 ]; do
        command -v "$1" >/dev/null || packages+=("$2")
        shift 2
    done
    [ ${#packages[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || sudo=(sudo -n)
    command -v apt-get >/dev/null || die "missing: ${packages[*]}; install them and run this again"
    say "installing ${packages[*]}"
    "${sudo[@]}" apt-get update -qq >&2 || return
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -qq -y --no-install-recommends "${packages[@]}" >&2 </dev/null
}

need_toolchain() {
    command -v cargo >/dev/null || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH=$HOME/.cargo/bin:$PATH
    command -v cargo >/dev/null || die "no cargo in PATH; Rust is the one thing that these scripts do not install"
    install_missing cc build-essential
}

# A Python that can make environments of its own, which Debian packs apart.
need_python() {
    install_missing python3 python3 || return
    python3 -c 'import ensurepip' 2>/dev/null || install_missing python3-venv-is-missing python3-venv
}

# sim ARGUMENT ...: the simulator, with the agent's own code built to run rather than to be quick to build: three times
# as many histories a second. Everything that it depends on stays as the other tests built it.
sim() { cargo test --config 'profile.dev.package.agent.opt-level=1' --workspace --locked --test sim -- "$@"; }

# chaos ARGUMENT ...: five real daemons and what goes wrong with them, in network namespaces if there may be some.
chaos() {
    [ "$(id -u)" != 0 ] || install_missing ip iproute2 iptables iptables
    cargo test --workspace --locked --test chaos -- "$@"
}

# What `--version` says: the commit, and whether the tree differs from it. Nothing where there is no git: agent/build.rs
# then looks for what `git archive` left.
name_commit() {
    local commit
    [ "$(git -C "$root" rev-parse --show-toplevel 2>/dev/null)" = "$root" ] || return 0
    commit=$(git -C "$root" rev-parse --short=12 HEAD 2>/dev/null) || return 0
    [ -z "$(git -C "$root" status --porcelain --untracked-files=no)" ] || commit+=+changes
    export DISCO_COMMIT=$commit
}

# Builds target/bin/{disco,discod}: one static file each, with the options of those that ship.
build_release() { release_of -p agent -p ctl && link_release disco discod; }
# Builds target/bin/memprof: who asks must not be what is slow. On its own, so that its features do not reach the programs above.
build_memprof() { release_of -p memprof && link_release memprof; }
release_of() {
    need_toolchain
    name_commit
    # Not position-independent: relocated pointers would be a megabyte of private memory in each process.
    RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static -C relocation-model=static -C force-unwind-tables=no" \
        cargo build --release --locked --target "$(host)" "$@" --bins
}
link_release() {
    mkdir -p target/bin
    # Links, not copies: what runs is what was built last.
    ln -sf "${@/#/../$(host)/release/}" target/bin/
}

# bare_cluster BIN FOLDER: three nodes in that new folder, with nothing declared: the control plane alone.
bare_cluster() {
    local name
    name=$(basename "$2")
    mkdir "$2"
    "$1/disco" --dir "$2" init --provider local >/dev/null 2>&1 || return
    sed -i "s/name: \"[a-z]*\", provider/name: \"$name\", provider/" "$2/client.js"
    cat >"$2/cluster.js" <<EOF_JS
export async function init() {
  return new Cluster({ name: "$name", provider: await LocalProvider.init({ name: "local" }) });
}
export function configure() {}
EOF_JS
    "$1/disco" --dir "$2" bootstrap --yes >/dev/null 2>"$2/bootstrap.log" || { cat "$2/bootstrap.log" >&2; return 1; }
}

# end_instances DIR: ends what still runs from a project folder's own copies of discod, then their tasks, and nothing else.
end_instances() {
    local dir pid exe file
    dir=$(cd "$1" && pwd -P)
    for file in "$dir"/.disco/instances/*/pid; do
        [ -f "$file" ] || continue
        read -r pid _ <"$file" || [ -n "$pid" ] || continue
        exe=$(readlink "/proc/$pid/exe" 2>/dev/null) || continue
        case $exe in
            "$dir"/.disco/*) kill -9 "$pid" 2>/dev/null || true ;;
        esac
    done
    for file in "$dir"/.disco/instances/*/instance.json; do
        [ -f "$file" ] || continue
        for pid in $(tasks_at "$(sed -n 's/.*"address": *"\([0-9.]*\).*/\1/p' "$file")"); do
            kill -9 "$pid" 2>/dev/null || true
        done
    done
    for file in "$dir"/.disco/instances/*/data/identity.toml; do
        [ -f "$file" ] || continue
        remove_groups "$(sed -n 's/^node *= *"\([0-9a-f]*\)".*/\1/p' "$file")"
    done
}

# remove_groups NODE: the control groups that a node of this id kept its tasks in. What was killed may take a moment to go.
remove_groups() {
    [ -n "$1" ] || return 0
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        find /sys/fs/cgroup -depth -type d -path "*/disco-$1*" -exec rmdir {} \; 2>/dev/null || true
        [ -n "$(find /sys/fs/cgroup -type d -name "disco-$1" 2>/dev/null)" ] || return 0
        sleep 0.1
    done
}

# tasks_at ADDRESS: processes that a node of this address started as tasks; it told them so.
tasks_at() {
    local file
    [ -n "$1" ] || return 0
    for file in /proc/[0-9]*/environ; do
        grep -zqxF "DISCO_ADDRESS=$1" "$file" 2>/dev/null && basename "$(dirname "$file")"
    done
    return 0
}

# service_addresses EXAMPLE SERVICE: where its tasks listen, one host:port a line.
service_addresses() {
    target/bin/disco --dir "$root/scripts/examples/$1" service ls | awk -v name="$2" '$1 == name' | grep -oE '[0-9]+(\.[0-9]+){3}:[0-9]+' || true
}

# http_get HOST:PORT: the reply's body; nothing but bash, because a bare machine has no curl.
http_get() {
    local line
    exec 3<>"/dev/tcp/${1%:*}/${1##*:}" || return
    printf 'GET / HTTP/1.0\r\n\r\n' >&3
    while read -r -t 2 line <&3 && [ "${line%$'\r'}" ]; do :; done
    timeout 2 cat <&3
    exec 3>&-
}

now_ms() { date +%s%3N; }

# seconds_since MS: "4.2"
seconds_since() {
    local ms=$(($(now_ms) - $1))
    printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100))
}

# cloud_python: a Python that has moto and boto3, in $tools/cloud; made when it is asked for first.
cloud_python() {
    local folder=$tools/cloud
    mkdir -p "$folder"
    (
        flock 9
        [ -e "$folder/complete" ] && exit 0
        need_python || exit
        rm -rf "$folder/venv"
        python3 -m venv "$folder/venv" >&2 || exit
        say "installing moto and boto3 into $folder"
        "$folder/venv/bin/pip" install -q --disable-pip-version-check 'moto[server]==5.*' boto3 >&2 || exit
        touch "$folder/complete"
    ) 9>"$folder/lock" || die "cannot make a Python with moto in $folder"
    echo "$folder/venv/bin/python"
}

# next_write COMMAND...: seconds until it succeeds, from now; an attempt that takes 0.3 s is given up and made again.
next_write() {
    local begun
    begun=$(now_ms)
    until timeout 0.3 "$@" >/dev/null 2>&1; do
        [ $(($(now_ms) - begun)) -lt 60000 ] || { echo never; return; }
    done
    seconds_since "$begun"
}

# ticks PID...: hundredths of a second of CPU that they took so far.
ticks() {
    local pid
    for pid in "$@"; do sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null || true; done | awk '{ t += $12 + $13 } END { print t + 0 }'
}

# leading FIELD DISCO ARGUMENT...: that field of the node that leads.
leading() {
    local field=$1
    shift
    "$@" status --json | python3 -c 'import json,sys; print(next(n[sys.argv[1]] for n in json.load(sys.stdin)["nodes"] if n["leader"]))' "$field"
}

# etcd_member FOLDER N NET: becomes member N (1 to 3) of an etcd cluster on loopback, everything else as etcd would have it.
etcd_member() {
    local all= n
    for n in 1 2 3; do all+=m$n=http://$3.$n:2380,; done
    exec etcd --name "m$2" --data-dir "$1/etcd$2" --listen-peer-urls "http://$3.$2:2380" --initial-advertise-peer-urls "http://$3.$2:2380" \
        --listen-client-urls "http://$3.$2:2379" --advertise-client-urls "http://$3.$2:2379" --initial-cluster "${all%,}" >>"$1/etcd$2.log" 2>&1
}
# etcd_here NET: etcdctl means that cluster.
etcd_here() { export ETCDCTL_API=3 ETCDCTL_ENDPOINTS=http://$1.1:2379,http://$1.2:2379,http://$1.3:2379; }
# Which member leads, counted from 0; nothing while none does.
etcd_leader() {
    etcdctl endpoint status -w json 2>/dev/null | python3 -c 'import json,sys
for place, member in enumerate(json.load(sys.stdin)):
    if member["Status"]["leader"] == member["Status"]["header"]["member_id"]: print(place)'
}
