#!/usr/bin/env python3
"""What people's files, machines and hands do to a program: outputs that are no files, descriptors that
are closed, limits of the system, signals while it is held up, slips of the keyboard. The kinds and
their tests are listed in tests/README.md."""

import ctypes
import fcntl
import json
import os
import resource
import signal
import stat
import struct
import subprocess
import termios
import threading
import time
import unittest

from faults_case import MODEL, folder, ids_file, path, setUpModule, tearDownModule  # noqa: F401
from support import BINARY, IS_SANITIZED, TIMEOUT_S, environment, good, good_json, penstock, remove_ends


def limited(arguments, **limits):
    """Runs it under limits such as AS=(soft), and without descriptors named in `closed`."""
    closed = limits.pop("closed", ())
    signals = limits.pop("env", environment())

    def prepare():
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
        for descriptor in closed:
            os.close(descriptor)

    return subprocess.run(
        [BINARY, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=signals,
        preexec_fn=prepare,
        timeout=TIMEOUT_S,
    )


class Outputs(unittest.TestCase):
    """Only regular files are replaced."""

    def logits(self, out):
        return penstock("logits", MODEL.path, "--ids", ids_file(), "-o", out, "-q")

    def whole(self):
        out = path("whole.safetensors")
        self.assertEqual(self.logits(out).returncode, 0)
        with open(out, "rb") as f:
            return f.read()

    def test_a_device_stays_a_device(self):
        for device in ("/dev/null", "/dev/full"):
            link = path("link-" + os.path.basename(device))
            os.symlink(device, link)
            for out in (device, link):
                with self.subTest(out):
                    done = self.logits(out)
                    self.assertEqual(done.returncode, 4 if "full" in device else 0, done.stderr)
                    self.assertTrue(stat.S_ISCHR(os.stat(out).st_mode))
            self.assertTrue(os.path.islink(link))

    def test_a_pipe_gets_the_file(self):
        pipe = path("pipe")
        os.mkfifo(pipe)
        refused = self.logits(pipe)
        self.assertEqual(refused.returncode, 5)
        self.assertIn(b"nobody reads", refused.stderr)
        got = []
        reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(reading, fcntl.F_SETFL, 0)

        def read():
            expected = len(self.whole())
            data = b""
            while len(data) < expected:
                data += os.read(reading, 1 << 16)
                time.sleep(0.001)
            got.append(data)

        expected = self.whole()
        reader = threading.Thread(target=read)
        reader.start()
        self.assertEqual(self.logits(pipe).returncode, 0)
        reader.join(TIMEOUT_S)
        os.close(reading)
        self.assertEqual(got, [expected])
        self.assertTrue(stat.S_ISFIFO(os.stat(pipe).st_mode))

    def test_standard_output_by_its_name(self):
        done = self.logits("/dev/stdout")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout, self.whole())

    def test_a_link_leads_to_the_file(self):
        os.symlink("target.safetensors", path("link"))
        self.assertEqual(self.logits(path("link")).returncode, 0)
        self.assertTrue(os.path.islink(path("link")))
        with open(path("target.safetensors"), "rb") as f:
            self.assertEqual(f.read(), self.whole())

    def test_a_folder_is_refused_before_the_work(self):
        done = self.logits(folder())
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"folder", done.stderr)

    def test_every_verb_that_writes_leaves_devices_alone(self):
        trace = ("run", MODEL.path, "-p", "a", "-n", "1", "--trace-routing", "/dev/null")
        self.assertEqual(penstock(*trace).returncode, 0)
        rates = ("--flash-gbps", "1", "--dram-gbps", "10", "--gflops", "100")
        for kind in ("svg", "html"):
            done = penstock("plan", "35b", "--memory", "8G", *rates, "--" + kind, "/dev/null")
            self.assertEqual(done.returncode, 0, done.stderr)
        chat = penstock("chat", MODEL.path, stdin="/save /dev/null\n")
        self.assertEqual(chat.returncode, 0, chat.stderr)
        self.assertTrue(stat.S_ISCHR(os.stat("/dev/null").st_mode))


class Switches(unittest.TestCase):
    """A value given to a switch is obeyed or refused."""

    def test_false_is_off_and_true_is_on(self):
        for word, is_on in (("false", False), ("off", False), ("0", False), ("no", False),
                            ("true", True), ("on", True), ("1", True), ("yes", True)):
            with self.subTest(word):
                shown = good_json("config", "show", "--quiet=" + word)
                self.assertEqual(shown["verbs"]["run"]["quiet"]["value"] in ("on", "true", "1", "yes"),
                                 is_on)

    def test_force_off_does_not_replace_a_model(self):
        target = path("synth")
        arguments = ("synth", "35b", target, "--layers", "1", "--num-experts", "8", "-q")
        good(*arguments)
        before = os.stat(target).st_ino
        for word in ("false", "off", "0", "no"):
            self.assertEqual(penstock(*arguments, "--force=" + word).returncode, 2)
        self.assertEqual(os.stat(target).st_ino, before)
        good(*arguments, "--force=true")
        self.assertNotEqual(os.stat(target).st_ino, before)

    def test_json_off_is_text(self):
        self.assertRegex(good("version", "--json=false"), "^penstock ")
        error = penstock("plan", "--json=off")
        self.assertEqual((error.returncode, error.stdout), (2, b""))

    def test_other_words_are_refused_by_name(self):
        for flag in ("--force=maybe", "--quiet=", "--json=2", "--verbose=-1"):
            with self.subTest(flag):
                done = penstock("synth", "35b", path("never"), flag)
                self.assertEqual(done.returncode, 2)
                self.assertIn(flag.split("=")[0].encode(), done.stderr)
        self.assertFalse(os.path.exists(path("never")))


class StandardDescriptors(unittest.TestCase):
    """Closed at the start: no hang, and no descriptor of ours in their place."""

    def test_input(self):
        for arguments in (("run", MODEL.path, "-n", "1"), ("chat", MODEL.path)):
            with self.subTest(arguments[0]):
                done = limited(arguments, closed=(0,))
                self.assertIn(done.returncode, (2, 5) if arguments[0] == "run" else (0, 5), done.stderr)
        done = limited(("run", MODEL.path, "-p", "a", "-n", "1"), closed=(0,))
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_output(self):
        done = limited(("version",), closed=(1,))
        self.assertEqual(done.returncode, 5)
        self.assertIn(b"standard output", done.stderr)

    def test_errors_do_not_end_in_a_file(self):
        out = path("clean.safetensors")
        done = limited(("logits", MODEL.path, "--ids", ids_file(), "-o", out, "-v"), closed=(2,))
        self.assertEqual(done.returncode, 0)
        with open(out, "rb") as f, open(MODEL.file("x.safetensors"), "wb") as g:
            data = f.read()
            g.write(data)
        self.assertNotIn(b"budget", data)

    def test_all_of_them(self):
        done = limited(("plan", MODEL.path, "--memory", "64M"), closed=(0, 1, 2))
        self.assertEqual(done.returncode, 5)


@unittest.skipIf(IS_SANITIZED, "sanitizers need descriptors and address space of their own")
def refuse_io_uring():
    """A filter of system calls as containers have it: io_uring_setup is not permitted."""
    set_no_new_privileges, set_seccomp, filter_mode, io_uring_setup = 38, 22, 2, 425
    program = b"".join(struct.pack("HBBI", *step) for step in (
        (0x20, 0, 0, 0),  # the number of the call
        (0x15, 0, 1, io_uring_setup),
        (0x06, 0, 0, 0x00050001),  # EPERM
        (0x06, 0, 0, 0x7FFF0000),  # allowed
    ))
    steps = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(steps))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(set_no_new_privileges, 1, 0, 0, 0) or libc.prctl(set_seccomp, filter_mode, header, 0, 0):
        raise OSError(ctypes.get_errno(), "no filter of system calls")


class Limits(unittest.TestCase):
    """What the system refuses is a sentence and an exit code, also with --json, and never an abort."""

    RUN = ("run", None, "--memory", "64M", "-p", "x", "-n", "1", "-t", "4", "--json")

    def arguments(self):
        return tuple(MODEL.path if a is None else a for a in self.RUN)

    @unittest.skipIf(IS_SANITIZED, "sanitizers need memory and descriptors of their own")
    def test_address_space(self):
        codes = set()
        for mib in (24, 32, 40, 48, 64, 80, 96, 128, 192, 256):
            with self.subTest(mib):
                done = limited(self.arguments(), AS=mib << 20)
                codes.add(done.returncode)
                # 127: the dynamic linker itself had no room.
                self.assertIn(done.returncode, (0, 4, 127), done.stderr)
                if done.returncode == 4:
                    self.assertEqual(json.loads(done.stdout)["error"]["code"], "out_of_memory")
                    self.assertIn(b"penstock: ", done.stderr)
        self.assertIn(4, codes)

    @unittest.skipIf(IS_SANITIZED, "sanitizers need memory and descriptors of their own")
    def test_descriptors(self):
        for number in (3, 4, 5, 6, 7, 8, 9, 10, 12, 16):
            with self.subTest(number):
                done = limited(self.arguments(), NOFILE=number)
                self.assertIn(done.returncode, (0, 3, 5, 127), done.stderr)
                if done.returncode in (3, 5):
                    self.assertIn("error", json.loads(done.stdout))

    def test_size_of_files(self):
        out = path("limited.safetensors")
        done = limited(("logits", MODEL.path, "--ids", ids_file(), "-o", out), FSIZE=1000)
        self.assertEqual(done.returncode, 5, done.stderr)
        self.assertIn(b"too large", done.stderr)
        self.assertEqual([n for n in os.listdir(folder()) if n.startswith("limited")], [])

    @unittest.skipIf(os.geteuid() == 0, "root has no limit of tasks")
    def test_threads_by_limit_of_tasks(self):
        done = limited(self.arguments(), NPROC=1)
        self.assertEqual(done.returncode, 4, done.stderr)

    def test_processors_by_affinity(self):
        done = subprocess.run(
            [BINARY, "plan", MODEL.path, "--memory", "64M"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
            preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}))
        self.assertEqual(done.returncode, 0, done.stderr)
        run = subprocess.run(
            [BINARY, "run", MODEL.path, "--memory", "64M", "-p", "a", "-n", "1"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
            preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}))
        self.assertIn(b"1 thread;", run.stderr)

    @unittest.skipUnless(os.uname().machine == "x86_64", "the number of the system call is this machine's")
    @unittest.skipIf(IS_SANITIZED, "sanitizers make system calls of their own")
    def test_a_reader_that_the_system_refuses(self):
        ask = [BINARY, "run", MODEL.path, "--memory", "64M", "-p", "a", "-n", "1", "--greedy"]
        for options, code in ((["--reader", "uring", "--json"], 5), (["--reader", "auto"], 0), (["--reader", "threads"], 0)):
            with self.subTest(options):
                done = subprocess.run([*ask, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, env=environment(), preexec_fn=refuse_io_uring)
                self.assertEqual(done.returncode, code, done.stderr)
                if code:
                    self.assertEqual(json.loads(done.stdout)["error"]["code"], "io")
                    self.assertRegex(done.stderr.decode(), "--reader uring: .*--reader auto")

    def test_a_budget_beyond_the_machine_is_refused_before_anything_is_allocated(self):
        # The model is small: slots that it has not are asked for, so that the plan is large.
        done = penstock("run", MODEL.path, "--memory", "900T", "--slots", str(2**31 - 1), "-p", "a")
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertIn(b"MemTotal", done.stderr)


class Signals(unittest.TestCase):
    def start(self, *arguments):
        return subprocess.Popen([BINARY, *map(str, arguments)], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())

    def wait_until_full(self, process):
        """Until nothing more comes into its pipe: now it waits there."""
        before, end = -1, time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            self.assertIsNone(process.poll())
            held = struct.unpack("i", fcntl.ioctl(process.stdout, termios.FIONREAD, b"    "))[0]
            if held == before and held > 2048:
                return
            before = held
            time.sleep(0.5)
        raise AssertionError("it never filled its pipe")

    def test_one_signal_ends_a_program_whose_output_nobody_reads(self):
        endless = MODEL.variant("signals", remove_ends)
        for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(sent):
                process = self.start("run", endless, "-p", "a", "--temp", "1.5")
                fcntl.fcntl(process.stdout, 1031, 4096)  # F_SETPIPE_SZ
                self.wait_until_full(process)
                process.send_signal(sent)
                self.assertEqual(process.wait(timeout=60), 130)
                process.stdout.close()
                process.stderr.close()

    def test_a_closed_window_is_an_interruption(self):
        process = self.start("run", MODEL.path, "-p", "a", "--greedy", "--slots", "2")
        process.stdout.read(1)
        process.send_signal(signal.SIGHUP)
        _, errors = process.communicate(timeout=TIMEOUT_S)
        self.assertEqual(process.returncode, 130)
        self.assertIn(b"tok/s", errors)


class Slips(unittest.TestCase):
    """What a hand mistypes is told in plain words, with what was probably meant."""

    def refused(self, *arguments, **options):
        done = penstock(*arguments, **options)
        self.assertEqual(done.returncode, 2, done.stderr)
        return done.stderr.decode()

    def test_helps_verbs_and_keys_and_sections_of_settings_are_suggested(self):
        self.assertIn("did you mean chat?", self.refused("help", "chta"))
        for content, meant in (("memroy = '6G'\n", "memory"), ("[runn]\n", "run"), ("[chat]\ntop_k = 3\n", "top-k")):
            file = path("slip.toml")
            with open(file, "w", encoding="utf-8") as f:
                f.write(content)
            told = self.refused("run", MODEL.path, "-p", "a", "--config", file)
            self.assertIn(f"did you mean {meant}?", told)

    def test_verbs_and_flags_are_suggested(self):
        for typed, meant in (("rum", "run"), ("chta", "chat"), ("packs", "pack"), ("verison", "version")):
            self.assertIn(f"did you mean {meant}?", self.refused(typed))
        for typed, meant in (("--memroy", "--memory"), ("--expert-per-token", "--experts-per-token"),
                             ("--sytem=x", "--system"), ("--top_k", "--top-k")):
            self.assertIn(f"did you mean {meant}?", self.refused("run", "m", typed))
        self.assertNotIn("did you mean", self.refused("walk"))
        self.assertNotIn("did you mean", self.refused("run", "m", "--xyzzy-plugh"))

    def test_a_flag_of_another_verb_says_whose_it_is(self):
        self.assertIn("run, chat", self.refused("plan", "m", "--temp", "1"))

    def test_a_missing_value_is_told_in_plain_words(self):
        for arguments in (("run", "m", "--temp"), ("run", "m", "--memory", "--temp", "1"), ("run", "m", "-p")):
            text = self.refused(*arguments)
            self.assertIn("needs a value", text)
            self.assertNotIn("required", text)

    def test_a_text_may_begin_with_a_dash(self):
        good("run", MODEL.path, "--prompt=-5 is", "-n", "1")

    def test_a_slip_in_a_settings_file_stops_work_but_not_help(self):
        for content in ("memroy = '6G'\n", "[runn]\n", "temp = \n", "\xff\n", "quiet = 'maybe'\n"):
            file = path("config.toml")
            with open(file, "w", encoding="latin-1") as f:
                f.write(content)
            env = environment(PENSTOCK_CONFIG=file)
            for verb in (("help",), ("version",), ("config", "show"), ("completions", "bash"), ("help", "run")):
                with self.subTest((content, verb)):
                    done = penstock(*verb, env=env)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertTrue(done.stdout)
                    self.assertIn(b"warning", done.stderr)
            self.assertEqual(penstock("run", MODEL.path, "-p", "a", env=env).returncode, 2)

    def test_a_slip_in_the_environment_likewise(self):
        env = environment(PENSTOCK_QUIET="maybe")
        for verb in (("help",), ("version",), ("config", "show")):
            done = penstock(*verb, env=env)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(b"PENSTOCK_QUIET", done.stderr)

    def test_a_variable_that_is_no_setting_is_told(self):
        env = environment(PENSTOCK_MEMROY="1", PENSTOCK_PROMPT="x")
        told = penstock("run", MODEL.path, "-p", "a", "-n", "1", env=env).stderr.decode()
        self.assertIn("PENSTOCK_MEMROY is no setting; did you mean PENSTOCK_MEMORY?", told)
        self.assertIn("--prompt is given with each call", told)

    def test_a_model_that_is_not_there_is_told_in_plain_words(self):
        for verb in (("run", "nosuch", "-p", "a"), ("run", "no/such/model", "-p", "a"), ("plan", "36b")):
            done = penstock(*verb)
            self.assertEqual(done.returncode, 3, done.stderr)
            self.assertIn(f"{verb[1]}: there is no such file or folder", done.stderr.decode())
        self.assertIn(b"35b (", done.stderr)  # what plan could have been given

    def test_a_byte_order_mark_is_no_slip(self):
        file = path("bom.toml")
        with open(file, "wb") as f:
            f.write(b"\xef\xbb\xbfmemory = '6G'\r\n")
        shown = good_json("config", "show", env=environment(PENSTOCK_CONFIG=file))
        self.assertEqual(shown["verbs"]["run"]["memory"]["value"], "6G")

    def test_errors_are_json_wherever_json_was_asked_for(self):
        file = path("json.toml")
        with open(file, "w", encoding="utf-8") as f:
            f.write("json = true\n")
        for env in (environment(PENSTOCK_JSON="1"), environment(PENSTOCK_CONFIG=file)):
            for arguments in (("plan", "/no/such/model"), ("plan",), ("rum",), ("run", "m", "--fast")):
                with self.subTest(arguments):
                    self.assertIn("message", json.loads(penstock(*arguments, env=env).stdout)["error"])
            self.assertEqual(penstock("plan", "--json=off", env=env).stdout, b"")


if __name__ == "__main__":
    unittest.main()
