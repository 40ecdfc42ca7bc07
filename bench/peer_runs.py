"""One measurement of either engine at one cap of memory, for bench/peers."""

import os
import statistics
import subprocess
import time

import report
from peer_caps import MemoryGroup, ReadAhead, drop_caches
from peer_table import cap_name
from report import MIB, ROOT, say, shown_command

PEERS = os.path.join(ROOT, "bench/peers")
CAP_MARGIN = 64 * MIB      # of a cap that penstock is not told of
SHORT_PROMPT = 16          # tokens before those whose decoding is measured
FIRST_TOKEN_PROMPT = 64
PREFILL = 512
# How llama.cpp gets its weights. Repacking copies them into memory that no cap below the file's
# size can hold, so it goes with the whole file in memory only.
MODES = {"mmap": "llama.cpp", "no-mmap": "llama.cpp, no mmap"}


def python_of(venv):
    return os.path.join(venv, "bin/python")


def failure_of(out, err, code):
    """Why a process failed, in one line: penstock's is JSON."""
    for record in report.records_in(out + "\n" + err):
        if "error" in record:
            error = record["error"]
            return str(error.get("message", error) if isinstance(error, dict) else error)
    return (err.strip().splitlines() or [f"exit {code}"])[-1]


def run_capped(command, cap_bytes, hard_limit):
    """A process in a group of its own -> what it printed, its wall time, peak and end."""
    with MemoryGroup(cap_bytes) as group:
        start = time.monotonic()
        process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True,
                                   preexec_fn=group.enter_child)
        note = ""
        try:
            out, err = process.communicate(timeout=hard_limit)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            note = f"stopped after {hard_limit:.0f} s"
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall = time.monotonic() - start
        if process.returncode != 0 and not note:
            note = "killed: out of memory" if group.was_out_of_memory() else failure_of(
                out, err, process.returncode)
        return {"out": out, "wall_s": wall, "peak_bytes": group.peak_bytes(), "note": note}


def penstock_command(options, test, cap_bytes):
    command = [options.penstock, "bench", options.penstock_model, "-t", options.threads, "-r", 1,
               "--disk-seconds", 0, "--routing", "model", "--seed", options.seed, "--json"]
    if cap_bytes:
        command += ["--memory", cap_bytes - CAP_MARGIN]
    if test == "decode":
        return command + ["-p", 0, "-n", options.tokens, "-d", SHORT_PROMPT, "--warm"]
    if test == "prefill":
        return command + ["-p", PREFILL, "-n", 0, "--warm"]
    return command + ["-p", FIRST_TOKEN_PROMPT, "-n", 0, "--cold"]


def penstock_figures(out, test, wall_s):
    rows = [row for row in report.records_in(out) if "median_ts" in row]
    if not rows:
        return {}
    row = rows[-1]
    if test != "first token":
        return {"tok_s": row["median_ts"], "tokens": row["n_gen"] or row["n_prompt"],
                "read_per_token": row["bytes_per_token"]}
    prompt_s = row["first_token_ms"] / 1000
    return {"load_s": wall_s - prompt_s, "prompt_s": prompt_s, "first_token_s": wall_s}


def llama_command(options, test, mode):
    prompt = {"decode": SHORT_PROMPT, "prefill": PREFILL}.get(test, FIRST_TOKEN_PROMPT)
    command = [python_of(options.venv), "-B", PEERS, "worker", "--gguf",
               options.gguf, "--mode", mode, "--threads", options.threads, "--prompt", prompt,
               "--seed", options.seed, "--limit-seconds", options.limit_seconds]
    if test == "decode":
        command += ["--decode", options.tokens]
    return command if test == "first token" else command + ["--warm"]


def llama_figures(out, test):
    records = list(report.records_in(out))
    load = [r["load_s"] for r in records if "load_s" in r]
    prompts = [r for r in records if "prompt_s" in r]
    tokens = [r for r in records if "token_s" in r]
    if test == "decode" and tokens:
        seconds = [r["token_s"] for r in tokens]
        return {"load_s": load[0], "tokens": len(tokens), "tok_s": len(tokens) / sum(seconds),
                "token_ms_median": 1000 * statistics.median(seconds),
                "token_ms_max": 1000 * max(seconds),
                "read_per_token": sum(r["read_bytes"] for r in tokens) / len(tokens)}
    if test == "prefill" and prompts:
        return {"load_s": load[0], "tokens": prompts[0]["prompt_tokens"],
                "tok_s": prompts[0]["prompt_tokens"] / prompts[0]["prompt_s"]}
    if test == "first token" and prompts:
        return {"load_s": load[0], "prompt_s": prompts[0]["prompt_s"],
                "first_token_s": load[0] + prompts[0]["prompt_s"]}
    return {}


def measure(options, engine, test, cap_bytes, round_number):
    # Loading, a warm-up of half the limit and the measurement; a single call cannot be interrupted.
    hard_limit = 4 * options.limit_seconds
    if engine == "penstock":
        command = penstock_command(options, test, cap_bytes)
        drop_caches(options.penstock_model)
        result = run_capped(command, cap_bytes, hard_limit)
        figures = penstock_figures(result["out"], test, result["wall_s"])
        read_ahead = ""
    else:
        mode = next(m for m, name in MODES.items() if name == engine)
        command = llama_command(options, test, mode)
        drop_caches(options.gguf)
        with ReadAhead(options.gguf, options.read_ahead) as ahead:
            read_ahead = ahead.now()
            result = run_capped(command, cap_bytes, hard_limit)
        figures = llama_figures(result["out"], test)
    note = result["note"] or ("" if figures else "no result")
    if test == "decode" and figures and figures["tokens"] < options.tokens and not note:
        note = f"{figures['tokens']} of {options.tokens} tokens in {options.limit_seconds:.0f} s"
    row = {"engine": engine, "cap_bytes": cap_bytes, "test": test, "round": round_number, **figures,
           "peak_bytes": result["peak_bytes"], "wall_s": result["wall_s"],
           "read_ahead_kb": read_ahead, "note": note, "command": shown_command(command)}
    say(f"{cap_name(cap_bytes):>8}  {test:<11}  {engine:<18}  {short_result(row)}")
    return row


def short_result(row):
    if "tok_s" in row:
        text = f"{row['tok_s']:.2f} tok/s"
    elif "first_token_s" in row:
        text = f"{row['first_token_s']:.2f} s"
    else:
        text = "none"
    return f"{text}, peak {row['peak_bytes'] / MIB:,.0f} MiB" + (f" ({row['note']})"
                                                                 if row["note"] else "")
