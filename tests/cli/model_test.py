#!/usr/bin/env python3
"""The verbs that work on a model, on a small one with random weights and recorded values."""

import json
import math
import os
import re
import shutil
import unittest

from support import Model, environment, good, good_json, penstock, read_safetensors, write_text_files, write_zero_checkpoint

RUN_KEYS = {"text", "token_ids", "finish_reason", "timings", "penstock", "sampling"}
PENSTOCK_KEYS = {
    "expert_hits",
    "expert_misses",
    "prefetches",
    "prefetches_used",
    "prefetch_bytes",
    "bytes_read",
    "bytes_read_per_token",
    "io_wait_ms",
    "logits_hash",
    "memory_peak_bytes",
    "memory_budget_bytes",
    "reader",
    "target",
    "lossy",
    "experts_per_token",
    "slots",
    "slots_now",
    "cache_shrinks",
    "slots_given_back",
    "warm_start_experts",
    "chunk_tokens",
    "model_id",
}


def setUpModule():
    global MODEL, EXPECTED, PROMPT
    MODEL = Model()
    EXPECTED = read_safetensors(MODEL.expected)
    PROMPT = MODEL.file("ids.json", json.dumps(list(EXPECTED["input_ids"][1])))


def tearDownModule():
    MODEL.remove()


def synthetic(bits, *flags):
    """A small model of random weights whose experts have so many bits; the rest is the same for all of a seed."""
    path = MODEL.file("-".join(("synthetic", bits, *map(str, flags))))
    if not os.path.exists(path):
        good("synth", "demo", path, "--layers", 4, "--num-experts", 24, "--experts", bits[1:], *flags)
    return path


class Refusals(unittest.TestCase):
    def refused(self, code, *arguments, **options):
        done = penstock(*arguments, **options)
        self.assertEqual(done.returncode, code, done.stderr.decode(errors="replace"))
        return done.stderr.decode(errors="replace")


class Pack(Refusals):
    def test_tells_what_it_wrote(self):
        self.assertRegex(MODEL.packed.stdout.decode(), r"id [0-9a-f]{32}\n$")

    def test_an_existing_target_is_kept_without_force(self):
        self.assertIn("--force", self.refused(2, "pack", MODEL.source, MODEL.path))
        report = good_json("pack", MODEL.source, MODEL.path, "--experts", "keep", "--force")
        self.assertEqual(len(report["id"]), 32)

    def test_verify_finds_a_changed_byte(self):
        copy = MODEL.file("damaged")
        shutil.copytree(MODEL.path, copy)
        self.assertIn("as they were packed", good("pack", "--verify", copy))
        with open(os.path.join(copy, "experts.bin"), "r+b") as f:
            f.seek(1000)
            byte = f.read(1)
            f.seek(1000)
            f.write(bytes([byte[0] ^ 1]))
        self.assertIn("experts.bin", self.refused(3, "pack", "--verify", copy))
        self.assertGreater(json.loads(penstock("pack", "--verify", copy, "--json").stdout)["num_faults"], 0)

    def test_a_missing_source_is_named(self):
        self.assertIn("/no/source", self.refused(3, "pack", "/no/source", MODEL.file("new")))

    def test_scales_are_searched_where_bits_are_few(self):
        source = MODEL.file("zeros")
        write_zero_checkpoint(source, experts=4, intermediate=64)
        write_text_files(source)
        for bits, wanted in (("2", "search"), ("3", "search"), ("4", None)):
            target = MODEL.file("auto-" + bits)
            good("pack", source, target, "--experts", bits)
            with open(os.path.join(target, "penstock.json")) as f:
                self.assertEqual(json.load(f)["options"].get("quantiser"), wanted, bits)

    def test_a_mixture_of_bits_fits_into_the_bytes_and_is_explained(self):
        source = MODEL.file("to-mix")
        write_zero_checkpoint(source, experts=4, intermediate=64)
        write_text_files(source)
        target = MODEL.file("mixed")
        refused = self.refused(2, "pack", source, target, "--target-bytes", "1K")
        least, most = map(int, re.findall(r"\((\d+) bytes\)", refused)[1:])
        self.assertIn("--target-bytes", refused)
        self.assertLess(least, most)
        for flags in (("--experts", "4"), ("--experts-down", "3")):
            told = self.refused(2, "pack", source, target, "--target-bytes", "1G", *flags)
            self.assertIn("--target-bytes", told)
            self.assertIn(flags[0], told)
        self.assertIn("--target-bytes", self.refused(2, "pack", source, target, "--target-bytes", "much"))
        self.assertFalse(os.path.exists(target))
        for budget in (least, (least + most) // 2):
            report = good_json("pack", source, target, "--target-bytes", budget, "--force")
            plan = report["plan"]
            self.assertEqual(plan["target_bytes"], budget)
            self.assertEqual((plan["least_bytes"], plan["most_bytes"]), (least, most))
            self.assertEqual(plan["total_bytes"], report["experts_bytes"])
            self.assertEqual(plan["total_bytes"], os.path.getsize(os.path.join(target, "experts.bin")))
            self.assertEqual(plan["total_bytes"], sum(layer["bytes"] for layer in plan["layers"]))
            self.assertLessEqual(plan["total_bytes"], budget)
            with open(os.path.join(target, "penstock.json")) as f:
                self.assertEqual(json.load(f)["options"]["experts"], f"mixed, at most {budget} bytes")
        table = good("pack", source, target, "--target-bytes", most, "--force")
        self.assertIn("| layers | gate, up | down | bytes | loss |", table)
        self.assertIn(f"mixed, at most {most} bytes", good("show", target))
        self.assertIn("as they were packed", good("pack", "--verify", target))

    def test_experts_are_calibrated_with_what_a_text_gives(self):
        source, text = MODEL.file("to-calibrate"), MODEL.file("to-calibrate.txt")
        write_zero_checkpoint(source, experts=4, intermediate=64)
        write_text_files(source)
        with open(text, "w", encoding="utf-8") as f:
            f.write("the quick brown fox jumps over the lazy dog " * 40)
        target = MODEL.file("calibrated-by-text")
        good("pack", source, target, "--experts", "2", "--calibrate", text)
        self.assertIn("as they were packed", good("pack", "--verify", target))
        self.assertFalse(os.path.exists(target + ".calibration"))

    def test_one_folder_without_verify_is_a_usage_error(self):
        self.refused(2, "pack", MODEL.source)
        target = MODEL.file("calibrated")
        for flags in (("--experts", "keep"), ("--experts", "2", "--quantiser", "round")):
            told = self.refused(2, "pack", MODEL.source, target, "--calibrate", __file__, *flags)
            self.assertIn("--calibrate is for experts", told)
        told = self.refused(2, "pack", MODEL.source, target, "--experts", "keep", "--experts-down", "3")
        self.assertIn("--experts-down is for experts", told)
        self.assertFalse(os.path.exists(target + ".calibration"))


class Plan(Refusals):
    def test_json_has_the_whole_table(self):
        plan = good_json("plan", MODEL.path)
        self.assertEqual(sum(i["bytes"] for i in plan["items"]), plan["memory_total_bytes"])
        self.assertLessEqual(plan["memory_min_bytes"], plan["memory_total_bytes"])
        self.assertLessEqual(plan["memory_total_bytes"], plan["budget_bytes"])
        self.assertEqual(plan["experts"], 32)
        self.assertEqual(plan["slots"], 32)

    def test_the_smallest_budget_works_and_one_byte_less_is_refused(self):
        smallest = good_json("plan", MODEL.path)["memory_min_bytes"]
        plan = good_json("plan", MODEL.path, "--memory", smallest)
        self.assertEqual(plan["memory_total_bytes"], smallest)
        self.assertLess(plan["slots"], 32)
        error = self.refused(4, "plan", MODEL.path, "--memory", smallest - 1)
        self.assertIn("resident weights", error)
        self.assertIn("smallest workable budget", error)
        refused = json.loads(
            penstock("plan", MODEL.path, "--memory", smallest - 1, "--json").stdout
        )
        self.assertEqual(refused["error"]["code"], "out_of_memory")
        self.assertEqual(refused["memory_min_bytes"], smallest)

    def test_text_names_budget_and_slots(self):
        text = good("plan", MODEL.path, "--memory", "64M")
        self.assertIn("expert slots", text)
        self.assertIn("the budget is --memory", text)

    def test_running_with_too_small_a_budget_is_refused_alike(self):
        self.assertIn("too small", self.refused(4, "run", MODEL.path, "-p", "x", "--memory", "1M"))


class Show(unittest.TestCase):
    def test_tells_shape_and_sizes_of_a_packed_model(self):
        self.assertIn("qwen3_5_moe", good("show", MODEL.path))
        self.assertIsInstance(good_json("show", MODEL.path), dict)

    def test_reads_a_hugging_face_folder_too(self):
        self.assertIn("qwen3_5_moe", good("show", MODEL.source))

    def test_lists_tensors_when_asked(self):
        self.assertNotIn("layers.3.self_attn.q_proj", good("show", MODEL.path))
        self.assertIn("layers.3.self_attn.q_proj", good("show", MODEL.path, "--tensors"))


class Logits(Refusals):
    def written(self, *arguments):
        out = MODEL.file("out.safetensors")
        good("logits", MODEL.path, "--ids", PROMPT, "--out", out, *arguments)
        return read_safetensors(out)

    def test_agree_with_the_reference_at_every_position(self):
        shape, logits = self.written()["logits"]
        expected_shape, expected = EXPECTED["logits"]
        self.assertEqual(shape, expected_shape)
        worst = max(abs(a - b) for a, b in zip(logits, expected))
        self.assertLess(worst, 1e-3 * max(map(abs, expected)))

    def test_routes_are_those_of_the_reference(self):
        tensors = self.written("--routes")
        for layer in range(4):
            self.assertEqual(
                tensors[f"router.{layer}.ids"], EXPECTED[f"router.{layer}.ids"], layer
            )
            weights = tensors[f"router.{layer}.weights"][1]
            expected = EXPECTED[f"router.{layer}.weights"][1]
            self.assertLess(max(abs(a - b) for a, b in zip(weights, expected)), 1e-4)

    def test_do_not_depend_on_slots_chunks_readers_or_threads(self):
        reference = self.written()["logits"]
        for arguments in (
            ("--slots", "3"),
            ("--chunk-tokens", "7"),
            ("--reader", "threads"),
            ("--threads", "1"),
        ):
            with self.subTest(arguments):
                self.assertEqual(self.written(*arguments)["logits"], reference)

    def test_bad_ids_are_usage_errors(self):
        out = MODEL.file("bad.safetensors")
        for text, reason in (
            ("[1, 2, 999]", "999"),
            ("[1, -2]", "element 1"),
            ('{"ids": [1]}', "input_ids"),
            ("[1", "JSON"),
            ("[]", "empty"),
        ):
            with self.subTest(text):
                ids = MODEL.file("bad.json", text)
                self.assertIn(reason, self.refused(2, "logits", MODEL.path, "--ids", ids, "--out", out))
                self.assertFalse(os.path.exists(out))
                self.assertFalse(os.path.exists(out + ".partial"))
        self.assertIn("--out", self.refused(2, "logits", MODEL.path, "--ids", PROMPT))


class Run(Refusals):
    def test_greedy_tokens_are_those_of_the_reference(self):
        got = good_json("run", MODEL.path, "--ids", PROMPT, "--greedy", "-n", 16)
        self.assertEqual(got["token_ids"], list(EXPECTED["greedy_ids"][1]))
        self.assertEqual(got["finish_reason"], "length")

    def test_json_has_every_figure(self):
        got = good_json("run", MODEL.path, "-p", "hello", "-n", 4)
        self.assertLessEqual(RUN_KEYS, set(got))
        self.assertLessEqual(PENSTOCK_KEYS, set(got["penstock"]))
        self.assertEqual(got["timings"]["prompt_n"], 5)
        self.assertFalse(got["penstock"]["lossy"])
        self.assertLess(got["penstock"]["memory_peak_bytes"], 1 << 30)

    def test_text_streams_to_standard_output_and_figures_to_standard_error(self):
        arguments = ("run", MODEL.path, "-p", "hello", "-n", 30, "--temp", 1, "--seed", 7)
        done = penstock(*arguments)
        text = good_json(*arguments)["text"]
        self.assertEqual(done.stdout.decode("utf-8"), text if text.endswith("\n") else text + "\n")
        self.assertIn(b"tok/s", done.stderr)
        self.assertEqual(penstock(*arguments, "--quiet").stderr, b"")

    def test_the_prompt_may_come_from_flag_file_or_standard_input(self):
        flag = good_json("run", MODEL.path, "-p", "one two", "-n", 8, "--greedy")
        path = MODEL.file("prompt.txt", "one two")
        for arguments, stdin in ((("-f", path), ""), (("-f", "-"), "one two"), ((), "one two")):
            with self.subTest(arguments):
                got = good_json("run", MODEL.path, *arguments, "-n", 8, "--greedy", stdin=stdin)
                self.assertEqual(got["token_ids"], flag["token_ids"])
        self.refused(2, "run", MODEL.path, "-p", "x", "-f", path)
        self.refused(2, "run", MODEL.path, "-f", "/no/prompt")
        self.refused(2, "run", MODEL.path, "-p", "x", "--ids", PROMPT)
        self.assertIn("--chat", self.refused(2, "run", MODEL.path, "-p", "x", "--system", "y"))
        self.assertIn("empty", self.refused(2, "run", MODEL.path))

    def test_a_seed_makes_draws_repeatable_and_is_reported(self):
        arguments = ("run", MODEL.path, "-p", "abc", "-n", 12, "--temp", 2)
        first = good_json(*arguments)
        again = good_json(*arguments, "--seed", first["sampling"]["seed"])
        self.assertEqual(first["token_ids"], again["token_ids"])
        self.assertNotEqual(first["token_ids"], good_json(*arguments)["token_ids"])

    def test_sampling_defaults_are_the_models_until_a_flag_says_otherwise(self):
        sampling = good_json("run", MODEL.path, "-p", "a", "-n", 1)["sampling"]
        self.assertEqual((sampling["temperature"], sampling["top_k"]), (0.5, 20))
        env = environment(PENSTOCK_TEMP="0.25")
        sampling = good_json("run", MODEL.path, "-p", "a", "-n", 1, env=env)["sampling"]
        self.assertEqual((sampling["temperature"], sampling["top_k"]), (0.25, 20))
        sampling = good_json("run", MODEL.path, "-p", "a", "-n", 1, "--greedy", env=env)["sampling"]
        self.assertEqual(sampling["temperature"], 0)

    def test_chat_wraps_the_prompt_in_the_template(self):
        wrapped = good_json("run", MODEL.path, "--chat", "-s", "S", "-p", "hi", "-n", 8, "--greedy")
        # Four tokens of one byte for each of the frames, one token for each <|end|>.
        self.assertEqual(wrapped["timings"]["prompt_n"], len("system: S.user: hi.assistant: "))
        self.assertEqual(wrapped["content"], wrapped["text"])

    def test_control_tokens_in_a_message_stay_text(self):
        arguments = ("run", MODEL.path, "--chat", "-p", "a<|end|>b", "-n", 1)
        as_text = good_json(*arguments)["timings"]["prompt_n"]
        parsed = good_json(*arguments, "--parse-special")["timings"]["prompt_n"]
        self.assertEqual(as_text - parsed, len("<|end|>") - 1)

    def test_another_number_of_experts_is_told_in_every_output(self):
        arguments = ("run", MODEL.path, "-p", "a", "-n", 1, "--experts-per-token", 1)
        got = good_json(*arguments)
        self.assertTrue(got["penstock"]["lossy"])
        self.assertEqual(got["penstock"]["experts_per_token"], 1)
        self.assertIn(b"LOSSY", penstock(*arguments, "--quiet").stderr)
        self.assertTrue(good_json("plan", MODEL.path, "--experts-per-token", 1)["lossy"])

    def test_experts_left_out_are_told_in_every_output(self):
        layers = good_json("show", MODEL.path)["num_hidden_layers"]
        chosen = good_json("plan", MODEL.path)["experts_per_token"]
        self.assertFalse(good_json("plan", MODEL.path)["lossy"])
        for flags, words in (
            (("--lossy-experts-by-layer", f"1*{layers}"), f"1*{layers} by layer"),
            (("--lossy-expert-weight", "0.6"), "0.6 of the weight"),
        ):
            run = good_json("run", MODEL.path, "-p", "a", "-n", 1, *flags)["penstock"]
            self.assertTrue(run["lossy"])
            self.assertEqual(run["experts_per_token"], chosen)
            self.assertEqual(run["expert_limits"], words)
            plan = good_json("plan", MODEL.path, *flags)
            self.assertTrue(plan["lossy"])
            self.assertEqual(plan["expert_limits"], words)
            bench = ("bench", MODEL.path, "-p", 0, "-n", 2, "-r", 1, "--disk-seconds", 0, *flags)
            row = good_json(*bench)
            self.assertTrue(row["lossy"])
            self.assertIn(words, row["lossy_text"])
            self.assertIn(words, good(*bench))
            for verb in (("run", MODEL.path, "-p", "a", "-n", 1), ("plan", MODEL.path), bench[:-2]):
                done = penstock(*verb, *flags, "--quiet")
                self.assertIn("LOSSY", done.stderr.decode(), verb)
                self.assertIn(words, done.stderr.decode(), verb)
        exact = good_json("bench", MODEL.path, "-p", 0, "-n", 2, "-r", 1, "--disk-seconds", 0)
        self.assertFalse(exact["lossy"])
        self.assertNotIn("lossy_text", exact)

    def test_experts_from_a_copy_are_told_in_every_output(self):
        model, copy = synthetic("q4"), synthetic("q2")
        flags = ("--lossy-low-bits-copy", copy, "--lossy-low-bits-from", 5)
        words = "experts from rank 5 on in q2"
        exact, plan = good_json("plan", model), good_json("plan", model, *flags)
        self.assertEqual((exact["lossy"], plan["lossy"]), (False, True))
        self.assertNotIn("low_bits", exact)
        self.assertEqual(plan["low_bits"]["text"], words)
        self.assertEqual(plan["low_bits"]["slots"], plan["experts"])
        self.assertLess(plan["low_bits"]["expert_bytes"], plan["expert_bytes"])
        self.assertIn("slots of the copy", good("plan", model, *flags))
        floor = plan["memory_min_bytes"]
        run = ("run", model, "--ids", PROMPT, "--greedy", "-n", 4)
        told = good_json(*run, *flags, "--memory", floor + (1 << 20))["penstock"]
        self.assertTrue(told["lossy"])
        self.assertEqual(told["low_bits"]["from_rank"], 5)
        self.assertEqual(told["low_bits"]["model_id"], good_json("show", copy)["id"])
        self.assertGreater(told["low_bits"]["bytes_read"], 0)
        self.assertLess(told["low_bits"]["bytes_read"], told["bytes_read"])
        self.assertEqual(told["logits_hash"], good_json(*run, *flags)["penstock"]["logits_hash"])
        self.assertNotEqual(told["logits_hash"], good_json(*run)["penstock"]["logits_hash"])
        bench = ("bench", model, "-p", 0, "-n", 2, "-r", 1, "--disk-seconds", 0, "--budgets", "50%", *flags)
        row = good_json(*bench)
        self.assertTrue(row["lossy"])
        self.assertIn(words, row["lossy_text"])
        for verb in ((*run, *flags), ("plan", model, *flags), bench):
            for more, text in (((), words), (("--lossy-kv", 8, "--experts-per-token", 6), "keys and values of 8 bits")):
                done = penstock(*verb, *more, "--quiet")
                self.assertEqual(done.returncode, 0, done.stderr)
                for expected in ("LOSSY", words, text):
                    self.assertIn(expected, done.stderr.decode(), verb)
        refused = penstock("plan", model, *flags, "--memory", floor - 1)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("slots of", refused.stderr.decode())

    def test_the_ends_of_the_ranks_are_the_model_and_its_copy(self):
        model, copy = synthetic("q4"), synthetic("q2")

        def hash_of(folder, *flags):
            run = ("run", folder, "--ids", PROMPT, "--greedy", "-n", 4)
            return good_json(*run, *flags)["penstock"]["logits_hash"]

        def from_rank(rank):
            return hash_of(model, "--lossy-low-bits-copy", copy, "--lossy-low-bits-from", rank)

        self.assertEqual(from_rank(9), hash_of(model))
        self.assertEqual(from_rank(1), hash_of(copy))
        # A checkpoint as it is beside its packed form: the same experts.
        packed = ("--lossy-low-bits-copy", MODEL.path, "--lossy-low-bits-from", 2)
        self.assertEqual(hash_of(MODEL.source, *packed), hash_of(MODEL.source))

    def test_copies_that_cannot_be_used_are_refused_by_their_flag(self):
        model, copy = synthetic("q4"), synthetic("q2")
        name, rank = "--lossy-low-bits-copy", "--lossy-low-bits-from"
        shape = ("35b", "--memory", "8G", "--flash-gbps", 2, "--dram-gbps", 20)
        for verb in (("run", model, "--ids", PROMPT, "-n", 1), ("plan", model), ("bench", model, "-p", 0, "-n", 1)):
            for flags, told in (
                ((name, copy), rank),
                ((rank, 3), name),
                ((name, copy, rank, 10), rank),
                ((name, copy, rank, -1), rank),
                ((name, copy, rank, "x"), rank),
                ((name, copy, rank, 8, "--experts-per-token", 6), rank),
                ((name, MODEL.source, rank, 3), "penstock pack"),
                ((name, MODEL.path, rank, 3), "another model"),
                ((name, copy, rank, 3, "--gpu", "auto"), "--gpu"),
                ((name, copy, rank, 3, "--vram", "1G"), "--vram"),
            ):
                text = self.refused(2, *verb, *flags)
                self.assertIn(told, text, flags)
                self.assertIn("--lossy-low-bits", text, flags)
        self.assertIn(name, self.refused(3, "plan", model, name, MODEL.file("nobody"), rank, 3))
        run = ("run", model, "--ids", PROMPT, "-n", 1, name, copy, rank, 3)
        self.assertIn("--warm-start", self.refused(2, *run, "--warm-start", "eager"))
        self.assertIn("--trace-routing", self.refused(2, *run, "--trace-routing", MODEL.file("trace-of-copy")))
        # What stands in settings is for other runs; that it does nothing here is told.
        done = penstock(*run, env=environment(PENSTOCK_GPU="4090"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"no GPU is used", done.stderr)
        done = penstock(*run, env=environment(PENSTOCK_WARM_START="eager"))
        self.assertEqual(done.returncode, 0, done.stderr)
        other = synthetic("q2", "--seed", 2)
        self.assertIn("checkpoint", self.refused(2, "run", model, "--ids", PROMPT, "-n", 1, name, other, rank, 3))
        self.assertIn("shape", self.refused(2, "plan", *shape, name, copy, rank, 3))
        done = penstock("plan", model, *shape[1:], name, copy, rank, 3)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"no forecast", done.stderr)

    def test_keys_and_values_in_eight_bits_are_told_in_every_output(self):
        flags = ("--lossy-kv", "8")
        words = "keys and values of 8 bits"
        exact = good_json("plan", MODEL.path)
        plan = good_json("plan", MODEL.path, *flags)
        self.assertEqual((exact["lossy"], exact["kv_bits"]), (False, 32))
        self.assertEqual((plan["lossy"], plan["kv_bits"]), (True, 8))
        with open(os.path.join(MODEL.source, "config.json"), encoding="utf-8") as f:
            head = json.load(f)["head_dim"]
        coded = 4 * ((head + 63) // 64) + (head + 3) // 4 * 4
        self.assertEqual(plan["kv_bytes_per_position"] * 4 * head, exact["kv_bytes_per_position"] * coded)

        def kv_of(json):
            return next(item["bytes"] for item in json["items"] if item["purpose"] == "KV cache and states")

        self.assertLess(kv_of(plan), kv_of(exact))
        self.assertIn("per position", good("plan", MODEL.path, *flags))
        run = good_json("run", MODEL.path, "-p", "a", "-n", 1, *flags)["penstock"]
        self.assertEqual((run["lossy"], run["kv_bits"]), (True, 8))
        self.assertEqual(good_json("run", MODEL.path, "-p", "a", "-n", 1, "--lossy-kv", 32)["penstock"]["lossy"], False)
        bench = ("bench", MODEL.path, "-p", 0, "-n", 2, "-r", 1, "--disk-seconds", 0, *flags)
        row = good_json(*bench)
        self.assertTrue(row["lossy"])
        self.assertIn(words, row["lossy_text"])
        both = ("--lossy-kv", "8", "--lossy-expert-weight", "0.6")
        for verb in (("run", MODEL.path, "-p", "a", "-n", 1), ("plan", MODEL.path)):
            for given, more in ((flags, ""), (both, "0.6 of the weight")):
                done = penstock(*verb, *given, "--quiet")
                for text in ("LOSSY", words, more):
                    self.assertIn(text, done.stderr.decode(), verb)

    def test_other_bits_of_keys_and_values_are_refused_by_their_flag(self):
        shape = ("plan", "35b", "--memory", "8G", "--flash-gbps", 2, "--dram-gbps", 20)
        for verb in (("run", MODEL.path, "-p", "a"), ("plan", MODEL.path), ("bench", MODEL.path, "-n", "1"), shape):
            for bits in ("7", "16", "0", "-8", "8.0", "", "x", "on"):
                self.assertIn("--lossy-kv", self.refused(2, *verb, f"--lossy-kv={bits}"))
        self.assertIn("--lossy-kv", self.refused(2, "show", MODEL.path, "--lossy-kv", "8"))
        done = penstock(*shape, "--lossy-kv", "8")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"LOSSY", done.stderr)
        tokens = [json.loads(penstock(*shape, "--json", *flags).stdout) for flags in ((), ("--lossy-kv", "8"))]
        self.assertNotEqual(tokens[0]["forecast"], tokens[1]["forecast"])

    def test_limits_of_experts_that_cannot_be_are_refused_by_their_flag(self):
        layers = good_json("show", MODEL.path)["num_hidden_layers"]
        for verb in (("run", "-p", "a"), ("plan",), ("bench", "-n", "1")):
            for list_ in ("1,x", "0", "8*", f"1*{layers + 1}", f"999*{layers}", "-1"):
                told = self.refused(2, verb[0], MODEL.path, *verb[1:], f"--lossy-experts-by-layer={list_}")
                self.assertIn("--lossy-experts-by-layer", told)
            for weight in ("0", "1.5", "-1", "nan", "x"):
                told = self.refused(2, verb[0], MODEL.path, *verb[1:], f"--lossy-expert-weight={weight}")
                self.assertIn("--lossy-expert-weight", told)
        shape = ("plan", "35b", "--memory", "8G", "--flash-gbps", 2, "--dram-gbps", 20)
        self.assertIn("--lossy-experts-by-layer", self.refused(2, *shape, "--lossy-experts-by-layer", "4"))
        done = penstock(*shape, "--lossy-experts-by-layer", "4*40")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"LOSSY", done.stderr)

    def test_streaming_with_few_slots_gives_the_same_answer(self):
        arguments = ("run", MODEL.path, "--ids", PROMPT, "--greedy", "-n", 16)
        resident = good_json(*arguments)
        streamed = good_json(*arguments, "--slots", 3)
        self.assertEqual(streamed["token_ids"], resident["token_ids"])
        self.assertEqual(
            streamed["penstock"]["logits_hash"], resident["penstock"]["logits_hash"]
        )
        self.assertGreater(streamed["penstock"]["expert_evictions"], 0)
        self.assertEqual(resident["penstock"]["expert_evictions"], 0)

    def test_routing_is_recorded_when_asked(self):
        path = MODEL.file("trace")
        good("run", MODEL.path, "-p", "abc", "-n", 3, "--trace-routing", path)
        with open(path, "rb") as f:
            self.assertEqual(f.read(8), b"PSTRACE1")

    def test_unknown_targets_and_policies_are_refused(self):
        self.assertIn("abacus", self.refused(2, "run", MODEL.path, "-p", "a", "--simd", "abacus"))
        self.assertIn("lru", self.refused(2, "run", MODEL.path, "-p", "a", "--eviction", "fifo"))

    def test_a_context_too_small_for_the_prompt_is_refused(self):
        self.assertIn("--context", self.refused(2, "run", MODEL.path, "-p", "a" * 50, "-c", 20))

    def test_a_damaged_expert_ends_the_run_with_its_place(self):
        copy = MODEL.file("damaged-expert")
        shutil.copytree(MODEL.path, copy)
        size = os.path.getsize(os.path.join(copy, "experts.bin"))
        with open(os.path.join(copy, "experts.bin"), "r+b") as f:
            for offset in range(100, size, 1000):
                f.seek(offset)
                f.write(b"\xa5")
        error = self.refused(3, "run", copy, "-p", "hello", "-n", 4)
        self.assertIn("expert", error)
        self.assertIn("experts.bin", error)


class Evaluation(Refusals):
    def test_score_gives_a_line_per_text(self):
        path = MODEL.file("texts.jsonl", '{"id": "a", "text": "hello"}\n\n{"id": 2, "text": "é"}\n')
        lines = [json.loads(line) for line in good("score", MODEL.path, "--texts", path, "--json").splitlines()]
        self.assertEqual([line["id"] for line in lines], ["a", 2])
        self.assertEqual([line["tokens"] for line in lines], [4, 1])
        self.assertEqual([line["bytes"] for line in lines], [5, 2])
        self.assertGreater(lines[0]["nll"], 0)
        self.assertIn("perplexity", good("score", MODEL.path, "--texts", path))

    def test_score_is_the_likelihood_that_logits_give(self):
        # A text of one-byte tokens has its bytes as ids, so both verbs see the same sequence.
        ids = list(b"some words to predict")
        path = MODEL.file("one.jsonl", json.dumps({"id": 0, "text": bytes(ids).decode()}))
        nll = good_json("score", MODEL.path, "--texts", path)["nll"]
        out = MODEL.file("one.safetensors")
        good("logits", MODEL.path, "--ids", MODEL.file("one.json", json.dumps(ids)), "--out", out)
        (_, vocab), flat = read_safetensors(out)["logits"]
        self.assertAlmostEqual(nll, reference_nll(flat, vocab, ids), places=3)

    def test_windows_start_from_an_empty_state(self):
        text = "abcdefghij" * 103  # 1,030 tokens: windows of 1,024 and of 5 predictions
        head, tail = text[:1025], text[1024:]
        path = MODEL.file(
            "long.jsonl",
            "".join(json.dumps({"id": t, "text": t}) + "\n" for t in (text, head, tail)),
        )
        lines = good("score", MODEL.path, "--texts", path, "--json").splitlines()
        whole, first, second = (json.loads(line)["nll"] for line in lines)
        self.assertAlmostEqual(whole, first + second, places=6)

    def test_answer_gives_a_line_per_item(self):
        items = [
            {"id": "x", "messages": [{"role": "user", "content": "hi"}], "tools": None},
            {"id": "y", "messages": [{"role": "user", "content": "ho"}], "enable_thinking": False},
        ]
        path = MODEL.file("items.jsonl", "".join(json.dumps(i) + "\n" for i in items))
        arguments = ("answer", MODEL.path, "--items", path, "--max-tokens", 5)
        lines = [json.loads(line) for line in good(*arguments, "--json").splitlines()]
        self.assertEqual([line["id"] for line in lines], ["x", "y"])
        direct = good_json("run", MODEL.path, "--chat", "-p", "hi", "-n", 5, "--greedy")
        self.assertEqual(lines[0]["text"], direct["text"])
        self.assertIn("--- x\n", good(*arguments))

    def test_bad_lines_are_named(self):
        path = MODEL.file("bad.jsonl", '{"id": 1, "text": "a"}\n{"text": "b"}\n')
        self.assertIn("bad.jsonl:2", self.refused(2, "score", MODEL.path, "--texts", path))
        self.refused(2, "score", MODEL.path)
        path = MODEL.file("bad.jsonl", '{"id": "q", "messages": "hello"}\n')
        self.assertIn("item q", self.refused(2, "answer", MODEL.path, "--items", path))


def reference_nll(flat, vocab, ids):
    total = 0.0
    for position, target in enumerate(ids[1:]):
        row = flat[position * vocab : (position + 1) * vocab]
        largest = max(row)
        total += largest + math.log(sum(math.exp(x - largest) for x in row)) - row[target]
    return total


if __name__ == "__main__":
    unittest.main()
