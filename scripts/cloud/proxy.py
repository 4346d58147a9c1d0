"""What moto is not: a cloud that is slow, forgetful and busy.

Stands in front of moto and lets requests through unchanged, so that moto checks their signatures. What it adds:

  - a client token makes RunInstances idempotent; the same token with other parameters is IdempotentParameterMismatch
  - a clock that is off by more than five minutes is RequestExpired
  - describes lag: what was done less than `lag` seconds ago is not seen yet (EC2 promises nothing, 30 s happen)
  - listings come in pages, also those that moto gives whole; `page` makes them small
  - refusals and fingerprints in EC2's words, where moto has others
  - on demand: throttling, broken servers, requests and answers that get lost

A second address takes orders, as JSON:

  POST /settings {"lag": 3.0, "page": 5, "clock_ahead": 3600}
  POST /faults   {"action": "RunInstances", "kind": "lose_reply", "times": 1}     kinds: see Faults; "*" means every action
  GET  /log      every request since the last DELETE /log, the oldest first       DELETE /log, DELETE /faults
"""

import base64, collections, hashlib, html, http.client, http.server, json, re, threading, time, urllib.parse
import xml.etree.ElementTree as ET
from datetime import datetime, timezone
from email.utils import formatdate

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
SKEW_MAX = 5 * 60
LOG_MAX = 5000
# The list in each listing's answer that is cut into pages.
LISTS = {
    "DescribeInstances": "reservationSet", "DescribeImages": "imagesSet", "DescribeSecurityGroups": "securityGroupInfo",
    "DescribeTags": "tagSet", "DescribeVpcs": "vpcSet", "DescribeSubnets": "subnetSet", "DescribeInstanceTypes": "instanceTypeSet",
    "DescribeInstanceStatus": "instanceStatusSet", "DescribeSpotPriceHistory": "spotPriceHistorySet",
}
STATES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}

Reply = collections.namedtuple("Reply", "status headers body")


def refusal(status, code, message):
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>00000000-0000-4000-8000-000000000000</RequestID></Response>'
    return Reply(status, {"Content-Type": "text/xml"}, body.encode())


def parse(body):
    """XML without its namespace, which moto does not always write."""
    root = ET.fromstring(body)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def in_words_of_ec2(request, reply):
    """A refusal with the code that EC2 has for it."""
    ids = [value for key, value in request.form.items() if key.startswith("InstanceId.")]
    malformed = any(not re.fullmatch("i-([0-9a-f]{8}|[0-9a-f]{17})", id) for id in ids)
    codes = {"AccessDenied": "UnauthorizedOperation", "InvalidInstanceType.NotFound": "InvalidParameterValue",
             "InvalidInstanceID.NotFound": "InvalidInstanceID.Malformed" if malformed else "InvalidInstanceID.NotFound"}
    code = lambda match: b"<Code>" + codes.get(match[1].decode(), match[1].decode()).encode() + b"</Code>"
    return Reply(reply.status, reply.headers, re.sub(rb"<Code>([^<]*)</Code>", code, reply.body))


def render(root):
    root.set("xmlns", NAMESPACE)
    return ET.tostring(root, encoding="utf-8", xml_declaration=True)


class Lost(Exception):
    """The connection ends without an answer."""


class Request:
    """One signed form."""

    def __init__(self, method, path, headers, body):
        self.method, self.path, self.headers, self.body = method, path, headers, body
        self.form = dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True))
        self.action = self.form.get("Action", "")
        authorization = headers.get("Authorization", "")
        part = lambda name: authorization.partition(name + "=")[2].partition(",")[0]
        self.scope = (part("Credential").split("/") + [""] * 5)[:5]
        self.key, self.region, self.service = self.scope[0], self.scope[2], self.scope[3]
        self.signed, self.signature = part("SignedHeaders").split(";"), part("Signature")

    def has_signature_of(self, credentials):
        headers = {name: value for name, value in self.headers.items() if name.lower() in self.signed}
        request = AWSRequest(method=self.method, url=f"http://{self.headers['Host']}{self.path}", data=self.body, headers=headers)
        request.context["timestamp"] = self.headers.get("X-Amz-Date", "")
        auth = SigV4Auth(credentials, self.service, self.region)
        return auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request) == self.signature


class Faults:
    """What shall go wrong, how often."""

    # throttle: refused, nothing done. error_before, error_after: a broken server that did nothing, or all.
    # lose_request, lose_reply: the connection ends, nothing done, or all. slow: the answer comes after `seconds`.
    # refuse: with `code`, and `status` if it is not 400; nothing done. late: all done at once, answered after `seconds`.
    KINDS = ("throttle", "error_before", "error_after", "lose_request", "lose_reply", "slow", "refuse", "late")

    def __init__(self):
        self.lock, self.list = threading.Lock(), []

    def add(self, fault):
        if fault.get("kind") not in self.KINDS:
            raise ValueError(f"kind is one of {', '.join(self.KINDS)}")
        with self.lock:
            self.list.append({"action": "*", "times": 1, **fault})

    def clear(self):
        with self.lock:
            self.list.clear()

    def take(self, action, kinds):
        with self.lock:
            for fault in self.list:
                if fault["kind"] in kinds and fault["action"] in ("*", action) and fault["times"] > 0:
                    fault["times"] -= 1
                    return fault
        return None


class Proxy:
    def __init__(self, moto, admin, known, machines=None):
        """`moto` is (host, port), `admin` may do everything, `known` are the credentials by access key."""
        self.moto, self.admin, self.known, self.machines = moto, admin, known, machines
        self.settings = {"lag": 0.0, "page": 0, "clock_ahead": 0.0}
        self.faults, self.lock = Faults(), threading.Lock()
        self.log = collections.deque(maxlen=LOG_MAX)
        self.tokens = {}  # (account's region, client token) -> [lock, parameters, ids, reply]
        self.region = None
        self.fingerprints = {}  # moto's -> EC2's
        self.history = {}  # instance -> [(when, state)]

    def now(self):
        return time.time() + self.settings["clock_ahead"]

    # --- one request -------------------------------------------------------------------------------------------------

    def answer(self, request):
        entry = {"action": request.action, "key": request.key, "form": request.body.decode(), "path": request.path,
                 "headers": {name.lower(): value for name, value in request.headers.items()}, "status": None, "fault": None}
        with self.lock:
            self.log.append(entry)
        before = self.faults.take(request.action, ("throttle", "error_before", "lose_request", "slow", "refuse"))
        entry["fault"] = before and before["kind"]
        match entry["fault"]:
            case "lose_request":
                raise Lost
            case "throttle":
                reply = refusal(503, "RequestLimitExceeded", "Request limit exceeded.")
            case "refuse":
                reply = refusal(before.get("status", 400), before["code"], before.get("message", "No."))
            case "error_before":
                reply = refusal(500, "InternalError", "An internal error has occurred")
            case "slow":
                time.sleep(before.get("seconds", 1))
                reply = self.carry_out(request)
            case _:
                reply = self.carry_out(request)
        if not before and (after := self.faults.take(request.action, ("error_after", "lose_reply", "late"))):
            entry["fault"] = after["kind"]
            if after["kind"] == "late":
                time.sleep(after.get("seconds", 1))
                entry["status"] = reply.status
                return reply
            if after["kind"] == "lose_reply":
                raise Lost
            reply = refusal(500, "InternalError", "An internal error has occurred")
        entry["status"] = reply.status
        return reply

    def carry_out(self, request):
        if expired := self.check_clock(request):
            return expired
        if request.service != "ec2":
            return self.forward(self.loosened(request))
        self.region = request.region
        dry = request.form.get("DryRun") == "true"
        if request.action == "RunInstances" and request.form.get("ClientToken") and not dry:
            reply = self.launch_once(request)
        elif request.form.get("NextToken", "").startswith("from-"):
            reply = self.forward(self.without_page(request))
        else:
            reply = self.forward(request)
        if reply.status // 100 != 2:
            return in_words_of_ec2(request, reply)
        root = parse(reply.body)
        self.observe(request, root)
        if request.action == "DescribeInstances":
            root = self.lagging(request, root)
            if isinstance(root, Reply):
                return root
        if request.action in ("ImportKeyPair", "DescribeKeyPairs"):
            self.show_fingerprints(request, root)
        if request.action in LISTS:
            self.cut_page(request, root)
        if self.machines:
            self.machines.rewrite(request, root)
        return Reply(reply.status, reply.headers, render(root))

    def check_clock(self, request):
        try:
            then = datetime.strptime(request.headers.get("X-Amz-Date", ""), "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()
        except ValueError:
            return None  # moto says what is wrong
        if abs(then - self.now()) > SKEW_MAX:
            return refusal(400, "RequestExpired", "Request has expired.")
        return None

    def forward(self, request):
        connection = http.client.HTTPConnection(*self.moto, timeout=60)
        try:
            connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name.lower() not in ("connection", "content-length", "accept-encoding", "transfer-encoding"):
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(request.body)))
            connection.endheaders(request.body)
            response = connection.getresponse()
            return Reply(response.status, {"Content-Type": response.headers.get("Content-Type", "text/xml")}, response.read())
        finally:
            connection.close()

    def signed(self, credentials, region, form, service="ec2"):
        body = urllib.parse.urlencode({"Version": "2016-11-15", **form}).encode()
        host = "%s:%d" % self.moto
        signed = AWSRequest(method="POST", url=f"http://{host}/", data=body, headers={"Content-Type": "application/x-www-form-urlencoded", "Host": host})
        SigV4Auth(credentials, service, region).add_auth(signed)
        return Request("POST", "/", dict(signed.headers.items()), body)

    def ask(self, region, form, service="ec2"):
        """Asks moto as the administrator."""
        reply = self.forward(self.signed(self.admin, region, form, service))
        return parse(reply.body) if reply.status == 200 else None

    def ask_all(self, form):
        """The same, of the region that was last used."""
        return self.ask(self.region, form)

    def role_of(self, profile):
        root = self.ask("us-east-1", {"Action": "GetInstanceProfile", "Version": "2010-05-08", "InstanceProfileName": profile}, "iam")
        return None if root is None else root.findtext(".//RoleName")

    def loosened(self, request):
        """A role as moto can follow it: it asks for the resource `*`, whatever is done, and knows neither conditions nor
        EC2 as one who may take on a role."""
        part = {"PutRolePolicy": "PolicyDocument", "CreateRole": "AssumeRolePolicyDocument"}.get(request.action)
        credentials = self.known.get(request.key)
        if not part or not credentials or not request.has_signature_of(credentials):
            return request
        document = json.loads(request.form[part])
        for statement in document["Statement"]:
            statement.pop("Condition", None)
            if "Principal" in statement:
                statement["Principal"] = {"AWS": "*"}
            else:
                statement["Resource"] = "*"
        return self.signed(credentials, request.region, {**request.form, part: json.dumps(document)}, request.service)

    def without_page(self, request):
        """The same request without the mark of a page of ours, which moto does not know; signed anew for its sender."""
        credentials = self.known.get(request.key)
        if not credentials or not request.has_signature_of(credentials):
            return request
        return self.signed(credentials, request.region, {key: value for key, value in request.form.items() if key != "NextToken"})

    # --- client tokens -----------------------------------------------------------------------------------------------

    def launch_once(self, request):
        key = (request.region, request.form["ClientToken"])
        with self.lock:
            known = self.tokens.setdefault(key, [threading.Lock(), None, None, None])
        with known[0]:
            if known[1] is None:
                reply = self.forward(request)
                if reply.status == 200:
                    ids = [item.findtext("instanceId") for item in parse(reply.body).iter("item") if item.find("instanceState") is not None]
                    known[1:] = [request.form, ids, reply]
                return reply
            credentials = self.known.get(request.key)
            if not credentials or not request.has_signature_of(credentials):
                return self.forward(Request(request.method, request.path, request.headers, b"Action=DescribeRegions&Version=2016-11-15"))
            if known[1] != request.form:
                return refusal(400, "IdempotentParameterMismatch", "The client token is the same, the parameters are not.")
            # The instances as they are now.
            root = parse(known[3].body)
            fresh = self.ask(request.region, {"Action": "DescribeInstances", **{f"InstanceId.{n + 1}": id for n, id in enumerate(known[2])}})
            instances = root.find("instancesSet")
            if fresh is not None:
                for item in list(instances):
                    instances.remove(item)
                for found in fresh.iter("instancesSet"):
                    instances.extend(list(found))
            return Reply(200, known[3].headers, render(root))

    # --- describes that lag ------------------------------------------------------------------------------------------

    def observe(self, request, root):
        """Writes down what became of instances, and when."""
        if request.form.get("DryRun") == "true" or not request.action.endswith("Instances") or request.action.startswith("Describe"):
            return
        state = {"RunInstances": "running", "StartInstances": "running", "StopInstances": "stopped", "TerminateInstances": "terminated"}.get(request.action)
        set_ = root.find("instancesSet")
        if state is None or set_ is None:
            return
        with self.lock:
            for item in set_:
                seen = self.history.setdefault(item.findtext("instanceId"), [])
                if not seen or (seen[-1][1] != state and request.action != "RunInstances"):
                    seen.append((time.time(), state))
        if self.machines:
            self.machines.changed(request, root)

    def seen(self, instance, at):
        """An instance's state as it was then; None if it was not there."""
        states = [state for when, state in self.history.get(instance, [(0, None)]) if when <= at]
        return states[-1] if states else "hidden"

    def lagging(self, request, root):
        at = time.time() - self.settings["lag"]
        with self.lock:
            recent = any(when > at for states in self.history.values() for when, _ in states)
        if not recent or self.settings["lag"] <= 0:
            return root
        names = {key.split(".")[1]: value for key, value in request.form.items() if key.startswith("Filter.") and key.endswith(".Name")}
        by_state = {number for number, name in names.items() if name == "instance-state-name"}
        wanted = [value for key, value in request.form.items() if key.startswith("Filter.") and ".Value." in key and key.split(".")[1] in by_state]
        left_out = lambda key: key in ("MaxResults", "NextToken", "Version") or (key.startswith("Filter.") and key.split(".")[1] in by_state)
        fresh = self.ask(request.region, {key: value for key, value in request.form.items() if not left_out(key)})
        if fresh is None:
            return root
        asked = {value for key, value in request.form.items() if key.startswith("InstanceId.")}
        for reservation in list(fresh.iter("reservationSet"))[0][:]:
            instances = reservation.find("instancesSet")
            for item in list(instances):
                id = item.findtext("instanceId")
                state = self.seen(id, at)
                if state == "hidden":
                    if id in asked:
                        return refusal(400, "InvalidInstanceID.NotFound", f"The instance ID '{id}' does not exist")
                    instances.remove(item)
                    continue
                if state:
                    item.find("instanceState/name").text = state
                    item.find("instanceState/code").text = str(STATES[state])
                if wanted and item.findtext("instanceState/name") not in wanted:
                    instances.remove(item)
            if len(instances) == 0:
                fresh.find("reservationSet").remove(reservation)
        return fresh

    # --- fingerprints ------------------------------------------------------------------------------------------------

    def show_fingerprints(self, request, root):
        """EC2 shows SHA-256 in base64 for ED25519 keys, as OpenSSH does; moto shows hex of something else."""
        if request.action == "ImportKeyPair":
            kind, blob = base64.b64decode(request.form["PublicKeyMaterial"]).split()[:2]
            if kind == b"ssh-ed25519":
                digest = hashlib.sha256(base64.b64decode(blob)).digest()
                self.fingerprints[root.findtext("keyFingerprint")] = base64.b64encode(digest).decode()
        for shown in root.iter("keyFingerprint"):
            shown.text = self.fingerprints.get(shown.text, shown.text)

    # --- pages -------------------------------------------------------------------------------------------------------

    def cut_page(self, request, root):
        list_ = root.find(LISTS[request.action])
        if list_ is None or root.findtext("nextToken"):
            return  # moto cut it already
        size = min(int(request.form.get("MaxResults") or 1000), self.settings["page"] or 1000)
        token = request.form.get("NextToken", "")
        start = int(token.removeprefix("from-")) if token.startswith("from-") else 0
        items = list(list_)
        for item in items[:start] + items[start + size:]:
            list_.remove(item)
        if start + size < len(items):
            ET.SubElement(root, "nextToken").text = f"from-{start + size}"


def handler(respond, clock):
    """An HTTP/1.1 handler around `respond(method, path, headers, body) -> Reply`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body in one packet: with two, Nagle's algorithm waits for the other side's delayed acknowledgement.
        wbufsize, disable_nagle_algorithm = -1, True

        def respond(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                reply = respond(self.command, self.path, self.headers, body)
            except Lost:
                self.close_connection = True
                return
            except Exception as error:  # a bug of ours: say so instead of hanging up
                reply = refusal(599, "ProxyBug", html.escape(repr(error)))
            self.send_response_only(reply.status)
            self.send_header("Date", formatdate(clock(), usegmt=True))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = do_PUT = do_DELETE = respond

        def log_message(self, *_):
            pass

    return Handler


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass  # clients that hang up are what this is for


def serve(address, respond, clock=time.time):
    """Starts a server of its own threads; gives `host:port`."""
    server = Server(address, handler(respond, clock))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return "%s:%d" % server.server_address


def orders(proxy):
    """The second address."""

    def respond(method, path, _headers, body):
        said = {}
        match (method, path):
            case ("POST", "/settings"):
                given = json.loads(body)
                if unknown := given.keys() - proxy.settings.keys():
                    return Reply(400, {}, f"unknown: {', '.join(unknown)}\n".encode())
                proxy.settings.update(given)
                said = proxy.settings
            case ("POST", "/faults"):
                proxy.faults.add(json.loads(body))
            case ("DELETE", "/faults"):
                proxy.faults.clear()
            case ("GET", "/log"):
                with proxy.lock:
                    said = list(proxy.log)
            case ("DELETE", "/log"):
                with proxy.lock:
                    proxy.log.clear()
            case _:
                return Reply(404, {}, b"see scripts/cloud/proxy.py\n")
        return Reply(200, {"Content-Type": "application/json"}, json.dumps(said).encode())

    return respond


def forms(proxy):
    return lambda method, path, headers, body: proxy.answer(Request(method, path, headers, body))
