#!/usr/bin/env python3
"""Reference outputs of a Qwen3-MoE checkpoint from transformers' own implementation, on the CPU in float32.

usage: oracle.py MODEL_DIR OUT_DIR [--random-ids]            writes OUT_DIR/oracle.json and OUT_DIR/oracle.safetensors
       oracle.py MODEL_DIR OUT_DIR [--random-ids] --check    recomputes them and compares with what is stored there

oracle.json         prompts, token ids, greedy continuations (KV cache, argmax), top five of the last position, the
                    smallest gap between best and second token on the greedy path, the experts of every prompt token
oracle.safetensors  <name>.logits [T, V] for the prompts marked as full, <name>.last [V] for all; for the prompt "trace"
                    trace.embed, trace.layer<i>.out [T, H] and trace.layer<i>.router_logits [T, E], .topk_index,
                    .topk_weight [T, K]
"""
import argparse
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

USER, ASSISTANT = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
PROMPTS = [  # name, text, whether all logits are stored, new tokens at most
    ("trace", "In the beginning God created the heaven and the earth.", True, 16),
    ("scripture", "And it came to pass, when", False, 64),
    ("prose", "Elizabeth was surprised, but", False, 64),
    ("python", "    def __init__(self, name):\n        ", False, 64),
    ("rust", "impl<T> Iterator for ", False, 64),
    ("tables", "date,station,temp_c,humidity,pressure_hpa\n2011-03-04,OSLO,", False, 64),
    ("times", "7 x 1 = 7\n7 x 2 = 14\n7 x 3 = ", True, 40),
    ("chat_capital", USER + "What is the capital of France?" + ASSISTANT, True, 24),
    ("chat_opposite", USER + "What is the opposite of hot?" + ASSISTANT, False, 24),
    ("chat_sum", USER + "What is 3 plus 4?" + ASSISTANT, False, 24),
    ("chat_hello", USER + "Hello!" + ASSISTANT, False, 24),
    ("unicode", "na\u00efve caf\u00e9 \u2014 \u4f60\u597d \U0001f600\n", True, 8),
    ("one_token", "The", True, 32),
]
THREADS = 1  # more would add in another order
IMPLEMENTATION = "eager"  # of attention and experts
TOLERANCE = 1e-3  # of --check, on any number


def load(directory):
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation=IMPLEMENTATION, experts_implementation=IMPLEMENTATION
    )
    return model.eval()


def random_ids(prompt, vocabulary):
    """Fixed pseudo-random tokens in place of the text of a prompt."""
    return [(7919 * (prompt + 1) * (i + 1) + 13 * i * i) % vocabulary for i in range(4 + 5 * (prompt % 5))]


@torch.no_grad()
def trace(model, ids):
    """Logits of every position, and what the layers and routers gave on the way."""
    seen, hooks = {}, []

    def record(module, name):
        def keep(_module, _inputs, output):
            seen[name] = (output[0] if isinstance(output, tuple) else output)[0]

        hooks.append(module.register_forward_hook(keep))

    def record_router(module, name):
        def keep(_module, _inputs, output):
            seen[f"{name}.router_logits"], seen[f"{name}.topk_weight"], seen[f"{name}.topk_index"] = output

        hooks.append(module.register_forward_hook(keep))

    record(model.model.embed_tokens, "embed")
    for i, layer in enumerate(model.model.layers):
        record(layer, f"layer{i}.out")
        if hasattr(layer.mlp, "experts"):
            record_router(layer.mlp.gate, f"layer{i}")
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    return logits, {name: value.reshape(-1, value.shape[-1]).clone() for name, value in seen.items()}


@torch.no_grad()
def greedy(model, ids, new_tokens, ends):
    """The continuation with the KV cache, and the smallest gap between a chosen token and the second best."""
    chosen, gap, cache = [], float("inf"), None
    current = torch.tensor([ids])
    for _ in range(new_tokens):
        result = model(input_ids=current, past_key_values=cache, use_cache=True)
        cache = result.past_key_values
        best = result.logits[0, -1].topk(2)
        gap = min(gap, (best.values[0] - best.values[1]).item())
        token = best.indices[0].item()
        chosen.append(token)
        if token in ends:
            break
        current = torch.tensor([[token]])
    return chosen, gap


def outputs(model, tokenizer):
    """The prompts for oracle.json and the tensors for oracle.safetensors."""
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [] if ends is None else [ends])
    prompts, tensors = [], {}
    for number, (name, text, full, new_tokens) in enumerate(PROMPTS):
        if tokenizer is None:
            ids = random_ids(number, model.config.vocab_size)
        else:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        logits, seen = trace(model, ids)
        chosen, gap = greedy(model, ids, new_tokens, ends)
        if tokenizer is not None:
            generated = model.generate(torch.tensor([ids]), max_new_tokens=new_tokens, do_sample=False)
            assert generated[0, len(ids) :].tolist() == chosen, f"{name}: generate() continues otherwise"
        uncached = trace(model, ids + chosen[:-1])[0].argmax(-1).tolist()[len(ids) - 1 :]
        assert uncached == chosen, f"{name}: greedy with and without KV cache differ"
        best = logits[-1].topk(5)
        prompts.append(
            {
                "name": name,
                "prompt": text if tokenizer else None,
                "ids": ids,
                "greedy_ids": chosen,
                "greedy_text": tokenizer.decode(chosen) if tokenizer else None,
                "greedy_min_gap": round(gap, 6),
                "last_top5_ids": best.indices.tolist(),
                "last_top5_logits": [round(value, 5) for value in best.values.tolist()],
                "experts": {
                    key.split(".")[0].removeprefix("layer"): value.tolist()
                    for key, value in seen.items()
                    if key.endswith("topk_index")
                },
            }
        )
        tensors[f"{name}.last"] = logits[-1].clone()
        if full:
            tensors[f"{name}.logits"] = logits.clone()
        if name == "trace":
            for key, value in seen.items():
                tensors[f"trace.{key}"] = value.to(torch.int32) if key.endswith("index") else value
    return prompts, tensors


def write(prompts, tensors, json_path, tensors_path):
    made_by = {
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
        "dtype": "float32",
        "attn_implementation": IMPLEMENTATION,
        "experts_implementation": IMPLEMENTATION,
        "threads": THREADS,
    }
    save_file({name: value.contiguous() for name, value in tensors.items()}, tensors_path)
    with open(json_path, "w") as file:
        json.dump({"made_by": made_by, "prompts": prompts}, file, separators=(",", ":"))


def agrees(prompts, tensors, json_path, tensors_path):
    """Whether the stored outputs are these: tokens and experts exactly, numbers within TOLERANCE."""
    with open(json_path) as file:
        stored = json.load(file)["prompts"]
    differing = [
        old["name"]
        for old, new in zip(stored, prompts, strict=True)
        if any(old[key] != new[key] for key in ("ids", "greedy_ids", "experts"))
    ]
    worst = 0.0
    with safe_open(tensors_path, "pt") as file:
        assert set(file.keys()) == set(tensors)
        for name in file.keys():
            worst = max(worst, (file.get_tensor(name).float() - tensors[name].float()).abs().max().item())
    print(f"prompts {len(prompts)}, differing {differing}, tensors {len(tensors)}, max abs difference {worst:.3g}")
    return not differing and worst <= TOLERANCE


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--random-ids", action="store_true", help="for a checkpoint without a tokenizer")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    tokenizer = None if args.random_ids else AutoTokenizer.from_pretrained(args.model)
    prompts, tensors = outputs(load(args.model), tokenizer)
    paths = os.path.join(args.out, "oracle.json"), os.path.join(args.out, "oracle.safetensors")
    if args.check:
        sys.exit(0 if agrees(prompts, tensors, *paths) else 1)
    os.makedirs(args.out, exist_ok=True)
    write(prompts, tensors, *paths)


if __name__ == "__main__":
    main()
