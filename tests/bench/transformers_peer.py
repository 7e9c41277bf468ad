#!/usr/bin/env python3
"""Tokens per second of transformers on the CPU in float32, with its default grouped experts.

usage: transformers_peer.py MODEL_DIR PROMPTS CASES THREADS SECONDS      one JSON line for each case

CASES is a comma-separated list. ppN: prefill of N prompts of 512 tokens in one forward, logits of the last position. tgN:
greedy decode of N sequences, 128 steps after prompts of 64 tokens, bare forward and argmax with the KV cache.
"""
import json
import os
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers
from transformers import AutoModelForCausalLM

DECODE_STEPS = 128


@torch.inference_mode()
def prefill(model, prompts, sequences):
    tokens = torch.tensor([prompt[:512] for prompt in prompts[:sequences]])
    start = time.perf_counter()
    model(input_ids=tokens, use_cache=True, logits_to_keep=1).logits[:, -1].argmax(-1).tolist()
    return sequences * 512, time.perf_counter() - start


@torch.inference_mode()
def decode(model, prompts, sequences):
    tokens = torch.tensor([prompt[:64] for prompt in prompts[:sequences]])
    result = model(input_ids=tokens, use_cache=True, logits_to_keep=1)
    cache, last = result.past_key_values, result.logits[:, -1].argmax(-1, keepdim=True)
    start = time.perf_counter()
    for _ in range(DECODE_STEPS):
        result = model(input_ids=last, past_key_values=cache, use_cache=True)
        last = result.logits[:, -1].argmax(-1, keepdim=True)
        last.tolist()
    return sequences * DECODE_STEPS, time.perf_counter() - start


def main():
    model_folder, prompts_file, cases, threads, least_seconds = sys.argv[1:6]
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(int(threads))
    with open(prompts_file) as lines:
        prompts = [[int(token) for token in line.split()] for line in lines]
    model = AutoModelForCausalLM.from_pretrained(
        model_folder, dtype=torch.float32, experts_implementation="grouped_mm"
    ).eval()
    for case in cases.split(","):
        run = {"pp": prefill, "tg": decode}[case[:2]]
        sequences = int(case[2:])
        run(model, prompts, sequences)
        tokens = seconds = 0.0
        while seconds < float(least_seconds):
            more_tokens, more_seconds = run(model, prompts, sequences)
            tokens, seconds = tokens + more_tokens, seconds + more_seconds
        print(json.dumps({"case": case, "tokens_per_second": round(tokens / seconds, 1)}), flush=True)


main()
