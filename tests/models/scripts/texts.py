"""Makes tests/models/texts: what transformers makes of tokenizers and chat templates of many forms.

Every row is a folder: a base (the small model's files, or a tokenizer that is built here) with changes. Written down is
what AutoTokenizer of that folder gives; rows of what is refused here say so themselves, since transformers takes more.
"""

import argparse
import datetime
import json
import pathlib
import shutil
import tempfile

import tokenizers
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

import texts_templates
import texts_tokenizers

MODEL = pathlib.Path(__file__).resolve().parents[3] / "examples/models/tiny-moe"
NOW = datetime.datetime(2026, 3, 4, 15, 6, 7)
CORPUS = [
    "In the beginning the little tokenizer learned the words of this text, and the text was short.",
    "Words begin with a space; numbers like 1, 23 and 456 do not. It's what they're for!",
    "def main(arguments): return [word for word in arguments if word]",
    "Ein Käse, deux cafés, три слова, 日本語の文。",
] * 4


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


def built():
    """Tokenizers that are built here, by name."""
    spm = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    spm.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=520,
        special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)],
        show_progress=False,
        limit_alphabet=60,
    )
    spm.train_from_iterator(CORPUS, trainer)
    document = json.loads(spm.to_str())
    document["added_tokens"] = document["added_tokens"][:3]
    spm = Tokenizer.from_str(json.dumps(document))
    spm.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    spm.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )

    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
    )
    unigram.train_from_iterator(CORPUS, trainer)

    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=60, special_tokens=["[UNK]"], show_progress=False)
    words.train_from_iterator(CORPUS, trainer)
    return {name: json.loads(made.to_str()) for name, made in [("spm", spm), ("unigram", unigram), ("words", words)]}


def apply(document, change):
    """Puts and drops members; names of deeper ones have dots."""
    for path, value in change.get("put", {}).items():
        *parents, last = path.split(".")
        place = document
        for parent in parents:
            place = place[parent]
        place[last] = value
    for path in change.get("drop", []):
        document.pop(path, None)
    return document


def write(folder, row, bases):
    base = row.get("base", "model")
    documents = {"config.json": json.loads((MODEL / "config.json").read_text())}
    if base == "model":
        for name in ["tokenizer.json", "tokenizer_config.json"]:
            documents[name] = json.loads((MODEL / name).read_text())
    else:
        documents["tokenizer.json"] = json.loads(json.dumps(bases[base]))
        documents["tokenizer_config.json"] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name, change in row.get("files", {}).items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(change, str):
            documents.pop(name, None)
            path.write_bytes(change.encode())
        else:
            documents[name] = apply(documents.get(name, {}), change)
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, ensure_ascii=False))


def load(row, bases):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write(folder, row, bases)
        return AutoTokenizer.from_pretrained(folder)


def tokenizer_rows(bases):
    for row in texts_tokenizers.ROWS:
        if "refused" in row:
            yield row
            continue
        tokenizer = load(row, bases)
        texts = row.get("texts", texts_tokenizers.TEXTS)
        made = {key: row[key] for key in ["name", "base", "files"] if key in row}
        made["texts"] = [
            {"text": text, "whole": tokenizer(text)["input_ids"], "part": tokenizer(text, add_special_tokens=False)["input_ids"]}
            for text in texts
        ]
        made["named"] = tokenizer.special_tokens_map
        if row.get("chat"):
            made["chat"] = chat(tokenizer, row["chat"])
        yield made


def chat(tokenizer, case):
    """A chat with the tokenizer's own template."""
    arguments = case.get("arguments", {})
    made = {key: case[key] for key in ["messages", "arguments"] if key in case}
    try:
        made["text"] = tokenizer.apply_chat_template(
            case["messages"], tokenize=False, add_generation_prompt=True, **arguments
        )
    except Exception as error:  # a template may fail in any way
        made["fails"] = f"{type(error).__name__}: {error}"[:200]
        return made
    made["ids"] = tokenizer.apply_chat_template(
        case["messages"], add_generation_prompt=True, return_dict=False, **arguments
    )
    return made


def template_rows():
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    for row in texts_templates.ROWS:
        if "refused" in row:
            yield row
            continue
        made = {"name": row["name"], "template": row["template"], "chats": []}
        tokenizer.chat_template = row["template"]
        for case in row.get("chats", [texts_templates.CHAT]):
            made["chats"].append(chat(tokenizer, case))
        yield made


def hashed(ids):
    """FNV-1a over the tokens' bytes."""
    value = 0xCBF29CE484222325
    for byte in b"".join(token.to_bytes(4, "little") for token in ids):
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return f"{value:016x}"


def characters():
    """A hash of the tokens of every character of the first two planes beside others, by blocks of 256."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    made = {}
    for block in range(0, 0x20000, 0x100):
        if not 0xD800 <= block < 0xE000:
            text = "".join(f"a{char}b {char}{char} 1{char}'S{char}\n" for char in map(chr, range(block, block + 0x100)))
            made[f"{block:04x}"] = hashed(tokenizer(text)["input_ids"])
    return made


def check(rows):
    """Tells of rows that fail and should not: one bad expression would hide the others of its row."""
    for row in rows:
        for case in row.get("chats", []):
            if "fails" in case and not row["name"].startswith(texts_templates.MAY_FAIL):
                print(f"{row['name']}: {case['fails']}")


def dump(path, document):
    """One row a line, so that a change shows."""
    if isinstance(document, list):
        lines = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in document)
        path.write_text(f"[\n{lines}\n]\n")
    else:
        path.write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path)
    out = parser.parse_args().out
    transformers.logging.set_verbosity_error()
    chat_template_utils.datetime = Clock
    out.mkdir(exist_ok=True)
    path = out / "bases.json"
    bases = json.loads(path.read_text()) if path.exists() else built()
    dump(path, bases)
    tokenizer = list(tokenizer_rows(bases))
    template = list(template_rows())
    check(template)
    dump(out / "tokenizers.json", tokenizer)
    dump(out / "templates.json", template)
    dump(out / "characters.json", characters())
    print(f"transformers {transformers.__version__}, tokenizers {tokenizers.__version__}: ", end="")
    print(f"{len(tokenizer)} tokenizers, {len(template)} templates, {sum('fails' in str(row) for row in template)} fail")


if __name__ == "__main__":
    main()
