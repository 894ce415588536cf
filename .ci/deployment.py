"""docker-compose.yml, started under a project name of its own: what the tests of the containers share."""
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASES = ["debian:bookworm-slim", "rust:1.95-slim-bookworm"]
BROKERS = ["broker1", "broker2", "broker3"]
# The same code, built in half the time.
QUICK_BUILD = ["CARGO_PROFILE_RELEASE_OPT_LEVEL=1", "CARGO_PROFILE_RELEASE_LTO=off"]


class Unable(Exception):
    """This machine cannot run containers; the text says why."""


def run(*command, check=True, timeout=120, env=None):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, env=env)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def until(what, seconds, condition):
    """Waits for a condition to hold and gives its value; fails with the last one seen."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what} (last: {value!r})")
        time.sleep(0.5)


class Broker:
    """The line protocol, as much of it as counting needs, and what it says over HTTP."""

    def __init__(self, port, http_port):
        self.port, self.http_port = port, http_port

    def get(self, path):
        """The status, and the body where it is JSON."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=5) as answer:
                body = answer.read()
                return answer.status, json.loads(body) if body[:1] in b"[{" else body
        except urllib.error.HTTPError as error:
            return error.code, None
        except OSError:
            return None, None

    def post(self, path, order):
        """The status and the answer to an order."""
        url, body = f"http://127.0.0.1:{self.http_port}{path}", json.dumps(order).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def first_line(self, line):
        """The answer to a command that is answered by one line, ERR or not."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=15) as connection:
            connection.sendall(line.encode() + b"\n")
            return connection.makefile("rb").readline().decode().rstrip("\n").split("|")

    def ask(self, line):
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(line.encode() + b"\n")
            answer = []
            for raw in connection.makefile("rb"):
                fields = raw.decode().rstrip("\n").split("|")
                if fields[0] == "ERR":
                    raise RuntimeError(f"{line}: {'|'.join(fields)}")
                answer.append(fields)
                if fields[0] in ("END", "PONG"):
                    return answer
        raise RuntimeError(f"{line}: the broker closed")

    def answers(self):
        try:
            return self.ask("PING|ci")[-1] == ["PONG", "ci"]
        except (OSError, RuntimeError):
            return False

    def ends(self):
        """The next offset of each partition."""
        return {int(p[1]): int(p[4]) for p in self.ask("CLUSTER") if p[0] == "PARTITION"}

    def records(self, pattern="metrics/docker/#"):
        """Every record that matches: {(partition, offset): (topic, payload)}."""
        found = {}
        for partition, end in self.ends().items():
            at = 0
            while at < end:
                answer = self.ask(f"FETCH|{pattern}|{at}|{partition}|10000|0")
                for message in answer[:-1]:
                    found[int(message[3]), int(message[2])] = (message[1], json.loads(message[5]))
                at = dict(map(int, pair.split(":")) for pair in answer[-1][2].split(","))[partition]
        return found


class Deployment:
    """docker-compose.yml, started under a project of its own."""

    def __init__(self, compose, project, settings=None):
        self.compose_command, self.project = compose, project
        self.brokers = [Broker(free_port(7000 + n), free_port(7070 + n)) for n in range(len(BROKERS))]
        self.env = dict(os.environ, **(settings or {}))
        for name, broker in zip(BROKERS, self.brokers):
            self.env[f"{name.upper()}_PORT"] = str(broker.port)
            self.env[f"{name.upper()}_HTTP_PORT"] = str(broker.http_port)

    def build(self):
        """Builds the images, quickly: with less of what the compiler can do."""
        started = time.monotonic()
        quick = [word for setting in QUICK_BUILD for word in ("--build-arg", setting)]
        self.compose("--profile", "stress", "build", *quick, timeout=1400)
        print(f"built in {time.monotonic() - started:.0f} s", flush=True)

    def up(self, **options):
        self.compose("up", "-d", "--no-build", **options)

    def remove(self, *more):
        """Containers, network and volumes; the images too with `--rmi local`."""
        self.compose("--profile", "stress", "down", "-v", "--remove-orphans", *more, timeout=180)

    @property
    def broker(self):
        """One that answers: any will do."""
        return until("a broker that answers", 60, lambda: next(filter(Broker.answers, self.brokers), None))

    def signal(self, how, *services):
        """Docker's own kill, stop or start, for all of them at once."""
        run("docker", *how, *(self.any_container(service) for service in services))

    def any_container(self, service):
        """The container of a service, also when it does not run."""
        labels = [f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}"]
        return run("docker", "ps", "-aq", *(part for label in labels for part in ("--filter", f"label={label}"))).strip()

    def whole(self):
        """Waits until all brokers are there and no copy is behind."""

        def is_whole():
            views = [broker.get("/cluster")[1] for broker in self.brokers]
            ready = all(broker.get("/readyz")[0] == 200 for broker in self.brokers)
            view = views[0]
            return ready and view and all(
                group["leader"] and len(group["replicas"]) == len(BROKERS) and all(r["behind"] < 50 for r in group["replicas"])
                for group in view["groups"]
            )

        until("a whole cluster", 90, is_whole)

    def compose(self, *arguments, **options):
        return run(*self.compose_command, "-p", self.project, *arguments, env=self.env, **options)

    def exec(self, service, *command, **options):
        return self.compose("exec", "-T", service, *command, **options)

    def container(self, service):
        return self.compose("--profile", "stress", "ps", "-q", service).strip()

    def logs(self, service):
        return run("docker", "logs", self.container(service))

    def inspect(self, service, what):
        return run("docker", "inspect", "-f", what, self.container(service)).strip()

    def processed(self):
        """What the consumer's lines say it processed, in order: [(partition, offset, topic)]."""
        lines = re.findall(r"(metrics/docker/\S+) .*\(p(\d+)@(\d+)\)", self.logs("consumer1"))
        return [(int(partition), int(offset), topic) for topic, partition, offset in lines]


def free_port(wanted):
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
                return probe.getsockname()[1]
            except OSError:
                continue
    raise RuntimeError("no free port")


def find_compose():
    if not shutil.which("docker"):
        raise Unable("docker is not installed")
    if subprocess.run(["docker", "info"], capture_output=True).returncode != 0:
        raise Unable("no Docker engine answers")
    for command in (["docker-compose"], ["docker", "compose"]):
        if shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True).returncode == 0:
            return command
    raise Unable("neither docker-compose nor `docker compose` is installed")


def find_base_images():
    def missing():
        return [b for b in BASES if subprocess.run(["docker", "image", "inspect", b], capture_output=True).returncode != 0]

    maker = ROOT.parent / "shared/tools/base-images"
    if missing() and maker.exists():
        subprocess.run([maker], timeout=600)
    for base in missing():
        subprocess.run(["docker", "pull", "-q", base], timeout=300)
    if missing():
        raise Unable(f"the base images {', '.join(missing())} are not here and cannot be had")


def check_all(checks, d):
    """Runs each, prints a line for each; how many passed, and how many failed."""
    passed, failed = 0, 0
    for check in checks:
        started = time.monotonic()
        name = check.__name__.replace("_", " ")
        try:
            said = check(d)
            passed += 1
            print(f"ok     {name} ({time.monotonic() - started:.0f} s{'; ' + said if said else ''})", flush=True)
        except (AssertionError, RuntimeError, OSError, LookupError, subprocess.SubprocessError) as error:
            failed += 1
            print(f"FAILED {name}: {error or type(error).__name__}", flush=True)
            # What a check has stopped must not fail those behind it.
            d.up(check=False)
    return passed, failed
