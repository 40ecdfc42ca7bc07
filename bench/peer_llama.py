"""llama.cpp in a process of its own, through its C interface: the worker of bench/peers."""

import ctypes
import json
import random
import re
import resource
import sys
import time


def load_mode(llama_cpp, mode):
    return llama_cpp.LLAMA_LOAD_MODE_MMAP if mode == "mmap" else llama_cpp.LLAMA_LOAD_MODE_NONE


class Llama:
    """A loaded model and a context, through the C interface."""

    def __init__(self, options):
        import llama_cpp
        import numpy
        self.api, self.numpy = llama_cpp, numpy
        quiet = llama_cpp.llama_log_callback(self.log)
        self.keep = [quiet]  # ctypes does not
        llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        start = time.monotonic()
        params = llama_cpp.llama_model_default_params()
        params.load_mode = load_mode(llama_cpp, options.mode)
        params.use_extra_bufts = options.mode != "mmap"  # repacking
        params.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(options.gguf.encode(), params)
        if not self.model:
            sys.exit(f"llama.cpp cannot load {options.gguf}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = options.prompt + options.decode
        params.n_batch = max(options.prompt, 1)
        params.n_threads = params.n_threads_batch = options.threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            sys.exit("llama.cpp cannot make a context")
        vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(vocab)
        self.load_s = time.monotonic() - start

    @staticmethod
    def log(level, text, _):
        if level == 4:  # errors
            sys.stderr.write(text.decode("utf-8", "replace"))

    def clear(self):
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)

    def decode(self, tokens):
        """Seconds of one llama_decode call."""
        ids = (self.api.llama_token * len(tokens))(*tokens)
        batch = self.api.llama_batch_get_one(ids, len(tokens))
        start = time.monotonic()
        result = self.api.llama_decode(self.context, batch)
        seconds = time.monotonic() - start
        if result != 0:
            sys.exit(f"llama_decode returned {result}")
        return seconds

    def check_logits(self):
        logits = self.numpy.ctypeslib.as_array(self.api.llama_get_logits_ith(self.context, -1),
                                               shape=(self.vocab_size,))
        if not self.numpy.isfinite(logits).all() or logits.min() == logits.max():
            sys.exit("the logits of llama.cpp are not finite or all the same")


def emit(**record):
    """A line at a time, so that what was measured outlives a process that is stopped."""
    print(json.dumps(record), flush=True)


def disk_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_inblock * 512


def pass_of(llama, options, seed, seconds, record):
    """A prompt, then tokens for at most so long."""
    source = random.Random(seed)
    llama.clear()
    ids = [source.randrange(llama.vocab_size) for _ in range(options.prompt + options.decode)]
    record(prompt_s=llama.decode(ids[:options.prompt]), prompt_tokens=options.prompt)
    end, before = time.monotonic() + seconds, disk_bytes()
    for token in ids[options.prompt:]:
        if time.monotonic() > end:
            break
        record(token_s=llama.decode([token]), read_bytes=disk_bytes() - before)
        before = disk_bytes()
    llama.check_logits()


def worker(options):
    if options.versions:
        import llama_cpp
        features = re.findall(r"(\w+) = 1", llama_cpp.llama_print_system_info().decode())
        print(f"llama.cpp {llama_cpp.llama_version().decode()} "
              f"(llama-cpp-python {llama_cpp.__version__}), "
              f"{' '.join(features)}")
        return
    llama = Llama(options)
    emit(load_s=llama.load_s)
    if options.warm:
        pass_of(llama, options, options.seed + 1, options.limit_seconds / 2, lambda **_: None)
    pass_of(llama, options, options.seed, options.limit_seconds, emit)
