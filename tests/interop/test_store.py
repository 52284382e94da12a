# SPDX-License-Identifier: MIT
"""h5py reads what the store writes, and the store reads what h5py writes.

STORE_TOOL names the program (default: tests/interop/store_tool beside the build of SONDE). Prints PASS, FAIL and SKIP
lines and a last line "N passed, N failed"."""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

root = Path(__file__).resolve().parents[2]
sonde = Path(os.environ.get("SONDE", root / "build/tools/sonde"))
tool = Path(os.environ.get("STORE_TOOL", sonde.parents[1] / "tests/interop/store_tool"))

try:
    import h5py
    import numpy as np
except ImportError as e:
    print(f"SKIP test_store: {e}")
    sys.exit(0)
if not tool.exists():
    print(f"SKIP test_store: {tool} is not built")
    sys.exit(0)

passed = failed = 0


def check(name, ok, why=""):
    global passed, failed
    if ok:
        passed += 1
        print(f"PASS {name}")
    else:
        failed += 1
        print(f"FAIL {name}: {why}")


def run(*args):
    return subprocess.run([str(tool), *map(str, args)], capture_output=True, text=True)


def dump(path):
    r = run("dump", path)
    sets, attrs = {}, {}
    for line in r.stdout.split("\n"):
        f = line.split("\t")
        if f[0] == "D":
            sets[f[1]] = (f[2], f[3], f[4])
        elif f[0] == "A":
            attrs[f[1], f[2]] = f[3]
    return r, sets, attrs


def expected(d, n, signed):
    v = (np.arange(n) * 7 + d) % 100
    return np.where((np.arange(n) % 2 == 1) & signed, -v, v)


def written_by_sonde(tmp):
    path = tmp / "ours.h5"
    r = run("write", path)
    check("store_is_written", r.returncode == 0, r.stderr)
    order = ["acts/f32", "acts/f16", "acts/bf16", "t/f64", "t/i8", "t/u8", "t/i16", "t/u16", "t/i32", "t/u32", "t/i64", "t/u64"]
    with h5py.File(path) as f:
        for d, name in enumerate(order):
            kind = name.split("/")[1]
            x = f[name][...]
            want = expected(d, x.size, not kind.startswith("u"))
            if kind == "bf16":
                check("bf16_says_so", f[name].dtype == np.uint16 and f[name].attrs["encoding"] == "bfloat16")
                x = (x.astype(np.uint32) << 16).view(np.float32)
            else:
                code = {"f": "float", "i": "int", "u": "uint"}[kind[0]] + kind[1:]
                check(f"{kind}_is_native", f[name].dtype == np.dtype(code), str(f[name].dtype))
            if kind.startswith(("f", "bf")):
                want = want / 4
            check(f"{kind}_values", np.array_equal(x.reshape(-1).astype(np.float64), want.astype(np.float64)))
            check(f"{kind}_contiguous", f[name].chunks is None and f[name].compression is None)
        check("empty_dataset", f["t/empty"].shape == (0, 4))
        a = dict(f.attrs)
        check("strings_are_str", a["config_json"] == '{"name": "Grüß"}\n' and type(a["config_json"]) is str, repr(a))
        check("empty_string", a["empty"] == "")
        check("int_attribute", a["seed"] == -2**63)
        check("float_attribute", a["rate"] == 0.1)
        check("format", a["format"] == "sonde-activations" and a["format_version"] == "1.0")
        check("late_attribute", f["acts"].attrs["late"] == "yes")
        check("no_time_stamps", h5py.h5g.get_objinfo(f["acts/f32"].id).mtime == 0)
        sums = f["check/xxh3"]
        first, rows = f["acts/f16"].attrs["check_first"], f["acts/f16"].attrs["check_rows"]
        check("checksums_are_described", sums.dtype == np.uint64 and first == 1 and rows == 2**20 // 12)
        try:
            import xxhash

            block = f["acts/f16"][:rows].tobytes()
            check("checksum_is_xxh3_of_the_rows", xxhash.xxh3_64_intdigest(block) == sums[first])
        except ImportError:
            print("SKIP checksum_is_xxh3_of_the_rows: no xxhash")
    again = tmp / "again.h5"
    run("write", again)
    check("same_bytes", path.read_bytes() == again.read_bytes())
    with h5py.File(path, "a") as f:  # a reader may add to it
        f.attrs["mine"] = "x"
        f["more"] = np.arange(3.0)
    r, sets, attrs = dump(path)
    check("what_h5py_adds_is_read", r.returncode == 0 and attrs.get(("/", "mine")) == "sx" and "/more" in sets, r.stderr)


def written_by_h5py(tmp):
    for label, options in {"default": {}, "latest": {"libver": "latest"}, "v108": {"libver": ("earliest", "v108")},
                           "userblock": {"userblock_size": 512}, "tracked": {"track_order": True}}.items():
        path = tmp / f"{label}.h5"
        rng = np.random.default_rng(0)
        data = {f"/g/{t}": rng.integers(0, 100, (7, 3)).astype(t) for t in
                ["float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]}
        with h5py.File(path, "w", **options) as f:
            for name, x in data.items():
                f[name] = x
            # newer libraries write enumerations in a version of the format that HDF5 1.10 does not know
            plain = label == "latest"
            f["flag"] = np.array([1, 0], np.int8) if plain else np.array([True, False])
            f["scalar"] = np.float32(2.5)
            f["chunked"] = f.create_dataset("c", data=np.ones((100, 8), np.float32), chunks=(10, 8), compression="gzip")
            f["big_endian"] = np.arange(4, dtype=">f4")
            f["text"] = "hello"
            f["nothing"] = h5py.Empty("f4")
            f["soft"] = h5py.SoftLink("/g/float32")
            f.attrs["s"] = "ä"
            f.attrs["fixed"] = np.bytes_(b"abc")
            f.attrs["i"] = np.int16(-3)
            f.attrs["f"] = np.float32(0.5)
            f.attrs["flag"] = np.int8(1) if plain else np.bool_(True)
            f.attrs["list"] = [1, 2, 3]
        r, sets, attrs = dump(path)
        check(f"{label}: opens", r.returncode == 0, r.stderr)
        if r.returncode:
            continue
        for name, x in data.items():
            kind, shape, bytes_ = sets[name]
            check(f"{label}: {name}", (kind, shape, bytes_) == (str(x.dtype), "[7, 3]", x.tobytes().hex()), str(sets[name]))
        check(f"{label}: bool", sets["/flag"] == ("int8" if plain else "bool", "[2]", "0100"), str(sets["/flag"]))
        check(f"{label}: scalar", sets["/scalar"] == ("float32", "[]", "00002040"), str(sets["/scalar"]))
        check(f"{label}: chunked gets its line", ("h5repack -l CONTI -f NONE" in sets["/c"][2]) or
              (plain and "later format" in sets["/c"][2]), str(sets["/c"]))
        check(f"{label}: big-endian is refused", "big-endian" in sets["/big_endian"][2], str(sets["/big_endian"]))
        for name in ["/text", "/nothing", "/soft"]:
            check(f"{label}: {name} is listed and refused", sets[name][2].startswith("!"), str(sets[name]))
        got = {n: attrs.get(("/", n)) for n in ["s", "fixed", "i", "f", "flag", "list"]}
        check(f"{label}: attributes", got == {"s": "sä", "fixed": "sabc", "i": "i-3", "f": "f0.5", "flag": "i1", "list": None}, str(got))
        out = tmp / "repacked.h5"
        out.unlink(missing_ok=True)
        try:
            if label == "default":
                subprocess.run(["h5repack", "-l", "CONTI", "-f", "NONE", str(path), str(out)], check=True, capture_output=True)
                r, sets, attrs = dump(out)
                check("h5repack_line_works", sets.get("/c", ("", "", "!"))[2] == np.ones((100, 8), np.float32).tobytes().hex(), r.stderr)
        except FileNotFoundError:
            print("SKIP h5repack_line_works: no h5repack")
        except subprocess.CalledProcessError as e:
            check("h5repack_line_works", False, e.stderr.decode())


with tempfile.TemporaryDirectory() as t:
    written_by_sonde(Path(t))
    written_by_h5py(Path(t))
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
