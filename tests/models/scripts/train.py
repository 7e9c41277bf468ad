#!/usr/bin/env python3
"""Trains the small Qwen3-MoE model on the CPU and writes it as a checkpoint.

usage: train.py --corpus corpus.json --out DIR [--init DIR] [--steps N] [--minutes M] [--decay PART] [--lr RATE]
                [--adam-lr RATE] [--threads N] [--log FILE.csv]

The model is transformers' Qwen3MoeForCausalLM; only its loop over experts is replaced, by one that computes the same
function faster. Matrices are trained with Muon, embeddings, output layer, routers and norms with AdamW. --init goes on
from a checkpoint, with its tokenizer. The learning rates follow the clock unless --steps comes first.
"""
import argparse
import json
import os
import random
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

VOCABULARY, POSITIONS, HIDDEN, LAYERS = 1792, 1024, 128, 4
HEADS, KEY_HEADS, HEAD, ROPE_BASE = 6, 2, 32, 10000.0
EXPERTS, EXPERTS_PER_TOKEN, EXPERT_HIDDEN = 32, 4, 64
BALANCE = 0.008  # weight of the load-balancing loss
BATCH_TOKENS = 3072
WARM_UP_STEPS = 30
LOG_STEPS, SAVE_STEPS = 50, 500
EXPERTS_FUNCTION = "sorted"
TOKENIZER_CHARACTERS = {"tables": 600_000, "chat": 900_000}  # what the tokenizer is trained on, per domain
MOST_CHARACTERS = 2_500_000  # of the other domains
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# The pre-tokenizer pattern of the Qwen2/Qwen3 tokenizers, so that a runtime meets the same tokenizer.json shape.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
MIX = {"prose": 0.22, "scripture": 0.18, "python": 0.20, "rust": 0.18, "tables": 0.10, "chat": 0.12}
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}"
)


def make_tokenizer(corpus):
    tok = Tokenizer(models.BPE(byte_fallback=False))
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tok.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tr = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIALS), show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    texts = []
    for name, docs in corpus["train"].items():
        n, cap = 0, TOKENIZER_CHARACTERS.get(name, MOST_CHARACTERS)
        for d in docs:
            if n > cap:
                break
            n += len(d)
            for s in SPECIALS:
                d = d.replace(s, "")
            texts.append(d)
    tok.train_from_iterator(texts, tr)
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIALS])
    assert tok.get_vocab_size() == VOCABULARY, tok.get_vocab_size()
    return tok


class GroupedLinear(torch.autograd.Function):
    """y[seg e] = x[seg e] @ w[e].T for rows sorted by expert."""

    @staticmethod
    def forward(ctx, x, w, counts):
        y = x.new_empty(x.shape[0], w.shape[1])
        o = 0
        for e, n in enumerate(counts):
            if n:
                torch.mm(x[o : o + n], w[e].t(), out=y[o : o + n])
            o += n
        ctx.save_for_backward(x, w)
        ctx.counts = counts
        return y

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        g = g.contiguous()
        gx, gw, o = torch.empty_like(x), torch.zeros_like(w), 0
        for e, n in enumerate(ctx.counts):
            if n:
                torch.mm(g[o : o + n], w[e], out=gx[o : o + n])
                torch.mm(g[o : o + n].t(), x[o : o + n], out=gw[e])
            o += n
        return gx, gw, None


def sorted_experts(self, hidden_states, top_k_index, top_k_weights):
    """The experts of a layer over tokens sorted by expert."""
    k = top_k_index.shape[1]
    flat = top_k_index.reshape(-1)
    order = torch.argsort(flat, stable=True)
    counts = torch.bincount(flat, minlength=self.num_experts).tolist()
    rows = order // k
    x = hidden_states.index_select(0, rows)
    gate, up = GroupedLinear.apply(x, self.gate_up_proj, counts).chunk(2, dim=-1)
    y = GroupedLinear.apply(F.silu(gate) * up, self.down_proj, counts)
    y = y * top_k_weights.reshape(-1).index_select(0, order).unsqueeze(-1)
    return torch.zeros_like(hidden_states).index_add(0, rows, y)


def zeropower(g, steps=4):
    """Batched Newton-Schulz orthogonalisation (the Muon update)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tr = g.shape[-2] > g.shape[-1]
    x = g.transpose(-1, -2) if tr else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.transpose(-1, -2)
        x = a * x + (b * s + c * (s @ s)) @ x
    return x.transpose(-1, -2) if tr else x


class Muon:
    def __init__(self, params, momentum=0.95):
        self.params, self.momentum = list(params), momentum
        self.buf = [torch.zeros_like(p) for p in self.params]

    @torch.no_grad()
    def step(self, lr):
        for p, m in zip(self.params, self.buf):
            m.lerp_(p.grad, 1 - self.momentum)
            g = p.grad.lerp(m, self.momentum)
            if getattr(p, "fused", False):  # gate and up are separate matrices
                g = torch.cat([zeropower(h) for h in g.chunk(2, dim=1)], dim=1)
            else:
                g = zeropower(g)
            p.add_(g, alpha=-lr * max(1.0, p.shape[-2] / p.shape[-1]) ** 0.5)


def aux_loss(router_logits, k, e):
    """Switch load-balancing loss, one term per layer, over the whole mixed-domain batch. 1.0 means balanced."""
    tot = 0.0
    for lg in router_logits:
        p = lg.float().softmax(-1)
        f = torch.bincount(p.topk(k, -1).indices.reshape(-1), minlength=e).float() / (lg.shape[0] * k)
        tot = tot + e * (f * p.mean(0)).sum()
    return tot / len(router_logits)


class Stream:
    """The documents of a domain as one row of tokens; samples begin at a document or anywhere."""

    def __init__(self, tok, docs, eot):
        ids, starts = [], []
        for enc in tok.encode_batch(docs, add_special_tokens=False):
            starts.append(len(ids))
            ids.extend(enc.ids)
            ids.append(eot)
        self.ids, self.starts = np.array(ids, dtype=np.int32), starts

    def sample(self, rng, n):
        hi = len(self.ids) - n - 1
        o = rng.choice(self.starts) if rng.random() < 0.5 else rng.randrange(hi)
        return self.ids[min(o, hi) : min(o, hi) + n + 1]


def write_checkpoint(model, tok, out, config):
    """The files of a checkpoint; experts have a name each, as in the published checkpoints."""
    os.makedirs(out, exist_ok=True)
    sd, w = model.state_dict(), {}
    for k, v in sd.items():
        if k.endswith("mlp.experts.gate_up_proj"):
            base = k[: -len("gate_up_proj")]
            for e in range(v.shape[0]):
                g, u = v[e].chunk(2, dim=0)
                w[f"{base}{e}.gate_proj.weight"], w[f"{base}{e}.up_proj.weight"] = g, u
        elif k.endswith("mlp.experts.down_proj"):
            base = k[: -len("down_proj")]
            for e in range(v.shape[0]):
                w[f"{base}{e}.down_proj.weight"] = v[e]
        else:
            w[k] = v
    w = {k: v.to(torch.bfloat16).contiguous().clone() for k, v in w.items()}
    save_file(w, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})

    def dump(name, o):
        with open(os.path.join(out, name), "w") as file:
            file.write(json.dumps(o, indent=2) + "\n")

    dump("config.json", config)
    eot, im_end = tok.token_to_id("<|endoftext|>"), tok.token_to_id("<|im_end|>")
    dump(
        "generation_config.json",
        {"bos_token_id": eot, "pad_token_id": eot, "eos_token_id": [im_end, eot], "do_sample": False},
    )
    tok.save(os.path.join(out, "tokenizer.json"), pretty=False)
    dump(
        "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_bos_token": False,
            "add_prefix_space": False,
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "errors": "replace",
            "model_max_length": config["max_position_embeddings"],
            "clean_up_tokenization_spaces": False,
            "split_special_tokens": False,
            "chat_template": CHAT_TEMPLATE,
            "added_tokens_decoder": {
                str(tok.token_to_id(s)): {
                    "content": s,
                    "lstrip": False,
                    "normalized": False,
                    "rstrip": False,
                    "single_word": False,
                    "special": True,
                }
                for s in SPECIALS
            },
        },
    )


def config_json(tok):
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": tok.token_to_id("<|endoftext|>"),
        "decoder_sparse_step": 1,
        "eos_token_id": tok.token_to_id("<|im_end|>"),
        "head_dim": HEAD,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": 4 * HIDDEN,
        "max_position_embeddings": POSITIONS,
        "max_window_layers": LAYERS,
        "mlp_only_layers": [],
        "model_type": "qwen3_moe",
        "moe_intermediate_size": EXPERT_HIDDEN,
        "norm_topk_prob": True,
        "num_attention_heads": HEADS,
        "num_experts": EXPERTS,
        "num_experts_per_tok": EXPERTS_PER_TOKEN,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KEY_HEADS,
        "output_router_logits": False,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": ROPE_BASE,
        "router_aux_loss_coef": BALANCE,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": VOCABULARY,
    }


def sequence_length(done, continued):
    """Sequences grow with the part of the run that is done."""
    if done < 0.5 and not continued:
        return 128
    return 256 if done < 0.85 else 512


class Optimizer:
    """Muon for the matrices, AdamW for the rest, twice as fast for the embedding."""

    def __init__(self, model, muon_rate, adam_rate):
        matrices, others = [], []
        for name, p in model.named_parameters():
            if "gate_up_proj" in name:
                p.fused = True
            is_matrix = p.dim() >= 2 and "embed" not in name and "lm_head" not in name and "mlp.gate." not in name
            (matrices if is_matrix else others).append(p)
        embedding = model.model.embed_tokens.weight
        groups = [
            {"params": [p for p in others if p is not embedding], "base": adam_rate},
            {"params": [embedding], "base": 2 * adam_rate},
        ]
        self.model, self.muon_rate, self.muon = model, muon_rate, Muon(matrices)
        self.adam = torch.optim.AdamW(groups, lr=adam_rate, betas=(0.9, 0.98), weight_decay=0.0, eps=1e-10)

    def step(self, scale):
        self.muon.step(self.muon_rate * scale)
        for group in self.adam.param_groups:
            group["lr"] = group["base"] * scale
        self.adam.step()
        for p in self.model.parameters():
            p.grad = None


def loss_of(model, tokens):
    """Cross entropy of the next token, and the router logits of every layer."""
    out = model.model(input_ids=tokens[:, :-1], use_cache=False, output_router_logits=True)
    logits = model.lm_head(out.last_hidden_state)
    return F.cross_entropy(logits.reshape(-1, VOCABULARY), tokens[:, 1:].reshape(-1)), out.router_logits


def batch(rows):
    return torch.from_numpy(np.stack(rows).astype(np.int64))


@torch.no_grad()
def evaluate(model, streams):
    """The loss on each domain's validation text."""
    model.eval()
    rng = random.Random(3)
    losses = {}
    for name, stream in streams.items():
        losses[name] = loss_of(model, batch([stream.sample(rng, 256) for _ in range(12)]))[0].item()
    model.train()
    return losses


def train(model, tok, corpus, config, args):
    end_of_text = tok.token_to_id("<|endoftext|>")
    training = {name: Stream(tok, docs, end_of_text) for name, docs in corpus["train"].items()}
    validation = {name: Stream(tok, docs, end_of_text) for name, docs in corpus["valid"].items()}
    optimizer = Optimizer(model, args.lr, args.adam_lr)
    rng = random.Random(2 if args.init else 1)
    names, weights = list(MIX), list(MIX.values())
    log = open(args.log, "w") if args.log else None
    if log:
        log.write("step,seconds,tokens,train_loss,aux," + ",".join("valid_" + name for name in names) + "\n")
    start, step, tokens, done, average = time.time(), 0, 0, 0.0, None
    while done < 1.0:
        length = sequence_length(done, args.init)
        count = BATCH_TOKENS // length
        rows = batch([training[name].sample(rng, length) for name in rng.choices(names, weights, k=count)])
        loss, router_logits = loss_of(model, rows)
        aux = aux_loss(router_logits, EXPERTS_PER_TOKEN, EXPERTS)
        (loss + BALANCE * aux).backward()
        # Warm up, hold, then linear to zero.
        optimizer.step(min(1.0, (step + 1) / WARM_UP_STEPS) * min(1.0, max(0.0, (1.0 - done) / args.decay)))
        step += 1
        tokens += rows.numel() - count
        average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
        seconds = time.time() - start
        done = max(step / args.steps, seconds / 60 / args.minutes)
        is_save = step % SAVE_STEPS == 0 or done >= 1.0
        if step % LOG_STEPS == 0 or done >= 1.0:
            losses = evaluate(model, validation) if is_save else {}
            domains = [f"{losses[name]:.4f}" if losses else "" for name in names]
            line = ",".join([f"{step},{seconds:.0f},{tokens},{average:.4f},{aux.item():.3f}", *domains])
            print(line, flush=True)
            if log:
                log.write(line + "\n")
                log.flush()
        if is_save:
            write_checkpoint(model, tok, args.out, config)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--init", help="go on from this checkpoint")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--minutes", type=float, default=54)
    parser.add_argument(
        "--decay", type=float, default=0.45, help="last part of the run, in which the rates fall to zero"
    )
    parser.add_argument("--lr", type=float, default=0.02, help="of Muon")
    parser.add_argument("--adam-lr", type=float, default=0.004)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--log", help="a CSV file of losses")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    ALL_EXPERTS_FUNCTIONS.register(EXPERTS_FUNCTION, sorted_experts)
    with open(args.corpus) as file:
        corpus = json.load(file)
    if args.init:
        tok = Tokenizer.from_file(os.path.join(args.init, "tokenizer.json"))
        model = Qwen3MoeForCausalLM.from_pretrained(args.init, dtype=torch.float32)
    else:
        tok = make_tokenizer(corpus)
        model = Qwen3MoeForCausalLM(Qwen3MoeConfig.from_dict(config_json(tok))).float()
    model.set_experts_implementation(EXPERTS_FUNCTION)
    model.train()
    train(model, tok, corpus, config_json(tok), args)


if __name__ == "__main__":
    main()
