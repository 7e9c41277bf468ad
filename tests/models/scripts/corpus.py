#!/usr/bin/env python3
"""Builds the training text of the small model: six domains of documents, apart for training and validation.

usage: corpus.py --debs DIR --vendor DIR --out corpus.json [--stdlib DIR]

The folder of --debs has the Debian packages r-cran-janeaustenr, bible-kjv and bible-kjv-text as .deb files, that of
--vendor what `cargo vendor` made of corpus-crates.toml. --stdlib is the Python library to read, by default this
interpreter's.

  prose      Jane Austen's six novels        scripture  the King James Bible
  python     the Python standard library     rust       18 pinned crates
  tables     CSV, JSON lines, logs, sums     chat       short questions and answers in ChatML

The last two are drawn here. README.md has the versions and licences of the others.
"""
import argparse
import glob
import json
import os
import random
import re
import struct
import subprocess
import sys
import zlib

BOOKS = (
    "Genesis Exodus Leviticus Numbers Deuteronomy Joshua Judges Ruth 1_Samuel 2_Samuel 1_Kings 2_Kings "
    "1_Chronicles 2_Chronicles Ezra Nehemiah Esther Job Psalms Proverbs Ecclesiastes Song_of_Solomon Isaiah "
    "Jeremiah Lamentations Ezekiel Daniel Hosea Joel Amos Obadiah Jonah Micah Nahum Habakkuk Zephaniah Haggai "
    "Zechariah Malachi Matthew Mark Luke John Acts Romans 1_Corinthians 2_Corinthians Galatians Ephesians "
    "Philippians Colossians 1_Thessalonians 2_Thessalonians 1_Timothy 2_Timothy Titus Philemon Hebrews James "
    "1_Peter 2_Peter 1_John 2_John 3_John Jude Revelation"
).split()
CRATES = (
    "serde itertools regex regex-automata rayon rand hashbrown indexmap anyhow num-bigint clap_builder "
    "crossbeam-channel crossbeam-epoch smallvec petgraph toml_edit chrono image"
).split()
NOT_READ = (
    "/test /idlelib/ /site-packages/ /dist-packages/ /encodings/ /lib2to3/ /pydoc_data/ _sysconfigdata /ensurepip/"
).split()  # of the Python library
PYTHON_BYTES, RUST_BYTES = 150_000, 120_000  # larger files are left out
PROSE_BYTES = 6000  # a document of prose ends with the paragraph that passes this
TABLES_BYTES, CHAT_BYTES = 4_000_000, 2_000_000
VALIDATION_BYTES = 120_000  # of each domain, or a twentieth of it where that is less
TEXT_SEED, SHUFFLE_SEED = 20240607, 7


def deb_unpack(debs, name, into):
    hit = sorted(glob.glob(os.path.join(debs, name + "_*.deb")))
    if not hit:
        sys.exit(f"missing {name}: run `apt-get download {name}` in {debs}")
    d = os.path.join(into, name)
    os.makedirs(d, exist_ok=True)
    subprocess.run(["dpkg-deb", "-x", hit[-1], d], check=True)
    return d


def r_strings(blob):
    """Character vectors of one R serialization stream (XDR), enough for this package's data."""
    out, i = [], 0
    m = re.compile(rb"\x00\x04[\x00-\xff]\x09")  # CHARSXP flags
    while True:
        h = m.search(blob, i)
        if not h:
            return out
        n = struct.unpack(">i", blob[h.end() : h.end() + 4])[0]
        if n < 0 or h.end() + 4 + n > len(blob):
            i = h.start() + 1
            continue
        out.append(blob[h.end() + 4 : h.end() + 4 + n].decode("utf-8", "replace"))
        i = h.end() + 4 + n


def paragraphs(lines):
    cur, out = [], []
    for ln in lines + [""]:
        ln = ln.strip()
        if ln:
            cur.append(ln)
        elif cur:
            out.append(" ".join(cur))
            cur = []
    return out


def prose(root):
    base = os.path.join(root, "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")
    with open(base, "rb") as file:
        rdb = file.read()
    pos, novels = 0, []
    while pos < len(rdb):  # records: 4-byte big-endian raw size, then one zlib stream
        d = zlib.decompressobj()
        raw = d.decompress(rdb[pos + 4 :])
        pos = len(rdb) - len(d.unused_data)
        if len(raw) > 100_000:
            novels.append(raw)
    docs = []
    for raw in novels:
        paras = paragraphs(r_strings(raw))
        paras = [re.sub(r"\s+", " ", p.replace("_", "")) for p in paras]
        chap, cur = [], 0
        for p in paras:
            chap.append(p)
            cur += len(p)
            if cur > PROSE_BYTES:
                docs.append("\n\n".join(chap) + "\n")
                chap, cur = [], 0
        if chap:
            docs.append("\n\n".join(chap) + "\n")
    return docs


def scripture(prog_root, text_root):
    txt = subprocess.run(
        [os.path.join(prog_root, "usr/bin/bible"), "-f", "-p", os.path.join(text_root, "usr/lib"), "gen1:1-rev22:21"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    docs, book, last, cur, chapter = [], -1, None, [], None
    for ln in txt.splitlines():
        m = re.match(r"^(\d?[A-Za-z]+)(\d+):(\d+)\s+(.*)$", ln)
        if not m:
            continue
        ab, ch, vs, body = m.groups()
        if ab != last:
            book, last = book + 1, ab
        if (ab, ch) != chapter:
            if cur:
                docs.append("\n".join(cur) + "\n")
            cur, chapter = [], (ab, ch)
        cur.append(f"{BOOKS[book].replace('_', ' ')} {ch}:{vs} {body.strip()}")
    docs.append("\n".join(cur) + "\n")
    assert book == 65, book
    return docs


def many_digits(text):
    return sum(c.isdigit() for c in text) > 0.08 * len(text)


def read_source(path):
    """The text of a file as a list of one document, or of none where it is short, not ASCII or has many digits."""
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read()
    return [text] if len(text) > 400 and text.isascii() and not many_digits(text) else []


def python_src(stdlib):
    docs = []
    for f in sorted(glob.glob(stdlib + "/**/*.py", recursive=True)):
        if any(part in f for part in NOT_READ) or os.path.getsize(f) > PYTHON_BYTES:
            continue
        docs += read_source(f)
    return docs


def rust_src(vendor):
    docs = []
    for c in CRATES:
        for f in sorted(glob.glob(f"{vendor}/{c}/src/**/*.rs", recursive=True)):
            if os.path.getsize(f) > RUST_BYTES or "table" in f or "/tests" in f:
                continue
            docs += read_source(f)
    return docs


STATIONS = "OSLO BERN LIMA CAIRO DELHI KYOTO PERTH QUITO RIGA TURIN".split()
USERS = "ada bob cyd dan eve fay gus hal ivy jon kim lea max nia oto pia".split()
PATHS = (
    "/ /index.html /login /img/logo.png /css/site.css /api/v1/users /api/v1/orders /robots.txt /search /cart"
).split()
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def tables(rng, nbytes):
    def csv():
        y, m, d = rng.randint(1995, 2024), rng.randint(1, 12), rng.randint(1, 28)
        st, t, h, p = rng.choice(STATIONS), rng.uniform(-5, 28), rng.randint(30, 90), rng.randint(985, 1035)
        out = ["date,station,temp_c,humidity,pressure_hpa"]
        for _ in range(rng.randint(12, 30)):
            out.append(f"{y}-{m:02d}-{d:02d},{st},{t:.1f},{h},{p}")
            t += rng.uniform(-1.5, 1.5)
            h = min(99, max(10, h + rng.randint(-4, 4)))
            p += rng.randint(-2, 2)
            d += 1
            if d > 28:
                d, m = 1, m + 1
                if m > 12:
                    m, y = 1, y + 1
        return out

    def jsonl():
        i, ts = rng.randint(100, 9000), rng.randint(10**9, 17 * 10**8)
        out = []
        for _ in range(rng.randint(8, 20)):
            out.append(
                json.dumps(
                    {
                        "id": i,
                        "user": rng.choice(USERS),
                        "time": ts,
                        "amount": rng.randint(1, 9999) / 100,
                        "items": rng.randint(1, 9),
                        "paid": rng.random() < 0.7,
                    }
                )
            )
            i += 1
            ts += rng.randint(1, 90)
        return out

    def log():
        d, mo, y, s = rng.randint(1, 28), rng.choice(MONTHS), rng.randint(2005, 2024), rng.randint(0, 80000)
        out = []
        for _ in range(rng.randint(8, 18)):
            s += rng.randint(0, 20)
            out.append(
                f"10.0.{rng.randint(0, 9)}.{rng.randint(1, 254)} - - [{d:02d}/{mo}/{y}:"
                f'{s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d} +0000] "'
                f'{rng.choice(["GET"] * 5 + ["POST"])} {rng.choice(PATHS)} HTTP/1.1" '
                f"{rng.choice([200] * 6 + [304, 404, 500])} {rng.randint(100, 20000)}"
            )
        return out

    def sums():
        out = []
        for _ in range(rng.randint(15, 40)):
            a, b = rng.randint(0, 99), rng.randint(0, 99)
            out.append(f"{a} + {b} = {a + b}" if rng.random() < 0.6 else f"{max(a, b)} - {min(a, b)} = {abs(a - b)}")
        return out

    def times():
        n = rng.randint(2, 19)
        return [f"{n} x {k} = {n * k}" for k in range(1, rng.randint(11, 25))]

    def steps():
        out = []
        for _ in range(rng.randint(4, 10)):
            a, d = rng.randint(0, 60), rng.randint(1, 12)
            out.append(" ".join(str(a + d * k) for k in range(rng.randint(8, 16))))
        return out

    kinds, docs, n = [csv, csv, jsonl, jsonl, log, log, sums, times, steps], [], 0
    while n < nbytes:
        docs.append("\n".join(rng.choice(kinds)()) + "\n")
        n += len(docs[-1])
    return docs


CAPITALS = dict(
    France="Paris",
    Germany="Berlin",
    Italy="Rome",
    Spain="Madrid",
    Portugal="Lisbon",
    England="London",
    Ireland="Dublin",
    Norway="Oslo",
    Sweden="Stockholm",
    Denmark="Copenhagen",
    Finland="Helsinki",
    Poland="Warsaw",
    Austria="Vienna",
    Hungary="Budapest",
    Greece="Athens",
    Turkey="Ankara",
    Egypt="Cairo",
    Kenya="Nairobi",
    India="Delhi",
    China="Beijing",
    Japan="Tokyo",
    Russia="Moscow",
    Canada="Ottawa",
    Mexico="Mexico City",
    Cuba="Havana",
    Peru="Lima",
    Chile="Santiago",
    Brazil="Brasilia",
    Argentina="Buenos Aires",
    Australia="Canberra",
    Iceland="Reykjavik",
    Belgium="Brussels",
)
OPPOSITES = (
    "hot/cold big/small up/down left/right fast/slow day/night old/new hard/soft high/low wet/dry "
    "light/dark open/closed rich/poor early/late full/empty good/bad strong/weak happy/sad north/south "
    "east/west first/last inside/outside long/short thick/thin true/false"
).split()
SOUNDS = dict(
    cat="meow",
    dog="woof",
    cow="moo",
    sheep="baa",
    duck="quack",
    pig="oink",
    bee="buzz",
    owl="hoot",
    lion="roar",
    horse="neigh",
    mouse="squeak",
    snake="hiss",
    frog="croak",
    wolf="howl",
)
COLOURS = dict(
    grass="green",
    snow="white",
    coal="black",
    blood="red",
    gold="yellow",
    sky="blue",
    carrot="orange",
    banana="yellow",
    milk="white",
    tomato="red",
    leaf="green",
    ash="grey",
)
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTH_NAMES = ("January February March April May June July August September October November December").split()
GREETINGS = {
    "Hello!": "Hello! How can I help you?",
    "Hi.": "Hello! How can I help you?",
    "Good morning!": "Good morning! How can I help you?",
    "Who are you?": "I am a tiny mixture of experts.",
    "What can you do?": "I can answer very small questions.",
    "Thank you.": "You are welcome.",
}


def qa(rng):
    k = rng.randrange(11)
    if k == 0:
        c = rng.choice(list(CAPITALS))
        q = rng.choice(["What is the capital of {}?", "Which city is the capital of {}?", "Tell me the capital of {}."])
        return q.format(c), f"The capital of {c} is {CAPITALS[c]}."
    if k == 1:
        c = rng.choice(list(CAPITALS))
        return f"In which country is {CAPITALS[c]}?", f"{CAPITALS[c]} is in {c}."
    if k == 2:
        a, b = rng.choice(OPPOSITES).split("/")
        if rng.random() < 0.5:
            a, b = b, a
        return f"What is the opposite of {a}?", f"The opposite of {a} is {b}."
    if k == 3:
        a = rng.choice(list(SOUNDS))
        return f"What does the {a} say?", f"The {a} says {SOUNDS[a]}."
    if k == 4:
        a = rng.choice(list(COLOURS))
        return f"What colour is {a}?", f"The colour of {a} is {COLOURS[a]}."
    if k == 5:
        i, names = (rng.randrange(7), DAYS) if rng.random() < 0.5 else (rng.randrange(12), MONTH_NAMES)
        if rng.random() < 0.5:
            return f"What comes after {names[i]}?", f"After {names[i]} comes {names[(i + 1) % len(names)]}."
        return f"What comes before {names[i]}?", f"Before {names[i]} comes {names[i - 1]}."
    if k in (6, 7):
        a, b = rng.randint(0, 20), rng.randint(0, 20)
        return f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}."
    if k == 8:
        a = rng.randint(1, 10)
        b = a + rng.randint(3, 10)
        return f"Count from {a} to {b}.", " ".join(str(x) for x in range(a, b + 1))
    if k == 9:
        n = rng.randint(2, 5)
        names = rng.sample(USERS, n)
        return f"Sort these names: {' '.join(names)}.", " ".join(sorted(names))
    return rng.choice(list(GREETINGS.items()))


def chat(rng, nbytes):
    docs, n = [], 0
    while n < nbytes:
        s = ""
        for _ in range(rng.choice([1, 1, 2, 3])):
            q, a = qa(rng)
            s += f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n{a}<|im_end|>\n"
        docs.append(s)
        n += len(s)
    return docs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--debs", required=True)
    parser.add_argument("--stdlib", default=os.path.dirname(os.__file__))
    parser.add_argument("--vendor", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    x = os.path.join(args.debs, "unpacked")
    rng = random.Random(TEXT_SEED)
    dom = {
        "prose": prose(deb_unpack(args.debs, "r-cran-janeaustenr", x)),
        "scripture": scripture(deb_unpack(args.debs, "bible-kjv", x), deb_unpack(args.debs, "bible-kjv-text", x)),
        "python": python_src(args.stdlib),
        "rust": rust_src(args.vendor),
        "tables": tables(rng, TABLES_BYTES),
        "chat": chat(rng, CHAT_BYTES),
    }
    out = {"train": {}, "valid": {}}
    for name, docs in dom.items():
        random.Random(SHUFFLE_SEED).shuffle(docs)
        total, held, val = sum(map(len, docs)), 0, []
        while held < min(VALIDATION_BYTES, total // 20):
            val.append(docs.pop())
            held += len(val[-1])
        out["train"][name], out["valid"][name] = docs, val
        print(f"{name:10s} docs {len(docs):6d}+{len(val):4d}  bytes {sum(map(len, docs)):9d}+{held:7d}")
    with open(args.out, "w") as file:
        json.dump(out, file)


if __name__ == "__main__":
    main()
