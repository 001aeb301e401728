#!/usr/bin/env python3
"""Runs the vendors' own clients against `jointly serve`. See README.md beside this file."""

import argparse
import hashlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# Names as clients know them. All of them are the embedded model here.
NAMES = [
    "rerank-v3.5",
    "rerank-v4.0-pro",
    "rerank-2.5",
    "zerank-2",
    "mixedbread-ai/mxbai-rerank-large-v2",
    "jina-reranker-v3",
    "bge-reranker-v2-m3",
    "nvidia/llama-nemotron-rerank-1b-v2",
    "BAAI/bge-reranker-base",
]

# Keys of the server that wants them, and how many requests a minute they allow.
KEYS = {"good-key": 0, "spent-key": 1, "slow-key": 12}


def config(port, keys=False, full=False, any_name=False):
    """A configuration file, as text."""
    lines = [f'listen = ["127.0.0.1:{port}"]', f"any_model_name = {str(any_name).lower()}", "[names]"]
    lines += [f'{json.dumps(name)} = "default"' for name in NAMES]
    if full:
        # One request at a time, and `fill` sees to it that there is one.
        lines += ["[queue]", "max_requests = 1"]
    if keys:
        for key, requests in KEYS.items():
            digest = hashlib.sha256(key.encode()).hexdigest()
            lines += ["[[keys]]", f'name = "{key}"', f'sha256 = "{digest}"', f"requests_per_minute = {requests}"]
    return "\n".join(lines) + "\n"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A running `jointly serve`."""

    def __init__(self, program, folder, name, **options):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        path = pathlib.Path(folder, f"{name}.toml")
        path.write_text(config(self.port, **options))
        self.log = open(pathlib.Path(folder, f"{name}.log"), "w+")
        command = [str(program), "serve", "--config", str(path)]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, cwd=folder)

    def wait(self, seconds=120):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        self.log.seek(0)
        sys.exit(f"the server did not become ready:\n{self.log.read()[-4000:]}")

    def fill(self):
        """Keeps the server busy until it stops, so that it has no room for others."""

        def ask():
            document = "The battery of a hearing aid lasts between three and ten days, and longer in summer. " * 8
            body = {"query": "battery life", "documents": [f"{i} {document}" for i in range(8000)]}
            request = urllib.request.Request(
                f"{self.url}/jointly/v1/rerank", json.dumps(body).encode(), {"content-type": "application/json"}
            )
            while self.process.poll() is None:
                try:
                    urllib.request.urlopen(request, timeout=600).read()
                except (urllib.error.URLError, OSError):
                    time.sleep(0.02)

        # A second one that waits for its chance takes the place of the first as soon as that is done.
        for _ in range(2):
            threading.Thread(target=ask, daemon=True).start()
        time.sleep(2)

    def stop(self):
        self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "killed"


def install(venv):
    """Makes the environment; gives the packages that could not be installed."""
    python = venv / "bin/python"
    wanted = (HERE / "requirements.txt").read_text().split()
    mark = venv / "installed.json"
    if mark.exists() and json.loads(mark.read_text())["wanted"] == wanted:
        return json.loads(mark.read_text())["missing"]
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    missing = []
    if subprocess.run(pip + wanted).returncode != 0:
        # Together they did not work; one by one, to learn which.
        missing = [package for package in wanted if subprocess.run(pip + [package]).returncode != 0]
    mark.write_text(json.dumps({"wanted": wanted, "missing": missing}))
    return missing


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checks", nargs="*", help="beginnings of the names of checks; all if there are none")
    parser.add_argument("--jointly", type=pathlib.Path, default=ROOT / "target/debug/jointly", help="the program")
    parser.add_argument("--venv", type=pathlib.Path, default=ROOT / "target/clients", help="the environment")
    parser.add_argument("--no-skips", action="store_true", help="a package that is missing is a failure")
    parser.add_argument("--examples", type=int, default=50, help="examples of schemathesis for each operation")
    arguments = parser.parse_args()
    if not arguments.jointly.exists():
        sys.exit(f"{arguments.jointly} is not there: cargo build -p jointly-cli, or name it with --jointly")
    venv = arguments.venv.resolve()
    missing = install(venv)
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    # litellm fetches a list of prices when it is imported, unless it is told to use its own.
    environment |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONWARNINGS": "ignore", "NO_PROXY": "127.0.0.1"}
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        program = arguments.jointly.resolve()
        servers = {
            "open": Server(program, folder, "open"),
            "closed": Server(program, folder, "closed", keys=True),
            "full": Server(program, folder, "full", full=True),
            # No schema can say which models there are.
            "any": Server(program, folder, "any", any_name=True),
        }
        try:
            for server in servers.values():
                server.wait()
            servers["full"].fill()
            urls = [f"--{name}={servers[name].url}" for name in ("open", "closed", "full")]
            if arguments.checks != ["schemathesis"]:
                command = [str(venv / "bin/python"), str(HERE / "check.py"), *urls, f"--missing={json.dumps(missing)}"]
                command += ["--no-skips"] if arguments.no_skips else []
                command += [check for check in arguments.checks if check != "schemathesis"]
                failed += subprocess.run(command, env=environment).returncode != 0
            if not arguments.checks or "schemathesis" in arguments.checks:
                failed += schemathesis(venv, servers["any"].url, arguments.examples, environment, folder)
        finally:
            for name, server in servers.items():
                status = server.stop()
                if status != 0:
                    print(f"the {name} server ended with {status}")
                    failed += 1
                server.log.seek(0)
                log = server.log.read()
                if "panicked" in log:
                    print(f"the {name} server panicked:\n{log[-4000:]}")
                    failed += 1
    sys.exit(1 if failed else 0)


def schemathesis(venv, url, examples, environment, folder):
    """The OpenAPI document against the server that serves it."""
    program = venv / "bin/schemathesis"
    if not program.exists():
        print("skip: schemathesis is not installed")
        return 0
    command = [str(program), "--config-file", str(HERE / "schemathesis.toml"), "run", f"{url}/openapi.json"]
    command += ["--url", url, "--max-examples", str(examples), "--seed", "1"]
    return subprocess.run(command, env=environment, cwd=folder).returncode != 0


if __name__ == "__main__":
    main()
