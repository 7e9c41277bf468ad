#!/usr/bin/env python3
"""Writes a bf16 Qwen3-MoE checkpoint with a byte-level BPE tokenizer as a float32 GGUF file for llama.cpp.

usage: to_gguf.py MODEL_DIR OUT.gguf

llama.cpp's own converter refuses the tiny model's tokenizer, whose hash it does not know.
"""
import json
import os
import sys

import gguf
import numpy as np


class Checkpoint:
    """A single-file safetensors checkpoint. NumPy knows no bfloat16, so the format is read by hand and widened."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.bytes = file.read()
        self.start = 8 + int.from_bytes(self.bytes[:8], "little")
        self.head = json.loads(self.bytes[8 : self.start])

    def tensor(self, name):
        entry = self.head[name]
        if entry["dtype"] != "BF16":
            raise SystemExit(f"{name} is {entry['dtype']}, not BF16")
        count, offset = int(np.prod(entry["shape"])), self.start + entry["data_offsets"][0]
        half = np.frombuffer(self.bytes, np.uint16, count=count, offset=offset)
        return (half.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])


def write_header(writer, config):
    writer.add_name("tiny-moe")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_expert_count(config["num_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])


def write_tokenizer(writer, config, tokenizer):
    vocabulary = {number: text for text, number in tokenizer["model"]["vocab"].items()}
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    kind = gguf.TokenType
    numbers = range(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([special.get(i, vocabulary.get(i, f"[unused{i}]")) for i in numbers])
    writer.add_token_types(
        [kind.CONTROL if i in special else kind.NORMAL if i in vocabulary else kind.UNUSED for i in numbers]
    )
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)


LAYER_TENSORS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate": "ffn_gate_inp",
}


def write_tensors(writer, config, checkpoint):
    writer.add_tensor("token_embd.weight", checkpoint.tensor("model.embed_tokens.weight"))
    writer.add_tensor("output_norm.weight", checkpoint.tensor("model.norm.weight"))
    writer.add_tensor("output.weight", checkpoint.tensor("lm_head.weight"))
    for layer in range(config["num_hidden_layers"]):
        source, target = f"model.layers.{layer}.", f"blk.{layer}."
        for theirs, ours in LAYER_TENSORS.items():
            writer.add_tensor(f"{target}{ours}.weight", checkpoint.tensor(f"{source}{theirs}.weight"))
        for part in ("gate", "up", "down"):
            names = (f"{source}mlp.experts.{e}.{part}_proj.weight" for e in range(config["num_experts"]))
            stacked = np.stack([checkpoint.tensor(name) for name in names])
            writer.add_tensor(f"{target}ffn_{part}_exps.weight", stacked)


def main():
    folder, out = sys.argv[1:3]
    with open(os.path.join(folder, "config.json")) as file:
        config = json.load(file)
    with open(os.path.join(folder, "tokenizer.json")) as file:
        tokenizer = json.load(file)
    writer = gguf.GGUFWriter(out, "qwen3moe")
    write_header(writer, config)
    write_tokenizer(writer, config, tokenizer)
    write_tensors(writer, config, Checkpoint(os.path.join(folder, "model.safetensors")))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main()
