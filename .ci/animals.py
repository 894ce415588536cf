"""The containers of docker/zoo.yml beside those of docker-compose.yml: each is in trouble of its own
kind, and the page, `top` and the consumer must show it as it is.

What a container is stands in one table, `ANIMALS`; what the page says of it and what `top` says are
brought into one form and held against that.
"""
import contextlib
import datetime
import json
import os
import re
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "browser"))
from deployment import run, until
from pages import LIVE, NAMES, ROWS, expect, rows, shows
from terminal import Terminal

PRODUCER = "producer1"
# What takes longest: three restarts of `flapping`, on a machine that does other work as well.
SETTLING_SECONDS_MAX = 180
# A value that is measured every second, drawn twice a second, and not the same each time.
SEEN_SECONDS_MAX = 30
# From a rule's for-duration (a minute), or from labels that came a minute ago, to the consumer's line.
RINGING_SECONDS_MAX = 180
# A terminal in which all of them have a line, and those of docker-compose.yml as well.
LINES = 32
MIB = 1 << 20
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": MIB, "GiB": 1 << 30, "kB": 1e3, "MB": 1e6, "GB": 1e9}

# What each is: said in a word or two, CPU in percent of one, memory and limit in bytes, bytes a second.
ANIMALS = {
    "idle": lambda a: a["says"] == "running" and a["cpu"] < 1,
    "busy": lambda a: a["says"] == "running" and a["cpu"] > 2,
    "limited": lambda a: 3 < a["cpu"] < 24 and 80 * MIB < a["memory"] < 100 * MIB and a["limit"] == 128 * MIB,
    "throttled": lambda a: 2 < a["cpu"] < 8,
    "flapping": lambda a: a["says"] in ("running", "restarting", "exited code 1") and a["restarts"] >= 3,
    "leaky": lambda a: a["restarts"] >= 1 and a["limit"] == 48 * MIB,
    "unhealthy": lambda a: a["says"] == "unhealthy",
    "healthy": lambda a: a["says"] == "healthy" and a["cpu"] < 5,
    "talker": lambda a: a["sent"] > 50e3 and a["sent"] > 5 * a["received"],
    "listener": lambda a: a["received"] > 50e3 and a["received"] > 5 * a["sent"],
    "writer": lambda a: a["says"] == "running" and a["written"] > 100e3,
    "crashed": lambda a: a["says"] == "exited code 3" and a["cpu"] is None,
    "done": lambda a: a["says"] == "exited code 0" and a["cpu"] is None,
}
# What must ring: rule, animal, and what its line says besides.
ALERTS = [
    ("container-failed", "leaky", r"exit code 137, killed for memory.*; cpu [▁-█]+ .*, memory [▁-█]{5,} \d+\.\d %"),
    ("container-restarting", "leaky", r"exit code 137, killed for memory.*; cpu [▁-█]+ .*, memory [▁-█]{5,} \d+\.\d %"),
    ("container-failed", "flapping", r"exit code 1\b"),
    ("container-failed", "crashed", r"exit code 3"),
    ("container-unhealthy", "unhealthy", r"health == unhealthy"),
    ("container-restarting", "flapping", r"grew by \d+, limit > 2 in 10m"),
    ("container-throttled", "throttled", r"limit > 50, for 1m"),
    ("label-memory", "limited", r"is 68\.\d %, limit > 60, for 1\ds"),
]
QUIET = ["idle", "healthy", "done"]


class Zoo:
    """The animals, the deployment that watches them, a browser's tab that looks at broker1's page, and
    the `aklight` whose `top` is looked at."""

    def __init__(self, deployment, project, binary=None):
        self.d, self.project, self.binary, self.tab = deployment, project, binary, None

    def compose(self, *arguments, **options):
        return run(*self.d.compose_command, "-f", "docker/zoo.yml", "-p", self.project, *arguments, **options)

    def start(self):
        self.remove()
        self.began = datetime.datetime.now(datetime.timezone.utc)
        self.compose("up", "-d", timeout=180)

    def remove(self):
        # One that the engine starts again while it is removed may leave its place in the network behind,
        # which then cannot be removed before the engine itself is started again.
        for name in filter(None, map(self.name, ("flapping", "leaky"))):
            run("docker", "update", "--restart", "no", name, check=False)
        said = self.compose("down", "-v", "-t", "1", "--remove-orphans", check=False, timeout=180)
        for line in said.splitlines():
            if "error" in line:
                print(line, flush=True)

    def up(self, **options):
        """What a check has stopped runs again."""
        self.d.up(**options)

    def name(self, animal):
        labels = f"label=com.docker.compose.project={self.project}", f"label=com.docker.compose.service={animal}"
        return run("docker", "ps", "-a", "--format", "{{.Names}}", "--filter", labels[0], "--filter", labels[1]).strip()

    def inspect(self, animal, what):
        return run("docker", "inspect", "-f", what, self.name(animal)).strip()

    def ends(self, animal):
        """The exit codes of its ends so far, by the engine's own events."""
        until_now = datetime.datetime.now(datetime.timezone.utc)
        said = run("docker", "events", "--since", self.began.isoformat(), "--until", until_now.isoformat(), "--format",
                   "{{.Actor.Attributes.exitCode}}", "--filter", f"container={self.name(animal)}", "--filter", "event=die")
        return said.split()

    def counts_disks(self):
        """Whether the engine counts what containers write. Some kernels with the old control groups do
        not, before any container of the machine had a limit on the disk; then nobody can."""
        written = run("docker", "stats", "--no-stream", "--format", "{{.BlockIO}}", self.name("writer")).split("/")[1]
        return written.strip() != "0B"

    @property
    def url(self):
        return f"http://127.0.0.1:{self.d.brokers[0].http_port}/"

    def view(self, animal):
        return f"#/c/{PRODUCER}/{self.name(animal)}"


def last_seen(what, seconds, look):
    """Waits until `look` gives true and what it saw; fails with what it saw last."""
    seen = []

    def holds():
        fine, seen[:] = look()
        return fine

    try:
        until(what, seconds, holds)
    except AssertionError:
        raise AssertionError(f"not within {seconds} s: {what}; last seen: {seen}") from None
    return seen


# ---- the animals themselves ---------------------------------------------------------------


def the_animals_are_what_they_are(zoo):
    def look():
        restarts, ends = int(zoo.inspect("flapping", "{{.RestartCount}}")), zoo.ends("leaky")
        health = [zoo.inspect(animal, "{{.State.Health.Status}}") for animal in ("unhealthy", "healthy")]
        return restarts >= 3 and "137" in ends and health == ["unhealthy", "healthy"], [restarts, ends, health]

    restarts, ends, _ = last_seen("flapping's restarts, leaky's ends, health", SETTLING_SECONDS_MAX, look)
    return f"flapping was restarted {restarts} times, leaky ended with {', '.join(ends)}"


# ---- the page -----------------------------------------------------------------------------


def amount(text, sign=""):
    """The first number of bytes behind a sign: `↓ 406 kB/s` → 406000."""
    found = re.search(rf"{sign}\s*([\d.]+)\s?([kKMGi]*B)", text)
    return float(found[1]) * UNITS[found[2]] if found else None


def of_page(row):
    """A row of the page in the form of `ANIMALS`."""
    word, _, detail = row["state"].partition("\n")
    ended = re.search(r"code \d+", detail)
    number = lambda text: float(text.replace(",", "")) if re.fullmatch(r"[\d.,]+", text) else None
    return {
        "says": f"{word} {ended[0]}" if word == "exited" and ended else word,
        "cpu": number(row["cpu"].split(" ")[0].split("\n")[0]),
        "memory": amount(row["memory"]), "limit": amount(row["memory"], "of"),
        "received": amount(row["network"], "↓"), "sent": amount(row["network"], "↑"),
        "read": amount(row["disk"], "r"), "written": amount(row["disk"], "w"),
        "restarts": number(row["restarts"]),
    }


def each_is_as_it_is(zoo, read, where):
    """Holds what `read` gives, {container: its numbers}, against the table, each until it is so."""
    for animal, holds in ANIMALS.items():
        if animal == "writer" and not zoo.counts_disks():
            print(f"  skipped: the engine does not count what {animal} writes", flush=True)
            continue
        name = zoo.name(animal)

        def look():
            seen = read().get(name)
            try:
                return bool(seen and holds(seen)), [seen]
            except TypeError:
                # A number that is not there yet.
                return False, [seen]

        last_seen(f"{where} shows {animal} as it is", SEEN_SECONDS_MAX, look)
    print(f"  ok: {where} shows each of {len(ANIMALS)} as it is", flush=True)
    name = zoo.name("private")
    assert name and name not in read(), f"{where} shows {name}, which is not to be watched"


def the_page_opens_and_shows_each_as_it_is(zoo):
    tab = zoo.tab
    shows(tab, "it is live", LIVE)
    # What stands there for a second only is kept.
    tab.run("""(() => {
        window.said = {};
        const look = () => document.querySelectorAll('.containers tbody tr').forEach((row) => {
            const name = row.querySelector('a').textContent;
            (window.said[name] ??= new Set()).add(row.querySelector('td.state').innerText);
        });
        new MutationObserver(look).observe(document.querySelector('main'), { subtree: true, childList: true, characterData: true });
    })()""")
    each_is_as_it_is(zoo, lambda: {name: of_page(row) for name, row in rows(tab).items()}, "the page")
    table = rows(tab)
    for animal, column, text in (("limited", "cpu", "of 0.2 CPU"), ("throttled", "cpu", "of 0.05 CPU"), ("throttled", "state", "throttled")):
        expect(f"{animal}: {text}", text in table[zoo.name(animal)][column])
    for animal, ending in (("leaky", "killed for memory"), ("flapping", "restarting")):
        shows(tab, f"{animal}: {ending}, for as long as it is so",
              f"[...window.said[{json.dumps(zoo.name(animal))}] ?? []].some(text => text.includes('{ending}'))", 2 * SEEN_SECONDS_MAX)


def measured(what):
    """{container: number} for those that run, by `docker stats`."""
    said = run("docker", "stats", "--no-stream", "--format", "{{.Name}} {{." + what + "}}")
    split = [line.split(" ", 1) for line in said.splitlines()]
    return {name: amount(text) or float(text.rstrip("%")) for name, text in split if text[0].isdigit()}


def the_page_sorts_by_what_is_really_largest(zoo):
    tab = zoo.tab
    for column, what, share in (("memory", "MemUsage", 0.9), ("cpu", "CPUPerc", 0.5)):
        if column not in tab.run("document.querySelector('.containers th[aria-sort]').className"):
            tab.click(f".containers th.{column} button")

        def look():
            truth = measured(what)
            top = tab.run(f"{NAMES}[0]")
            return truth.get(top, 0) >= share * max(truth.values()), [top, truth]

        top, truth = last_seen(f"the largest {column} is on top", SEEN_SECONDS_MAX, look)
        order = tab.run("document.querySelector('.containers th[aria-sort]').getAttribute('aria-sort')")
        expect(f"{column} falls, and {top} is on top, as for `docker stats`", order == "descending")


def the_page_filters(zoo):
    tab = zoo.tab
    wanted = sorted(zoo.name(animal) for animal in ("limited", "leaky", "listener"))
    prefix = os.path.commonprefix(wanted)
    tab.key("/", "/")
    shows(tab, "the key / finds the filter", "document.activeElement.id === 'filter'")
    tab.write(f"metrics/docker/{PRODUCER}/{prefix}#")
    shows(tab, f"{prefix}# leaves three", f"{NAMES}.sort().join() === {json.dumps(','.join(wanted))}")
    tab.key("Escape")
    tab.write("unhealthy")
    shows(tab, "a word leaves one", f"{NAMES}.join() === {json.dumps(zoo.name('unhealthy'))}")
    tab.key("Escape")
    shows(tab, "Escape shows all", f"{ROWS}.length > {len(ANIMALS)}")


def the_page_opens_a_container(zoo):
    tab = zoo.tab
    tab.run(f"{ROWS}.find(r => r.querySelector('a').textContent === {json.dumps(zoo.name('limited'))}).querySelector('a').click()")
    shows(tab, "charts are drawn", "document.querySelectorAll('.plot').length === 6 && document.querySelectorAll('.plot path.line').length >= 6")
    names = "[...document.querySelectorAll('.limit-name')].map(t => t.textContent)"
    shows(tab, "with lines of limits", f"{names}.includes('limit 0.2 CPU') && {names}.includes('limit 128 MiB')")
    shows(tab, "its label is told", "document.querySelector('.facts').innerText.includes('> 60 for 10s clear < 50')")
    tab.run(f"location.hash = {json.dumps(zoo.view('leaky'))}")
    died = "[...document.querySelectorAll('.events li')].find(l => l.innerText.includes('ended with code 137, killed for memory'))"
    shows(tab, "leaky's end: code 137, killed for memory", f"!!{died}")
    shows(tab, "the kernel's word: out of memory", "document.querySelector('.events').innerText.includes('out of memory')")
    tab.run(f"{died}.querySelector('summary').click()")
    minute = f"[...{died}.querySelectorAll('.minute')].find(m => m.innerText.startsWith('Memory') && m.innerText.includes(' %'))"
    text = shows(tab, "with its last minute", f"{minute}.querySelectorAll('rect').length >= 10 && {minute}.innerText")
    filled = float(re.search(r"at most ([\d.]+) %", text)[1])
    expect(f"whose memory had come to {filled} % of the limit", filled > 80)


def an_acknowledgement_reaches_the_consumer(zoo):
    tab = zoo.tab
    topic = f"metrics/docker/{PRODUCER}/{zoo.name('leaky')}/state"
    tab.click("nav a[data-view=alerts]")
    about = f"l.innerText.includes('container-failed') && l.innerText.includes({json.dumps(zoo.name('leaky'))})"
    one = f"[...document.querySelectorAll('.alerts')[0].children].find(l => {about})"
    shows(tab, "leaky's alert rings", f"!!{one}", RINGING_SECONDS_MAX)
    tab.run(f"{one}.querySelector('.buttons button').click()")
    shows(tab, "the page says who acknowledged it", f"{one}.innerText.includes('acknowledged by page')")
    newest = lambda pattern: json.loads(zoo.d.broker.ask(f"LAST|{pattern}")[0][5])
    record = newest("actions/alerts")
    expect("the record is in actions/alerts", (record["action"], record["rule"], record["match"]) == ("acknowledge", "container-failed", topic))
    (taken,) = last_seen("the consumer takes it up", SEEN_SECONDS_MAX, lambda: (lambda alert: (
        alert.get("acknowledged_by") == "page" and alert["state"] == "firing", [alert]))(newest(f"alerts/container-failed/{topic}")))
    expect("and the consumer has taken it up", taken["rule"] == "container-failed")


def the_page_survives_the_death_of_its_broker(zoo):
    tab = zoo.tab
    tab.click("nav a[data-view=cluster]")
    shows(tab, "three brokers are alive", "(document.querySelector('main').innerText.match(/alive/g) ?? []).length === 3")
    tab.click("nav a[data-view=overview]")
    zoo.d.signal(["kill"], "broker1")
    shows(tab, "it says that it reconnects", "!document.querySelector('#notice').hidden && document.querySelector('#link').textContent === 'reconnecting'")
    zoo.d.signal(["start"], "broker1")
    shows(tab, "and is live again by itself", f"{LIVE} && document.querySelector('#notice').hidden", 2 * SEEN_SECONDS_MAX)
    before = tab.run(f"{ROWS}.map(r => r.innerText).join()")
    shows(tab, "and goes on", f"{ROWS}.map(r => r.innerText).join() !== {json.dumps(before)}")
    # That connections broke, and that a broker which starts answers 503, is what was asked of it; and the
    # networks of a machine change when containers come and go.
    asked = ("net::ERR_CONNECTION", "net::ERR_INCOMPLETE", "net::ERR_EMPTY", "net::ERR_SOCKET", "net::ERR_NETWORK_CHANGED", "status of 503")
    rest = [text for text in tab.errors() if not any(known in text for known in asked)]
    expect(f"nothing was thrown or forbidden: {rest}", not rest)


PAGE = [
    the_page_opens_and_shows_each_as_it_is,
    the_page_sorts_by_what_is_really_largest,
    the_page_filters,
    the_page_opens_a_container,
    an_acknowledgement_reaches_the_consumer,
    the_page_survives_the_death_of_its_broker,
]


# ---- the consumer -------------------------------------------------------------------------


def the_consumer_rings_for_whom_it_must_and_for_nobody_else(zoo):
    def rung(animal):
        place = f"metrics/docker/{PRODUCER}/{zoo.name(animal)}/"
        return [line for line in zoo.d.logs("consumer1").splitlines() if "*** THRESHOLD EXCEEDED ***" in line and place in line]

    for rule, animal, text in ALERTS:
        last_seen(f"{rule} rings for {animal}: {text}", RINGING_SECONDS_MAX, lambda: (lambda lines: (
            any(f" {rule}: " in line and re.search(text, line) for line in lines), lines))(rung(animal)))
    for animal in QUIET:
        assert not rung(animal), rung(animal)
    assert zoo.name("private") not in zoo.d.logs("consumer1")
    return f"{len(ALERTS)} alerts; none for {', '.join(QUIET)}"


# ---- top ----------------------------------------------------------------------------------


def of_top(row):
    """A row of `top --once --output json` in the form of `ANIMALS`."""
    says = row["state"]
    if says == "running" and row["health"] != "none":
        says = row["health"]
    if says == "exited":
        says = f"exited code {row['exit_code']}"
    names = {"cpu": "cpu_percent", "memory": "memory_bytes", "limit": "memory_limit_bytes", "received": "rx_bytes_s",
             "sent": "tx_bytes_s", "read": "read_bytes_s", "written": "written_bytes_s", "restarts": "restarts"}
    return {"says": says} | {ours: row[theirs] for ours, theirs in names.items()}


def top_command(zoo):
    brokers = ",".join(f"127.0.0.1:{broker.port}" for broker in zoo.d.brokers)
    http = ",".join(f"127.0.0.1:{broker.http_port}" for broker in zoo.d.brokers)
    return [os.path.abspath(zoo.binary), "top", "--brokers", brokers, "--http", http]


def top_shows_each_as_it_is(zoo):
    once = lambda: {row["name"]: of_top(row) for row in json.loads(run(*top_command(zoo), "--once", "--output", "json"))}
    each_is_as_it_is(zoo, once, "top")
    text = run(*top_command(zoo), "--once")
    for animal, word in (("crashed", "exited 3"), ("unhealthy", "unhealthy"), ("limited", "/ 128M")):
        assert re.search(rf"^{re.escape(zoo.name(animal))} .* {re.escape(word)}", text, re.M), text


@contextlib.contextmanager
def live_top(zoo):
    """`top` in a terminal, with all animals in sight."""
    names = [zoo.name(animal) for animal in ANIMALS]
    with tempfile.TemporaryDirectory(prefix="aklight-zoo-") as folder:
        terminal = Terminal(folder, " ".join(top_command(zoo)), LINES)
        try:
            terminal.wait("all animals", lambda text: all(name in text for name in names))
            yield terminal
        finally:
            terminal.close()


def live_top_opens(zoo, terminal, animal, words):
    terminal.press("/", *zoo.name(animal), "Enter", "Enter")
    terminal.wait(f"{animal}'s own view", lambda text: "Charts" in text and "reading" not in text and all(word in text for word in words))


def live_top_shows_how_one_ended(zoo):
    with live_top(zoo) as terminal:
        live_top_opens(zoo, terminal, "leaky", ["exit code 137, killed for memory", "oom"])


TOP = [top_shows_each_as_it_is, live_top_shows_how_one_ended]
