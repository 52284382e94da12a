#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""safetensors, .npy and .npz made by their own libraries, through sonde's readers and writers, and back.

    SONDE=build/tools/sonde python test_files.py

What sonde writes must be what the library would have written, byte for byte; what sonde accepts of damaged safetensors
the reference library must accept too.
"""
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import traceback
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SONDE = pathlib.Path(os.environ.get("SONDE", ROOT / "build/tools/sonde"))
COPY = SONDE.resolve().parent.parent / "tests/interop/file_copy"

try:
    import numpy as np
    import safetensors
    import safetensors.numpy as stn
    import safetensors.torch as stt
    import torch
except ImportError as e:
    print(f"SKIP test_files: {e}")
    sys.exit(0)

rng = np.random.default_rng(1)
TYPES = ["float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
         "bool"]


def copy(form, src, dst, env=None):
    return subprocess.run([COPY, form, src, dst], capture_output=True, text=True, timeout=120, env=env)


def copied(form, src, dst):
    p = copy(form, src, dst)
    assert p.returncode == 0, p.stderr
    return dst


def refused(form, src, dst, word):
    p = copy(form, src, dst)
    assert p.returncode == 3, f"exit {p.returncode} instead of 3: {p.stderr}"
    assert p.stderr.count("\n") == 1 and word in p.stderr, p.stderr


def array(kind, shape):
    if kind == "bool":
        return np.asarray(rng.integers(0, 2, shape)).astype(bool)
    return np.asarray(rng.standard_normal(shape) * 50).astype(kind)


def same(a, b):
    assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes(), (a.dtype, a.shape, b.dtype, b.shape)


def safetensors_of_every_type_come_back_byte_for_byte(d):
    x = {f"layer.{i}.{k}": array(k, s) for i, s in enumerate([(), (1,), (3, 5), (0, 4), (2, 1, 3)]) for k in TYPES}
    x["权重 \"q\""] = array("float32", (2, 2))
    stn.save_file(x, d / "a.st", metadata={"format": "np", "note": "a\n\t\"b\" \\ \u0001 ä"})
    copied("safetensors", d / "a.st", d / "b.st")
    a, b = (d / "a.st").read_bytes(), (d / "b.st").read_bytes()
    # the library keeps metadata in no order; ours keeps the file's
    assert a == b, "the bytes differ"
    y = stn.load_file(d / "b.st")
    assert x.keys() == y.keys()
    for k in x:
        same(x[k], y[k])


def torch_types_come_back_byte_for_byte(d):
    x = {"bf16": torch.randn(3, 4).to(torch.bfloat16), "f8a": torch.randn(5).to(torch.float8_e4m3fn),
         "f8b": torch.randn(5).to(torch.float8_e5m2), "f32": torch.randn(7), "c": torch.randn(2, dtype=torch.complex64)}
    stt.save_file(x, d / "a.st")
    copied("safetensors", d / "a.st", d / "b.st")
    assert (d / "a.st").read_bytes() == (d / "b.st").read_bytes(), "the bytes differ"
    y = stt.load_file(d / "b.st")
    for k in x:
        assert x[k].dtype == y[k].dtype and torch.equal(x[k].view(torch.uint8), y[k].view(torch.uint8)), k


def shards_are_joined(d):
    x = {f"model.layers.{i}.w": array("float32", (3, i + 1)) for i in range(20)}
    names = list(x)
    index = {}
    for s in range(3):
        part = {k: x[k] for k in names[s::3]}
        file = f"model-{s + 1:05}-of-00003.safetensors"
        stn.save_file(part, d / file, metadata={"format": "pt"})
        index.update({k: file for k in part})
    (d / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": index}, indent=2, sort_keys=True) + "\n")
    y = stn.load_file(copied("dir", d, d / "b.st"))
    assert x.keys() == y.keys()
    for k in x:
        same(x[k], y[k])


def npy_of_every_type_comes_back_byte_for_byte(d):
    for kind in TYPES:
        for shape in [(), (0,), (1,), (5,), (3, 4), (2, 0, 3), (1, 2, 3, 4, 5, 6, 1, 2), (123456,), (10, 10, 10)]:
            np.save(d / "a.npy", array(kind, shape))
            copied("npy", d / "a.npy", d / "b.npy")
            assert (d / "a.npy").read_bytes() == (d / "b.npy").read_bytes(), (kind, shape)


def npy_versions_2_and_3_are_read(d):
    for version in [(2, 0), (3, 0)]:
        x = array("float32", (4, 3))
        with open(d / "a.npy", "wb") as f:
            np.lib.format.write_array(f, x, version=version)
        same(np.load(copied("npy", d / "a.npy", d / "b.npy")), x)


def npy_of_other_kinds_is_refused_with_advice(d):
    for x, word in [(np.asfortranarray(array("float32", (3, 4))), "Fortran"), (array("float32", (3,)).astype(">f4"), ">f4"),
                    (np.array([{}], dtype=object), "|O"), (np.array(["abc"]), "<U3"), (np.zeros(2, dtype="f4,i4"), "plain")]:
        np.save(d / "a.npy", x)
        refused("npy", d / "a.npy", d / "b.npy", word)


def npz_of_both_kinds_is_read(d):
    x = {f"{k}/{i}": array(k, s) for k in TYPES for i, s in enumerate([(), (0,), (3, 5), (300, 70)])}
    x["W_enc"] = np.zeros((1000, 1000), np.float32)
    x["ä"] = array("float32", (3,))
    for save in (np.savez, np.savez_compressed):
        save(d / "a.npz", **x)
        y = stn.load_file(copied("npz", d / "a.npz", d / "b.st"))
        assert x.keys() == y.keys(), x.keys() ^ y.keys()
        for k in x:
            same(x[k], y[k])


def npz_with_streamed_members_is_read(d):
    class Pipe:  # not seekable: sizes come behind the data
        def __init__(self, f):
            self.f = f

        def write(self, b):
            return self.f.write(b)

        def flush(self):
            self.f.flush()

    x = array("float32", (50, 3))
    np.save(d / "x.npy", x)
    with open(d / "a.npz", "wb") as f, zipfile.ZipFile(Pipe(f), "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("x.npy", (d / "x.npy").read_bytes())
        z.writestr("info.txt", "not an array")
    y = stn.load_file(copied("npz", d / "a.npz", d / "b.st"))
    same(y["x"], x)
    assert len(y) == 1


def npz_in_other_compressions_is_refused(d):
    np.save(d / "x.npy", array("float32", (50, 3)))
    with zipfile.ZipFile(d / "a.npz", "w", zipfile.ZIP_LZMA) as z:
        z.write(d / "x.npy", "x.npy")
    refused("npz", d / "a.npz", d / "b.st", "savez")


def torch_checkpoints_are_refused_with_advice(d):
    torch.save({"w": torch.zeros(3)}, d / "a.bin")
    refused("safetensors", d / "a.bin", d / "b.st", "save_file")
    torch.save({"w": torch.zeros(3)}, d / "a.bin", _use_new_zipfile_serialization=False)
    refused("safetensors", d / "a.bin", d / "b.st", "pickle")


def nothing_is_accepted_that_the_reference_refuses(d):
    """Mutations of headers, by token so that many stay JSON."""
    r = random.Random(3)
    words = ['"dtype"', '"shape"', '"data_offsets"', '"F32"', '"U8"', '"F64"', '"a"', '"b"', "[", "]", "{", "}", ",", ":", "0",
             "1", "4", "8", "-1", "1.0", "1e0", "null", "true", '"__metadata__"', "18446744073709551616", " "]
    base = ['{', '"a"', ':', '{', '"dtype"', ':', '"F32"', ',', '"shape"', ':', '[', '1', ']', ',', '"data_offsets"', ':', '[',
            '0', ',', '4', ']', '}', ',', '"b"', ':', '{', '"dtype"', ':', '"U8"', ',', '"shape"', ':', '[', '4', ']', ',',
            '"data_offsets"', ':', '[', '4', ',', '8', ']', '}', '}']
    n = accepted = 0
    for _ in range(int(os.environ.get("SONDE_MUTATIONS", "400"))):
        t = list(base)
        for _ in range(r.choice([1, 1, 2, 3])):
            at = r.randrange(len(t))
            match r.randrange(4):
                case 0: t[at] = r.choice(words)
                case 1: t.insert(at, r.choice(words))
                case 2: del t[at]
                case 3:
                    other = r.randrange(len(t))
                    t[at], t[other] = t[other], t[at]
        header = "".join(t).encode()
        (d / "a.st").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
        p = copy("safetensors", d / "a.st", d / "b.st")
        assert p.returncode in (0, 3), f"exit {p.returncode}: {header}"
        n += 1
        try:
            with safetensors.safe_open(d / "a.st", framework="np") as f:
                theirs = {k: f.get_slice(k).get_shape() for k in f.keys()}
        except Exception:
            theirs = None
        if p.returncode == 0:
            accepted += 1
            assert theirs is not None, f"only sonde accepts {header}"
        elif theirs is not None and os.environ.get("SONDE_MUTATIONS"):
            print("    stricter:", header.decode(), p.stderr.strip())
    assert accepted > n / 100, f"{accepted} of {n} accepted: the test tests nothing"


count = {"PASS": 0, "FAIL": 0}
for test in [v for v in list(globals().values())
             if callable(v) and getattr(v, "__code__", None) and v.__code__.co_varnames[:1] == ("d",)]:
    with tempfile.TemporaryDirectory() as tmp:
        try:
            test(pathlib.Path(tmp))
            count["PASS"] += 1
            print("PASS", test.__name__, flush=True)
        except Exception as e:
            count["FAIL"] += 1
            print(f"FAIL {test.__name__}: {type(e).__name__}: {e}", flush=True)
            if not isinstance(e, AssertionError):
                traceback.print_exc()
print(f"{count['PASS']} passed, {count['FAIL']} failed")
sys.exit(count["FAIL"] != 0)
