#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tokenizers against Hugging Face tokenizers and SentencePiece: ids, offsets and decoded text.

    SONDE=build/tools/sonde python test_tokenizers.py [NAME...]     (uses build/tests/interop/tokenize_texts)

Pipelines of tests/golden/make_tokenizers.py, trained larger; GPT-2's and GPT-NeoX's own vocabularies and Llama's SentencePiece model
where ../shared/data is. Rules of comparison:
- a range of ours, widened to whole characters, is Hugging Face's; where a normaliser changed the text it holds it;
- decoded bytes are equal where the ids stand for valid UTF-8 (Hugging Face puts U+FFFD elsewhere).
"""
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "golden"))

import make_tokenizers as mt
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors

SONDE = pathlib.Path(os.environ.get("SONDE", str(ROOT / "build/tools/sonde"))).resolve()
DRIVER = SONDE.parent.parent / "tests/interop/tokenize_texts"
DATA = ROOT.parent / "shared/data"
failed = 0


def report(verdict, name, why=""):
    global failed
    failed += verdict == "FAIL"
    print(f"{verdict} {name}" + (f": {why}" if why else ""), flush=True)


def ours(path, texts, flags):
    data = b"".join(struct.pack("<II", flags, len(x)) + x for x in texts)
    start = time.time()
    p = subprocess.run([str(DRIVER), str(path)], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if p.returncode:
        raise RuntimeError(p.stderr.decode(errors="replace").strip() or f"exit status {p.returncode}")
    out, at, b = [], 0, p.stdout

    def take(n, kind):
        nonlocal at
        v = struct.unpack_from(f"<{n}{kind}", b, at)
        at += 4 * n
        return list(v)

    for _ in texts:
        n = take(1, "I")[0]
        row = {"ids": take(n, "i"), "begin": take(n, "I"), "end": take(n, "I")}
        m = take(1, "I")[0]
        row["decoded"] = b[at:at + m]
        at += m
        out.append(row)
    return out, time.time() - start


def widen(raw, b, e):
    while b > 0 and b < len(raw) and raw[b] & 0xC0 == 0x80:
        b -= 1
    while e > 0 and e < len(raw) and raw[e] & 0xC0 == 0x80:
        e += 1
    return b, e


def difference(raw, got, want, rules):
    if got["ids"] != want["ids"]:
        k = next((i for i, (a, b) in enumerate(zip(got["ids"], want["ids"])) if a != b), min(len(got["ids"]), len(want["ids"])))
        return f"ids differ from place {k}: {got['ids'][k:k + 6]}, want {want['ids'][k:k + 6]}"
    last = (0, 0)
    for i, (b, e, hb, he) in enumerate(zip(got["begin"], got["end"], want["begin"], want["end"])):
        if b > e or e > len(raw) or b < last[0] or e < last[1]:
            return f"token {i} has range {b}..{e} after {last} of {len(raw)}"
        last = (b, e)
        w = widen(raw, b, e)
        if w == (hb, he) or b == e and (hb == b or (hb, he) == (0, 0)):  # for what stands for no text it names a neighbour
            continue
        if not (want["changed"] or rules.get("loose")) or not (w[0] <= hb and he <= w[1]):
            return f"token {i} (id {got['ids'][i]}) has range {w}, want {(hb, he)}"
    if want["decoded"] is not None and "\ufffd" not in want["decoded"] and got["decoded"] != want["decoded"].encode():
        return f"decodes to {got['decoded'][:60]!r}, want {want['decoded'].encode()[:60]!r}"
    return None


def compare(name, t, texts, rules={}):
    with tempfile.TemporaryDirectory() as tmp:
        path = pathlib.Path(tmp) / "tokenizer.json"
        t.save(str(path))
        bad = 0
        for flags in (0, 1):
            try:
                got, _ = ours(path, [x.encode() for x in texts], flags)
            except RuntimeError as e:
                return report("FAIL", name, str(e))
            for x, g in zip(texts, got):
                want = mt.expected(t, x, bool(flags))
                d = difference(x.encode(), g, want, rules)
                if d and not rules.get("except", lambda *a: False)(x, d):
                    bad += 1
                    if bad <= int(os.environ.get("SHOW", "3")):
                        print(f"    {name} {flags} {x[:60]!r}: {d}")
        report("FAIL" if bad else "PASS", name, f"{bad} of {2 * len(texts)} texts" if bad else "")


def wikitext():
    p = DATA / "text/wikitext-2-valid.txt"
    return p.read_text().splitlines(keepends=True) if p.exists() else None


def large_texts():
    w = wikitext() or mt.training_text(7)
    return mt.nasty_texts() + mt.nasty_texts(2) + ["a" * 1000000, " " * 200000, "".join(w)[:300000], "".join(mt.training_text(3))[:100000]]


def gguf_fields(path):
    from gguf import GGUFReader
    f = GGUFReader(str(path)).fields
    return {k.split("ggml.")[1]: f[k].contents() for k in f if k.startswith("tokenizer.ggml.")}


def real_neox():
    """GPT-NeoX's own vocabulary and merges from the GGUF, in the pipeline of its tokenizer.json."""
    f = gguf_fields(DATA / "tokenizers/vectors/ggml-vocab-gpt-neox.gguf")
    vocab, added = {}, []
    for i, (name, kind) in enumerate(zip(f["tokens"], f["token_type"])):
        if kind in (1, 3) and not name.startswith("[PAD"):
            vocab[name] = i
        if kind != 1 and not name.startswith("[PAD"):
            added.append({"id": i, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": kind == 4,
                          "special": kind == 3})
    j = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": {"type": "NFC"},
         "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
         "post_processor": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False},
         "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
         "model": {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                   "vocab": vocab, "merges": f["merges"]}}
    return Tokenizer.from_str(json.dumps(j))


def real_gpt2():
    d = DATA / "tokenizers/gpt2"
    from tokenizers import models
    t = Tokenizer(models.BPE.from_file(str(d / "encoder.json"), str(d / "merges.txt")))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.add_special_tokens(mt.special("<|endoftext|>"))
    return t


def gguf_against_json(t, texts):
    """The same vocabulary opened as the GGUF itself."""
    got, _ = ours(DATA / "tokenizers/vectors/ggml-vocab-gpt-neox.gguf", [x.encode() for x in texts], 0)
    bad = [x for x, g in zip(texts, got) if g["ids"] != mt.expected(t, x, False)["ids"]]
    report("FAIL" if bad else "PASS", "real_neox_gguf", f"{len(bad)} of {len(texts)} texts, {bad[0][:60]!r}" if bad else "")


def sentencepiece_model(texts):
    import sentencepiece as spm
    path = DATA / "tokenizers/llama/tokenizer.model"
    sp = spm.SentencePieceProcessor(model_file=str(path))
    texts = [x for x in texts if "\0" not in x]  # its Python binding ends strings there in places
    got, _ = ours(path, [x.encode() for x in texts], 2)
    bad = 0
    for x, g in zip(texts, got):
        want = sp.encode(x)
        if g["ids"] != want:
            bad += 1
            if bad <= 3:
                print(f"    sentencepiece {x[:60]!r}: {g['ids'][:12]}, want {want[:12]}")
    report("FAIL" if bad else "PASS", "sentencepiece", f"{bad} of {len(texts)} texts" if bad else "")


def trained_sentencepiece(texts):
    """Models with the options that Llama's does not use."""
    import sentencepiece as spm
    corpus = mt.training_text(5)
    for k, more in enumerate([{}, {"remove_extra_whitespaces": False, "add_dummy_prefix": False}, {"byte_fallback": True, "user_defined_symbols": ["<user>", "th"]},
                              {"byte_fallback": True, "remove_extra_whitespaces": False, "split_digits": True, "control_symbols": ["<ctl>"]}]):
        with tempfile.TemporaryDirectory() as tmp:
            spm.SentencePieceTrainer.train(sentence_iterator=iter(corpus), model_prefix=f"{tmp}/m", model_type="bpe", vocab_size=600,
                                           normalization_rule_name="identity", minloglevel=2, **more)
            sp = spm.SentencePieceProcessor(model_file=f"{tmp}/m.model")
            bad = 0
            some = [x for x in texts if "\0" not in x and len(x) < 100000] + ["a <user>b<user> the th th <ctl>"]
            got, _ = ours(f"{tmp}/m.model", [x.encode() for x in some], 2)
            for x, g in zip(some, got):
                want = sp.encode(x)
                if g["ids"] != want:
                    bad += 1
                    if bad <= int(os.environ.get("SHOW", "3")):
                        print(f"    trained sentencepiece {k} {x[:60]!r}: {g['ids'][:12]}, want {want[:12]}")
            report("FAIL" if bad else "PASS", f"trained_sentencepiece_{k}", f"{bad} of {len(some)} texts" if bad else "")


def long_pieces(t_path):
    for text in (b"a" * 1000000, b" " * 1000000, "\u4e16".encode() * 300000):
        _, s = ours(t_path, [text], 0)
        report("PASS" if s < 5 else "FAIL", f"long_piece_{text[:3]!r}", "" if s < 5 else f"{s:.1f} s")


def main():
    only = sys.argv[1:]

    def chosen(name):
        return not only or name in only

    if not DRIVER.exists():
        report("FAIL", "tokenize_texts", f"{DRIVER} is not built")
        return 1
    corpus, texts = wikitext() or mt.training_text(), large_texts()
    for name, make in {**mt.PIPELINES, **mt.MORE}.items():
        if chosen(name):
            t = make(corpus, 4000)
            compare(name, t, [x for x in texts if len(x) < 400000 or name in ("gpt2", "neox", "qwen2", "llama3")], RULES.get(name, {}))
    if not (DATA / "tokenizers").exists():
        report("SKIP", "real vocabularies", f"{DATA} is not there")
        return failed != 0
    if chosen("real_neox"):
        compare("real_neox", real_neox(), texts)
        gguf_against_json(real_neox(), texts)
    if chosen("real_gpt2"):
        compare("real_gpt2", real_gpt2(), texts)
    if chosen("sentencepiece"):
        sentencepiece_model(texts)
        trained_sentencepiece(texts)
    if chosen("long"):
        long_pieces(DATA / "tokenizers/gpt2")
        long_pieces(DATA / "tokenizers/llama/tokenizer.model")
    return failed != 0


# They decode a normalised added token to its normalised name.
RULES = {"odd": {"except": lambda text, why: "decodes" in why and "abc" in text.lower()}}

if __name__ == "__main__":
    sys.exit(main())
