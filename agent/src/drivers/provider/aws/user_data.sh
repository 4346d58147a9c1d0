#!/bin/sh
# Written by Disco for this one machine: fetches discod from a node of its cluster and makes this machine one, too.
set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 077
say() { echo "disco: $*" >&2; }
work=$(mktemp -d /var/tmp/disco.XXXXXX)
trap 'rm -rf "$work"' EXIT
cat >"$work/ca.crt" <<'END_OF_CA'
@CA@
END_OF_CA
# In a file: what stands in a command line is seen by every process.
cat >"$work/token" <<'END_OF_TOKEN'
Authorization: Bearer @TOKEN@
END_OF_TOKEN
cat >"$work/disco.toml" <<'END_OF_CONFIG'
@CONFIG@
END_OF_CONFIG
case $(uname -m) in
    aarch64 | arm64) digest=@AARCH64@ ;;
    x86_64 | amd64) digest=@X86_64@ ;;
    *) digest=none ;;
esac
[ "$digest" != none ] || { say "there is no discod for $(uname -m)"; exit 1; }

# Who we are, from the machine's own metadata (IMDSv2).
metadata=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}
ask() { curl --silent --show-error --fail --noproxy '*' --max-time 5 --retry 20 --retry-connrefused --retry-delay 1 "$@"; }
session=$(ask -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$metadata/latest/api/token")
address=$(ask -H "X-aws-ec2-metadata-token: $session" "$metadata/latest/meta-data/local-ipv4"):5080
instance=$(ask -H "X-aws-ec2-metadata-token: $session" "$metadata/latest/meta-data/instance-id")

# The program, from whichever node gives it; what it is says its digest, not its giver.
fetch() { # FROM DIGEST
    curl --http2 --silent --show-error --fail --noproxy '*' --cacert "$work/ca.crt" --connect-to "node.disco:443:$1" \
        --connect-timeout 5 --max-time 300 -H "@$work/token" -o "$work/$2" "https://node.disco/artifact/$2" &&
        echo "$2  $work/$2" | sha256sum -c >/dev/null 2>&1
}
fetched=
pause=1
while [ -z "$fetched" ]; do
    for seed in @SEEDS@; do
        if fetch "$seed" "$digest"; then
            fetched=yes
            break
        fi
        say "no program from $seed yet"
    done
    [ -n "$fetched" ] || sleep $pause
    [ $pause -ge 30 ] || pause=$((pause * 2))
done

# The program for machines of the other kind, so that the cluster loses it with its last node only. Asked for once: whoever has
# it may be away, and this node does not need it.
other=@AARCH64@
[ "$other" != "$digest" ] || other=@X86_64@
if [ "$other" != none ]; then
    for seed in @SEEDS@; do ! fetch "$seed" "$other" || break; done
    [ -f "$work/$other" ] || say "no node gives away $other, the program for machines of another kind"
fi

mkdir -p /usr/local/bin /etc/disco
cp "$work/$digest" /usr/local/bin/.discod.new
{
    # Machines at loopback addresses share one network: each listens at its own.
    case $address in 127.*) echo "listen = \"$address\"" ;; esac
    sed -e "s/@ADDRESS@/$address/" -e "s/@INSTANCE@/$instance/" "$work/disco.toml"
} >/etc/disco/.disco.toml.new
@SETUP@
if [ -f "$work/$other" ] && echo "$other  $work/$other" | sha256sum -c >/dev/null 2>&1; then
    kept=/var/lib/disco/artifacts
    mkdir -p -m 700 $kept
    cp "$work/$other" "$kept/.$other.new"
    chown -R disco:disco $kept
    mv -f "$kept/.$other.new" "$kept/$other"
fi
