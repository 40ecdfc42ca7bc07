#!/usr/bin/env python3
"""lm-eval's local-chat-completions and local-completions against a server, on the demo model's own questions.

From scripts/test-venv, which gives it an environment of its own (760 MB). With a number it asks so many; there are 40:

    PENSTOCK_BINARY=build/release/penstock PENSTOCK_DEMO_MODEL=build/demo-model build/lm-eval/bin/python tests/server/lm_eval_test.py 40

Both endpoints have to come to the same share of right answers as `penstock answer` does on the same items.
"""

import glob
import json
import os
import subprocess
import sys
import tempfile

from support import BINARY, DATA, MODEL, Server

TASK = """task: NAME
dataset_path: json
dataset_kwargs:
  data_files: {test: ITEMS}
test_split: test
output_type: generate_until
doc_to_text: "{{PROMPT}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["<|im_end|>"], max_gen_toks: 60, do_sample: false, temperature: 0}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
FRAME = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def read_items(count):
    with open(os.path.join(DATA, "eval", "eval_qa.jsonl"), encoding="utf-8") as lines:
        items = [json.loads(line) for line in lines]
    return [item for item in items if len(item["messages"]) == 1][:count]


def share_of_answer(items, folder):
    path = os.path.join(folder, "items.jsonl")
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(item) + "\n" for item in items)
    out = subprocess.run([BINARY, "answer", MODEL, "--items", path, "--json", "--context", "1024", "--memory", "400M",
                          "--max-tokens", "60", "--quiet"], stdout=subprocess.PIPE, check=True)
    texts = {row["id"]: row["text"] for row in map(json.loads, out.stdout.splitlines())}
    return sum(texts[item["id"]] == item["expected"] for item in items) / len(items)


def share_of_lm_eval(server, folder, kind, path, prompt, flags):
    name = "penstock_" + kind.replace("-", "_")
    with open(os.path.join(folder, name + ".yaml"), "w", encoding="utf-8") as file:
        file.write(TASK.replace("NAME", name).replace("ITEMS", os.path.join(folder, "task.jsonl")).replace("PROMPT", prompt))
    out = os.path.join(folder, "out-" + name)
    arguments = f"model=demo,base_url={server.address}{path},num_concurrent=4,max_retries=1,tokenized_requests=False,tokenizer_backend=None"
    program = os.path.join(os.path.dirname(sys.executable), "lm_eval")
    subprocess.run([program, "--model", kind, "--model_args", arguments, "--tasks", name, "--include_path", folder,
                    "--output_path", out, *flags], check=True,
                   env={**os.environ, "HF_DATASETS_OFFLINE": "1", "HF_HOME": folder, "OPENAI_API_KEY": "none"})
    with open(glob.glob(out + "/**/*.json", recursive=True)[0], encoding="utf-8") as file:
        results = json.load(file)["results"][name]
    return next(value for key, value in results.items() if key.startswith("exact_match,"))


def main():
    items = read_items(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
    with tempfile.TemporaryDirectory(prefix="penstock-lm-eval-") as folder:
        with open(os.path.join(folder, "task.jsonl"), "w", encoding="utf-8") as file:
            for item in items:
                question = item["messages"][0]["content"]
                row = {"question": question, "raw": FRAME.format(question), "answer": item["expected"]}
                file.write(json.dumps(row) + "\n")
        expected = share_of_answer(items, folder)
        server = Server("--parallel", 4, "--think", "off")
        try:
            shares = {
                "local-chat-completions": share_of_lm_eval(server, folder, "local-chat-completions", "/v1/chat/completions",
                                                           "question", ["--apply_chat_template"]),
                "local-completions": share_of_lm_eval(server, folder, "local-completions", "/v1/completions", "raw", []),
            }
        finally:
            server.stop()
    print(f"penstock answer {expected:.4f} of {len(items)}; {shares}")
    return 0 if all(abs(share - expected) < 1e-9 for share in shares.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
