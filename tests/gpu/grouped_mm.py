"""PyTorch's grouped product at the shapes that gpu-bench measures, where there is a PyTorch: one line of JSON a figure."""
import json
import sys
import time


def tell(**figures):
    print(json.dumps({"stage": "torch", **figures}), flush=True)


try:
    import torch
except ImportError as error:
    tell(what="torch._grouped_mm", **{"not measured": str(error)})
    sys.exit(0)
product = getattr(torch, "_grouped_mm", None) or getattr(torch.nn.functional, "grouped_mm", None)
if product is None or not torch.cuda.is_available():
    tell(what="torch._grouped_mm", **{"not measured": f"PyTorch {torch.__version__} has no grouped product or no GPU"})
    sys.exit(0)

EXPERTS, TOP = 128, 8


def seconds(calls):
    """The least of some repetitions of all calls in turn, so that weights come from memory."""
    least = float("inf")
    for _ in range(4):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(5):
            for call in calls:
                call()
        torch.cuda.synchronize()
        least = min(least, (time.perf_counter() - started) / (5 * len(calls)))
    return least


for name, hidden, inner, layers in (("qwen3-30b-a3b", 2048, 768, 4), ("qwen3-235b-a22b", 4096, 1536, 2), ("gemma-like", 2816, 704, 4)):
    def weights(rows, columns):
        return [
            torch.randn(EXPERTS, rows, columns, device="cuda", dtype=torch.bfloat16).div_(columns**0.5).transpose(1, 2)
            for _ in range(layers)
        ]

    first, second = weights(2 * inner, hidden), weights(hidden, inner)
    for tokens in (32, 4096, 128, 512, 32768):
        pairs = tokens * TOP
        picks = torch.rand(tokens, EXPERTS, device="cuda").topk(TOP).indices.flatten()
        ends = torch.bincount(picks, minlength=EXPERTS).cumsum(0).to(torch.int32)
        x = torch.randn(pairs, hidden, device="cuda", dtype=torch.bfloat16)
        middle = torch.randn(pairs, inner, device="cuda", dtype=torch.bfloat16)
        try:
            took = seconds([lambda w=w: product(x, w, offs=ends) for w in first])
            took += seconds([lambda w=w: product(middle, w, offs=ends) for w in second])
        except RuntimeError as error:
            tell(what=name, tokens=tokens, **{"not measured": str(error)[:200]})
            continue
        flops = 6 * pairs * hidden * inner
        tell(what=name, tokens=tokens, **{"products us": round(took * 1e6, 1), "TFLOP/s": round(flops / took / 1e12, 1)})
    del first, second
    torch.cuda.empty_cache()
