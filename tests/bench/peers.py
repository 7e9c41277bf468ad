#!/usr/bin/env python3
"""Times one rank of SwiftBalancer beside llama.cpp and transformers on the same prompts, round robin, and prints the ratios;
fails where it is not ahead.

usage: peers.py ENGINE_BENCH PEERS_DIR MODEL_DIR [ROUNDS]

A round runs each engine once, so that a slow phase of a shared machine hits all of them alike. A run is repeated when the
machine was disturbed: processor time that was not the run's own above FOREIGN_CORES, or a cache line that takes longer than
HOP_NANOSECONDS from core to core before or after it, which happens when a host places two virtual cores far apart.
"""
import json
import os
import resource
import statistics
import subprocess
import sys
import time

CASES = ["pp1", "pp8", "tg1", "tg8", "tg32"]
SECONDS = "0.7"
THREADS = "2"
FOREIGN_CORES = 0.10
HOP_NANOSECONDS = 100
MOST_REPEATS = 12
HERE = os.path.dirname(os.path.abspath(__file__))
PROMPTS = os.path.join(HERE, "prompts.txt")


def busy_seconds():
    """Seconds that any core was not idle since boot, time stolen by the host included."""
    with open("/proc/stat") as file:
        fields = [int(field) for field in file.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Disturbance:
    """Measures, around a run, how much the machine did beside it."""

    def __init__(self, bench_llama):
        self.bench_llama = bench_llama

    def hop(self):
        run = subprocess.run([self.bench_llama, "hop"], capture_output=True, text=True, check=True)
        return float(run.stdout)

    def run(self, command):
        """The lines a command prints, and whether the machine was quiet while it ran."""
        before = self.hop()
        busy, own, start = busy_seconds(), children_seconds(), time.monotonic()
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode != 0:
            raise SystemExit(f"{command[0]} failed:\n{run.stderr}")
        wall = time.monotonic() - start
        foreign = max(0.0, (busy_seconds() - busy) - (children_seconds() - own)) / wall
        quiet = foreign <= FOREIGN_CORES and max(before, self.hop()) <= HOP_NANOSECONDS
        return run.stdout.splitlines(), quiet


def measure(engines, rounds, disturbance):
    """{engine: {case: [tokens per second of each round]}}, and how many runs were repeated and kept disturbed."""
    figures = {name: {case: [] for case in CASES} for name in engines}
    repeated = disturbed = 0
    for number in range(rounds):
        for name, command in engines.items():
            for attempt in range(MOST_REPEATS + 1):
                lines, quiet = disturbance.run(command)
                if quiet or attempt == MOST_REPEATS:
                    break
                repeated += 1
            disturbed += not quiet
            for line in lines:
                result = json.loads(line)
                figures[name][result["case"]].append(result["tokens_per_second"])
        print(f"round {number + 1} of {rounds} done", file=sys.stderr, flush=True)
    return figures, repeated, disturbed


def ratios(figures):
    """{case: tokens per second of ours by those of the best peer, medians}"""
    medians = {name: {case: statistics.median(v) for case, v in cases.items()} for name, cases in figures.items()}
    ours = medians.pop("swiftbalancer")
    return {case: ours[case] / max(peer[case] for peer in medians.values()) for case in CASES}


def table(figures, repeated, disturbed, rounds):
    yield "| engine | " + " | ".join(CASES) + " |"
    yield "| --- |" + " ---: |" * len(CASES)
    for name, cases in figures.items():
        cells = (f"{statistics.median(v):.0f} ({min(v):.0f}-{max(v):.0f})" for v in cases.values())
        yield f"| {name} | " + " | ".join(cells) + " |"
    cells = (f"**{ratio:.2f}x**" for ratio in ratios(figures).values())
    yield "| **ratio to the best peer** | " + " | ".join(cells) + " |"
    yield ""
    yield f"{rounds} rounds, median (min-max), tokens per second; {repeated} runs repeated, {disturbed} kept though disturbed."


def main():
    engine_bench, peers, model = sys.argv[1:4]
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 5
    llama, cases = os.path.join(peers, "bench-llama"), ",".join(CASES)
    gguf = os.path.join(peers, "model-f32.gguf")
    engines = {
        "swiftbalancer": [engine_bench, model, PROMPTS, cases, THREADS, SECONDS],
        "llama.cpp, exact f32": [llama, "run", gguf, PROMPTS, cases, "exact", THREADS, SECONDS],
        "llama.cpp, default": [llama, "run", gguf, PROMPTS, cases, "default", THREADS, SECONDS],
        "transformers, float32": [
            os.path.join(peers, "transformers/bin/python"),
            os.path.join(HERE, "transformers_peer.py"),
            *(model, PROMPTS, cases, THREADS, SECONDS),
        ],
    }
    figures, repeated, disturbed = measure(engines, rounds, Disturbance(llama))
    print("\n".join(table(figures, repeated, disturbed, rounds)))
    behind = [case for case, ratio in ratios(figures).items() if ratio <= 1.0]
    if behind:
        raise SystemExit(f"not ahead of the best peer in {', '.join(behind)}")


main()
