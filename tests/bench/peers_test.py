"""Pure parts of bench/peers and bench/gguf_model.py: shapes, blocks, sizes, caps and the table."""

import os
import random
import struct
import tempfile
import unittest

from scripts import load

import gguf_model
import peer_caps
import peer_runs
import peer_table

peers = load("peers")


def weights_of(block):
    scale = struct.unpack("<e", block[:2])[0]
    codes = [b & 15 for b in block[2:]] + [b >> 4 for b in block[2:]]
    return [scale * (code - 8) for code in codes]


class ModelTest(unittest.TestCase):
    def test_shapes_have_the_published_numbers_of_parameters(self):
        for name, parameters in (("35b", 34660610688), ("397b", 396346350336),
                                 ("next-80b", 79674391296)):
            tensors = gguf_model.tensors_of(gguf_model.find_shape(name))
            self.assertEqual(sum(map(gguf_model.count_of, tensors)), parameters, name)

    def test_an_unknown_shape_is_told_the_known_ones(self):
        with self.assertRaisesRegex(gguf_model.ModelError, "known are .*35b"):
            gguf_model.find_shape("no-such-shape")

    def test_layers_follow_the_pattern_of_three_and_one(self):
        shape = gguf_model.find_shape("35b", 8)
        names = {tensor.name for tensor in gguf_model.tensors_of(shape)}
        full = [i for i in range(8) if f"blk.{i}.attn_q.weight" in names]
        self.assertEqual(full, [3, 7])
        self.assertEqual(len([n for n in names if n.endswith("ssm_a")]), 6)

    def test_metadata_of_each_architecture(self):
        qwen35 = gguf_model.metadata(gguf_model.find_shape("35b"))
        self.assertEqual(qwen35["rope.dimension_sections"], [11, 11, 10, 0])
        self.assertEqual(qwen35["ssm.inner_size"], 4096)
        self.assertNotIn("rope.dimension_sections",
                         gguf_model.metadata(gguf_model.find_shape("next-80b")))

    def test_blocks_are_symmetric_with_the_wanted_deviation(self):
        data = gguf_model.q4_0_blocks(random.Random(1), 1000, 0.25)
        self.assertEqual(len(data), 1000 * 18)
        weights = [w for i in range(1000) for w in weights_of(data[18 * i:18 * i + 18])]
        self.assertAlmostEqual(sum(weights) / len(weights), 0, delta=0.005)
        deviation = (sum(w * w for w in weights) / len(weights)) ** 0.5
        self.assertAlmostEqual(deviation, 0.25, delta=0.005)

    def test_pieces_of_a_tensor_are_its_size_and_follow_from_the_seed(self):
        for tensor in gguf_model.tensors_of(gguf_model.find_shape("demo", 4)):
            if gguf_model.count_of(tensor) > 1 << 20:
                continue
            data = b"".join(gguf_model.pieces_of(tensor, 1))
            self.assertEqual(len(data), gguf_model.bytes_of(tensor), tensor.name)
            self.assertEqual(data, b"".join(gguf_model.pieces_of(tensor, 1)), tensor.name)

    def test_a_full_disk_is_refused_with_numbers(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(gguf_model.ModelError, r"takes 1000000\.0 GB"):
                gguf_model.check_space(os.path.join(folder, "x.gguf"), 10 ** 15)


class PeersTest(unittest.TestCase):
    def test_caps(self):
        self.assertEqual(peers.parse_caps("0,12G,512M"), [0, 12 << 30, 512 << 20])
        self.assertEqual([peer_table.cap_name(cap) for cap in (0, 8 << 30, 512 << 20)],
                         ["none", "8 GiB", "512 MiB"])

    def test_what_a_stopped_worker_printed_counts(self):
        out = ('{"load_s": 2.0}\n{"prompt_s": 1.0, "prompt_tokens": 16}\n'
               '{"token_s": 0.5, "read_bytes": 4096}\n{"token_s": 0.25, "read_bytes": 0}\n{"tok')
        figures = peer_runs.llama_figures(out, "decode")
        self.assertEqual(figures["tokens"], 2)
        self.assertAlmostEqual(figures["tok_s"], 2 / 0.75)
        self.assertEqual(figures["read_per_token"], 2048)
        self.assertEqual(peer_runs.llama_figures(out, "first token")["first_token_s"], 3.0)
        self.assertEqual(peer_runs.llama_figures("", "decode"), {})

    def test_the_table_shows_medians_ranges_and_failures(self):
        def row(engine, cap, test, **figures):
            return {"engine": engine, "cap_bytes": cap, "test": test, "peak_bytes": 1 << 30,
                    "note": "", **figures}
        rows = [row("penstock", 4 << 30, "decode", tok_s=5.0, read_per_token=1e8),
                row("penstock", 4 << 30, "decode", tok_s=7.0, read_per_token=1e8),
                row("llama.cpp", 4 << 30, "decode", note="killed: out of memory"),
                row("penstock", 0, "prefill", tok_s=100.0)]
        lines = peer_table.table(rows).splitlines()[2:]
        self.assertEqual(lines, [
            "| none | penstock |  | 100.00 |  |  | 1,024 MiB |",
            "| 4 GiB | penstock | 6.00 (5.00–7.00) |  |  | 100 MB | 1,024 MiB |",
            "| 4 GiB | llama.cpp | none |  |  |  | 1,024 MiB |"])
        self.assertEqual(peer_table.notes_of(rows),
                         "- llama.cpp, cap 4 GiB, decode: killed: out of memory")

    def test_cached_bytes_of_a_file_just_written(self):
        with tempfile.NamedTemporaryFile() as file:
            file.write(bytes(1 << 20))
            file.flush()
            self.assertGreaterEqual(1 << 20, peer_caps.cached_bytes(file.name))


if __name__ == "__main__":
    unittest.main()
