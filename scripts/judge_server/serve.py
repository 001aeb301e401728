"""A real chat-completions server with a small language model: llama.cpp's own, inside of a Python package.

Started by check.py, in the environment that it makes. Prints the address on a line of its own, and serves until its
standard input is closed.
"""

import sys

import xllamacpp


def main() -> None:
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_parallel = 2
    params.n_ctx = 4096 * params.n_parallel
    # One thread: with more, a busy machine has them wait for each other at every layer.
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    print(f"listening {server.listening_address}", flush=True)
    sys.stdin.read()


main()
