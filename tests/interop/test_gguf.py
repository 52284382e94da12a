#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""GGUF files made by the gguf package, read by sonde and by the package's own reader.

    SONDE=build/tools/sonde python test_gguf.py

Every metadata type, every tensor type with its bytes, float32 values where sonde converts, alignments, odd shapes, a
big-endian file, and the published vocabularies in ../shared/data where they are.
"""
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SONDE = pathlib.Path(os.environ.get("SONDE", ROOT / "build/tools/sonde"))
DUMP = SONDE.resolve().parent.parent / "tests/interop/gguf_dump"

try:
    import gguf
    import numpy as np
except ImportError as e:
    print(f"SKIP test_gguf: {e}")
    sys.exit(0)

Q = gguf.GGMLQuantizationType
V = gguf.GGUFValueType
count = {"PASS": 0, "FAIL": 0, "SKIP": 0}


def report(verdict, name, why=""):
    count[verdict] += 1
    print(f"{verdict} {name}" + (f": {why}" if why else ""), flush=True)


def dump(path):
    p = subprocess.run([DUMP, path], capture_output=True, timeout=60)
    if p.returncode:
        raise AssertionError(f"exit {p.returncode}: {p.stderr.decode().strip()}")
    return json.loads(p.stdout)


def sha(a):
    return hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()


UNSIGNED = {V.UINT8, V.UINT16, V.UINT32, V.UINT64}


def compare_meta(reader, got):
    want = {k: f for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    assert list(want) == list(got), f"keys {list(got)} instead of {list(want)}"
    for key, field in want.items():
        value, kind = field.contents(), field.types[-1]
        mine = got[key]
        if kind in UNSIGNED:
            mine = [int(x) for x in mine] if isinstance(mine, list) else int(mine)
        if value == [] and mine == []:
            continue
        assert value == mine and type(value) is type(mine), f"{key}: {str(mine)[:60]} instead of {str(value)[:60]}"


def compare_tensors(reader, got):
    assert [t.name for t in reader.tensors] == list(got)
    for t in reader.tensors:
        mine = got[t.name]
        assert mine["type"] == t.tensor_type.name, f"{t.name}: {mine['type']}"
        assert mine["shape"] == list(reversed(t.shape.tolist())), f"{t.name}: shape {mine['shape']}"
        assert mine["sha256"] == sha(t.data), f"{t.name}: other bytes"
        if t.tensor_type in (Q.F32, Q.F16, Q.BF16, Q.Q8_0):
            x = gguf.dequantize(t.data, t.tensor_type).astype(np.float32)
            assert mine["float32_sha256"] == sha(x), f"{t.name}: other float32 values"
        elif mine["dtype"] == "opaque":
            assert mine["float32_sha256"] is None


def check(name, path):
    try:
        got = dump(path)
        reader = gguf.GGUFReader(path)
        compare_meta(reader, got["meta"])
        compare_tensors(reader, got["tensors"])
        report("PASS", name)
    except AssertionError as e:
        report("FAIL", name, str(e))


def write(path, fill, **more):
    w = gguf.GGUFWriter(path, "llama", **more)
    fill(w)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def all_values(w):
    w.add_uint8("u8", 255)
    w.add_int8("i8", -128)
    w.add_uint16("u16", 65535)
    w.add_int16("i16", -32768)
    w.add_uint32("u32", 2**32 - 1)
    w.add_int32("i32", -(2**31))
    w.add_uint64("u64", 2**64 - 1)
    w.add_int64("i64", -(2**63))
    w.add_float32("f32", 1e-5)
    w.add_float64("f64", -0.1)
    w.add_bool("yes", True)
    w.add_bool("no", False)
    w.add_string("text", "naïve ▁the\n\t😀 'quoted' \\ \"")
    w.add_string("empty", "")
    w.add_array("ints", [1, -2, 3])
    w.add_array("floats", [0.5, -1e-30, 3.0])
    w.add_array("bools", [True, False, True])
    w.add_array("strings", ["a", "", "▁b", "c" * 5000])
    w.add_array("many", [f"token{i}" for i in range(70000)])
    w.add_array("bytes", bytes(range(256)))


def random_tensor(rng, kind, shape):
    if kind in (Q.F32, Q.F64, Q.I8, Q.I16, Q.I32, Q.I64):
        dtype = {Q.F32: "f4", Q.F64: "f8", Q.I8: "i1", Q.I16: "i2", Q.I32: "i4", Q.I64: "i8"}[kind]
        return (rng.standard_normal(shape) * 50).astype(dtype)
    try:
        return gguf.quantize((rng.standard_normal(shape) * 3).astype(np.float32), kind)
    except NotImplementedError:  # the package reads this type only: any bytes will do
        block, size = gguf.GGML_QUANT_SIZES[kind]
        return rng.integers(0, 256, (*shape[:-1], shape[-1] // block * size), dtype=np.uint8)


def tensors_of(kind):
    def fill(w):
        rng = np.random.default_rng(int(kind))
        block = gguf.GGML_QUANT_SIZES[kind][0]
        for i, shape in enumerate([(block,), (3, 2 * block), (5, 1, block), (2, 3, 1, 3 * block)]):
            w.add_tensor(f"t{i}", random_tensor(rng, kind, shape), raw_dtype=kind)
    return fill


def odd_shapes(w):
    rng = np.random.default_rng(1)
    for i, shape in enumerate([(1,), (7,), (3, 5), (1, 1, 9), (2, 3, 5, 7)]):
        w.add_tensor(f"odd{i}", rng.standard_normal(shape).astype(np.float16 if i % 2 else np.float32))


def aligned(n):
    def fill(w):
        w.add_custom_alignment(n)
        odd_shapes(w)
    return fill


def main():
    if not DUMP.exists():
        print(f"FAIL test_gguf: {DUMP} is not there; build with tests")
        return 1
    with tempfile.TemporaryDirectory() as tmp:
        path = pathlib.Path(tmp) / "made.gguf"
        write(path, all_values)
        check("every metadata type", path)
        write(path, odd_shapes)
        check("odd shapes", path)
        for n in (8, 64, 4096):
            write(path, aligned(n))
            check(f"alignment {n}", path)
        for kind in gguf.GGML_QUANT_SIZES:
            if kind == Q.Q8_1:  # never stored
                continue
            write(path, tensors_of(kind))
            check(f"type {kind.name}", path)
        write(path, odd_shapes, endianess=gguf.GGUFEndian.BIG)
        p = subprocess.run([DUMP, path], capture_output=True)
        ok = p.returncode == 3 and b"big-endian" in p.stderr and not p.stdout
        report("PASS" if ok else "FAIL", "big-endian is refused", "" if ok else f"{p.returncode} {p.stderr}")
    for golden in sorted((HERE.parent / "golden/models").glob("*/*.gguf")):
        check(f"golden {golden.parent.name}", golden)
    vectors = ROOT.parent / "shared/data/tokenizers/vectors"
    if not vectors.exists():
        report("SKIP", "published vocabularies", f"no {vectors}")
    for vocabulary in sorted(vectors.glob("*.gguf")):
        check(f"published {vocabulary.stem}", vocabulary)
    print(f"{count['PASS']} passed, {count['FAIL']} failed")
    return 1 if count["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())
