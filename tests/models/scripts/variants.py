#!/usr/bin/env python3
"""Draws the weights of small Qwen3-MoE checkpoints that differ in one feature each.

usage: variants.py VARIANTS_DIR              draws new weights in every folder, as its config.json asks for
       variants.py VARIANTS_DIR --check      compares the stored weights with what config.json asks for

The weights are drawn, not trained. Matrices are normal with mean 0 and deviation GAIN / sqrt(inputs), so that
activations keep their size and routers decide clearly; norms have mean 1 and biases mean 0, both with deviation
SPREAD. A folder whose weights are in shards gets shards of at most SHARD_BYTES. --check compares names, shapes, types,
means and deviations, not values. It needs numpy only.
"""
import argparse
import glob
import json
import os
import sys
import zlib

import numpy as np

GAIN, SPREAD = 1.2, 0.2  # SPREAD is the deviation of norms and biases
SHARD_BYTES = 40_000
INDEX = "model.safetensors.index.json"
TYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
TOLERANCE = 5  # of --check: standard errors of mean and deviation


def is_sparse(config, layer):
    """Whether a layer has experts rather than one MLP."""
    return layer not in config["mlp_only_layers"] and (layer + 1) % config["decoder_sparse_step"] == 0


def shapes(config):
    """Name and shape of every tensor."""
    hidden, head = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    experts = config.get("num_experts") or config["num_local_experts"]
    out = {"model.embed_tokens.weight": [config["vocab_size"], hidden], "model.norm.weight": [hidden]}
    if not config["tie_word_embeddings"]:
        out["lm_head.weight"] = [config["vocab_size"], hidden]

    def mlp(prefix, inner):
        out[f"{prefix}.gate_proj.weight"] = out[f"{prefix}.up_proj.weight"] = [inner, hidden]
        out[f"{prefix}.down_proj.weight"] = [hidden, inner]

    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        out[f"{prefix}.input_layernorm.weight"] = out[f"{prefix}.post_attention_layernorm.weight"] = [hidden]
        out[f"{prefix}.self_attn.q_norm.weight"] = out[f"{prefix}.self_attn.k_norm.weight"] = [head]
        for name, rows, columns in [
            ("q", queries, hidden),
            ("k", keys, hidden),
            ("v", keys, hidden),
            ("o", hidden, queries),
        ]:
            out[f"{prefix}.self_attn.{name}_proj.weight"] = [rows, columns]
            if config["attention_bias"]:
                out[f"{prefix}.self_attn.{name}_proj.bias"] = [rows]
        if is_sparse(config, layer):
            out[f"{prefix}.mlp.gate.weight"] = [experts, hidden]
            for expert in range(experts):
                mlp(f"{prefix}.mlp.experts.{expert}", config["moe_intermediate_size"])
        else:
            mlp(f"{prefix}.mlp", config["intermediate_size"])
    return dict(sorted(out.items()))


def distribution(name, shape):
    """Mean and deviation of the normal distribution that a tensor is drawn from."""
    if len(shape) == 2:
        return 0.0, GAIN / shape[1] ** 0.5
    return (0.0 if name.endswith("bias") else 1.0), SPREAD


def encode(values, kind):
    if kind == "BF16":  # round to nearest, ties to even
        bits = values.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return values.astype({"F16": "<f2", "F32": "<f4"}[kind]).tobytes()


def decode(data, kind):
    if kind == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, {"F16": "<f2", "F32": "<f4"}[kind])


def write_file(path, tensors):
    """A safetensors file of (name, type, shape, bytes)."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, kind, shape, data in tensors:
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + b"".join(data for *_, data in tensors))


def read_files(folder):
    """Type, shape and values of every stored tensor."""
    out = {}
    for path in sorted(glob.glob(os.path.join(folder, "model*.safetensors"))):
        with open(path, "rb") as file:
            raw = file.read()
        start = 8 + int.from_bytes(raw[:8], "little")
        for name, entry in json.loads(raw[8:start]).items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                out[name] = entry["dtype"], entry["shape"], decode(raw[start + begin : start + end], entry["dtype"])
    return out


def write_shards(folder, tensors):
    shards, size = [[]], 0
    for tensor in tensors:
        if size + len(tensor[3]) > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += len(tensor[3])
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_file(os.path.join(folder, file), shard)
        weight_map.update({tensor[0]: file for tensor in shard})
    metadata = {
        "total_parameters": sum(int(np.prod(shape)) for _, _, shape, _ in tensors),
        "total_size": sum(len(data) for *_, data in tensors),
    }
    with open(os.path.join(folder, INDEX), "w") as file:
        file.write(json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=2) + "\n")


def draw(folder, kind, wanted):
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(os.path.basename(folder).encode())))
    tensors = [
        (name, kind, shape, encode(rng.normal(*distribution(name, shape), shape), kind))
        for name, shape in wanted.items()
    ]
    if os.path.exists(os.path.join(folder, INDEX)):
        write_shards(folder, tensors)
    else:
        write_file(os.path.join(folder, "model.safetensors"), tensors)


def faults(folder, kind, wanted):
    """What of the stored weights is not as config.json asks for."""
    stored = read_files(folder)
    out = sorted(set(stored) ^ set(wanted))
    for name in set(stored) & set(wanted):
        stored_kind, shape, values = stored[name]
        mean, deviation = distribution(name, shape)
        error = deviation / values.size**0.5
        if (stored_kind, shape) != (kind, wanted[name]):
            out.append(f"{name}: {stored_kind} {shape}")
        elif abs(values.mean() - mean) > TOLERANCE * error or abs(values.std() - deviation) > TOLERANCE * error:
            out.append(f"{name}: mean {values.mean():.3f}, deviation {values.std():.3f}")
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    found = False
    for path in sorted(glob.glob(os.path.join(args.variants, "*", "config.json"))):
        folder = os.path.dirname(path)
        with open(path) as file:
            config = json.load(file)
        kind = TYPES[config.get("dtype") or config["torch_dtype"]]
        wanted = shapes(config)
        if args.check:
            wrong = faults(folder, kind, wanted)
            print(f"{folder}: {len(wanted)} tensors, {'; '.join(wrong) or 'as they should be'}")
            found = found or bool(wrong)
        else:
            draw(folder, kind, wanted)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
