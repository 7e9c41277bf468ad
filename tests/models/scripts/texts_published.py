"""Chat templates in the forms of published models, written anew: the constructs are theirs, the words need not be."""

import pathlib

FOLDER = pathlib.Path(__file__).with_name("published")

SYSTEM = [
    {"role": "system", "content": "  Be brief.\n"},
    {"role": "user", "content": "Hi there "},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello!", "reasoning_content": "hm"},
    {"role": "user", "content": "é <b>&'\"🦀\n"},
]
PLAIN = [
    {"role": "user", "content": "One"},
    {"role": "assistant", "content": ""},
    {"role": "user", "content": " two\ttabs"},
]
CHATS = [SYSTEM, PLAIN, PLAIN[:1], SYSTEM[:1], PLAIN[:2], PLAIN[:1] * 2]



def read(name):
    """A template as it lies beside, byte for byte."""
    return (FOLDER / f"{name}.jinja").read_bytes().decode()


# How every template of Qwen 3 asks for the answer.
QWEN_END = read("qwen-3-end")
TEMPLATES = {
    "Llama 3.1": read("llama-3.1"),
    "Llama 2": read("llama-2"),
    "Mistral's tokenizers": read("mistrals-tokenizers"),
    "Gemma 3": read("gemma-3"),
    "Phi 3": read("phi-3"),
    "Zephyr": read("zephyr"),
    "Command R": read("command-r"),
    "Granite 3": read("granite-3"),
    "OLMo 2": read("olmo-2"),
    "SmolLM 3": read("smollm-3"),
    "Hermes with tools": read("hermes-with-tools"),
    "Qwen 3 Coder's items": read("qwen-3-coders-items"),
    "Qwen 3 thinking": read("qwen-3-thinking") + QWEN_END,
    "DeepSeek V3.1": read("deepseek-v3.1"),
    "Vicuna": read("vicuna"),
    "Alpaca": read("alpaca"),
    "Falcon 3": read("falcon-3"),
    "gpt-oss's types": read("gpt-osss-types"),
}
