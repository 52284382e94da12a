#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Files of torch.save through sonde's reader and writer, and back; .npz that NumPy reads.

    SONDE=build/tools/sonde python test_torchzip.py
"""
import collections
import os
import pathlib
import pickle
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
    import safetensors.torch as stt
    import torch
except ImportError as e:
    print(f"SKIP test_torchzip: {e}")
    sys.exit(0)

torch.manual_seed(1)
TYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.int16, torch.int32,
         torch.int64, torch.bool]


def copy(form, src, dst):
    return subprocess.run([COPY, form, src, dst], capture_output=True, text=True, timeout=120)


def copied(form, src, dst):
    p = copy(form, src, dst)
    assert p.returncode == 0, p.stderr
    return dst


def refused(src, dst, word):
    p = copy("torch", src, dst)
    assert p.returncode == 3, f"exit {p.returncode} instead of 3: {p.stderr}"
    assert p.stderr.count("\n") == 1 and word in p.stderr, p.stderr


def tensor(kind, shape):
    return (torch.randn(shape) * 50).to(kind)


def same(a, b):
    assert a.dtype == b.dtype and a.shape == b.shape, (a.dtype, a.shape, b.dtype, b.shape)
    assert torch.equal(a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8))


def sample():
    return {f"{str(k)[6:]}.{i}": tensor(k, s) for k in TYPES for i, s in enumerate([(), (1,), (3, 5), (0, 4), (2, 1, 3)])}


def tensors_of_every_type_are_read(d):
    x = sample()
    for protocol in (2, 3, 4, 5):
        torch.save(collections.OrderedDict(x), d / "a.pt", pickle_protocol=protocol)
        y = stt.load_file(copied("torch", d / "a.pt", d / "b.st"))
        assert x.keys() == y.keys()
        for k in x:
            same(x[k], y[k])


def what_is_written_torch_loads_with_weights_only(d):
    x = sample()
    torch.save(x, d / "a.pt")
    y = torch.load(copied("torch", d / "a.pt", d / "b.pt"), weights_only=True)
    assert isinstance(y, collections.OrderedDict) and list(x) == list(y)
    for k in x:
        same(x[k], y[k])
    torch.load(d / "b.pt", weights_only=True, mmap=True)
    assert zipfile.ZipFile(d / "b.pt").testzip() is None
    again = (d / "b.pt").read_bytes()
    copied("torch", d / "b.pt", d / "c.pt")
    assert (d / "c.pt").read_bytes() == again, "the same input gave other bytes"


def views_are_read_as_torch_reads_them(d):
    a = torch.randn(4, 6, 5)
    x = {"t": a[0].T, "p": a.permute(2, 0, 1), "s": a[1:3, ::2, 1::3], "whole": a, "row": a[2, 3], "r": a[:, 2], "one": a[1, 2, 3],
         "u": torch.randn(6)[::2].unsqueeze(0), "wide": torch.randn(1, 7).expand(1, 7)}
    torch.save(x, d / "a.pt")
    y = stt.load_file(copied("torch", d / "a.pt", d / "b.st"))
    for k in x:
        same(x[k], y[k])
    torch.save({"e": torch.randn(3, 1).expand(3, 1000)}, d / "a.pt")
    refused(d / "a.pt", d / "b.st", "contiguous")
    torch.save({"e": torch.arange(10.).unfold(0, 3, 1)}, d / "a.pt")
    refused(d / "a.pt", d / "b.st", "contiguous")


def modules_parameters_and_optimizers_are_read(d):
    m = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    o = torch.optim.Adam(m.parameters(), lr=3e-4)
    m(torch.randn(8, 4)).sum().backward()
    o.step()
    torch.save({"ae": m.state_dict(), "optimizer": o.state_dict(), "config": {"steps": 5, "name": "ä", "lr": 2.5, "on": True,
                "none": None, "sizes": [1, 2], "big": 2**62, "device": torch.device("cpu"), "dtype": torch.float32,
                "shape": torch.Size([2, 3])}, "norm_factor": -1.25, "p": torch.nn.Parameter(torch.randn(3))}, d / "a.pt")
    y = stt.load_file(copied("torch", d / "a.pt", d / "b.st"))
    for k, v in m.state_dict().items():
        same(v, y["ae." + k])
    for i, s in o.state_dict()["state"].items():
        for k, v in s.items():
            same(v, y[f"optimizer.state.{i}.{k}"])
    assert len(y) == 7 + 4 * 3 + 1
    z = torch.load(copied("torch", d / "a.pt", d / "b.pt"), weights_only=True)
    assert z["config"] == {"steps": 5, "name": "ä", "lr": 2.5, "on": True, "big": 2**62, "device": "cpu", "dtype": "torch.float32"}
    assert z["norm_factor"] == -1.25 and z["optimizer"]["param_groups.0.lr"] == 3e-4


def a_tensor_alone_is_read(d):
    x = torch.randn(3, 2)
    torch.save(x, d / "a.pt")
    same(stt.load_file(copied("torch", d / "a.pt", d / "b.st"))["tensor"], x)


def checksums_may_be_left_out(d):
    try:
        from torch.utils.serialization import config
    except ImportError:
        return
    x = {"w": torch.randn(3, 2)}
    config.save.compute_crc32 = False
    try:
        torch.save(x, d / "a.pt")
    finally:
        config.save.compute_crc32 = True
    same(stt.load_file(copied("torch", d / "a.pt", d / "b.st"))["w"], x["w"])


def code_is_refused_by_its_name(d):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {d}/ran",)
    torch.save({"w": torch.zeros(2), "e": Evil()}, d / "a.pt")
    refused(d / "a.pt", d / "b.st", "posix.system")
    torch.save(torch.nn.Linear(2, 2), d / "a.pt")
    refused(d / "a.pt", d / "b.st", "torch.nn.modules.linear.Linear")
    torch.save({"n": np.float64(3)}, d / "a.pt")
    refused(d / "a.pt", d / "b.st", "numpy")
    torch.save({"w": torch.zeros(2), "s": {1, 2}}, d / "a.pt")
    refused(d / "a.pt", d / "b.st", "set")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), d / "a.pt")
    refused(d / "a.pt", d / "b.st", "__torch__")
    assert not (d / "ran").exists()


def files_of_other_kinds_are_refused_with_advice(d):
    torch.save({"w": torch.zeros(3)}, d / "a.pt", _use_new_zipfile_serialization=False)
    refused(d / "a.pt", d / "b.st", "1.6")
    (d / "a.pt").write_bytes(pickle.dumps({"a": 1}))
    refused(d / "a.pt", d / "b.st", "pickle")
    np.savez(d / "a.npz", w=np.zeros(3))
    refused(d / "a.npz", d / "b.st", "data.pkl")
    (d / "a.pt").write_bytes(b"hello")
    refused(d / "a.pt", d / "b.st", "torch.save")
    x = {"a": torch.zeros(3), "l": []}
    x["l"].append(x["l"])
    torch.save(x, d / "a.pt")
    refused(d / "a.pt", d / "b.st", "circle")


def npz_is_written_as_numpy_reads_it(d):
    x = {f"{k}.{i}": np.asarray(np.random.default_rng(i).standard_normal(s) * 50).astype(k)
         for k in ["float32", "float16", "float64", "int8", "uint16", "int64", "bool"]
         for i, s in enumerate([(), (0,), (3, 5), (300, 70)])}
    np.savez(d / "a.npz", **x)
    y = np.load(copied("npz", d / "a.npz", d / "b.npz"))
    assert set(x) == set(y.files)
    for k in x:
        assert x[k].dtype == y[k].dtype and x[k].shape == y[k].shape and x[k].tobytes() == y[k].tobytes(), k
    assert zipfile.ZipFile(d / "b.npz").testzip() is None
    with zipfile.ZipFile(d / "a.npz") as a, zipfile.ZipFile(d / "b.npz") as b:
        for n in a.namelist():
            assert a.read(n) == b.read(n), n


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
