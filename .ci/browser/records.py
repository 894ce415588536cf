"""Made-up records of MONITORING.md's shape: a house of containers of different kinds, and who sends
them to a broker, once a second."""
import json
import math
import random
import socket
import threading
import time

PRODUCER = "docker-host-1"
MIB = 1 << 20


def now_ms():
    return int(time.time() * 1000)


def container(name, image, cpu, memory, **more):
    base = dict(name=name, image=image, cpu=cpu, memory=memory, limit_cpus=0, limit_bytes=0, state="running",
                health="none", exit_code=0, oom=False, failed=0, restarts=0, net=4e3, disk=0, pids=9, throttled=0.0)
    return base | more


HOUSE = [
    container("web-1", "nginx:1.29", 12, 48, limit_bytes=256 * MIB, net=840e3, health="healthy", project="shop"),
    container("web-2", "nginx:1.29", 9, 45, limit_bytes=256 * MIB, net=790e3, health="healthy", project="shop"),
    container("api", "shop/api:2.14", 71, 412, limit_cpus=1, limit_bytes=512 * MIB, net=1.3e6, health="healthy", pids=38, project="shop"),
    container("postgres", "postgres:18", 34, 910, limit_bytes=1024 * MIB, disk=2.4e6, net=600e3, health="healthy", pids=27, project="shop"),
    container("redis", "redis:8", 3.2, 61, net=210e3, pids=6, project="shop"),
    container("worker", "shop/worker:2.14", 49.7, 233, limit_cpus=0.5, limit_bytes=256 * MIB, throttled=86, pids=14, project="shop"),
    container("mailer", "shop/mailer:1.3", 0.1, 38, health="unhealthy", project="shop"),
    container("importer", "shop/importer:0.9", 0, 0, state="restarting", exit_code=1, failed=1, restarts=41, project="shop"),
    container("report", "shop/report:0.4", 0, 0, state="exited", exit_code=137, oom=True, failed=1, restarts=3, limit_bytes=128 * MIB, project="shop"),
    container("migrate", "shop/api:2.14", 0, 0, state="exited", exit_code=0, project="shop"),
    container("grafana", "grafana/grafana:12.2", 1.4, 122, health="starting"),
    container("idle", "debian:bookworm-slim", 0, 0.6, pids=1),
]


def wave(one, ts, size=0.25):
    """A value that breathes, the same for a container and a moment whoever asks."""
    seed = sum(map(ord, one["name"]))
    slow = math.sin(ts / 47e3 + seed) + 0.6 * math.sin(ts / 13e3 + 2 * seed) + 0.4 * math.sin(ts / 3.1e6 + seed)
    return max(0.0, 1 + size * slow + random.Random(ts // 1000 * 31 + seed).uniform(-size, size) / 2)


def samples(one, ts):
    """The payloads of one container at a moment, by metric."""
    memory_limit = one["limit_bytes"] or 16384 * MIB
    state = {"value": int(one["state"] == "running"), "unit": "state", "state": one["state"], "health": one["health"],
             "exit_code": one["exit_code"], "oom_killed": one["oom"], "failed": one["failed"]}
    found = {"state": state, "restarts": {"value": one["restarts"], "unit": "count"}}
    if one["state"] == "running":
        cpu = one["cpu"] * wave(one, ts, 0.05 if one["throttled"] else 0.25)
        used = one["memory"] * MIB * wave(one, ts, 0.03)
        up, down = one["net"] * wave(one, ts) * 0.7, one["net"] * wave(one, ts + 5000) * 0.3
        read, written = one["disk"] * wave(one, ts, 0.6) * 0.2, one["disk"] * wave(one, ts + 9000, 0.8)
        total = ts % 10**8
        found |= {
            "cpu": {"value": cpu, "unit": "percent", "cpus": 8, "limit_cpus": one["limit_cpus"] or 8,
                    "limit_percent": cpu / (one["limit_cpus"] or 8), "usage_us": total * 1000},
            "memory": {"value": 100 * used / memory_limit, "unit": "percent", "bytes": int(used), "limit_bytes": memory_limit, "rss_bytes": int(used * 0.8)},
            "network": {"value": up + down, "unit": "bytes/s", "rx_bytes_s": down, "tx_bytes_s": up, "rx_bytes": total, "tx_bytes": total * 2,
                        "rx_errors": 0, "tx_errors": 0, "rx_dropped": 0, "tx_dropped": 0},
            "disk": {"value": read + written, "unit": "bytes/s", "read_bytes_s": read, "written_bytes_s": written, "read_bytes": total, "written_bytes": total * 3},
            "pids": {"value": one["pids"], "unit": "count", "limit": 512},
            "throttling": {"value": one["throttled"] * wave(one, ts, 0.1), "unit": "percent", "throttled_us": total},
            "pressure": {"value": one["throttled"] * 0.6 * wave(one, ts, 0.3), "unit": "percent", "cpu": 0, "memory": 0, "io": 0},
        }
    return {metric: {"ts": ts, **payload} for metric, payload in found.items()}


def host_samples(ts):
    host = {"name": "host"}
    return {
        "cpu": {"ts": ts, "value": 186 * wave(host, ts, 0.15), "unit": "percent", "cpus": 8, "limit_cpus": 8, "limit_percent": 23},
        "memory": {"ts": ts, "value": 41.3 * wave(host, ts, 0.01), "unit": "percent", "bytes": 6766 * MIB, "limit_bytes": 16384 * MIB},
        "disk": {"ts": ts, "value": 2.9e6 * wave(host, ts, 0.5), "unit": "bytes/s", "fs_used_percent": 63.4},
        "network": {"ts": ts, "value": 3.8e6 * wave(host, ts), "unit": "bytes/s", "rx_bytes_s": 1.2e6, "tx_bytes_s": 2.6e6},
        "cost": {"ts": ts, "value": 0.62, "unit": "percent", "bytes": 19 * MIB, "containers": len(HOUSE), "dropped": 0},
    }


def info(one, value=1, ts=None):
    ts = ts or now_ms()
    payload = {"ts": ts, "value": value, "unit": "present", "id": "c0ffee%06d" % (sum(map(ord, one["name"])) % 10**6), "image": one["image"],
               "created": ts - 90 * 3600 * 1000, "started": ts - 26 * 3600 * 1000, "limit_cpus": one["limit_cpus"], "limit_bytes": one["limit_bytes"], "source": "cgroup v2"}
    if "project" in one:
        payload |= {"com.docker.compose.project": one["project"], "com.docker.compose.service": one["name"].split("-")[0]}
    return payload


class Sender:
    """A connection that sends records and waits until they are stored."""

    def __init__(self, address, producer=PRODUCER):
        self.producer = producer
        self.socket = socket.create_connection(address, timeout=30)
        self.lines = self.socket.makefile("rb")
        self.lock = threading.Lock()
        self.ask(f"REGISTER_PRODUCER|{producer}|cumulative")

    def ask(self, line):
        self.socket.sendall(line.encode() + b"\n")
        return self.lines.readline().decode().rstrip("\n")

    def send(self, records):
        """Sends (topic, key, payload) records, all at once."""
        lines = []
        for topic, key, payload in records:
            text = json.dumps(payload).replace("\\", "\\\\")
            lines.append(f"PRODUCE|{topic}|{key}|{text}\n")
        with self.lock:
            self.socket.sendall("".join(lines).encode())
            left = len(lines)
            while left > 0:
                answer = self.lines.readline().decode()
                if not answer.startswith("ACKS|"):
                    raise OSError(f"not stored: {answer}")
                left -= int(answer[5:])

    def close(self):
        self.socket.close()


def of_container(one, ts, producer=PRODUCER):
    key = f"{producer}/{one['name']}"
    return [(f"metrics/docker/{key}/{metric}", key, payload) for metric, payload in samples(one, ts).items()]


def of_moment(ts, house=HOUSE, producer=PRODUCER):
    """Everything of one second."""
    host = [(f"metrics/docker/{producer}/{metric}", producer, payload) for metric, payload in host_samples(ts).items()]
    return host + [record for one in house for record in of_container(one, ts, producer)]


def rollups(minutes, ts, house=HOUSE, producer=PRODUCER):
    """The rollups of so many minutes that begin at `ts`."""
    found = []
    for topic, key, payload in of_moment(ts + minutes * 30000, house, producer):
        value = payload["value"]
        rollup = {"ts": ts, "value": value, "min": value * 0.8, "max": value * 1.25, "count": minutes * 60, "unit": payload["unit"]}
        for way in ("rx_bytes_s", "tx_bytes_s", "read_bytes_s", "written_bytes_s"):
            if way in payload:
                mean = payload[way]
                rollup |= {way: mean, f"{way}_min": mean * 0.8, f"{way}_max": mean * 1.25}
        found.append((f"rollup/{minutes}m/{topic}", key, rollup))
    return found


def infos(house=HOUSE, producer=PRODUCER):
    return [(f"info/docker/{producer}/{one['name']}", f"{producer}/{one['name']}", info(one)) for one in house]


def stories(producer=PRODUCER):
    """Events, alerts and deliveries that fit the house."""
    now = now_ms()
    minute = [round(30 + 1.05 * at + 4 * math.sin(at), 1) for at in range(60)]
    key = f"{producer}/report"
    events = [
        (f"events/docker/{key}", key, {"ts": now - 3600000, "value": 1, "unit": "event", "event": "start", "image": "shop/report:0.4"}),
        (f"events/docker/{key}", key, {"ts": now - 601000, "value": 1, "unit": "event", "event": "oom", "image": "shop/report:0.4", "last_cpu": minute, "last_memory": minute, "last_ts": now - 601000}),
        (f"events/docker/{key}", key, {"ts": now - 600000, "value": 1, "unit": "event", "event": "die", "exit_code": 137, "oom_killed": True, "failed": 1, "restarts": 3, "last_cpu": minute,
                                       "last_memory": minute, "last_memory_bytes": [int(m * 1.28 * MIB) for m in minute], "last_ts": now - 600500}),
    ]

    def alert(rule, metric, name, state, **more):
        topic = f"metrics/docker/{producer}/{name}/{metric}"
        payload = {"ts": now, "state": state, "rule": rule, "topic": topic, "severity": "warning", "since": now - 240000, "consumer": "alerts", **more}
        return (f"alerts/{rule}/{topic}", f"alerts/{rule}/{topic}", payload)

    alerts = [
        alert("container-oom", "state", "report", "firing", severity="critical", value=1, unit="state", limit=1, since=now - 600000,
              text=f"metrics/docker/{producer}/report/state: failed == 1; exit code 137, killed for memory, 3 restarts; memory ▂▃▄▅▆▇█ 91.9 %"),
        alert("container-memory", "memory", "worker", "firing", value=91.4, unit="percent", limit=90, text="memory 91.4 % of its limit of 256 MiB for 2 min"),
        alert("container-unhealthy", "state", "mailer", "firing", severity="critical", value=1, unit="state", limit=1, since=now - 5400000, text="mailer is unhealthy"),
        alert("container-cpu", "cpu", "api", "pending", value=93.1, unit="percent", limit=90, since=now - 40000, text="CPU 93.1 % of its limit"),
        alert("container-restarts", "restarts", "importer", "ok", value=2, unit="count", limit=3, since=now - 7200000, text="restarted less than 3 times in 10 min"),
    ]

    def delivery(ago, channel, status, rule, name, **more):
        payload = {"ts": now - ago, "id": f"{rule}-{ago}", "status": status, "rule": rule, "topic": f"metrics/docker/{producer}/{name}/state", "state": "firing", **more}
        return (f"deliveries/alerts/{channel}", f"deliveries/alerts/{channel}", payload)

    deliveries = [
        delivery(590000, "whatsapp", "delivered", "container-oom", "report"),
        delivery(5390000, "webhook", "failed", "container-unhealthy", "mailer", reason="ntfy answered 502; went on to e-mail"),
        delivery(5380000, "email", "sent", "container-unhealthy", "mailer"),
    ]
    return events + alerts + deliveries


class Feeder(threading.Thread):
    """Sends what a producer would, once a second, until it is stopped; goes on when the broker is back."""

    def __init__(self, address, house):
        super().__init__(daemon=True)
        self.address, self.house, self.stopped = address, house, threading.Event()

    def run(self):
        sender = None
        while not self.stopped.wait(1 - time.time() % 1):
            try:
                sender = sender or Sender(self.address)
                sender.send(of_moment(now_ms(), list(self.house)))
            except OSError:
                sender = None

    def stop(self):
        self.stopped.set()
        self.join()


def fill(address, house=HOUSE, hours=24):
    """The past: a day of rollups, five minutes of samples, events and alerts."""
    sender = Sender(address)
    now = now_ms()
    sender.send(infos(house))
    for minute in range(hours * 60, 1, -1):
        ts = (now // 60000 - minute) * 60000
        sender.send(rollups(1, ts, house))
        if ts % 300000 == 0 and minute > 5:
            sender.send(rollups(5, ts, house))
    sender.send(stories())
    sender.close()
    catch_up(address, house)


def catch_up(address, house=HOUSE):
    """Five minutes of samples. Where there are some already they say the same: values are of their moment."""
    sender = Sender(address)
    now = now_ms()
    for second in range(300, 0, -1):
        sender.send(of_moment(now - second * 1000, house))
    sender.close()
