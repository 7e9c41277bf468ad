#!/usr/bin/env python3
"""Writes the expert loads of the planner's benchmark and checks that each is the one in loads.sha256.

usage: loads.py OUT [RECORDED]

OUT/MODEL/FAMILY.npy is a matrix [layers, experts], or [windows, layers, experts] for the sequences: NumPy format 1.0,
little-endian unsigned 32-bit counts of routed (token, expert) pairs. Every family has a seed of its own, so one can be
made without the others. RECORDED is a folder with the four recorded DeepSeek-V3 matrices, which carry no licence and are
therefore not part of this repository; without it the families `real_*` and `realdrift50` are left out.
"""
import glob
import hashlib
import os
import sys
import zlib

import numpy as np

MODELS = {"dsv3": (58, 256), "qwen235": (94, 128), "qwen30": (48, 128), "kimi": (61, 384), "stress": (64, 1024)}
SCALING = [64, 128, 256, 512, 1024, 2048]
SCALING_LAYERS = 8
PAIRS = 131072 * 8  # tokens of a window times experts per token
BASE_SEED = 20260
MANIFEST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "loads.sha256")
DECODE = ["decode_in500out1500", "decode_in1000out1000"]
PREFILL = ["prefill_in4096", "prefill_in512"]


def generator(name):
    return np.random.Generator(np.random.PCG64(BASE_SEED + zlib.crc32(name.encode())))


def draw(rng, popularity):
    """Multinomial counts of PAIRS pairs for each row of experts."""
    rows = popularity / popularity.sum(-1, keepdims=True)
    rows = rows.reshape(-1, rows.shape[-1]).astype(np.float64)
    counts = np.stack([rng.multinomial(PAIRS, row / row.sum()) for row in rows])
    return counts.reshape(popularity.shape)


def uniform(rng, layers, experts):
    return np.ones((layers, experts))


def zipf(exponent):
    """The same popularities in every layer, for other experts."""
    return lambda rng, layers, experts: np.stack(
        [rng.permutation(1.0 / np.arange(1, experts + 1) ** exponent) for _ in range(layers)]
    )


def lognormal(sigma):
    return lambda rng, layers, experts: rng.lognormal(0.0, sigma, (layers, experts))


def hot(rng, layers, experts):
    """One expert of each layer takes a fifth of the load, the rest is mildly uneven."""
    popularity = rng.lognormal(0.0, 0.3, (layers, experts))
    hottest = rng.integers(0, experts, layers)
    popularity[np.arange(layers), hottest] = 0.0
    popularity = popularity / popularity.sum(-1, keepdims=True) * 0.8
    popularity[np.arange(layers), hottest] = 0.2
    return popularity


def groups(rng, layers, experts):
    """Eight contiguous groups of experts that are popular together."""
    group = rng.lognormal(0.0, 1.0, (layers, 8))
    return np.repeat(group, experts // 8, axis=1) * rng.lognormal(0.0, 0.5, (layers, experts))


def drift(rng, layers, experts, windows=50, keep=0.985):
    """Log-popularities that drift slowly back to 0; in the middle half of the experts swap theirs at once."""
    state = rng.normal(0, 1.0, (layers, experts))
    sequence = []
    for window in range(windows):
        if window == windows // 2:
            for layer in range(layers):
                swapped = rng.permutation(experts)[: experts // 2]
                state[layer, swapped] = state[layer, rng.permutation(swapped)]
        sequence.append(np.exp(state))
        state = keep * state + np.sqrt(1 - keep * keep) * rng.normal(0, 1, (layers, experts))
    return np.stack(sequence)


def bursty(rng, layers, experts, windows=128):
    """Steady means of unequal variance: 40 % of the experts steady, 45 % noisy, 15 % in bursts (a tenth of the windows,
    36 times the rest) that come together in clusters of eight, so that two of a cluster do badly on one rank."""
    mean = rng.lognormal(0.0, 0.7, (layers, experts))
    out = np.repeat(mean[None], windows, 0)
    for layer in range(layers):
        order = rng.permutation(experts)
        clusters = int(experts * 0.15) // 8
        bursts, noisy = order[: clusters * 8], order[clusters * 8 : clusters * 8 + int(experts * 0.45)]
        out[:, layer, noisy] *= rng.gamma(4.0, 0.25, (windows, len(noisy)))
        for cluster in range(clusters):
            on = rng.random(windows) < 0.10
            out[:, layer, bursts[cluster * 8 : (cluster + 1) * 8]] *= np.where(on, 8.0, 0.22)[:, None]
    return out


FAMILIES = {
    "uniform": uniform,
    "zipf10": zipf(1.0),
    "zipf12": zipf(1.2),
    "zipf15": zipf(1.5),
    "logn05": lognormal(0.5),
    "logn10": lognormal(1.0),
    "logn15": lognormal(1.5),
    "hot20": hot,
    "corrgroup": groups,
}
SEQUENCES = {"drift50": drift, "bursty128": bursty}


def synthetic():
    """(name, array) of every family that is made from a seed."""
    for model, (layers, experts) in MODELS.items():
        # The largest model is there for its size; sequences of it would show nothing that the others do not.
        families = FAMILIES if model == "stress" else FAMILIES | SEQUENCES
        for family, make in families.items():
            rng = generator(f"{model}/{family}")
            yield f"{model}/{family}", draw(rng, make(rng, layers, experts))
    for experts in SCALING:
        rng = generator(f"scaling/{experts}")
        yield f"scaling/{experts}", draw(rng, lognormal(1.0)(rng, SCALING_LAYERS, experts))


def recorded(folder):
    """(name, array) of the recorded matrices, and of a sequence that walks from one decode matrix to the other and then,
    after an abrupt change to prefill, from one of those to the other."""
    matrices = {name: np.load(os.path.join(folder, f"real_{name}.npy")) for name in DECODE + PREFILL}
    for name, matrix in matrices.items():
        yield f"dsv3/real_{name}", matrix

    def walk(start, end, windows=25):
        start, end = (matrices[name] / matrices[name].sum(-1, keepdims=True) for name in (start, end))
        return np.stack([(1 - t) * start + t * end for t in np.linspace(0, 1, windows)])

    popularity = np.concatenate([walk(*DECODE), walk(*PREFILL)])
    yield "dsv3/realdrift50", draw(generator("dsv3/realdrift50"), popularity)


def write(out, name, array):
    path = os.path.join(out, f"{name}.npy")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array.astype("<u4")), version=(1, 0))


def expected():
    with open(MANIFEST) as file:
        return {name: digest for digest, name in (line.split() for line in file)}


def main():
    out, *folder = sys.argv[1:]
    digests = expected()
    if not folder:
        for path in glob.glob(os.path.join(out, "dsv3", "real*")):
            os.remove(path)
    sources = [synthetic(), *(recorded(name) for name in folder[:1])]
    for name, array in (pair for source in sources for pair in source):
        found = hashlib.sha256(np.ascontiguousarray(array.astype("<u4")).tobytes()).hexdigest()
        if found != digests.get(name):
            raise SystemExit(f"{name} is {found}, not {digests.get(name)} as in {MANIFEST}: these are other loads")
        write(out, name, array)
    print(f"plan loads: {len(digests)} known, written to {out}", file=sys.stderr)


main()
