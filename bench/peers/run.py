"""Ours and what a user would take instead, on the same pairs in the same run: run.py FOLDER WORKLOADS [options]

FOLDER is that of setup.sh; WORKLOADS holds msmarco.jsonl, uniform128.jsonl and long.jsonl, each line {"query", "documents"}.
Everyone is a warm process of its own; rounds are interleaved, and all but the one whose turn it is are stopped. A sample during
which other processes took part of the machine is taken again. Prints Markdown; --json writes every sample.
"""

import argparse
import datetime
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
SHAPES = ["tinybert-l2", "minilm-l6", "minilm-l12", "xlm-roberta-base", "modernbert-base"]
PRECISIONS = ["f32", "bf16", "int8"]
# `single`: the first pair of uniform128 alone, 128 tokens: latency.
WORKLOADS = ["msmarco", "uniform128", "long", "single"]
THREADS = 2
# A logit of ours in f32 further than this from ONNX Runtime's is a fault, not noise.
MOST_DIFFERENCE = 1e-3
# Milliseconds that a sample of a small workload should take: it is repeated as often.
SAMPLE_MS = 200
TICKS = os.sysconf("SC_CLK_TCK")


def fail(problem):
    sys.exit(f"run.py: {problem}")


def busy():
    """Seconds of processor time that all processes have had, since the machine started."""
    fields = [int(field) for field in open("/proc/stat").readline().split()[1:]]
    idle, waiting = fields[3], fields[4]
    return (sum(fields[:8]) - idle - waiting) / TICKS


class Process:
    """Someone who scores."""

    def __init__(self, name, precision, threads, command, log):
        self.name, self.precision, self.threads = name, precision, threads
        self.samples, self.disturbed, self.log = [], 0, log
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=open(log, "w"), text=True)
        self.load_ms = self.read()["load_ms"]

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            tail = open(self.log).read()[-800:]
            fail(f"{self.name} {self.precision} ended with status {self.process.returncode}; {self.log} says:\n{tail}")
        return json.loads(line)

    def tell(self, value):
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()

    def seconds(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def run(self, times):
        """The answer, and the share of the machine that others had meanwhile."""
        before, own, began = busy(), self.seconds(), time.perf_counter()
        self.tell({"run": times})
        result = self.read()
        took = time.perf_counter() - began
        others = (busy() - before) - (self.seconds() - own)
        return result, max(0.0, others) / (took * os.cpu_count())

    def warm(self, request):
        self.tell(request)
        self.run(1)
        result, _ = self.run(1)
        self.logits, self.tokens = result["logits"], result["tokens"]
        self.times = max(1, min(50, round(SAMPLE_MS / result["ms"][0])))
        self.stop()

    def sample(self, options):
        os.kill(self.process.pid, signal.SIGCONT)
        attempts = [self.run(self.times)]
        while attempts[-1][1] > options.max_other and len(attempts) <= options.retries:
            attempts.append(self.run(self.times))
        self.stop()
        result, others = min(attempts, key=lambda attempt: attempt[1])
        self.disturbed += others > options.max_other
        self.samples.append(statistics.median(result["ms"]))
        self.peak_rss_mib = result["peak_rss_mib"]

    def stop(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            os.kill(self.process.pid, signal.SIGCONT)
        self.process.wait()

    @property
    def ms(self):
        return statistics.median(self.samples)


def peers(folder, single):
    """(name, precision, specification of peer.py)"""
    streams = 1 if single else THREADS
    base = {"folder": str(folder), "threads": THREADS, "streams": streams, "budget": 512}
    onnx = {**base, "runtime": "onnxruntime"}
    openvino = {**base, "runtime": "openvino"}
    yield "ONNX Runtime", "f32", {**onnx, "file": "model.onnx"}
    yield "OpenVINO", "f32", {**openvino, "file": "model.onnx", "hint": "f32"}
    yield "OpenVINO", "bf16", {**openvino, "file": "model.onnx", "hint": "bf16"}
    yield "ONNX Runtime, dynamic", "int8", {**onnx, "file": "model_int8.onnx", "budget": 256}
    yield "OpenVINO, calibrated, rest bf16", "int8", {**openvino, "file": "openvino_int8.xml", "hint": "bf16"}


def request(workloads, name):
    file = "uniform128" if name == "single" else name
    path = workloads / f"{file}.jsonl"
    if not path.is_file():
        fail(f"{path} is missing; WORKLOADS must hold it")
    with open(path) as lines:
        value = json.loads(lines.readline())
    documents = value["documents"][:1] if name == "single" else value["documents"]
    return {"query": value["query"], "documents": documents}


def tau(a, b):
    """Kendall's tau-b; None where one has no order."""
    both = untied_a = untied_b = 0
    for i in range(len(a)):
        for j in range(i):
            x, y = (a[i] > a[j]) - (a[i] < a[j]), (b[i] > b[j]) - (b[i] < b[j])
            both, untied_a, untied_b = both + x * y, untied_a + abs(x), untied_b + abs(y)
    return both / (untied_a * untied_b) ** 0.5 if untied_a * untied_b else None


def compare(options, shape, workload):
    """All processes of one shape over one workload, timed."""
    folder = options.folder / "models" / shape
    if not (folder / "done").is_file():
        fail(f"{folder} is not complete; setup.sh {options.folder} {options.workloads} {shape}")
    work = request(options.workloads, workload)
    logs = options.folder / "logs"
    logs.mkdir(exist_ok=True)
    processes = []

    def start(name, precision, threads, command):
        log = logs / f"{shape}-{workload}-{len(processes)}.log"
        if not options.quiet:
            print(f"{shape} {workload}: {name} {precision}, {threads} threads", file=sys.stderr)
        process = Process(name, precision, threads, command, log)
        processes.append(process)
        process.warm(work)

    try:
        python = options.folder / "venv" / "bin" / "python"
        for name, precision, specification in peers(folder, workload == "single"):
            if precision in options.precisions:
                start(name, precision, THREADS, [python, HERE / "peer.py", json.dumps(specification)])
        for threads in (THREADS, 1):
            for precision in options.precisions:
                command = [options.worker, folder, precision, str(threads), options.folder / "packed"]
                # The first start on a machine leaves converted weights for the others.
                subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
                start("**jointly**", precision, threads, command)
        for _ in range(options.rounds):
            for process in processes:
                process.sample(options)
        return processes
    finally:
        for process in processes:
            process.end()


def digits(ms):
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}"


def report(shape, workload, processes):
    pairs, tokens = len(processes[0].logits), processes[0].tokens
    for process in processes:
        if process.tokens != tokens:
            fail(f"{shape} {workload}: {process.name} reads {process.tokens} tokens, {processes[0].name} {tokens}")
    # f32 of a peer, so that ours is compared with something else.
    reference = next((p for p in processes if p.precision == "f32"), None)
    ours = {(p.precision, p.threads): p for p in processes if p.name == "**jointly**"}
    print(f"\n### {shape}, {workload}: {pairs} {'pair' if pairs == 1 else 'pairs'}, {tokens} tokens, {THREADS} threads\n")
    print("| precision | | ms | x ours | tau | max diff | peak MiB | load ms | disturbed |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    rows = []
    for precision in PRECISIONS:
        of_precision = [p for p in processes if p.precision == precision and p.threads == THREADS]
        for p in sorted(of_precision, key=lambda p: p.ms):
            order = difference = None
            if reference:
                order = tau(p.logits, reference.logits)
                difference = max(abs(a - b) for a, b in zip(p.logits, reference.logits))
                if p.name == "**jointly**" and precision == "f32" and not difference <= MOST_DIFFERENCE:
                    fail(f"{shape} {workload}: our f32 differs from that of {reference.name} by {difference}")
            ratio = p.ms / ours[precision, THREADS].ms
            print(f"| {precision} | {p.name} | {digits(p.ms)} | {ratio:.2f} | {'-' if order is None else f'{order:.4f}'} "
                  f"| {'-' if difference is None else f'{difference:.1e}'} | {p.peak_rss_mib:.0f} | {p.load_ms:.0f} "
                  f"| {p.disturbed}/{len(p.samples)} |")
            rows.append({
                "shape": shape, "workload": workload, "precision": precision, "name": p.name.strip("*"), "threads": THREADS,
                "ms": p.ms, "ratio": ratio, "kendall_tau": order, "largest_difference": difference,
                "peak_rss_mib": p.peak_rss_mib, "load_ms": p.load_ms, "disturbed": p.disturbed, "samples_ms": p.samples})
    print(f"\n| ours | 1 thread, ms | {THREADS} threads, ms | times as fast | disturbed |\n|---|--:|--:|--:|--:|")
    for precision in PRECISIONS:
        if (precision, 1) in ours:
            one, many = ours[precision, 1], ours[precision, THREADS]
            print(f"| {precision} | {digits(one.ms)} | {digits(many.ms)} | {one.ms / many.ms:.2f} | {one.disturbed}/{len(one.samples)} |")
            rows.append({
                "shape": shape, "workload": workload, "precision": precision, "name": "jointly", "threads": 1, "ms": one.ms,
                "peak_rss_mib": one.peak_rss_mib, "load_ms": one.load_ms, "disturbed": one.disturbed, "samples_ms": one.samples})
    sys.stdout.flush()
    return rows


def listed(known):
    def parse(text):
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}")
        return text.split(",")
    return parse


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("workloads", type=pathlib.Path)
    parser.add_argument("--worker", type=pathlib.Path, required=True, help="target/release/examples/bench_worker")
    parser.add_argument("--shapes", type=listed(SHAPES), default=SHAPES)
    parser.add_argument("--precisions", type=listed(PRECISIONS), default=PRECISIONS)
    parser.add_argument("--on", type=listed(WORKLOADS), default=["msmarco", "single"], help=", ".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--retries", type=int, default=4, help="of a disturbed sample; the least disturbed one counts")
    parser.add_argument("--max-other", type=float, default=0.04, help="share of the machine that others may have in a sample")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    options.worker = options.worker.resolve()
    if not options.worker.is_file():
        fail(f"{options.worker} is missing: cargo build --release --example bench_worker")
    if not (options.folder / "venv").is_dir():
        fail(f"{options.folder} has no peers: setup.sh {options.folder} {options.workloads}")
    if options.rounds < 1:
        fail("--rounds must be at least 1")
    for name in options.on:
        request(options.workloads, name)
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    commit = subprocess.run(["git", "-C", HERE, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    print(f"{cpu}, {os.cpu_count()} cores, {datetime.date.today()}, commit {commit}, medians of {options.rounds} rounds")
    rows = []
    for shape in options.shapes:
        for workload in options.on:
            rows += report(shape, workload, compare(options, shape, workload))
    if options.json:
        options.json.write_text(json.dumps({
            "cpu": cpu, "cores": os.cpu_count(), "commit": commit, "rounds": options.rounds, "results": rows}, indent=1))


main()
