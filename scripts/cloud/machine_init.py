"""Number 1 of a test machine: mounts its disk, runs its user-data once, and its units for ever. See `machine`."""

import ctypes, json, os, pathlib, re, selectors, shlex, shutil, signal, socket, stat, subprocess, sys, time

LIBC = ctypes.CDLL(None, use_errno=True)
MS_BIND, MS_REC, MS_PRIVATE, MS_NOSUID, MS_NODEV, MS_RDONLY = 0x1000, 0x4000, 0x40000, 2, 4, 1
UNITS = [pathlib.Path("/etc/systemd/system"), pathlib.Path("/usr/lib/systemd/system"), pathlib.Path("/lib/systemd/system")]
WANTS = pathlib.Path("/etc/systemd/system/multi-user.target.wants")
CONTROL = "/run/machine.sock"
CLONE_NEWCGROUP = 0x02000000

# What stands in for systemctl and journalctl: asks number 1, reads its logs.
SYSTEMCTL = r'''#!/usr/bin/python3
import json, socket, sys
words = [w for w in sys.argv[1:] if not w.startswith("-")]
flags = [w for w in sys.argv[1:] if w.startswith("-")]
ask = {"verb": words[0] if words else "", "units": words[1:], "flags": flags}
if "--version" in flags: ask["verb"] = "version"
try:
    door = socket.socket(socket.AF_UNIX); door.connect("/run/machine.sock")
except OSError:
    sys.exit("System has not been booted with systemd as init system (PID 1). Can't operate.")
door.sendall(json.dumps(ask).encode() + b"\n")
answer = json.loads(door.makefile().readline())
if answer["text"] and "--quiet" not in flags and "-q" not in flags: print(answer["text"])
sys.exit(answer["code"])
'''
JOURNALCTL = r'''#!/bin/sh
unit= lines=10
while [ $# -gt 0 ]; do case $1 in -u) unit=${2%.service}; shift ;; -n) lines=$2; shift ;; esac; shift; done
exec tail -n "$lines" "/var/log/units/$unit.service.log"
'''


def check(result, what):
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(source, target, kind=None, flags=0, options=None):
    encode = lambda text: text.encode() if text else None
    pathlib.Path(target).mkdir(parents=True, exist_ok=True)
    check(LIBC.mount(encode(source), encode(str(target)), encode(kind), flags, encode(options)), f"mount {target}")


def mount_disk(folder, base, hidden):
    check(LIBC.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "make mounts private")
    upper, work, root = folder / "disk", folder / "work", folder / "root"
    for path in (work, root):
        path.mkdir(exist_ok=True)
    if upper.exists():
        return mount_over(upper, work, root)
    upper.mkdir()
    for name in hidden:
        place = upper / name
        if not place.exists():
            place.mkdir(parents=True)
            os.setxattr(place, "trusted.overlay.opaque", b"y")
    # Not a layer of its own: overlays refuse layers that lie within each other.
    subprocess.run(["cp", "-a", "--reflink=auto", f"{base}/.", upper], check=True)
    mount_over(upper, work, root)


def mount_over(upper, work, root):
    try:
        mount("overlay", root, "overlay", 0, f"lowerdir=/,upperdir={upper},workdir={work}")
    except OSError as error:
        raise SystemExit(f"{error}; DISCO_MACHINES has to be a folder on a real disk or tmpfs, not in a container's own layers") from error
    mount("proc", root / "proc", "proc")
    mount("sysfs", root / "sys", "sysfs", MS_RDONLY)
    mount("/dev", root / "dev", None, MS_BIND | MS_REC)
    mount("tmpfs", root / "run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    mount("tmpfs", root / "tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    os.chdir(root)
    number = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
    check(LIBC.syscall(number, b".", b"."), "pivot_root")
    check(LIBC.umount2(b".", 2), "leave the host's files")
    os.chdir("/")


def write(path, text, mode=0o644):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def home(user):
    return pathlib.Path("/root" if user == "root" else f"/home/{user}")


def authorize(user, keys):
    folder = home(user) / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    with open(folder / "authorized_keys", "a") as file:
        file.write("".join(key.strip() + "\n" for key in keys))
    (folder / "authorized_keys").chmod(0o600)
    for path in (folder, folder / "authorized_keys"):
        shutil.chown(path, user, user)


def provision(settings):
    """The first boot: what an image has and cloud-init adds before sshd starts."""
    user = settings["user"]
    for name, fields in (("passwd", 2), ("group", 2)):
        path = pathlib.Path("/etc", name)
        lines = [line for line in path.read_text().splitlines() if int(line.split(":")[fields]) < 1000 and not line.startswith(("disco:", "sshd:"))]
        lines += {"passwd": ["sshd:x:998:65534::/run/sshd:/usr/sbin/nologin"], "group": []}[name]
        if user != "root":
            lines.append({"passwd": f"{user}:x:1000:1000::/home/{user}:/bin/sh", "group": f"{user}:x:1000:"}[name])
        path.write_text("\n".join(lines) + "\n")
    # An account without a password is not a locked one: sshd lets keys in.
    write("/etc/shadow", f"root:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n" + (f"{user}:*:19000:0:99999:7:::\n" if user != "root" else ""), 0o640)
    for path in ("/etc/gshadow", "/etc/nologin", "/etc/ssh/ssh_config.d"):
        pathlib.Path(path).unlink(missing_ok=True) if not pathlib.Path(path).is_dir() else None
    pathlib.Path("/root").chmod(0o700)
    for path in ("/etc/disco", "/var/lib/disco"):
        pathlib.Path(path).rmdir()
    pathlib.Path("/var/tmp").chmod(0o1777)
    if user != "root":
        home(user).mkdir(mode=0o755)
        shutil.chown(home(user), user, user)
    write("/etc/hostname", settings["name"] + "\n")
    write("/etc/hosts", f"127.0.0.1 localhost\n{settings['address']} {settings['name']}\n")
    write("/etc/ssh/sshd_config", "\n".join([
        "Port 22", f"ListenAddress {settings['address']}", "HostKey /etc/ssh/ssh_host_ed25519_key", "PasswordAuthentication no",
        "KbdInteractiveAuthentication no", "UsePAM no", "PrintMotd no", "Subsystem sftp /usr/lib/openssh/sftp-server", "",
    ]))
    write("/etc/pam.d/sudo", "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_permit.so\n")
    write("/etc/pam.d/doas", "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_permit.so\n")
    become = settings["become"]
    if become == "sudo":
        write("/etc/sudoers", f"Defaults secure_path=\"/usr/sbin:/usr/bin:/sbin:/bin\"\nroot ALL=(ALL) ALL\n{user} ALL=(ALL) NOPASSWD: ALL\n", 0o440)
    elif become == "doas":
        write("/etc/doas.conf", f"permit nopass {user}\n", 0o400)
    for name in {"sudo", "doas"} - {become}:
        pathlib.Path("/usr/bin", name).unlink(missing_ok=True)
    if isinstance(settings["systemd"], int) and settings["systemd"]:
        write("/usr/bin/systemctl", SYSTEMCTL, 0o755)
        write("/usr/bin/journalctl", JOURNALCTL, 0o755)
    elif not settings["systemd"]:
        for name in ("systemctl", "journalctl"):
            pathlib.Path("/usr/bin", name).unlink(missing_ok=True)
    WANTS.mkdir(parents=True)
    (WANTS / "ssh.service").symlink_to("/usr/lib/systemd/system/ssh.service")
    if settings["authorized_key"]:
        authorize(user, [settings["authorized_key"]])
    key = pathlib.Path("/etc/ssh/ssh_host_ed25519_key")
    config = cloud_config(settings["user_data"])
    given = settings["host_key"] or config.get("ssh_keys", {}).get("ed25519_private")
    if given:
        write(key, given if given.endswith("\n") else given + "\n", 0o600)
        public = subprocess.run(["ssh-keygen", "-y", "-f", key], check=True, capture_output=True, text=True).stdout
        write(f"{key}.pub", public)
    else:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    if config.get("ssh_authorized_keys"):
        authorize(user, config["ssh_authorized_keys"])
    for file in config.get("write_files", []):
        write(file["path"], file.get("content", ""), int(str(file.get("permissions", "0644")), 8))


def cloud_config(user_data):
    """What `#cloud-config` says; JSON is YAML too."""
    if not (user_data or "").startswith("#cloud-config"):
        return {}
    text = user_data.split("\n", 1)[1]
    try:
        return json.loads(text)
    except ValueError:
        import yaml

        return yaml.safe_load(text) or {}


def run_user_data(user_data, environment):
    """What cloud-init runs at the end of the first boot, with its output where people look for it."""
    log = os.open("/var/log/cloud-init-output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    folder = pathlib.Path("/var/lib/cloud/instance/scripts")
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "part-001"
    if user_data.startswith("#!"):
        script.write_text(user_data)
    else:
        quoted = [w if isinstance(w, str) else shlex.join(map(str, w)) for w in cloud_config(user_data).get("runcmd", [])]
        script.write_text("#!/bin/sh\n" + "\n".join(quoted) + "\n")
    script.chmod(0o700)
    code = subprocess.run([script], cwd="/", stdin=subprocess.DEVNULL, env=os.environ | environment).returncode
    write("/var/lib/cloud/instance/boot-finished", f"{code}\n")


class Unit:
    """One service: what its file says, and what became of it."""

    # As systemd's DefaultEnvironment.
    everywhere = {}

    def __init__(self, name):
        self.name, self.state, self.pid, self.again_at, self.wanted, self.waiting = name, "inactive", None, None, False, []
        self.notify, self.kill_at, self.then_start = None, None, False

    def load(self):
        path = next((folder / self.name for folder in UNITS if (folder / self.name).exists()), None)
        self.said = {}
        for line in path.read_text().splitlines() if path else []:
            key, sign, value = line.strip().partition("=")
            if sign and not key.startswith(("#", ";")):
                self.said.setdefault(key.strip(), []).append(value.strip())
        return path is not None

    def last(self, key, otherwise=""):
        return self.said.get(key, [otherwise])[-1]

    def environment(self):
        values = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **Unit.everywhere}
        for text in self.said.get("Environment", []):
            values.update(word.split("=", 1) for word in shlex.split(text) if "=" in word)
        for name in self.said.get("EnvironmentFile", []):
            path = pathlib.Path(name.lstrip("-"))
            for line in path.read_text().splitlines() if path.exists() else []:
                key, sign, value = line.strip().partition("=")
                if sign and not key.startswith("#"):
                    values[key] = value.strip("\"'")
        return values

    def words(self, text, values):
        for word in shlex.split(text.lstrip("-+!@:")):
            if re.fullmatch(r"\$\w+", word):
                yield from values.get(word[1:], "").split()
            else:
                yield re.sub(r"\$\{?(\w+)\}?", lambda m: values.get(m[1], ""), word)


class Init:
    def __init__(self, settings):
        self.settings, self.units, self.selector = settings, {}, selectors.DefaultSelector()
        self.heard, wake = socket.socketpair()
        wake.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self.wake = wake
        self.selector.register(self.heard, selectors.EVENT_READ, self.reap)
        if settings["systemd"]:
            pathlib.Path("/run/systemd/system").mkdir(parents=True)
            door = socket.socket(socket.AF_UNIX)
            door.bind(CONTROL)
            os.chmod(CONTROL, 0o666)
            door.listen(16)
            self.selector.register(door, selectors.EVENT_READ, lambda: self.accept(door))
        pathlib.Path("/var/log/units").mkdir(parents=True, exist_ok=True)

    def unit(self, name):
        name = name if "." in name else name + ".service"
        return self.units.setdefault({"sshd.service": "ssh.service"}.get(name, name), Unit({"sshd.service": "ssh.service"}.get(name, name)))

    def start(self, unit):
        if unit.pid:
            return True
        if not unit.load():
            return False
        unit.wanted, unit.again_at = True, None
        values = unit.environment()
        notify = unit.last("Type", "simple") == "notify"
        if unit.notify:
            self.selector.unregister(unit.notify)
            unit.notify.close()
            unit.notify = None
        if notify:
            path = f"/run/notify-{unit.name}"
            pathlib.Path(path).unlink(missing_ok=True)
            unit.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            unit.notify.bind(path)
            os.chmod(path, 0o777)
            values["NOTIFY_SOCKET"] = path
            self.selector.register(unit.notify, selectors.EVENT_READ, lambda: self.notified(unit))
        for name in unit.last("RuntimeDirectory").split():
            pathlib.Path("/run", name).mkdir(exist_ok=True, mode=0o755)
        log = os.open(f"/var/log/units/{unit.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        words = list(unit.words(unit.last("ExecStart"), values))
        unit.state = "activating" if notify else "active"
        unit.pid = os.fork()
        if unit.pid == 0:
            self.become(unit, words, values, log)
        os.close(log)
        return True

    def become(self, unit, words, values, log):
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            for number, target in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
                os.dup2(number, target)
            os.closerange(3, 256)
            os.umask(int(unit.last("UMask", "0022"), 8))
            os.chdir(unit.last("WorkingDirectory", "/"))
            if unit.last("NoNewPrivileges") in ("yes", "true"):
                LIBC.prctl(38, 1, 0, 0, 0)
            user = unit.last("User")
            if user:
                import grp, pwd

                entry = pwd.getpwnam(user)
                os.initgroups(user, grp.getgrnam(unit.last("Group")).gr_gid if unit.last("Group") else entry.pw_gid)
                os.setgid(grp.getgrnam(unit.last("Group")).gr_gid if unit.last("Group") else entry.pw_gid)
                os.setuid(entry.pw_uid)
                values |= {"HOME": entry.pw_dir, "USER": user, "LOGNAME": user}
            os.execve(words[0], words, values)
        except BaseException as error:
            os.write(2, f"{unit.name}: {error}\n".encode())
        os._exit(203)

    def stop(self, unit):
        unit.wanted, unit.again_at = False, None
        if unit.pid:
            unit.state = "deactivating"
            os.kill(unit.pid, signal.SIGTERM)
            unit.kill_at = time.monotonic() + 10
        else:
            unit.state = "inactive"

    def notified(self, unit):
        if b"READY=1" in unit.notify.recv(4096) and unit.state == "activating":
            unit.state = "active"
            self.answer_waiting(unit)

    def answer_waiting(self, unit):
        for connection, sought in unit.waiting[:]:
            if unit.state == sought or sought == "active" and unit.state in ("failed", "inactive"):
                unit.waiting.remove((connection, sought))
                self.reply(connection, 0 if unit.state == sought else 1, "" if unit.state == sought else f"Job for {unit.name} failed.")

    def reap(self):
        self.heard.recv(4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for unit in self.units.values():
                if unit.pid == pid:
                    self.ended(unit, os.waitstatus_to_exitcode(status))

    def ended(self, unit, code):
        unit.pid, unit.kill_at = None, None
        restart = unit.last("Restart", "no")
        if unit.wanted and (restart == "always" or restart == "on-failure" and code != 0):
            unit.state = "activating"
            unit.again_at = time.monotonic() + float(unit.last("RestartSec", "0.1").rstrip("s"))
        else:
            unit.state = "failed" if unit.wanted and code != 0 else "inactive"
        if unit.then_start:
            unit.then_start = False
            self.start(unit)
        self.answer_waiting(unit)

    def accept(self, door):
        connection, _ = door.accept()
        connection.settimeout(2)
        try:
            line = connection.makefile().readline()
            self.ask(connection, json.loads(line))
        except (OSError, ValueError) as error:
            self.reply(connection, 1, str(error))

    def reply(self, connection, code, text=""):
        try:
            connection.sendall(json.dumps({"code": code, "text": text}).encode() + b"\n")
        except OSError:
            pass
        connection.close()

    def ask(self, connection, asked):
        verb, names, flags = asked["verb"], asked["units"], asked["flags"]
        if verb in ("daemon-reload", "reset-failed"):
            return self.reply(connection, 0)
        if verb == "version":
            return self.reply(connection, 0, f"systemd {self.settings['systemd']} (a stand-in)")
        if not names:
            return self.reply(connection, 1, f"Too few arguments: {verb}.")
        unit = self.unit(names[0])
        if verb == "is-active":
            return self.reply(connection, 0 if unit.state == "active" else 3, unit.state)
        if verb == "status":
            return self.reply(connection, 0 if unit.state == "active" else 3, f"{unit.name}: {unit.state}, main process {unit.pid}")
        if not unit.load():
            return self.reply(connection, 5, f"Unit {unit.name} not found.")
        if verb == "show":
            return self.reply(connection, 0, f"MainPID={unit.pid or 0}\nActiveState={unit.state}")
        if verb in ("enable", "disable", "is-enabled"):
            link = WANTS / unit.name
            if verb == "is-enabled":
                return self.reply(connection, 0 if link.is_symlink() else 1, "enabled" if link.is_symlink() else "disabled")
            link.unlink(missing_ok=True)
            if verb == "enable":
                link.symlink_to(next(folder / unit.name for folder in UNITS if (folder / unit.name).exists()))
            if "--now" not in flags:
                return self.reply(connection, 0)
            verb = {"enable": "start", "disable": "stop"}[verb]
        if verb in ("reload", "kill"):
            if unit.pid:
                os.kill(unit.pid, signal.SIGHUP if verb == "reload" else signal.SIGTERM)
            return self.reply(connection, 0 if unit.pid else 1)
        if verb in ("restart", "try-restart", "reload-or-restart") and unit.pid:
            self.stop(unit)
            unit.then_start = True
        elif verb in ("start", "restart", "reload-or-restart"):
            self.start(unit)
        elif verb == "stop":
            self.stop(unit)
        else:
            return self.reply(connection, 1, f"Unknown command verb {verb}.")
        sought = "inactive" if verb == "stop" else "active"
        if "--no-block" in flags:
            return self.reply(connection, 0)
        unit.waiting.append((connection, sought))
        self.answer_waiting(unit)

    def run(self):
        while True:
            now = time.monotonic()
            for unit in self.units.values():
                if unit.again_at and now >= unit.again_at:
                    self.start(unit)
                if unit.kill_at and now >= unit.kill_at and unit.pid:
                    os.kill(unit.pid, signal.SIGKILL)
            due = [t for unit in self.units.values() for t in (unit.again_at, unit.kill_at) if t]
            for key, _ in self.selector.select(max(0.01, min(due) - now) if due else None):
                key.data()


def take_control_group(folder):
    """A control group of its own to begin in, the root of what this machine sees; `machine` removes it."""
    mounts = [line.split() for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
    top = next((pathlib.Path(words[1]) for words in mounts if words[2] == "cgroup2"), None)
    if top is None:
        raise SystemExit("there are no control groups (v2) here, and systemd wants them")
    own = top / f"disco-machine-{start_of_own()}"
    (folder / "control_group").write_text(str(own))
    own.mkdir()
    (own / "cgroup.procs").write_text("0")
    check(LIBC.unshare(CLONE_NEWCGROUP), "take a control group")


def start_of_own():
    """When this process began, in ticks: no two machines begin at once, because that takes longer."""
    return pathlib.Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]


def prepare_systemd(environment):
    """What systemd finds: no other unit than it needs itself and ours, for the machine shares the host's kernel settings."""
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
    mount("tmpfs", "/dev", "tmpfs", MS_NOSUID, "mode=755")
    for name, minor in (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)):
        os.mknod(f"/dev/{name}", 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        os.chmod(f"/dev/{name}", 0o666)
    os.symlink("/proc/self/fd", "/dev/fd")
    for wants in UNITS[1].glob("*.target.wants"):
        for unit in wants.iterdir():
            mask = UNITS[0] / unit.name
            if not unit.name.startswith("systemd-journald") and not mask.is_symlink():
                mask.symlink_to("/dev/null")
    pairs = " ".join(json.dumps(f"{name}={value}") for name, value in environment.items())
    write("/etc/systemd/system.conf", f"[Manager]\nDefaultEnvironment={pairs}\n")


def become_systemd():
    words = ["systemd", "--system", "--unit=multi-user.target", "--log-target=console", "--show-status=false"]
    os.execve("/usr/lib/systemd/systemd", words, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "container": "machine"})


def listens(address):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, 22)) == 0


def wait_for_sshd(address):
    deadline = time.monotonic() + 15
    while not listens(address):
        if time.monotonic() > deadline:
            raise SystemExit("sshd does not listen")
        time.sleep(0.01)


def main():
    folder, base, said, hidden = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4].split(",")
    settings = json.loads((folder / "machine.json").read_text())
    environment = settings.get("environment", {})
    real = settings["systemd"] == "real"
    if listens(settings["address"]):
        raise SystemExit(f"something listens at {settings['address']}:22 already")
    if real:
        take_control_group(folder)
    public = os.open(folder / "host_key.pub", os.O_WRONLY | os.O_CREAT, 0o644)
    mount_disk(folder, base, hidden)
    socket.sethostname(settings["name"])
    os.umask(0o022)
    first = not pathlib.Path("/var/lib/machine-provisioned").exists()
    if first:
        provision(settings)
        os.write(public, pathlib.Path("/etc/ssh/ssh_host_ed25519_key.pub").read_bytes())
        pathlib.Path("/var/lib/machine-provisioned").touch()
    os.close(public)
    pathlib.Path("/run/sshd").mkdir(exist_ok=True)
    if real:
        prepare_systemd(environment)
    else:
        Unit.everywhere = environment
        init = Init(settings)
        for link in sorted(WANTS.iterdir()):
            init.start(init.unit(link.name))
    # Its own process, because number 1 has other things to do from here on.
    if os.fork() == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        wait_for_sshd(settings["address"])
        os.write(said, b"ready\n")
        os.close(said)
        if first and settings["user_data"]:
            run_user_data(settings["user_data"], environment)
        os._exit(0)
    os.close(said)
    become_systemd() if real else init.run()


main()
