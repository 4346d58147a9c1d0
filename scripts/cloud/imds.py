"""A strict instance metadata service, version 2 (EC2 User Guide, "Use IMDS"): what moto answers without asking.

  - PUT /latest/api/token needs a time to live of 1 to 21600 seconds, and is refused to what a proxy passed on
  - everything else needs a token that has not run out
  - answers carry an IP time to live of one, the hop limit: they do not leave the machine
"""

import json, secrets, socket, threading, time

from proxy import Reply

TTL = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "X-aws-ec2-metadata-token"


class Imds:
    def __init__(self, role, issue, facts):
        """`issue()` gives new credentials of the role as (key, secret, token, expires); `facts` are paths and texts."""
        self.role, self.issue, self.facts = role, issue, facts
        self.lock, self.tokens, self.issued, self.refused = threading.Lock(), {}, 0, 0

    def respond(self, method, path, headers, _body):
        reply = self.token(headers) if path == "/latest/api/token" else self.read(method, path, headers)
        if reply.status in (400, 401, 403):
            self.refused += 1
        return reply

    def token(self, headers):
        if "X-Forwarded-For" in headers:
            return Reply(403, {}, b"")
        ttl = headers.get(TTL, "")
        if not ttl.isdigit() or not 1 <= int(ttl) <= 21600:
            return Reply(400, {}, b"")
        token = secrets.token_urlsafe(40)
        with self.lock:
            self.tokens[token] = time.monotonic() + int(ttl)
        return Reply(200, {TTL: ttl, "Content-Type": "text/plain"}, token.encode())

    def read(self, method, path, headers):
        if method != "GET":
            return Reply(405, {}, b"")
        if self.tokens.get(headers.get(TOKEN, ""), 0) <= time.monotonic():
            return Reply(401, {}, b"")
        folder = "/latest/meta-data/iam/security-credentials/"
        if path == folder and self.role:
            return Reply(200, {"Content-Type": "text/plain"}, self.role.encode())
        if path == folder + (self.role or "?"):
            key, secret, token, expires = self.issue()
            self.issued += 1
            given = {"Code": "Success", "LastUpdated": stamp(time.time()), "Type": "AWS-HMAC", "AccessKeyId": key,
                     "SecretAccessKey": secret, "Token": token, "Expiration": stamp(expires)}
            return Reply(200, {"Content-Type": "text/plain"}, json.dumps(given, indent=2).encode())
        if path in self.facts:
            return Reply(200, {"Content-Type": "text/plain"}, self.facts[path].encode())
        return Reply(404, {}, b"")


def stamp(at):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def start(address, imds):
    # Linux gives accepted connections the listening socket's time to live.
    import proxy

    class Near(proxy.Server):
        def server_bind(self):
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
            super().server_bind()

    server = Near(address, proxy.handler(imds.respond, time.time))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return "%s:%d" % server.server_address
