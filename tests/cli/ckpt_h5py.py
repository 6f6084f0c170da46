# SPDX-License-Identifier: Apache-2.0
"""Read a checkpoint state with h5py and nothing of ours, and compare every tensor with its expected bytes.

usage: ckpt_h5py.py STATE_DIR EXPECTED_DIR

Each dataset is read twice where both ways are there: through HDF5's own filter pipeline (needs a plug-in for filter
32015, from hdf5plugin or HDF5_PLUGIN_PATH), and chunk by chunk, decoded here with python-zstandard and numpy. The
chunk hashes are checked with python-xxhash. Says which ways were taken; exit 77 if none is possible."""

import glob
import os
import sys

try:
    import h5py
    import numpy as np
except ImportError as e:
    print("skipped: no", e.name)
    sys.exit(77)
try:
    import hdf5plugin  # noqa: F401  (registers its filters)
except ImportError:
    pass
try:
    import zstandard
except ImportError:
    zstandard = None
try:
    import xxhash
except ImportError:
    xxhash = None

FILTER_ZSTD = 32015
DTYPES = {"f32": "<f4", "f64": "<f8", "bf16": "<u2", "u16": "<u2", "i32": "<i4", "i64": "<i8", "u8": "u1"}


def decode(stored, mask, dtype, chunk_shape):
    """One chunk: zstd unless filter 1 is masked out, then unshuffle unless filter 0 is."""
    raw = stored
    if not mask & 2:
        raw = zstandard.ZstdDecompressor().decompress(raw)
    if not mask & 1:
        width = dtype.itemsize
        raw = np.frombuffer(raw, np.uint8).reshape(width, -1).T.tobytes()
    return np.frombuffer(raw, dtype).reshape(chunk_shape), raw


def by_chunks(dset, index, seen):
    """The dataset put together from its chunks; counts the chunk index rows met in seen."""
    out = np.zeros(dset.shape, dset.dtype)
    rows = index[index[:, 0] == dset.attrs["part"]]
    for row, place in zip(rows, sorted(c.chunk_offset for c in iter_chunks(dset))):
        mask, stored = dset.id.read_direct_chunk(place)
        assert mask == row[6] and len(stored) == row[5], (dset.name, place)
        block, raw = decode(stored, mask, dset.dtype, dset.chunks)
        if xxhash is not None:
            for data, high, low in ((stored, row[7], row[8]), (raw, row[9], row[10])):
                assert xxhash.xxh3_128_intdigest(data) == int(high) << 64 | int(low), (dset.name, place)
        target = tuple(slice(o, min(o + c, s)) for o, c, s in zip(place, dset.chunks, dset.shape))
        out[target] = block[tuple(slice(0, t.stop - t.start) for t in target)]
        seen.append(row)
    return out


def iter_chunks(dset):
    return [dset.id.get_chunk_info(i) for i in range(dset.id.get_num_chunks())]


def check_file(path, tensors, plugin):
    with h5py.File(path, "r") as f:
        version = f.attrs["version"]
        assert f.attrs["format"] == b"antipode-image" and version in (1, 2), path
        index, seen = f["chunk_index"][...], []

        def visit(_, dset):
            if not isinstance(dset, h5py.Dataset) or "part" not in dset.attrs:
                return
            begin, end = int(dset.attrs["begin"]), int(dset.attrs["end"])
            columns = int(dset.attrs.get("col", 0)), int(dset.attrs.get("width", 0))
            name = dset.name[1:].rsplit("@", 1)[0]
            shape = tuple(int(n) for n in dset.attrs["global_shape"])
            dtype = dset.attrs["dtype"].decode()
            assert dset.dtype == np.dtype(DTYPES[dtype]), dset.name
            assert dset.size == end - begin, dset.name
            if columns[1]:
                assert len(shape) == 2 and columns[0] + columns[1] <= shape[1] and columns[1] < shape[1], dset.name
                assert version == 2, path
            slab = (shape[0], columns[1]) if columns[1] else shape
            whole = end - begin == int(np.prod(slab, dtype=np.int64))
            assert dset.shape == (slab if whole and slab else (end - begin,)), (dset.name, dset.shape)
            assert str(FILTER_ZSTD) in dset._filters and "shuffle" in dset._filters, dset.name
            ways = []
            if zstandard is not None:
                ways.append(by_chunks(dset, index, seen))
            if plugin:
                ways.append(dset[...])
            for data in ways:
                tensors.setdefault(name, []).append((columns, begin, end, data.tobytes(), shape))

        f.visititems(visit)
        assert zstandard is None or len(seen) == len(index), "chunk_index has rows of no chunk"


def main():
    state, expected = sys.argv[1:3]
    plugin = h5py.h5z.filter_avail(FILTER_ZSTD)
    if zstandard is None and not plugin:
        print("skipped: neither zstandard nor an HDF5 plug-in for filter 32015")
        return 77
    tensors = {}
    files = sorted(glob.glob(os.path.join(state, "rank-*.h5")))
    for path in files:
        check_file(path, tensors, plugin)
    slabs = 0
    wanted = {n.replace("%", "/"): os.path.join(expected, n) for n in os.listdir(expected)}
    for name, path in sorted(wanted.items()):
        with open(path, "rb") as f:
            want = f.read()
        parts = tensors.pop(name, [])
        covered = 0
        for (col, width), begin, end, data, shape in parts:
            size = len(data) // (end - begin)
            held = want
            if width:
                held = np.frombuffer(want, np.uint8).reshape(shape + (size,))[:, col:col + width].tobytes()
            assert data == held[begin * size:end * size], f"{name}: elements {begin}..{end} differ"
            covered += len(data)
            slabs += width > 0
        assert covered == len(want) * ((zstandard is not None) + bool(plugin)), f"{name}: {covered} bytes of {len(want)}"
    assert not tensors, f"unexpected tensors {sorted(tensors)}"
    print(f"{len(files)} files, {len(wanted)} tensors equal, {slabs} slabs; own decoding {'yes' if zstandard else 'no'}, "
          f"HDF5 plug-in {'yes' if plugin else 'no'}, hashes {'yes' if xxhash else 'no'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
