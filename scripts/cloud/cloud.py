"""A test cloud: moto with signature checking and strict validation, behind our proxy, and a strict metadata service.

Starts all of it on loopback addresses of its own, makes four users, prints what a client's environment needs, one
NAME=value a line, then `ready`. It ends when its standard input ends, and takes everything with it.

  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY   of `disco`, who may do what README.md's policy says
  ADMIN_..., NOBODY_...                      of one who may do everything, and one who may do nothing
  PASSER_...                                 of one who names a role, and of IAM may do only what that needs
  AWS_ENDPOINT_URL_EC2, AWS_ENDPOINT_URL_IAM the proxy; CLOUD_ORDERS is where it takes orders (proxy.py)
  CLOUD_MOTO                                 moto itself
  DISCO_MACHINES                             with --machines: where `machine run INSTANCE ...` finds them
  AWS_EC2_METADATA_SERVICE_ENDPOINT          the metadata service, with the role `disco`
"""

import argparse, ctypes, json, os, pathlib, random, signal, socket, subprocess, sys, tempfile, time

import boto3
from botocore.config import Config
from botocore.credentials import Credentials

import imds, proxy

HERE = pathlib.Path(__file__).resolve().parent
REGION = "eu-central-1"
START_MAX = 60
IMAGE = {"state": "available", "public": True, "image_location": "amazon/ubuntu", "root_device_type": "ebs", "root_device_name": "/dev/sda1",
         "description": "Canonical, Ubuntu", "image_type": "machine", "virtualization_type": "hvm", "hypervisor": "xen"}


def free(host):
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def start_moto(host, folder):
    images = [{**IMAGE, **image} for image in json.loads((HERE / "images.json").read_text())]
    (folder / "images.json").write_text(json.dumps(images))
    # The first three calls make the administrator; from then on every call is checked.
    environment = os.environ | {
        "INITIAL_NO_AUTH_ACTION_COUNT": "3", "MOTO_AMIS_PATH": str(folder / "images.json"), "MOTO_ENABLE_AMI_VALIDATION": "1",
        "MOTO_ENABLE_KEYPAIR_VALIDATION": "1", "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "1",
    }
    port = free(host)
    log = open(folder / "moto.log", "w")
    moto = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent)
    deadline = time.monotonic() + START_MAX
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) == 0:
                return moto, (host, port)
        if moto.poll() is not None or time.monotonic() > deadline:
            sys.exit("error: moto does not start:\n" + (folder / "moto.log").read_text()[-2000:])
        time.sleep(0.05)


def client(service, address, credentials):
    return boto3.client(service, endpoint_url="http://%s:%d" % address, region_name=REGION, config=Config(retries={"total_max_attempts": 1}),
                        aws_access_key_id=credentials.access_key, aws_secret_access_key=credentials.secret_key, aws_session_token=credentials.token)


def make_user(iam, name, policy):
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    if policy:
        iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=policy)
    return Credentials(key["AccessKeyId"], key["SecretAccessKey"])


def allow(*actions):
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]})


def policy(names_role=False):
    """README's policy; for `*` in place of names, because moto asks for nothing finer."""
    document = json.loads((HERE / "policy.json").read_text())
    for statement in document["Statement"]:
        statement["Resource"] = "*"
        if names_role and statement["Sid"] == "OnlyWithARole":
            statement["Action"] = ["iam:PassRole"]
    return json.dumps(document)


def main():
    parser = argparse.ArgumentParser(prog="up", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", action="store_true", help="a running instance is a machine (scripts/cloud/machine); needs root")
    given = parser.parse_args()
    # Addresses of its own for each cloud, so that several can run at once.
    network = f"127.{random.randint(16, 62)}"
    host = f"{network}.{random.randint(0, 255)}.{random.randint(1, 250)}" if not given.machines else f"{network}.0.1"
    with tempfile.TemporaryDirectory(prefix="disco-cloud-") as folder:
        folder = pathlib.Path(folder)
        moto, address = start_moto(host, folder)
        machines = None
        try:
            admin = make_user(client("iam", address, Credentials("x", "y")), "admin", allow("*"))
            iam = client("iam", address, admin)
            disco = make_user(iam, "disco", policy())
            nobody = make_user(iam, "nobody", None)
            passer = make_user(iam, "passer", policy(names_role=True))
            trust = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]})
            iam.create_role(RoleName="disco", AssumeRolePolicyDocument=trust)
            iam.put_role_policy(RoleName="disco", PolicyName="all", PolicyDocument=policy())
            sts = client("sts", address, admin)
            known = {each.access_key: each for each in (admin, disco, nobody, passer)}

            def issue(role="disco"):
                arn = f"arn:aws:iam::123456789012:role/{role}"
                given = sts.assume_role(RoleArn=arn, RoleSessionName="machine")["Credentials"]
                known[given["AccessKeyId"]] = Credentials(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
                return given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], time.time() + 6 * 3600

            if given.machines:
                import machines as hook

                machines = hook.Machines(network, issue)
            front = proxy.Proxy(address, admin, known, machines)
            if machines:
                machines.proxy = front
            ec2 = proxy.serve((host, 0), proxy.forms(front), front.now)
            said = {
                "AWS_ACCESS_KEY_ID": disco.access_key, "AWS_SECRET_ACCESS_KEY": disco.secret_key, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION,
                "AWS_ENDPOINT_URL_EC2": f"http://{ec2}", "AWS_ENDPOINT_URL_IAM": f"http://{ec2}",
                "ADMIN_ACCESS_KEY_ID": admin.access_key, "ADMIN_SECRET_ACCESS_KEY": admin.secret_key,
                "NOBODY_ACCESS_KEY_ID": nobody.access_key, "NOBODY_SECRET_ACCESS_KEY": nobody.secret_key,
                "PASSER_ACCESS_KEY_ID": passer.access_key, "PASSER_SECRET_ACCESS_KEY": passer.secret_key,
                "CLOUD_ORDERS": "http://" + proxy.serve((host, 0), proxy.orders(front)), "CLOUD_MOTO": "http://%s:%d" % address,
                "CLOUD_PYTHON": sys.executable,
                "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://" + imds.start((host, 0), imds.Imds("disco", issue, {"/latest/meta-data/placement/region": REGION})),
            }
            if machines:
                said["DISCO_MACHINES"] = str(machines.folder)
            for name, value in said.items():
                print(f"{name}={value}")
            print("ready", flush=True)
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            while os.read(0, 4096):
                pass
        finally:
            if machines:
                machines.end()
            moto.kill()
            moto.wait()


main()
