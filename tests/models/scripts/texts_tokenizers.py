"""Rows of tests/models/texts/tokenizers.json: which files are changed, and how."""

TEXTS = [
    "In the beginning, it's 1234 words:\n\n  two  spaces\tand a tab.",
    "<|im_start|>user\nHi <|im_end|> there<|endoftext|>",
    "café cafe\u0301 ﬁ Å 日本語 🦀 naïve",
    " leading and trailing ",
    "",
]
SPM_TEXTS = [
    "In the beginning, it's 1234 words:\n\n  two  spaces",
    "<s>text</s> more <unk>",
    "café 日本語 🦀",
    " leading and trailing ",
    "",
]
CHAT = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <|im_end|> é"}]}


def token(content, **flags):
    """An added token as the files have it."""
    made = {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {**made, **flags}


def config(put=None, drop=()):
    return {"put": put or {}, "drop": list(drop)}


OWN = {"1789": token("<|endoftext|>"), "1790": token("<|im_start|>"), "1791": token("<|im_end|>")}
TRUNCATION = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
PADDING = {
    "strategy": {"Fixed": 32}, "direction": "Left", "pad_to_multiple_of": None,
    "pad_id": 1789, "pad_type_id": 0, "pad_token": "<|endoftext|>",
}
AROUND = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
               {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {
        "<|im_start|>": {"id": "<|im_start|>", "ids": [1790], "tokens": ["<|im_start|>"]},
        "<|im_end|>": {"id": "<|im_end|>", "ids": [1791], "tokens": ["<|im_end|>"]},
    },
}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
QWEN2 = {"put": {"tokenizer_class": "Qwen2Tokenizer"}}


def tokenizer_json(**put):
    return {"tokenizer.json": {"put": {key.replace("__", "."): value for key, value in put.items()}}}


def tokenizer_config(put=None, drop=()):
    return {"tokenizer_config.json": config(put, drop)}


def added(name, listed, texts, **more):
    """A row whose tokenizer_config.json has further added tokens."""
    return {"name": name, "files": tokenizer_config({"added_tokens_decoder": {**OWN, **listed}, **more}), "texts": texts}


WORD_TEXTS = [
    "word \u200dand\u200c \u00b2\u00b3 1\u00bd \u2167 \u24d0 क्षि _x y_ ไทย é e\u0301",
    "the first line\nthe second the\n\nthe last the\n",
    "(¡No!) €5 + 7 = twelve… “quoted” \u3000 A\u00a0b\tc \x7f\u0085 ٣٤ Ünï ÀÉ ǅ",
]


def split(expression, behavior="Isolated", invert=False):
    """Byte-level merges within the parts that an expression cuts."""
    part = {"type": "Split", "pattern": {"Regex": expression}, "behavior": behavior, "invert": invert}
    return tokenizer_json(pre_tokenizer={"type": "Sequence", "pretokenizers": [part, {**BYTE_LEVEL, "use_regex": False}]})


def words(name, expression, *further):
    """A row about what an expression takes as words, lines and sets."""
    return {"name": f"expression: {name}", "files": split(expression, *further), "texts": WORD_TEXTS}


WITHOUT_ADDED = {"tokenizer.json": {"put": {"added_tokens": []}}}
ROWS = [
    {"name": "the small model as it is", "chat": CHAT},
    # What transformers turns off.
    {"name": "truncation", "files": tokenizer_json(truncation=TRUNCATION), "chat": CHAT},
    {"name": "padding", "files": tokenizer_json(padding=PADDING), "chat": CHAT},
    {"name": "truncation and padding", "files": tokenizer_json(truncation={**TRUNCATION, "direction": "Left"}, padding=PADDING)},
    {"name": "truncation with a class that rebuilds", "files": {**tokenizer_json(truncation=TRUNCATION, padding=PADDING), "tokenizer_config.json": QWEN2}},
    # Added tokens in other files.
    {"name": "added tokens in tokenizer_config.json alone", "files": WITHOUT_ADDED, "chat": CHAT},
    {"name": "added tokens in special_tokens_map.json alone", "files": {
        **WITHOUT_ADDED, "tokenizer_config.json": config(drop=["added_tokens_decoder", "eos_token", "pad_token"]),
        "special_tokens_map.json": {"put": {"eos_token": token("<|im_end|>"), "pad_token": "<|endoftext|>",
                                            "additional_special_tokens": ["<|im_start|>"]}}}},
    {"name": "special_tokens_map.json beside added_tokens_decoder is not read", "files": {
        "special_tokens_map.json": {"put": {"eos_token": "<|other|>", "bos_token": "the"}}},
        "texts": ["<|other|> the end"]},
    {"name": "special_tokens_map.json overrides tokenizer_config.json", "files": {
        "tokenizer_config.json": config({"bos_token": "<|endoftext|>"}, ["added_tokens_decoder"]),
        "special_tokens_map.json": {"put": {"bos_token": {"content": "<|bos|>", "lstrip": True, "normalized": False,
                                                         "rstrip": False, "single_word": False}}}},
        "texts": ["a  <|bos|>  b<|endoftext|>"]},
    {"name": "added_tokens.json", "files": {
        **WITHOUT_ADDED, "tokenizer_config.json": config(drop=["added_tokens_decoder"]),
        "added_tokens.json": {"put": {"<|endoftext|>": 1789, "<|im_start|>": 1790, "<|im_end|>": 1791, "<tool>": 1792}}},
        "texts": ["<|im_start|>a<tool> <|im_end|><|endoftext|>"]},
    {"name": "added_tokens.json beside tokenizer.json", "files": {
        "tokenizer_config.json": config(drop=["added_tokens_decoder"]), "added_tokens.json": {"put": {"<tool>": 1792, "the": 700}}},
        "texts": ["<|im_start|>a<tool> the other"]},
    {"name": "added_tokens.json is not read beside added_tokens_decoder",
     "files": {"added_tokens.json": {"put": {"<tool>": 1792}}}, "texts": ["a<tool>"]},
    {"name": "no tokenizer_config.json at all", "files": {"tokenizer_config.json": {"put": {}, "drop": [
        "tokenizer_class", "add_bos_token", "add_prefix_space", "bos_token", "eos_token", "pad_token", "unk_token", "errors",
        "model_max_length", "clean_up_tokenization_spaces", "split_special_tokens", "chat_template", "added_tokens_decoder"]}}},
    # How added tokens match.
    added("lstrip and rstrip", {"1792": token("<a>", lstrip=True), "1793": token("<b>", rstrip=True)},
          ["x  <a>  y", "x  <b> \n y", "<a><b>", " <a> <b> "]),
    added("single_word", {"1792": token("word", single_word=True, special=False)}, ["word words sword word.", "aword word_"]),
    added("normalized or not", {"1792": token("Å", normalized=True, special=False), "1793": token("é", special=False)},
          ["Å A\u030a Å", "é e\u0301"]),
    added("not special", {"1792": token("<think>", special=False), "1793": token("</think>", special=False)},
          ["<think>\nhm</think>\n\n", "a<think"]),
    added("one token begins another", {"1792": token("<|im"), "1793": token("<|im_start|>x")}, ["<|im_start|>x<|im_start|>y<|imz"]),
    added("a word of the vocabulary", {"300": token("the", special=False)}, ["the other the", "bathe the"]),
    added("an index that is another's", {"5": token("<five>"), "6": token("<six>")}, ["<six><five>"]),
    added("indices with gaps", {"1800": token("<a>"), "1900": token("<b>")}, ["<a><b>"]),
    added("flags other than in tokenizer.json", {"1791": token("<|im_end|>", lstrip=True, rstrip=True)}, ["a <|im_end|> b"]),
    added("an empty one", {"1792": token("")}, ["a b"]),
    added("with spaces", {"1792": token("  "), "1793": token("a b", special=False)}, ["x  y   z a b c"]),
    added("normalized is left out", {"1792": {"content": "<a>", "special": True}, "1793": {"content": "é"}}, ["<a> e\u0301é"]),
    {"name": "special tokens are split", "files": tokenizer_config({"split_special_tokens": True}), "chat": CHAT},
    # Names of special tokens.
    {"name": "a named token that no list has", "files": tokenizer_config({"bos_token": "<|bos|>", "mask_token": "<|mask|>"}),
     "texts": ["<|bos|>a<|mask|>"]},
    {"name": "a named token that is a word", "files": tokenizer_config({"sep_token": "the"}), "texts": ["the other the"]},
    {"name": "named tokens written as objects", "files": tokenizer_config(
        {"bos_token": {"__type": "AddedToken", **token("<|bos|>", lstrip=True)}}), "texts": ["a  <|bos|> b"]},
    {"name": "names of the model's own", "files": tokenizer_config({"image_token": "<|image|>", "audio_bos_token": "<|audio|>"}),
     "texts": ["<|image|><|audio|>a"]},
    {"name": "extra special tokens as a list", "files": tokenizer_config({"extra_special_tokens": ["<x>", "<y>"]}), "texts": ["<y><x>a"]},
    {"name": "extra special tokens with names", "files": tokenizer_config({"extra_special_tokens": {"x_token": "<x>", "other": "<y>"}}),
     "texts": ["<y><x>a"]},
    {"name": "additional special tokens", "files": tokenizer_config({"additional_special_tokens": ["<x>", "<|im_start|>"]}), "texts": ["<x>a<|im_start|>"]},
    {"name": "additional beside extra special tokens", "files": tokenizer_config(
        {"additional_special_tokens": ["<x>"], "extra_special_tokens": ["<y>"]}), "texts": ["<x><y>a"]},
    {"name": "additional beside no extra special tokens", "files": tokenizer_config(
        {"additional_special_tokens": ["<x>"], "extra_special_tokens": []}), "texts": ["<x>a"]},
    {"name": "no special token has a name", "files": tokenizer_config({"eos_token": None, "pad_token": None}), "texts": ["a<|im_end|>"]},
    # Settings.
    {"name": "add_bos_token is not read beside tokenizer.json",
     "files": tokenizer_config({"add_bos_token": True, "add_eos_token": True, "bos_token": "<|im_start|>"})},
    {"name": "add_prefix_space is not read", "files": tokenizer_config({"add_prefix_space": True})},
    {"name": "clean_up_tokenization_spaces", "files": tokenizer_config({"clean_up_tokenization_spaces": True})},
    {"name": "a short model_max_length", "files": tokenizer_config({"model_max_length": 3})},
    {"name": "padding and truncation sides", "files": tokenizer_config({"padding_side": "left", "truncation_side": "left"})},
    # Parts of tokenizer.json.
    {"name": "NFD", "files": tokenizer_json(normalizer={"type": "NFD"})},
    {"name": "NFKC", "files": tokenizer_json(normalizer={"type": "NFKC"})},
    {"name": "no normalizer", "files": tokenizer_json(normalizer=None)},
    {"name": "lower case and no accents", "files": tokenizer_json(
        normalizer={"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]})},
    {"name": "a normalizer with added tokens that are normalized", "files": {
        **tokenizer_json(normalizer={"type": "Lowercase"}),
        **tokenizer_config({"added_tokens_decoder": {**OWN, "1792": token("<A>", normalized=True, special=False)}})},
        "texts": ["<A><a> <|IM_END|><|im_end|>"]},
    {"name": "tokens around a text", "files": tokenizer_json(post_processor=AROUND), "chat": CHAT},
    {"name": "no post-processor", "files": tokenizer_json(post_processor=None)},
    {"name": "prefix space", "files": tokenizer_json(pre_tokenizer={**BYTE_LEVEL, "add_prefix_space": True})},
    {"name": "GPT-2's words", "files": tokenizer_json(pre_tokenizer=BYTE_LEVEL)},
    {"name": "digits one by one", "files": tokenizer_json(pre_tokenizer={"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True}, BYTE_LEVEL]})},
    {"name": "digits by three", "files": tokenizer_json(pre_tokenizer={"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "Isolated", "invert": False},
        {"type": "Split", "pattern": {"Regex": "[一-龥぀-ゟ゠-ヿ]+"}, "behavior": "Isolated", "invert": False}, BYTE_LEVEL]})},
    {"name": "merges that are ignored", "files": tokenizer_json(model__ignore_merges=True)},
    {"name": "a decoder in a sequence", "files": tokenizer_json(decoder={"type": "Sequence", "decoders": [BYTE_LEVEL]})},
    # What expressions mean to Oniguruma.
    words("words", r"\w+|[^\w\s]+"),
    words("what is no word", r"\W+", "MergedWithPrevious"),
    words("what is no word, within a set", r"[\W\d]+", "MergedWithNext"),
    words("ends of words", r"\b\w", "Isolated"),
    words("within words", r"\Bt|\B\d", "Isolated"),
    words("the beginning of lines", r"^\w+"),
    words("the end of lines", r"\w+\n?$", "Removed"),
    words("ends of lines in a set", r"[$^]|the", "Contiguous", True),
    words("named sets", r"[[:punct:]]+|[[:upper:]]|[[:^alpha:]x]+"),
    words("further named sets", r"[[:digit:][:blank:]]+|[[:word:]]+|[[:cntrl:]]|[[:space:]]|[[:alnum:]]|[[:lower:]]"),
    words("a set that begins with its end", r"[]a(]+"),
    words("digits by three from the right", r"\d{1,3}(?=(?:\d{3})*\b)"),
    {"name": "expression: a normalizer's", "files": tokenizer_json(
        normalizer={"type": "Replace", "pattern": {"Regex": r"\w+$"}, "content": "x"}), "texts": WORD_TEXTS},
    {"name": "a character that ends words and is composed with others", "files": tokenizer_json(pre_tokenizer={
        "type": "Sequence", "pretokenizers": [{"type": "CharDelimiterSplit", "delimiter": "e"}, {**BYTE_LEVEL, "use_regex": False}]}),
     "texts": ["-e\u0301 the e\u0301e-e", *TEXTS]},
    # Classes that rebuild.
    {"name": "Qwen2Tokenizer", "files": {"tokenizer_config.json": QWEN2}, "chat": CHAT},
    {"name": "Qwen2TokenizerFast", "files": tokenizer_config({"tokenizer_class": "Qwen2TokenizerFast"})},
    {"name": "no class", "files": tokenizer_config(drop=["tokenizer_class"])},
    {"name": "the class of config.json", "files": {
        "tokenizer_config.json": config(drop=["tokenizer_class"]), "config.json": config({"tokenizer_class": "PreTrainedTokenizerFast"}),
        **tokenizer_json(normalizer=None)}},
    {"name": "Qwen2Tokenizer has its own parts", "files": {
        **tokenizer_json(normalizer=None, pre_tokenizer=BYTE_LEVEL, model__ignore_merges=True, decoder=None), "tokenizer_config.json": QWEN2}},
    {"name": "Qwen2Tokenizer keeps the post-processor", "files": {**tokenizer_json(post_processor=AROUND), "tokenizer_config.json": QWEN2}},
    {"name": "Qwen2Tokenizer with a prefix space", "files": tokenizer_config({"tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": True})},
    {"name": "Qwen2Tokenizer's own special tokens", "files": {
        **WITHOUT_ADDED, "tokenizer_config.json": config({"tokenizer_class": "Qwen2Tokenizer"}, ["pad_token", "unk_token", "eos_token", "added_tokens_decoder"])},
        "texts": ["<|endoftext|>a<|im_end|>"]},
    {"name": "Qwen2Tokenizer makes named tokens plain again", "files": tokenizer_config(
        {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": {**OWN, "1791": token("<|im_end|>", lstrip=True)},
         "extra_special_tokens": ["<x>"]}), "texts": ["a <|im_end|> b<x>"]},
    {"name": "Qwen2Tokenizer with tokens of tokenizer.json alone", "files": tokenizer_config(
        {"tokenizer_class": "Qwen2Tokenizer"}, ["added_tokens_decoder"])},
    {"name": "GPT2Tokenizer", "files": tokenizer_config({"tokenizer_class": "GPT2Tokenizer"})},
    {"name": "GPT2TokenizerFast with a prefix space",
     "files": tokenizer_config({"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True})},
    {"name": "LlamaTokenizer over byte level", "files": tokenizer_config({"tokenizer_class": "LlamaTokenizerFast"})},
    {"name": "code of its own", "files": tokenizer_config(
        {"auto_map": {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}, "tokenizer_class": "PreTrainedTokenizerFast"})},
    # SentencePiece's form.
    {"name": "bytes for unknown characters", "base": "spm", "texts": SPM_TEXTS},
    {"name": "LlamaTokenizer", "base": "spm", "files": tokenizer_config({"tokenizer_class": "LlamaTokenizer"}), "texts": SPM_TEXTS},
    {"name": "LlamaTokenizer, legacy", "base": "spm",
     "files": tokenizer_config({"tokenizer_class": "LlamaTokenizer", "legacy": True}), "texts": SPM_TEXTS},
    {"name": "LlamaTokenizer without prefix space", "base": "spm",
     "files": tokenizer_config({"tokenizer_class": "LlamaTokenizerFast", "add_prefix_space": False}), "texts": SPM_TEXTS},
    {"name": "a prefix before the first word alone", "base": "spm", "files": tokenizer_json(
        normalizer=None, pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}), "texts": SPM_TEXTS},
    {"name": "tokens around a text in two places", "base": "spm", "files": tokenizer_json(post_processor={
        "type": "Sequence", "processors": [{**BYTE_LEVEL, "trim_offsets": False}, {
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                                                     {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}, "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}}]}),
        "texts": SPM_TEXTS},
    {"name": "unigram", "base": "unigram", "texts": SPM_TEXTS},
    # Refused.
    {"name": "no tokenizer.json", "files": {"tokenizer.json": ""}, "refused": "tokenizer.json"},
    {"name": "a Git LFS pointer", "files": {
        "tokenizer.json": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"},
        "refused": "git lfs pull"},
    {"name": "a tokenizer_config.json that is a Git LFS pointer", "files": {
        "tokenizer_config.json": "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"}, "refused": "tokenizer_config.json"},
    {"name": "a tokenizer_config.json that is no object", "files": {"tokenizer_config.json": "[]"}, "refused": "tokenizer_config.json"},
    {"name": "another class", "files": tokenizer_config({"tokenizer_class": "BertTokenizer"}), "refused": "tokenizer_class BertTokenizer"},
    {"name": "a class for another kind of vocabulary", "base": "unigram",
     "files": tokenizer_config({"tokenizer_class": "Qwen2Tokenizer"}), "refused": "model is not BPE"},
    {"name": "WordPiece's decoder", "files": tokenizer_json(decoder={"type": "WordPiece", "prefix": "##", "cleanup": True}), "refused": "WordPiece"},
    {"name": "CTC's decoder", "files": tokenizer_json(
        decoder={"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True}), "refused": "CTC"},
    {"name": "BPE's decoder", "files": tokenizer_json(decoder={"type": "BPEDecoder", "suffix": "</w>"}), "refused": "BPEDecoder"},
    {"name": "no decoder", "base": "words", "refused": "no decoder"},
    {"name": "dropout", "files": tokenizer_json(model__dropout=0.1), "refused": "dropout"},
    {"name": "spaces cleaned up without BPE", "base": "unigram",
     "files": tokenizer_config({"clean_up_tokenization_spaces": True}), "refused": "clean_up_tokenization_spaces"},
    {"name": "spaces cleaned up with BPE", "files": tokenizer_config(
        {"clean_up_tokenization_spaces": True, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": True}),
        "refused": "even_though_it_will_corrupt_output"},
    {"name": "an expression with line ends before the last", "files": split(r"a\Z"), "refused": "\\Z"},
    {"name": "an expression that repeats repetitions", "files": split(r"\p{N}{1,3}+"), "refused": "{n}+"},
    {"name": "an expression with a flag that means another", "files": split(r"(?m)a.b"), "refused": "flags m, s or x"},
    {"name": "an expression in which two letters may be one", "files": split(r"(?i)ss"), "refused": "two letters"},
    {"name": "an expression without case with small letters", "files": split(r"(?i)the|\p{Ll}+"), "refused": "one case"},
    {"name": "an expression with what is seen", "files": split(r"[[:graph:]]+"), "refused": "named set"},
    {"name": "merges whose words are not there", "files": tokenizer_json(model__continuing_subword_prefix="##"),
     "refused": "makes no tokenizer"},
    {"name": "files for versions", "files": tokenizer_config({"fast_tokenizer_files": ["tokenizer.4.0.0.json", "tokenizer.json"]}), "refused": "fast_tokenizer_files"},
    {"name": "added tokens of a wrong type", "files": tokenizer_config({"added_tokens_decoder": {"a": token("<a>")}}), "refused": "added_tokens_decoder"},
    {"name": "a named token of a wrong type", "files": tokenizer_config({"eos_token": 7}), "refused": "eos_token"},
]
