"""Gives every running instance of moto a machine (`machine`), and everything addresses at which one gets an answer.

moto makes up addresses that lead nowhere, or worse, somewhere. Here each becomes a loopback address: a private one is the
machine's own; a public one, elastic or not, is a door of ours that leads to the machine that has it now, as far as its
security groups let in the port and the caller's address (127.0.0.1, unless it was bound to another). An instance is `pending` until its machine answers. Each machine has a
metadata service of its own, at the address that AWS_EC2_METADATA_SERVICE_ENDPOINT tells its programs.
"""

import base64, contextlib, ipaddress, os, pathlib, queue, shutil, socket, subprocess, sys, tempfile, threading

import imds

HERE = pathlib.Path(__file__).resolve().parent
PORTS = (22, 5080)
FOLDERS = "disco-cloud-machines-"
ADDRESSES = {"privateIpAddress", "ipAddress", "publicIp", "publicIpAddress"}


class Machine:
    """One instance's, with a thread of its own that does one thing after the other."""

    def __init__(self, machines, id, address, arguments):
        self.machines, self.id, self.address, self.arguments = machines, id, address, arguments
        self.orders, self.lock, self.starts = queue.Queue(), threading.Lock(), 0
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()
        self.order("start")

    @property
    def starting(self):
        """Whether it was told to start and does not answer yet."""
        return self.starts > 0

    def work(self):
        for order in iter(self.orders.get, None):
            words = [order, self.id] + ([self.address, *self.arguments] if order == "start" else [])
            done = self.machines.run(*words)
            if done.returncode:
                print(f"machine {' '.join(words[:2])}: {done.stderr.strip()}", file=sys.stderr, flush=True)
            with self.lock:
                self.starts -= order == "start"

    def order(self, order):
        with self.lock:
            self.starts += order == "start"
            self.orders.put(order)

    def end(self):
        """Carries out what it was told, then nothing more. Waits for it."""
        self.orders.put(None)
        self.thread.join()


class Machines:
    def __init__(self, network, issue):
        """`network` is two numbers, `127.44`; `issue(role)` gives credentials of a role."""
        self.network, self.issue, self.lock = network, issue, threading.RLock()
        self.sweep()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{FOLDERS}{os.getpid()}-", dir="/var/tmp"))
        self.all, self.ending, self.mapped, self.doors, self.keys, self.proxy = {}, [], {}, {}, {}, None

    def sweep(self):
        """Ends the machines of clouds that were killed."""
        for folder in pathlib.Path("/var/tmp").glob(FOLDERS + "*"):
            owner = folder.name.removeprefix(FOLDERS).partition("-")[0]
            with contextlib.suppress(FileNotFoundError):
                if b"cloud.py" in pathlib.Path(f"/proc/{owner}/cmdline").read_bytes():
                    continue
            self.run("end-all", folder=folder)
            shutil.rmtree(folder, ignore_errors=True)

    def run(self, *words, folder=None):
        environment = os.environ | {"DISCO_MACHINES": str(folder or self.folder)}
        return subprocess.run([HERE / "machine", *words], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    # --- what the proxy tells ----------------------------------------------------------------------------------------

    def changed(self, request, root):
        """Instances were launched, started, stopped or terminated."""
        for item in root.find("instancesSet"):
            id = item.findtext("instanceId")
            with self.lock:
                known = self.all.get(id)
                if request.action == "RunInstances":
                    if not known:
                        self.all[id] = self.begin(id, item, request)
                elif known and request.action == "StartInstances":
                    known.order("start")
                elif known and request.action == "StopInstances":
                    known.order("stop")
                elif known and request.action == "TerminateInstances":
                    self.ending.append(self.all.pop(id))
                    self.ending[-1].order("remove")

    def imported(self, name, material):
        self.keys[name] = base64.b64decode(material).decode()

    def begin(self, id, item, request):
        address = self.map(item.findtext("privateIpAddress"))
        folder = self.folder / ".launches" / id
        folder.mkdir(parents=True)
        profile = request.form.get("IamInstanceProfile.Name")
        role = self.proxy.role_of(profile) if profile else None
        user_data = base64.b64decode(request.form.get("UserData", ""))
        facts = {"/latest/meta-data/instance-id": id, "/latest/meta-data/local-ipv4": address, "/latest/user-data": user_data.decode(),
                 "/latest/meta-data/placement/region": request.region}
        at = imds.start((f"{self.network}.0.1", 0), imds.Imds(role, lambda: self.issue(role), facts))
        arguments = ["--user", "ubuntu", "--environment", f"AWS_EC2_METADATA_SERVICE_ENDPOINT=http://{at}"]
        if key := self.keys.get(request.form.get("KeyName")):
            (folder / "key.pub").write_text(key)
            arguments += ["--authorized-key", str(folder / "key.pub")]
        if user_data:
            (folder / "user-data").write_bytes(user_data)
            arguments += ["--user-data", str(folder / "user-data")]
        return Machine(self, id, address, arguments)

    def rewrite(self, request, root):
        """Addresses that lead somewhere, and states as the machines have them."""
        if request.action == "ImportKeyPair":
            self.imported(request.form["KeyName"], request.form["PublicKeyMaterial"])
        for element in root.iter():
            if element.tag in ADDRESSES and element.text:
                element.text = self.map(element.text) if element.tag == "privateIpAddress" else self.door(element.text)
            elif element.tag in ("dnsName", "privateDnsName", "publicDnsName"):
                element.text = None
        for item in root.iter("item"):
            state, machine = item.find("instanceState"), self.all.get(item.findtext("instanceId"))
            if state is not None and machine and machine.starting and state.findtext("name") == "running":
                state.find("code").text, state.find("name").text = "0", "pending"

    # --- addresses ---------------------------------------------------------------------------------------------------

    def map(self, address):
        """Of moto's address; one of ours stays."""
        with self.lock:
            if address in self.mapped.values():
                return address
            if address not in self.mapped:
                number = len(self.mapped)
                self.mapped[address] = f"{self.network}.{1 + number // 250}.{1 + number % 250}"
            return self.mapped[address]

    def door(self, address):
        ours = self.map(address)
        with self.lock:
            if ours not in self.doors:
                self.doors[ours] = [Door(self, address, ours, port) for port in PORTS]
        return ours

    def behind(self, public, port, caller):
        """The machine that has moto's public address now, if its groups let the caller in."""
        root = self.proxy.ask_all({"Action": "DescribeInstances"})
        for item in root.iter("item"):
            if item.findtext("ipAddress") == public and item.findtext("instanceState/name") == "running":
                groups = {group.text for group in item.iter("groupId")}
                machine = self.all.get(item.findtext("instanceId"))
                return machine and machine.address if self.lets_in(groups, port, caller) else None
        return None

    def lets_in(self, groups, port, caller):
        root = self.proxy.ask_all({"Action": "DescribeSecurityGroups"})
        for group in root.find("securityGroupInfo"):
            for rule in group.find("ipPermissions") if group.findtext("groupId") in groups else ():
                first, last = int(rule.findtext("fromPort") or 0), int(rule.findtext("toPort") or 65535)
                ranges = [ipaddress.ip_network(range.text, strict=False) for range in rule.iter("cidrIp")]
                protocol = rule.findtext("ipProtocol")
                if (protocol == "-1" or protocol == "tcp" and first <= port <= last) and any(caller in range for range in ranges):
                    return True
        return False

    def end(self):
        with self.lock:
            begun, self.all = [*self.all.values(), *self.ending], {}
        # A machine that still starts would be one that nobody ends.
        for machine in begun:
            machine.end()
        self.run("end-all")
        shutil.rmtree(self.folder, ignore_errors=True)


class Door:
    """Takes connections at a public address and carries them to whoever has it."""

    def __init__(self, machines, public, ours, port):
        self.machines, self.public, self.port = machines, public, port
        self.listener = socket.create_server((ours, port), backlog=64)
        threading.Thread(target=self.open, daemon=True).start()

    def open(self):
        while True:
            connection, (caller, _) = self.listener.accept()
            threading.Thread(target=self.carry, args=(connection, ipaddress.ip_address(caller)), daemon=True).start()

    def carry(self, outside, caller):
        with outside, contextlib.suppress(OSError):
            address = self.machines.behind(self.public, self.port, caller)
            if not address:
                return
            with socket.create_connection((address, self.port), timeout=5) as inside:
                inside.settimeout(None)
                back = threading.Thread(target=pipe, args=(inside, outside), daemon=True)
                back.start()
                pipe(outside, inside)
                back.join()


def pipe(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
