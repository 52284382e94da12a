#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Small tokenizers with the pipelines of real models, trained on text made here, and what Hugging Face makes of nasty text.

    python make_tokenizers.py            (tokenizers 0.23.3; writes tests/golden/tokenizers/NAME/{tokenizer,expected}.json)

expected.json: [{"hex": bytes of the text, "special": added special tokens are recognised, "ids", "begin", "end": byte
offsets as Hugging Face gives them, whole characters, "changed": the normaliser changes the text (then Hugging Face's
range of a token lies inside ours), "decoded": hex, without
special tokens}]. tests/interop/test_tokenizers.py uses the same pipelines, larger.
"""
import json
import pathlib
import random
import sys
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
            r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPACE = "\u2581"


# ---- text -------------------------------------------------------------------------------------------------------------

def training_text(seed=0, lines=3000):
    """Sentences of made-up grammar in several scripts: enough for a few hundred merges."""
    rng = random.Random(seed)
    words = ("the of and to a in is it you that he was for on are with as I his they be at one have this from or had by "
             "not word but what some we can out other were all there when up use your how said an each she which do their "
             "time if will way about many then them write would like so these her long make thing see him two has look "
             "more day could go come did number sound no most people my over know water than call first who may down side "
             "been now find any new work part take get place made live where after back little only round man year came "
             "show every good me give our under name very through just form sentence great think say help low line differ "
             "turn cause much mean before move right boy old too same tell does set three want air well also play small "
             "end put home read hand port large spell add even land here must big high such follow act why ask men change").split()
    others = ("caf\u00e9 na\u00efve r\u00e9sum\u00e9 stra\u00dfe \u00fcber \u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440 \u0434\u043e\u043c \u4f60\u597d \u4e16\u754c \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4 \u0645\u0631\u062d\u0628\u0627 "
              "\u05e9\u05dc\u05d5\u05dd \u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35").split()
    out = []
    for _ in range(lines):
        s = [rng.choice(words) if rng.random() < 0.93 else rng.choice(others) for _ in range(rng.randint(3, 12))]
        if rng.random() < 0.3:
            s.append(str(rng.randint(0, 5000)))
        if rng.random() < 0.2:
            s.append(rng.choice(["don't", "I'll", "we've", "it's", "they're", "I'm", "he'd"]))
        line = " ".join(s)
        out.append(line[0].upper() + line[1:] + rng.choice([".", "!", "?", ",", "...", ":\n", ";\n\n", "  "]))
    return out


def nasty_texts(seed=1, n_random=40):
    """Valid UTF-8 that breaks tokenizers."""
    rng = random.Random(seed)
    t = ["", " ", "  ", "   ", "\n", "\n\n", "\t", "\t\t", "\r\n", "\r\n\r\n", " \n ", "\n \n", " \t\n\r ", "a", " a", "a ", "  a  ",
         "a\n", "\na", "Hello world", " Hello  world ", "Hello,\nworld!\n\n", "the\tcat\t\tsat", "x" * 70, " " * 70 + "x", "\n" * 70,
         "a" + " " * 33 + "b", "\0", "a\0b", "\0\0 \0", "\ufeffBOM", "a\ufeffb", "\ufffd",
         "don't DON'T Don'T I'LL i'll we'Ve it'S 're'RE 'd'D 'm'M x'y ''s '", "it'\u017f 'll'", "'", "''", "' s", "\u2019s don\u2019t",
         "0 1 12 123 1234 12345 1,234.56 1e10 0x1F \u0663\u0664\u0665 \u00b2\u00b3 \u00bd \u2167 \u0967\u0968 \U0001d7d8",
         "a\u180eb  \u180e c", "a\u0085b \u0085\u0085 c", "a\u00a0b\u00a0\u00a0c", "\u2003\u2003x \u3000y\u3000 z", "\u200bzero\u200bwidth\u200b",
         "a\u2028b\u2029c", "\u1680x", "\x1c\x1d\x1e\x1f", "\x0b\x0c", "\u202fx\u205fy",
         "e\u0301 \u00e9 e\u0301\u0323 \u1e69 s\u0323\u0307 s\u0307\u0323", "\u0301", "\u0301\u0301a", "a\u0301" * 40, "\u1100\u1161\u11a8 \uac01 \uac00\u11a8",
         "\u212b \u2126 \ufb01 \u1e9b\u0323 \u00c5", "\u0958 \u0915\u093c \u09cb \u09c7\u09be", "\u0344 \u0f73 \U0001d15e", "\u0130I\u0131i \u00df\u1e9e \u03a3\u03c3\u03c2",
         "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1e9\U0001f1ea\U0001f44d\U0001f3fd \u2764\ufe0f",
         "\u4f60\u597d\uff0c\u4e16\u754c\uff01 \u65e5\u672c\u8a9e\u306e\u30c6\u30b9\u30c8 \ud55c\uad6d\uc5b4 \ud14c\uc2a4\ud2b8",
         "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u05e9\u05dc\u05d5\u05dd \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e04\u0e23\u0e31\u0e1a \u0928\u092e\u0938\u094d\u0924\u0947 \u1780\u17d2\u1798",
         "<|endoftext|>", "a<|endoftext|>b", " <|endoftext|> <|im_start|>user\nhi<|im_end|>\n", "<s>x</s>", "<s>", "<unk>", "<0x41>", "<|endof", "<|endoftext|><|endoftext|>",
         SPACE, SPACE + "a", "a" + SPACE + "b " + SPACE, SPACE * 5, " " + SPACE + " ",
         "def f(x):\n    return x+1\n\n\n\tif a==b && c!=d: // ok\n        pass", "https://example.com/a?b=c&d=%20#e", "C:\\x\\y", "$100 + \u20ac5 = \u00a3?",
         "a[MASK]b [MASK]  x [MASK]", "foo <word> foo<word>foo <word>", "ABC abc aBC", "a wholeword wholewords quitealongwordthatistaken", "!!!???...", "\u2014\u2014\u201cquoted\u201d", "_a_b__c", "a-b--c"]
    t += [" " * n + "x" for n in (2, 3, 4, 5, 23, 24, 25, 26, 48, 50)] + ["a" + " " * n for n in (2, 7, 24, 25)]
    for _ in range(n_random):  # runs of everything
        t.append("".join(rng.choice([" ", "  ", "\n", "\t", "\r\n", "a", "the", "'s", "'LL", "1", "42", "!", "\u00e9", "\u4e16", "\u00a0", "\u3000",
                                     "e\u0301", "\U0001f600", "\u200d", "<|endoftext|>", "\x00", SPACE, "-", "_"]) for _ in range(rng.randint(2, 30))))
    assigned = [c for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co") and
                not 0x1fbf0 <= c <= 0x1fbf9]  # segmented digits: Hugging Face's NFKC is older than Unicode 13
    for _ in range(n_random):  # all of Unicode, sampled
        t.append("".join(chr(rng.choice(assigned)) if rng.random() < 0.7 else rng.choice(" \n a1'") for _ in range(40)))
    return t


# ---- pipelines ----------------------------------------------------------------------------------------------------------

def train(pre, text, size, normalizer=None, by_char=False, **model):
    t = Tokenizer(models.BPE(**model))
    if normalizer:
        t.normalizer = normalizer
    if pre:
        t.pre_tokenizer = pre
    special = ["<unk>", "<s>", "</s>"] + ([f"<0x{b:02X}>" for b in range(256)] if model.get("byte_fallback") else []) if by_char else []
    alphabet = [] if by_char else pre_tokenizers.ByteLevel.alphabet()
    t.train_from_iterator(text, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, special_tokens=special, show_progress=False))
    if by_char:  # byte tokens are part of the vocabulary, not added
        j = json.loads(t.to_str())
        j["added_tokens"] = [a for a in j["added_tokens"] if not a["content"].startswith("<0x")]
        t = Tokenizer.from_str(json.dumps(j))
    return t


def special(*names):
    return [AddedToken(n, special=True, normalized=False) for n in names]


def bos_template(t, bos):
    i = t.token_to_id(bos)
    return processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, i)])


def byte_level(add_prefix=False, regex=True):
    return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix, use_regex=regex)


def byte_tokenizer(text, size, pre, normalizer=None):
    t = train(pre, text, size, normalizer)
    t.decoder = decoders.ByteLevel()
    return t


def gpt2(text, size):
    t = byte_tokenizer(text, size, byte_level())
    t.add_special_tokens(special("<|endoftext|>"))
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    return t


def neox(text, size):
    t = byte_tokenizer(text, size, byte_level(), normalizers.NFC())
    t.add_special_tokens(special("<|endoftext|>", "<|padding|>"))
    t.add_tokens([AddedToken(" " * n, normalized=True, special=False) for n in range(24, 1, -1)])
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    return t


def split_then_bytes(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level(regex=False)])


def qwen2(text, size):
    t = byte_tokenizer(text, size, split_then_bytes(QWEN2), normalizers.NFC())
    t.add_special_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    return t


def llama3(text, size):
    t = byte_tokenizer(text, size, split_then_bytes(LLAMA3))
    j = json.loads(t.to_str())
    j["model"]["ignore_merges"] = True
    for word in ("\u0120wholeword", "\u0120quitealongwordthatistaken"):  # no merges make it, but a whole piece is it
        j["model"]["vocab"][word] = len(j["model"]["vocab"])
    t = Tokenizer.from_str(json.dumps(j))
    t.add_special_tokens(special("<|begin_of_text|>", "<|endoftext|>", "<|eot_id|>"))
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), bos_template(t, "<|begin_of_text|>")])
    return t


def strings_to_pairs(t):
    """The same merges in the older form "a b"."""
    j = json.loads(t.to_str())
    j["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in j["model"]["merges"]]
    return Tokenizer.from_str(json.dumps(j)), j


LLAMA_DECODER = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]


def llama2(text, size):
    norm = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    t = train(None, [w for line in text for w in (" " + line).replace(" ", " \0").split("\0") if w.strip()], size, norm, True,
              byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    t.decoder = decoders.Sequence(LLAMA_DECODER + [decoders.Strip(" ", 1, 0)])
    t.post_processor = bos_template(t, "<s>")
    return t


def mistral(text, size):
    """As newer Llama and Mistral files say it: Metaspace, prefix only at the beginning."""
    t = train(pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False), [w + " " for line in text for w in line.split()], size, None,
              True, byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    t.decoder = decoders.Sequence(LLAMA_DECODER + [decoders.Strip(" ", 1, 0)])
    t.post_processor = bos_template(t, "<s>")
    return t


def metaspace(text, size):
    t = train(pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=True), text, size, None, True, unk_token="<unk>")
    t.decoder = decoders.Metaspace(SPACE, prepend_scheme="always", split=True)
    return t


def gemma(text, size):
    t = train(pre_tokenizers.Split(" ", "merged_with_previous"), [w for line in text for w in line.replace(" ", " \0").split("\0")], size,
              normalizers.Replace(" ", SPACE), True, byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    t.add_tokens([AddedToken("\n" * n, normalized=False) for n in range(2, 8)] + [AddedToken(SPACE * n, normalized=False) for n in range(2, 8)] +
                 [AddedToken("[toxicity=0]", normalized=False)])
    t.decoder = decoders.Sequence(LLAMA_DECODER)
    t.post_processor = bos_template(t, "<s>")
    return t


def starcoder(text, size):
    t = byte_tokenizer(text, size, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()]))
    t.add_special_tokens(special("<|endoftext|>"))
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    return t


def bart(text, size):
    """add_prefix_space, <s> ... </s>, a mask that eats the space before it."""
    t = byte_tokenizer(text, size, byte_level(add_prefix=True))
    t.add_special_tokens(special("<s>", "</s>") + [AddedToken("[MASK]", lstrip=True, special=True, normalized=False)])
    t.post_processor = processors.RobertaProcessing(("</s>", t.token_to_id("</s>")), ("<s>", t.token_to_id("<s>")), trim_offsets=False,
                                                   add_prefix_space=True)
    return t


def odd(text, size):
    """Elements that no famous model has together."""
    pre = pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.Split(Regex(r"\d{2}"), "merged_with_next"),
                                   pre_tokenizers.Split("th", "merged_with_previous"), pre_tokenizers.Digits(False),
                                   pre_tokenizers.Split(Regex(r"(?=[A-Z])"), "isolated"), byte_level(regex=False)])
    norm = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(), normalizers.Replace(Regex(r"\s{2,}"), " "),
                                 normalizers.Replace("--", "\u2014")])
    t = byte_tokenizer(text, size, pre, norm)
    t.add_tokens([AddedToken("<word>", single_word=True, normalized=False), AddedToken("[MASK]", lstrip=True, rstrip=True, normalized=False),
                  AddedToken("ABC", normalized=True)])
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    return t


def split_pipeline(pattern, behaviour, invert=False):
    def make(text, size):
        t = byte_tokenizer(text, size, pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behaviour, invert), byte_level(regex=False)]))
        t.post_processor = processors.ByteLevel(trim_offsets=False)
        return t
    return make


def words(text, size):
    t = byte_tokenizer(text, size, pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), byte_level(regex=False)]))
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    return t


def nfkd_words(text, size):
    t = byte_tokenizer(text, size, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), byte_level(regex=False)]), normalizers.NFKD())
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    return t


PIPELINES = {"gpt2": gpt2, "neox": neox, "qwen2": qwen2, "llama3": llama3, "llama2": llama2, "mistral": mistral, "metaspace": metaspace,
             "gemma": gemma, "starcoder": starcoder, "bart": bart, "odd": odd}
MORE = {"o200k": split_pipeline(O200K, "isolated"), "deepseek": split_pipeline(DEEPSEEK, "isolated"), "removed": split_pipeline(r"\s+", "removed"),
        "kept": split_pipeline(r"\w+|[^\w\s]+", "removed", True), "next": split_pipeline(r"[aeiou ]", "merged_with_next"),
        "previous": split_pipeline(r"[aeiou ]", "merged_with_previous"), "contiguous": split_pipeline(r"\S", "contiguous"),
        "boundary": split_pipeline(r"\b", "isolated"), "lines": split_pipeline(r"^.", "isolated"), "gpt2_as_regex": split_pipeline("(?:" + GPT2 + ")", "isolated"),
        "qwen2_as_regex": split_pipeline("(?:" + QWEN2 + ")", "isolated"), "llama3_as_regex": split_pipeline("(?:" + LLAMA3 + ")", "isolated"),
        "not_space": split_pipeline(r"[^\S\n]+|[\s]", "isolated"), "words": words, "nfkd_words": nfkd_words}


# ---- what Hugging Face says ------------------------------------------------------------------------------------------------

def expected(t, text, with_special):
    """Ids, byte offsets, whether the normaliser changed the text, and the decoded text."""
    t.encode_special_tokens = not with_special
    e = t.encode(text)
    at = [0]
    for c in text:
        at.append(at[-1] + len(c.encode()))
    offsets, ids = e.offsets, e.ids
    if len(ids) > 1 and ids[0] == ids[1] and offsets[0] == (0, 0) and offsets[1][1] > 0:  # the text spells BOS itself: ours are never two
        ids, offsets = ids[1:], offsets[1:]
    changed = t.normalizer is not None and t.normalizer.normalize_str(text) != text
    return {"ids": ids, "begin": [at[b] for b, _ in offsets], "end": [at[x] for _, x in offsets], "changed": changed,
            "decoded": t.decode(e.ids, skip_special_tokens=True)}


def main():
    out = pathlib.Path(__file__).resolve().parent / "tokenizers"
    text = training_text()
    for name, make in PIPELINES.items():
        t = make(text, 560)
        d = out / name
        d.mkdir(parents=True, exist_ok=True)
        j = json.loads(t.to_str())
        if name in ("gpt2", "llama2"):
            j["model"]["merges"] = [" ".join(m) for m in j["model"]["merges"]]
        (d / "tokenizer.json").write_text(json.dumps(j, ensure_ascii=False, separators=(",", ":")) + "\n")
        rows = []
        for s in nasty_texts(n_random=20):
            for with_special in (False, True):
                e = expected(t, s, with_special)
                if with_special and rows and rows[-1]["ids"] == e["ids"]:
                    continue
                rows.append({"hex": s.encode().hex(), "special": with_special, **e, "decoded": e["decoded"].encode().hex()})
        (d / "expected.json").write_text("[\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows) + "\n]\n")
        print(name, len(rows), "rows", sum(f.stat().st_size for f in d.iterdir()), "bytes")


if __name__ == "__main__":
    sys.exit(main())
