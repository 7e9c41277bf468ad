#!/usr/bin/env python3
"""A second, independent reference: Qwen3-MoE forward pass in numpy float64, reading the safetensors file by hand.

usage: ref_numpy.py MODEL_DIR ORACLE_DIR      compares its logits and experts with those stored in ORACLE_DIR

It states the arithmetic in one page and bounds the rounding error of the float32 oracle. It needs numpy only.
"""
import json
import os
import sys

import numpy as np

TYPES = {"F32": np.float32, "F16": np.float16, "I32": np.int32}
TOLERANCE = 2e-3  # on any logit


def read_safetensors(path):
    raw = open(path, "rb").read()
    n = int.from_bytes(raw[:8], "little")
    out = {}
    for k, v in json.loads(raw[8 : 8 + n]).items():
        if k == "__metadata__":
            continue
        a, b = v["data_offsets"]
        buf = raw[8 + n + a : 8 + n + b]
        if v["dtype"] == "BF16":
            x = (np.frombuffer(buf, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            x = np.frombuffer(buf, TYPES[v["dtype"]])
        out[k] = x.reshape(v["shape"])
    return out


def load(d):
    idx = os.path.join(d, "model.safetensors.index.json")
    files = sorted(set(json.load(open(idx))["weight_map"].values())) if os.path.exists(idx) else ["model.safetensors"]
    w = {}
    for f in files:
        w.update(read_safetensors(os.path.join(d, f)))
    return json.load(open(os.path.join(d, "config.json"))), {k: v.astype(np.float64) for k, v in w.items()}


def rms(x, w, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


def silu(a):
    return a / (1 + np.exp(-a))


def rope_freq(c, D):
    """Inverse frequencies and the factor on cos and sin; config.json of transformers 4 or 5."""
    r = dict(c.get("rope_parameters") or c.get("rope_scaling") or {})
    base = c.get("rope_theta") or r["rope_theta"]
    inv = base ** (-np.arange(0, D, 2) / D)
    if r.get("rope_type", "default") == "default":
        return inv, 1.0
    assert r["rope_type"] == "yarn", r
    f, orig = r["factor"], r["original_max_position_embeddings"]

    def at(rot):
        return D * np.log(orig / (rot * 2 * np.pi)) / (2 * np.log(base))

    lo, hi = max(np.floor(at(r.get("beta_fast", 32))), 0), min(np.ceil(at(r.get("beta_slow", 1))), D - 1)
    ramp = np.clip((np.arange(D // 2) - lo) / max(hi - lo, 0.001), 0, 1)
    return inv / f * ramp + inv * (1 - ramp), 0.1 * np.log(f) + 1


def expert(w, p, e, x):
    if p + "mlp.experts.gate_up_proj" in w:  # fused: rows 0..I are the gate, rows I..2I the up projection
        gu = w[p + "mlp.experts.gate_up_proj"][e]
        g, u, d = gu[: len(gu) // 2], gu[len(gu) // 2 :], w[p + "mlp.experts.down_proj"][e]
    else:
        g, u, d = (w[f"{p}mlp.experts.{e}.{n}_proj.weight"] for n in ("gate", "up", "down"))
    return (silu(x @ g.T) * (x @ u.T)) @ d.T


def forward(c, w, ids):
    eps, H, KV, D = c["rms_norm_eps"], c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
    K, t = c["num_experts_per_tok"], len(ids)
    inv, scale = rope_freq(c, D)
    ang = np.arange(t)[:, None] * inv[None]
    cos, sin = scale * np.cos(ang)[:, None], scale * np.sin(ang)[:, None]
    win = c.get("sliding_window") if c.get("use_sliding_window") else None
    mask = np.tril(np.ones((t, t), bool)) & ~np.tril(np.ones((t, t), bool), -(win or t))  # key > query - window

    def rope(x):  # pairs are (i, i + D/2): "rotate half", not interleaved
        a, b = x[..., : D // 2], x[..., D // 2 :]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    h, picks = w["model.embed_tokens.weight"][ids], []
    for layer in range(c["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        x = rms(h, w[p + "input_layernorm.weight"], eps)

        def lin(z, n, p=p):
            return z @ w[f"{p}self_attn.{n}_proj.weight"].T + w.get(f"{p}self_attn.{n}_proj.bias", 0.0)

        q, k, v = (lin(x, n).reshape(t, -1, D) for n in "qkv")
        q = rope(rms(q, w[p + "self_attn.q_norm.weight"], eps))  # norm per head over head_dim, before RoPE
        k = rope(rms(k, w[p + "self_attn.k_norm.weight"], eps))
        k, v = (np.repeat(z, H // KV, axis=1) for z in (k, v))  # query head i uses key head i // (H/KV)
        s = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(D)
        s = np.where(mask, s, -np.inf)
        s = np.exp(s - s.max(-1, keepdims=True))
        s /= s.sum(-1, keepdims=True)
        h = h + lin(np.einsum("hqk,khd->qhd", s, v).reshape(t, H * D), "o")
        x = rms(h, w[p + "post_attention_layernorm.weight"], eps)
        if p + "mlp.gate.weight" not in w:  # dense layer: in mlp_only_layers, or (layer + 1) % decoder_sparse_step != 0
            g, u, d = (w[f"{p}mlp.{n}_proj.weight"] for n in ("gate", "up", "down"))
            h = h + (silu(x @ g.T) * (x @ u.T)) @ d.T
            picks.append(None)
            continue
        r = x @ w[p + "mlp.gate.weight"].T
        r = np.exp(r - r.max(-1, keepdims=True))
        r /= r.sum(-1, keepdims=True)  # softmax over ALL experts, then top-k
        top = np.argsort(-r, axis=-1, kind="stable")[:, :K]
        wt = np.take_along_axis(r, top, -1)
        if c["norm_topk_prob"]:
            wt = wt / wt.sum(-1, keepdims=True)
        y = np.zeros_like(h)
        for i in range(t):
            for e, g in zip(top[i], wt[i]):
                y[i] += g * expert(w, p, e, x[i])
        h = h + y
        picks.append(top)
    h = rms(h, w["model.norm.weight"], eps)
    head = w["model.embed_tokens.weight"] if c.get("tie_word_embeddings") else w["lm_head.weight"]
    return h @ head.T, picks


def main():
    c, w = load(sys.argv[1])
    want = json.load(open(os.path.join(sys.argv[2], "oracle.json")))["prompts"]
    st = read_safetensors(os.path.join(sys.argv[2], "oracle.safetensors"))
    worst, bad = 0.0, 0
    for it in want:
        lg, picks = forward(c, w, it["ids"])
        ref = st.get(it["name"] + ".logits", st[it["name"] + ".last"][None])
        d = np.abs(lg[-len(ref) :] - ref).max()
        ex = sum(
            set(a) != set(b)
            for layer, pick in enumerate(picks)
            if pick is not None
            for a, b in zip(pick, it["experts"][str(layer)])
        )
        worst, bad = max(worst, d), bad + ex
        print(f"{it['name']:14s} tokens {len(it['ids']):3d}  max abs logit difference {d:.2e}  experts differing {ex}")
    print(f"worst {worst:.2e}, experts differing {bad}")
    sys.exit(1 if worst > TOLERANCE or bad else 0)


if __name__ == "__main__":
    main()
