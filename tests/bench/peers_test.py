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


def weights_of_q4_k(block):
    d, m = struct.unpack("<ee", block[:4])
    scales = block[4:16]
    low = [(scales[g] & 63, scales[g + 4] & 63) for g in range(4)]
    high = [(scales[g + 8] & 15 | scales[g] >> 6 << 4, scales[g + 8] >> 4 | scales[g + 4] >> 6 << 4)
            for g in range(4)]
    weights = []
    for g, (scale, minimum) in enumerate(low + high):
        codes = block[16 + g // 2 * 32:48 + g // 2 * 32]
        weights += [d * scale * (c >> 4 * (g % 2) & 15) - m * minimum for c in codes]
    return weights


def weights_of_q6_k(block):
    scales = struct.unpack("<16b", block[192:208])
    d = struct.unpack("<e", block[208:])[0]
    weights = []
    for i in range(256):
        half, k, j = i // 128, i // 32 % 4, i % 32
        low = block[64 * half + 32 * (k % 2) + j] >> 4 * (k // 2) & 15
        high = block[128 + 32 * half + j] >> 2 * k & 3
        weights.append(d * scales[i // 16] * ((low | high << 4) - 32))
    return weights


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
            kind = gguf_model.type_of(tensor, "Q4_0", 4)
            if gguf_model.count_of(tensor) > 1 << 20:
                continue
            data = b"".join(gguf_model.pieces_of(tensor, kind, 1))
            self.assertEqual(len(data), gguf_model.bytes_of(tensor, kind), tensor.name)
            self.assertEqual(data, b"".join(gguf_model.pieces_of(tensor, kind, 1)), tensor.name)

    def test_a_q4_k_m_file_has_more_bits_where_it_pays(self):
        shape = gguf_model.find_shape("35b")
        tensors = gguf_model.tensors_of(shape)
        kinds = {t.name: gguf_model.type_of(t, "Q4_K_M", shape.layers) for t in tensors}
        down = [i for i in range(40) if kinds[f"blk.{i}.ffn_down_exps.weight"] == "Q6_K"]
        self.assertEqual(down, [*range(5), *range(7, 35, 3), *range(35, 40)])
        self.assertEqual(kinds["output.weight"], "Q6_K")
        self.assertEqual(kinds["token_embd.weight"], "Q4_K")
        self.assertEqual(kinds["blk.0.ffn_gate_inp.weight"], "F32")
        gguf_model.check_rows(tensors, "Q4_K_M", shape.layers)
        narrow = gguf_model.find_shape("demo", 4)
        with self.assertRaisesRegex(gguf_model.ModelError, "blocks of 256"):
            gguf_model.check_rows(gguf_model.tensors_of(narrow), "Q4_K_M", 4)

    def test_k_blocks_are_symmetric_with_the_wanted_deviation(self):
        for size, blocks, decode in ((144, gguf_model.q4_k_blocks, weights_of_q4_k),
                                     (210, gguf_model.q6_k_blocks, weights_of_q6_k)):
            data = blocks(random.Random(1), 400, 0.02)
            self.assertEqual(len(data), 400 * size)
            weights = [w for i in range(400) for w in decode(data[size * i:size * i + size])]
            self.assertAlmostEqual(sum(weights) / len(weights), 0, delta=0.0003)
            deviation = (sum(w * w for w in weights) / len(weights)) ** 0.5
            self.assertAlmostEqual(deviation, 0.02, delta=0.0005)


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
