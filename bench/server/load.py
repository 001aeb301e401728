"""Measures `jointly serve` over loopback with oha (crates.io), and says whether it holds what docs/serving.md promises.

    cargo install oha --locked
    cargo build --release -p jointly-cli
    python3 bench/server/load.py --bin target/release/jointly --minutes 5 --json result.json > result.md

Every part is bounded in time and in requests. Numbers mean something only on a quiet machine; the generator runs on the
same cores as the server, and what it takes of them is measured and reported; with `--apart` each has half of the cores for itself, as
if the load came from another machine. `--parts` names some of the parts; `overload`
needs the numbers of `unloaded` and `peak`, `plateau` and `flood` those of `peak`, which come first.
"""

import argparse
import collections
import json
import os
import pathlib
import platform
import random
import resource
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.client import HTTPConnection

ROOT = pathlib.Path(__file__).parents[2]
PARTS = ["unloaded", "peak", "overload", "plateau", "flood", "fairness", "overhead", "throughput"]
DOCUMENTS = 10  # of an ordinary request
BODIES = 4000  # different requests: identical pairs in flight would be scored once
MAX_WAIT_MS = 1000  # queue.max_wait of the server that is measured


def words():
    text = "".join((ROOT / name).read_text() for name in ("docs/evaluate.md", "docs/train.md", "samples/hearing-aids.txt"))
    return [word for word in text.split() if word.isalpha()]


WORDS = words()


def document(rng, low=15, high=60):
    return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))


def body(rng, documents=DOCUMENTS):
    return {"query": " ".join(rng.choices(WORDS, k=8)), "documents": [document(rng) for _ in range(documents)]}


def quantile(values, share):
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, max(0, int(-(-share * len(ordered) // 1)) - 1))]


def on(options, half):
    """What a process does before it runs: with --apart, it keeps to this half of the cores."""
    cores = sorted(os.sched_getaffinity(0))
    middle = len(cores) // 2
    return (lambda: os.sched_setaffinity(0, [cores[:middle], cores[middle:]][half])) if options.apart else None


class Server:
    """The server, and its memory and processor time once a second."""

    def __init__(self, options):
        self.options = options
        self.rss = []
        if options.url:
            self.host, self.port = options.url.removeprefix("http://").split(":")
            self.port, self.process = int(self.port), None
            return
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.host, self.port = probe.getsockname()
        config = [f"queue.max_wait={MAX_WAIT_MS}ms", "log.level=warn", "playground=false", *options.set]
        command = [options.bin, "serve", "--listen", f"{self.host}:{self.port}"]
        command += [word for setting in config for word in ("--set", setting)]
        self.command = " ".join(command[1:])
        self.log = open(options.log, "w") if options.log else subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, preexec_fn=on(options, 0))
        self.wait_ready()
        threading.Thread(target=self.watch, daemon=True).start()

    def wait_ready(self):
        for _ in range(1200):
            if self.process.poll() is not None:
                sys.exit(f"the server ended with {self.process.returncode}")
            try:
                if self.get("/readyz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        sys.exit("the server was not ready within a minute")

    def get(self, path):
        connection = HTTPConnection(self.host, self.port, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def watch(self):
        while self.process.poll() is None:
            self.rss.append((time.monotonic(), self.memory()))
            time.sleep(1)

    def memory(self):
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        return 0.0

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(60)

    @property
    def url(self):
        return f"http://{self.host}:{self.port}/jointly/v1/rerank"


class Client:
    """One connection, one request after another."""

    def __init__(self, server):
        self.connection = HTTPConnection(server.host, server.port, timeout=600)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, encoded):
        """Status, answer and milliseconds."""
        began = time.perf_counter()
        self.connection.request("POST", "/jointly/v1/rerank", encoded, {"content-type": "application/json"})
        answer = self.connection.getresponse()
        content = answer.read()
        return answer.status, content, (time.perf_counter() - began) * 1e3


class Oha:
    """Runs oha and reads what it wrote of each request."""

    def __init__(self, options, server, folder):
        self.options, self.server, self.folder = options, server, pathlib.Path(folder)
        rng = random.Random(1)
        self.bodies = self.folder / "bodies.jsonl"
        self.bodies.write_text("".join(json.dumps(body(rng)) + "\n" for _ in range(BODIES)))
        rng = random.Random(2)
        self.small = self.folder / "small.jsonl"
        self.small.write_text("".join(json.dumps(body(rng, 2)) + "\n" for _ in range(BODIES)))
        self.runs = 0

    def run(self, *arguments, bodies=None, timeout):
        self.runs += 1
        base = self.folder / f"run{self.runs}.db"
        command = [
            self.options.oha, "--no-tui", "--output-format", "json", "--db-url", str(base), "-m", "POST",
            "-T", "application/json", "-Z", str(bodies or self.bodies), *map(str, arguments), self.server.url,
        ]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, preexec_fn=on(self.options, 1))
        if done.returncode:
            sys.exit(f"oha failed: {done.stderr[-2000:]}")
        took = time.monotonic() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        rows = sqlite3.connect(base).execute("select start, end, status from oha").fetchall()
        base.unlink()
        summary = json.loads(done.stdout)
        return Run(rows, summary, took, cpu, " ".join(["oha", *map(str, arguments)]))


class Run:
    def __init__(self, rows, summary, took, cpu, command):
        self.rows = [(start, (end - start) * 1e3, status) for start, end, status in rows]
        self.took, self.cpu, self.command = took, cpu, command
        self.errors = summary.get("errorDistribution", {})
        self.statuses = collections.Counter(status for _, _, status in self.rows)

    def ms(self, *statuses):
        return [ms for _, ms, status in self.rows if status in statuses]

    def accepted_per_second(self, skip=0.0):
        """Of those that ended after the first `skip` seconds, up to the last that began."""
        first, last = min(r[0] for r in self.rows) + skip, max(r[0] for r in self.rows)
        ended = [start + ms / 1e3 for start, ms, status in self.rows if status == 200]
        return sum(first <= at <= last for at in ended) / (last - first)


def unloaded(server, oha, options, found):
    client = Client(server)
    encoded = oha.bodies.read_text().splitlines()
    for line in encoded[:30]:
        assert client.ask(line)[0] == 200
    times = [client.ask(line)[2] for line in encoded[100 : 100 + options.requests]]
    found.update(unloaded_p50_ms=quantile(times, 0.5), unloaded_p99_ms=quantile(times, 0.99), unloaded_requests=len(times))


def at_the_peak(oha, options):
    return oha.run("-c", 16, "-z", f"{options.seconds}s", timeout=options.seconds + 60)


def beyond_it(oha, options, found, seconds):
    """The run, and the rate that is asked for: ten times the peak."""
    rate = max(1, round(found["peak_requests_per_second"] * 10))
    run = oha.run(
        "-c", options.connections, "-q", rate, "-z", f"{seconds}s", "--latency-correction", timeout=seconds + 120
    )
    return run, rate


def peak(server, oha, options, found):
    run = at_the_peak(oha, options)
    found.update(peak_requests_per_second=run.accepted_per_second(skip=2), peak_statuses=dict(run.statuses))


def overload(server, oha, options, found):
    seconds = round(options.minutes * 60)
    began = time.monotonic()
    run, rate = beyond_it(oha, options, found, seconds)
    recovery = recover(server, oha, found)
    accepted, rejected = run.ms(200), run.ms(429, 503)
    others = {status: n for status, n in run.statuses.items() if status not in (200, 429, 503)}
    memory = [mib for at, mib in server.rss if at >= began + 0.1 * seconds]
    third = max(1, len(memory) // 3)
    found.update(
        overload_rate=rate,
        overload_seconds=seconds,
        overload_sent=len(run.rows),
        overload_sent_per_second=len(run.rows) / run.took,
        overload_errors=run.errors,
        overload_statuses=dict(run.statuses),
        overload_other_statuses=others,
        accepted_p50_ms=quantile(accepted, 0.5),
        accepted_p99_ms=quantile(accepted, 0.99),
        rejected_p50_ms=quantile(rejected, 0.5),
        rejected_p99_ms=quantile(rejected, 0.99),
        overload_accepted_per_second=run.accepted_per_second(skip=min(5, seconds / 4)),
        generator_cores=run.cpu / run.took,
        rss_first_third_mib=statistics.mean(memory[:third]) if memory else None,
        rss_last_third_mib=statistics.mean(memory[-third:]) if memory else None,
        recovery_seconds=recovery,
    )


def recover(server, oha, found):
    """Seconds from the end of the overload until ten requests in a row take what they take in peace."""
    client = Client(server)
    began = time.monotonic()
    good = 0
    for line in oha.bodies.read_text().splitlines() * 4:
        status, _, ms = client.ask(line)
        good = good + 1 if status == 200 and ms <= 1.5 * found["unloaded_p99_ms"] else 0
        if good == 1:
            since = time.monotonic() - began
        if good == 10:
            return since
        if time.monotonic() - began > 60:
            return None
    return None


def plateau(server, oha, options, found):
    """What is answered at the peak and at ten times that, by turns: within minutes the machine itself is faster and slower by more
    than what is looked for."""
    rows = []
    for _ in range(options.turns):
        at_peak = at_the_peak(oha, options)
        beyond, _ = beyond_it(oha, options, found, options.seconds)
        # Of the overload the first second fills the queue.
        rows.append((at_peak.accepted_per_second(skip=2), beyond.accepted_per_second(skip=2), beyond.cpu / beyond.took))
    ratios = [beyond / at_peak for at_peak, beyond, _ in rows]
    found.update(
        plateau_turns=rows,
        plateau_ratio=statistics.mean(ratios),
        plateau_standard_error=statistics.stdev(ratios) / len(ratios) ** 0.5,
        plateau_generator_cores=statistics.mean(cores for _, _, cores in rows),
    )


def flood(server, oha, options, found):
    """Clients that ask again as soon as they are refused, as many as there are connections."""
    run = oha.run("-c", options.connections, "-z", f"{options.seconds}s", timeout=options.seconds + 60)
    refused = len(run.ms(429, 503)) / run.took
    found.update(flood_accepted_per_second=run.accepted_per_second(skip=2), flood_refused_per_second=refused)


def fairness(server, oha, options, found):
    """Fifty clients with two documents each, that ask again as soon as they are answered, with and without one of 10,000 documents
    beside them; and the same with clients that ask for a third of what the server can do, for whom the large one's batches are
    most of the wait."""
    calm = max(5, round(found.get("peak_requests_per_second", 20) * DOCUMENTS / 2 / 3))
    rng = random.Random(3)
    large = json.dumps({**body(rng, options.large), "top_n": 10, "deadline": 600})
    for name, arguments in (("busy", ("-c", 50)), ("calm", ("-c", 50, "-q", calm, "--latency-correction"))):
        time.sleep(2)
        run = lambda: oha.run(*arguments, "-z", f"{options.seconds}s", bodies=oha.small, timeout=options.seconds + 60)
        alone = run()
        outcome = {}

        def ask():
            outcome["status"], _, outcome["ms"] = Client(server).ask(large)

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(1)
        beside = run()
        outcome["outlasted_the_small"] = thread.is_alive()
        thread.join(600)
        found[f"fairness_{name}"] = {
            "alone_p50_ms": quantile(alone.ms(200), 0.5),
            "alone_p95_ms": quantile(alone.ms(200), 0.95),
            "beside_p50_ms": quantile(beside.ms(200), 0.5),
            "beside_p95_ms": quantile(beside.ms(200), 0.95),
            "statuses": {"alone": dict(alone.statuses), "beside": dict(beside.statuses)},
            "large": {"documents": options.large, **outcome},
        }


def overhead(server, oha, options, found):
    """Everything but the scoring, of requests of 100 documents, one after another."""
    rng = random.Random(4)
    client = Client(server)
    rows = []
    for _ in range(60):
        status, content, ms = client.ask(json.dumps(body(rng, 100)))
        assert status == 200, content[:500]
        rows.append({**json.loads(content)["timing_ms"], "client": ms})
    rows = rows[10:]
    middle = lambda of: statistics.median(map(of, rows))
    found.update(
        overhead_ms=middle(lambda r: r["total"] - r["inference"]),
        overhead_at_the_client_ms=middle(lambda r: r["client"] - r["inference"]),
        overhead_tokenization_ms=middle(lambda r: r["tokenization"]),
        overhead_queue_ms=middle(lambda r: r["queue"]),
        overhead_inference_ms=middle(lambda r: r["inference"]),
    )


def throughput(server, oha, options, found):
    """The same pairs through HTTP and through the library, by turns."""
    rng = random.Random(5)
    requests = [body(rng, 100) for _ in range(12)]
    pairs = pathlib.Path(oha.folder) / "pairs.jsonl"
    pairs.write_text(
        "".join(json.dumps({"query": r["query"], "document": d}) + "\n" for r in requests for d in r["documents"])
    )
    encoded = [json.dumps(r) for r in requests]
    precision = options.precision or json.loads(server.get("/jointly/v1/models")[1])["models"][0].get("precision", "f32")
    http, library = [], []
    for _ in range(options.rounds):
        clients = [Client(server) for _ in range(4)]
        waiting = list(encoded)
        lock = threading.Lock()

        def work(client):
            while True:
                with lock:
                    if not waiting:
                        return
                    line = waiting.pop()
                # Refused for now, if the machine is slower than the bound on the wait allows: as a client would, again.
                while (status := client.ask(line)[0]) == 503:
                    time.sleep(0.02)
                assert status == 200, status

        threads = [threading.Thread(target=work, args=(client,)) for client in clients]
        began = time.perf_counter()
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        http.append(time.perf_counter() - began)
        command = [options.bin, "bench", "--pairs", str(pairs), "--precision", precision, "--rounds", "3", "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode:
            sys.exit(f"jointly bench failed: {done.stderr[-1000:]}")
        library.append(json.loads(done.stdout)["results"][0]["median_ms"] / 1e3)
    count = sum(len(r["documents"]) for r in requests)
    found.update(
        throughput_precision=precision,
        http_pairs_per_second=count / statistics.median(http),
        library_pairs_per_second=count / statistics.median(library),
    )


def verdicts(found):
    """What must hold, whether it does, and the numbers."""
    f = collections.defaultdict(lambda: None, found)
    rows = []

    def hold(what, condition, numbers):
        rows.append((what, condition, numbers))

    if "overload_rate" in found:
        bound = 2 * f["unloaded_p99_ms"] + MAX_WAIT_MS
        hold("accepted p99 <= 2x unloaded p99 + queue.max_wait", f["accepted_p99_ms"] <= bound,
             f"{f['accepted_p99_ms']:.0f} ms; bound {bound:.0f} ms")
        hold("rejected p99 < 10 ms", f["rejected_p99_ms"] < 10, f"{f['rejected_p99_ms']:.1f} ms (p50 {f['rejected_p50_ms']:.1f})")
        if f["rss_first_third_mib"]:
            growth = f["rss_last_third_mib"] / f["rss_first_third_mib"] - 1
            hold("resident memory flat (< 2 %)", growth < 0.02,
                 f"{f['rss_first_third_mib']:.0f} MiB in the first third, {f['rss_last_third_mib']:.0f} in the last")
        hold("latency back within 5 s", f["recovery_seconds"] is not None and f["recovery_seconds"] <= 5, f"{f['recovery_seconds']} s")
        hold("no other status, no broken connection", not f["overload_other_statuses"] and not broken(f["overload_errors"]),
             f"{f['overload_statuses']}, {f['overload_errors']}")
    if "plateau_ratio" in found:
        hold("throughput within 5 % of its peak", f["plateau_ratio"] >= 0.95,
             f"{100 * f['plateau_ratio']:.1f} % (standard error {100 * f['plateau_standard_error']:.1f}), {len(f['plateau_turns'])} times by turns; "
             + ("the generator has cores of its own" if f["apart"] else
                f"the generator has {100 * f['plateau_generator_cores'] / os.cpu_count():.1f} % of the cores"))
    if "flood_accepted_per_second" in found:
        hold("clients that ask again at once leave 75 % of the peak", f["flood_accepted_per_second"] >= 0.75 * f["peak_requests_per_second"],
             f"{f['flood_accepted_per_second']:.0f} of {f['peak_requests_per_second']:.0f} requests/s, beside {f['flood_refused_per_second']:.0f} refused")
    if "fairness_busy" in found:
        busy, large = f["fairness_busy"], f["fairness_busy"]["large"]
        hold("p95 of 50 clients beside a large request <= 2x alone",
             busy["beside_p95_ms"] <= 2 * busy["alone_p95_ms"] and large["status"] == 200 and large["outlasted_the_small"],
             f"{busy['beside_p95_ms']:.0f} ms; alone {busy['alone_p95_ms']:.0f} ms; {large['documents']} documents in {large['ms'] / 1e3:.1f} s")
    if "overhead_ms" in found:
        hold("own time per request of 100 documents < 2 ms", f["overhead_ms"] < 2,
             f"{f['overhead_ms']:.2f} ms, of it {f['overhead_tokenization_ms']:.2f} tokenising and {f['overhead_queue_ms']:.2f} in the queue")
    if "http_pairs_per_second" in found:
        share = f["http_pairs_per_second"] / f["library_pairs_per_second"]
        hold("HTTP >= 95 % of the library's throughput", share >= 0.95,
             f"{f['http_pairs_per_second']:.0f} of {f['library_pairs_per_second']:.0f} pairs/s ({100 * share:.1f} %)")
    return rows


def broken(errors):
    # oha gives up what is on its way when its time is over; that is none of the server's.
    return {kind: n for kind, n in errors.items() if "aborted due to deadline" not in kind}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=str(ROOT / "target/release/jointly"))
    parser.add_argument("--url", help="a server that runs already, such as http://127.0.0.1:8787; its memory is not measured")
    parser.add_argument("--oha", default="oha")
    parser.add_argument("--minutes", type=float, default=5, help="of overload, 10 at most")
    parser.add_argument("--seconds", type=int, default=20, help="of every other run")
    parser.add_argument("--requests", type=int, default=300, help="one after another, for the unloaded latency")
    parser.add_argument("--connections", type=int, default=512)
    parser.add_argument("--large", type=int, default=10_000, help="documents of the large request")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=8, help="of peak and overload, for the throughput of both")
    parser.add_argument("--apart", action="store_true", help="server and generator on cores of their own; needs two")
    parser.add_argument("--precision", help="of `jointly bench`, if not that of the server's model")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--set", action="append", default=[], help="a setting of the server")
    parser.add_argument("--log", help="a file for the server's log")
    parser.add_argument("--json", help="a file for all numbers")
    options = parser.parse_args()
    options.minutes = min(options.minutes, 10)
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {unknown}; there are {PARTS}")

    server = Server(options)
    found = {
        "oha": subprocess.run([options.oha, "--version"], capture_output=True, text=True).stdout.strip(),
        "commit": subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip(),
        "processor": next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine()),
        "cores": os.cpu_count(),
        "apart": options.apart,
        "server": getattr(server, "command", options.url),
        "date": time.strftime("%Y-%m-%d"),
    }
    try:
        with tempfile.TemporaryDirectory() as folder:
            oha = Oha(options, server, folder)
            for part in PARTS:
                if part in parts:
                    print(f"{part} ...", file=sys.stderr, flush=True)
                    globals()[part](server, oha, options, found)
                    if options.json:
                        pathlib.Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
        if server.process:
            found["metrics"] = [l for l in server.get("/metrics")[1].splitlines() if l.startswith(("jointly_rejected", "jointly_requests_total", "jointly_shared"))]
    finally:
        server.stop()
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(found, indent=1) + "\n")

    rows = verdicts(found)
    print("| must hold | holds | measured |\n|---|---|---|")
    for what, holds, numbers in rows:
        print(f"| {what} | {'yes' if holds else '**no**'} | {numbers} |")
    print()
    if "overload_rate" in found:
        print(f"Unloaded: p50 {found['unloaded_p50_ms']:.1f} ms, p99 {found['unloaded_p99_ms']:.1f} ms, of {found['unloaded_requests']} requests of {DOCUMENTS} documents. "
              f"Overload: {found['overload_seconds']} s at {found['overload_rate']} requests/s; {found['overload_sent_per_second']:.0f}/s were sent, by {found['generator_cores']:.2f} cores.")
    if "fairness_calm" in found:
        calm = found["fairness_calm"]
        print(f"Clients that ask for a third of what the server can do: p95 {calm['beside_p95_ms']:.0f} ms beside the large request, {calm['alone_p95_ms']:.0f} ms alone.")
    print(f"\n`jointly {found['server']}`, commit {found['commit']}, {found['oha']}, {found['cores']} cores of {found['processor']}, {found['date']}.")
    sys.exit(0 if all(holds for _, holds, _ in rows) else 1)


if __name__ == "__main__":
    main()
