//! What turns a machine into a node: a user, three folders, a configuration and a systemd unit.
//!
//! The same words are used however they get there: by `disco` over SSH, or by a launch's user-data. Whoever installs puts
//! the program at [`PROGRAM_NEW`] and the configuration at [`CONFIG_NEW`] (root's, mode 0600) and runs [`setup`] as root. It
//! looks at what is already so, so it may be cut off anywhere and run again.

use crate::model::ids::ClusterId;
use std::net::IpAddr;

pub use toml::Table;

pub const USER: &str = "disco";
pub const DATA_DIR: &str = "/var/lib/disco";
pub const PROGRAM: &str = "/usr/local/bin/discod";
/// Where a program waits, already checked, to become [`PROGRAM`].
pub const PROGRAM_NEW: &str = "/usr/local/bin/.discod.new";
pub const CONFIG: &str = "/etc/disco/disco.toml";
/// Where a configuration waits to become [`CONFIG`].
pub const CONFIG_NEW: &str = "/etc/disco/.disco.toml.new";
/// The systemd unit's name.
pub const UNIT: &str = "disco.service";

/// `/etc/systemd/system/disco.service`.
///
/// Tasks are the daemon's children and share its view of the disk, so what would take a folder away from them while the
/// daemon restarts (`PrivateTmp`) is not asked for. `DelegateSubgroup` is systemd 254's; without it the daemon could not be
/// started again beside tasks that have control groups, so [`setup`] takes delegation out for older ones.
pub const UNIT_TEXT: &str = "\
[Unit]
Description=Disco node
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=/usr/local/bin/discod --config /etc/disco/disco.toml
ExecReload=/bin/kill -HUP $MAINPID
User=disco
Group=disco
Restart=always
RestartSec=1
TimeoutStartSec=infinity
KillMode=process
Delegate=yes
DelegateSubgroup=disco-daemon
OOMPolicy=continue
OOMScoreAdjust=-500
LimitNOFILE=65536
TasksMax=infinity
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ReadWritePaths=/var/lib/disco /tmp /var/tmp
ProtectHome=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectHostname=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes

[Install]
WantedBy=multi-user.target
";

/// The script, for a POSIX shell. Its output is for the person; its exit code says whether the node runs.
pub fn setup() -> String {
    SETUP.replace("@UNIT@", UNIT_TEXT)
}

const SETUP: &str = r#"set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
fail() { echo "$*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail 'this has to run as root'
[ -d /run/systemd/system ] || fail 'systemd does not run on this machine'
# A shell leaves ~NAME as it is if there is no such user.
home=~disco
case $home in
    /var/lib/disco) ;;
    '~disco') useradd --system --user-group --home-dir /var/lib/disco --no-create-home --shell /usr/sbin/nologin disco ;;
    *) fail "there is a user \`disco\` on this machine that is not ours: its home is $home, not /var/lib/disco" ;;
esac
mkdir -p /etc/disco /var/lib/disco
chown root:disco /etc/disco && chmod 750 /etc/disco
chown disco:disco /var/lib/disco && chmod 700 /var/lib/disco
changed=
if [ -f /usr/local/bin/.discod.new ]; then
    chown root:root /usr/local/bin/.discod.new && chmod 755 /usr/local/bin/.discod.new
    sync /usr/local/bin/.discod.new
    mv -f /usr/local/bin/.discod.new /usr/local/bin/discod
    changed=yes
fi
[ -x /usr/local/bin/discod ] || fail 'there is no /usr/local/bin/discod'
if [ -f /etc/disco/.disco.toml.new ]; then
    chown root:disco /etc/disco/.disco.toml.new && chmod 640 /etc/disco/.disco.toml.new
    sync /etc/disco/.disco.toml.new
    mv -f /etc/disco/.disco.toml.new /etc/disco/disco.toml
    changed=yes
fi
[ -f /etc/disco/disco.toml ] || fail 'there is no /etc/disco/disco.toml'
unit=/etc/systemd/system/disco.service
cat >$unit.new <<'END_OF_UNIT'
@UNIT@END_OF_UNIT
version=$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
[ "${version:-0}" -ge 254 ] || sed -i '/^Delegate/d' $unit.new
if cmp -s $unit.new $unit; then
    rm -f $unit.new
else
    chmod 644 $unit.new
    mv -f $unit.new $unit
    changed=yes
fi
systemctl daemon-reload
systemctl enable disco.service >/dev/null 2>&1
# A restart is not waited for: joining may take longer than a connection lives.
if [ -n "$changed" ]; then systemctl --no-block restart disco.service; else systemctl --no-block start disco.service; fi
"#;

/// Takes everything away again: the node with its tasks, its data, the unit, the user. Also a script for root. A user of
/// that name who has another home is somebody else: neither the user nor its processes are touched.
pub const REMOVAL: &str = r#"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
systemctl disable disco.service >/dev/null 2>&1
systemctl stop disco.service >/dev/null 2>&1
ours() { home=~disco; [ "$home" = /var/lib/disco ]; }
# The unit leaves tasks running; they are the user's only processes.
if ours; then
    own() { for status in /proc/[0-9]*/status; do
        [ "$(sed -n 's/^Uid:[^0-9]*\([0-9]*\).*/\1/p' "$status" 2>/dev/null)" != "$(id -u disco)" ] || basename "${status%/status}"
    done; }
    for signal in TERM TERM KILL; do
        left=$(own)
        [ -n "$left" ] || break
        kill -$signal $left 2>/dev/null
        for _ in 1 2 3 4 5 6 7 8 9 10; do [ -n "$(own)" ] || break; sleep 0.2; done
    done
fi
rm -f /etc/systemd/system/disco.service /etc/systemd/system/disco.service.new /usr/local/bin/discod /usr/local/bin/.discod.new
rm -f /usr/local/bin/.discod.new.part.*
systemctl daemon-reload >/dev/null 2>&1
# The deepest first; one in which something runs stays.
find /sys/fs/cgroup -depth -type d -path '*/disco.service/*' -exec rmdir {} \; 2>/dev/null
rm -rf /etc/disco /var/lib/disco
! ours || userdel disco >/dev/null 2>&1
[ ! -e /usr/local/bin/discod ] && [ ! -e /var/lib/disco ]
"#;

/// How a node that is installed now comes to its cluster.
#[derive(Debug, Clone)]
pub enum Beginning<'a> {
    Originate,
    Join { seeds: &'a [String], token: &'a str },
}

/// What a node on a machine of its own is told.
#[derive(Debug, Clone)]
pub struct NodeConfig<'a> {
    pub name: &'a str,
    /// The provider's name of the machine; empty where the cluster does not manage machines.
    pub instance: &'a str,
    /// `host:port` for the others.
    pub address: &'a str,
    pub cluster: ClusterId,
    pub cluster_name: &'a str,
    pub beginning: Beginning<'a>,
    /// The section `[provider]`.
    pub provider: toml::Table,
}

impl NodeConfig<'_> {
    /// `disco.toml`.
    pub fn text(&self) -> String {
        let mut table = toml::Table::new();
        let cluster = self.cluster.to_string();
        for (key, value) in [
            ("data_dir", DATA_DIR),
            ("name", self.name),
            ("advertise", self.address),
            ("cluster_id", &cluster),
            ("cluster_name", self.cluster_name),
        ] {
            table.insert(key.into(), value.into());
        }
        if !self.instance.is_empty() {
            table.insert("instance".into(), self.instance.into());
        }
        // Machines at loopback addresses share one network: each listens at its own.
        if is_loopback(self.address) {
            table.insert("listen".into(), self.address.into());
        }
        match &self.beginning {
            Beginning::Originate => {
                table.insert("originate".into(), true.into());
            }
            Beginning::Join { seeds, token } => {
                table.insert("seeds".into(), seeds.to_vec().into());
                table.insert("token".into(), (*token).into());
            }
        }
        if !self.provider.is_empty() {
            table.insert("provider".into(), self.provider.clone().into());
        }
        table.to_string()
    }
}

/// Whether `host:port` is a loopback address.
fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config<'a>(address: &'a str, beginning: Beginning<'a>) -> toml::Table {
        let provider = [("kind".to_owned(), "hosts".into())].into_iter().collect();
        let config = NodeConfig { name: "n1", instance: "i-1", address, cluster: ClusterId(7), cluster_name: "lab", beginning, provider };
        config.text().parse().expect("it is TOML")
    }

    #[test]
    fn a_configuration_says_how_the_node_begins_and_what_others_call_it() {
        let first = config("10.0.0.1:5080", Beginning::Originate);
        assert_eq!(first["originate"].as_bool(), Some(true));
        assert_eq!(first["advertise"].as_str(), Some("10.0.0.1:5080"));
        assert_eq!(first["cluster_id"].as_str(), Some("0000000000000007"));
        assert!(!first.contains_key("listen") && !first.contains_key("token"), "{first}");
        let seeds = ["10.0.0.1:5080".to_owned()];
        let second = config("127.9.0.2:5080", Beginning::Join { seeds: &seeds, token: "DISCO1-a-b" });
        assert_eq!(second["listen"].as_str(), Some("127.9.0.2:5080"));
        assert_eq!(second["seeds"].as_array().map(Vec::len), Some(1));
        assert!(second["token"].as_str() == Some("DISCO1-a-b") && !second.contains_key("originate"), "{second}");
        assert_eq!(second["provider"]["kind"].as_str(), Some("hosts"));
    }

    #[test]
    fn the_script_and_the_unit_name_the_same_places() {
        let script = setup();
        for place in [USER, DATA_DIR, PROGRAM, PROGRAM_NEW, CONFIG, CONFIG_NEW, UNIT, UNIT_TEXT] {
            assert!(script.contains(place), "{place}");
        }
        for place in [PROGRAM, CONFIG, DATA_DIR] {
            assert!(UNIT_TEXT.contains(place), "{place}");
        }
    }

    #[test]
    fn a_shell_understands_the_scripts() {
        for script in [setup(), REMOVAL.to_owned()] {
            let shell = std::process::Command::new("sh").arg("-n").stdin(std::process::Stdio::piped()).spawn();
            let mut shell = shell.expect("there is a shell");
            std::io::Write::write_all(&mut shell.stdin.take().expect("it is piped"), script.as_bytes()).expect("it reads");
            assert!(shell.wait().expect("it is ours").success());
        }
    }
}
