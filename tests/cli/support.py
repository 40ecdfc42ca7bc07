"""What the tests of the program share: running it, a small model to run it on, safetensors."""

import hashlib
import json
import math
import os
import shutil
import struct
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.normpath(os.path.join(HERE, "..", "data"))
BINARY = os.environ["PENSTOCK_BINARY"]
TIMEOUT_S = 240
# A build with sanitizers, which take memory and descriptors of their own.
IS_SANITIZED = bool(os.environ.get("PENSTOCK_SANITIZED"))
STATE = tempfile.TemporaryDirectory(prefix="penstock-state-")  # removed at the end

TEMPLATE = (
    "{%- for m in messages -%}{{ m.role + ': ' + m.content + '<|end|>' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'assistant: ' }}{%- endif -%}"
)


def environment(**extra):
    """A clean environment: no settings of the person who runs the tests."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "XDG_"))}
    kept.pop("NO_COLOR", None)
    kept.pop("CLICOLOR_FORCE", None)
    return {**kept, "HOME": "/nonexistent", "XDG_STATE_HOME": STATE.name, **extra}


def penstock(*arguments, env=None, stdin="", cwd=None):
    return subprocess.run(
        [BINARY, *map(str, arguments)],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env or environment(),
        cwd=cwd,
        timeout=TIMEOUT_S,
    )


def good(*arguments, **options):
    """Runs it, expects success, returns standard output as text."""
    done = penstock(*arguments, **options)
    if done.returncode != 0:
        raise AssertionError(
            f"penstock {' '.join(map(str, arguments))} ended with {done.returncode}:\n"
            + done.stderr.decode(errors="replace")
        )
    return done.stdout.decode()


def good_json(*arguments, **options):
    return json.loads(good(*arguments, "--json", **options))


def byte_letters():
    """byte -> the letter that byte-level BPE writes for it."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def write_text_files(folder):
    """A tokenizer with a token for each byte and <|end|>, and a template, for 257 rows of embedding."""
    with open(os.path.join(DATA, "text", "tokenizer.json"), encoding="utf-8") as f:
        tokenizer = json.load(f)
    tokenizer["model"]["vocab"] = {letter: byte for byte, letter in byte_letters().items()}
    tokenizer["model"]["merges"] = []
    tokenizer["added_tokens"] = [{**tokenizer["added_tokens"][0], "id": 256, "content": "<|end|>"}]
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(tokenizer, f)
    with open(os.path.join(folder, "chat_template.jinja"), "w", encoding="utf-8") as f:
        f.write(TEMPLATE)
    with open(os.path.join(folder, "generation_config.json"), "w", encoding="utf-8") as f:
        json.dump({"do_sample": True, "temperature": 0.5, "top_k": 20, "eos_token_id": [256]}, f)


class Model:
    """The random checkpoint r0-gva2 with text files, packed as it is. Its answers are noise."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="penstock-cli-")
        self.source = os.path.join(self.folder, "source")
        shutil.copytree(os.path.join(DATA, "random", "r0-gva2"), self.source)
        for name in os.listdir(self.source):
            os.chmod(os.path.join(self.source, name), 0o644)
        self.expected = os.path.join(self.source, "expected.safetensors")
        shutil.move(self.expected, self.folder)
        self.expected = os.path.join(self.folder, "expected.safetensors")
        os.remove(os.path.join(self.source, "case.json"))
        self.change_config(max_position_embeddings=4096)
        write_text_files(self.source)
        self.path = os.path.join(self.folder, "model")
        self.packed = penstock("pack", self.source, self.path, "--experts", "keep")
        if self.packed.returncode != 0:
            raise AssertionError(self.packed.stderr.decode(errors="replace"))

    def change_config(self, **changes):
        path = os.path.join(self.source, "config.json")
        with open(path, encoding="utf-8") as f:
            config = {**json.load(f), **changes}
        with open(path, "w", encoding="utf-8") as f:
            json.dump(config, f)

    def file(self, name, content=None):
        path = os.path.join(self.folder, name)
        if content is not None:
            with open(path, "w", encoding="utf-8") as f:
                f.write(content)
        return path

    def variant(self, name, change):
        """Packed from a copy of the source whose files were changed: change(folder)."""
        target = self.file(name)
        shutil.copytree(self.source, target + ".source")
        change(target + ".source")
        good("pack", target + ".source", target, "--experts", "keep")
        return target

    def remove(self):
        shutil.rmtree(self.folder)


def remove_ends(source):
    """No file of a checkpoint's folder names a token that ends an answer any more."""
    os.remove(os.path.join(source, "generation_config.json"))
    edit_json(os.path.join(source, "config.json"), lambda j: j.pop("eos_token_id", None))


def read_safetensors(path):
    """-> {name: (shape, flat list of numbers)} for F32 and I32."""
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    tensors = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + offset for offset in info["data_offsets"])
        letter = {"F32": "f", "I32": "i"}.get(info["dtype"])
        if letter:
            count = (end - begin) // 4
            tensors[name] = (info["shape"], struct.unpack(f"<{count}{letter}", data[begin:end]))
    return tensors


def shard_safetensors(folder, count, key=None):
    """Cuts the folder's model.safetensors, by name or `key`, into `count` files with an index; returns their names."""
    whole = os.path.join(folder, "model.safetensors")
    with open(whole, "rb") as file:
        data = file.read()
    os.remove(whole)
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    names = sorted(header, key=key)
    weight_map = {}
    for shard in range(count):
        name = f"model-{shard + 1:05}-of-{count:05}.safetensors"
        part, payload = {}, b""
        for tensor in names[len(names) * shard // count : len(names) * (shard + 1) // count]:
            begin, end = header[tensor]["data_offsets"]
            part[tensor] = {**header[tensor], "data_offsets": [len(payload), len(payload) + end - begin]}
            payload += data[8 + size + begin : 8 + size + end]
            weight_map[tensor] = name
        text = json.dumps(part).encode()
        text += b" " * (-len(text) % 8)
        with open(os.path.join(folder, name), "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text + payload)
    with open(os.path.join(folder, "model.safetensors.index.json"), "w", encoding="utf-8") as file:
        json.dump({"weight_map": weight_map}, file)
    return sorted(set(weight_map.values()))


def write_zero_checkpoint(folder, experts, intermediate):
    """r0-gva2 with more and wider experts, all zeros: large, but quick to write as a sparse file."""
    os.makedirs(folder)
    source = os.path.join(DATA, "random", "r0-gva2")
    with open(os.path.join(source, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    with open(os.path.join(source, "model.safetensors"), "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    header.pop("__metadata__", None)
    hidden = config["hidden_size"]
    new_shapes = {
        "mlp.experts.gate_up_proj": [experts, 2 * intermediate, hidden],
        "mlp.experts.down_proj": [experts, hidden, intermediate],
        "mlp.gate.weight": [experts, hidden],
    }
    offset = 0
    for name, info in header.items():
        shape = new_shapes.get(name.split(".", 3)[-1], info["shape"])
        size = 2 * math.prod(shape)
        info.update(shape=shape, data_offsets=[offset, offset + size], dtype="BF16")
        offset += size
    config.update(num_experts=experts, moe_intermediate_size=intermediate)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + offset)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f)


def digest_of_folder(folder):
    sums = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as f:
            sums[name] = hashlib.sha256(f.read()).hexdigest()
    return sums


def edit_json(file, change):
    with open(file, encoding="utf-8") as f:
        content = json.load(f)
    change(content)
    with open(file, "w", encoding="utf-8") as f:
        json.dump(content, f)


def spoil(file, name_end):
    """Gives every tensor of that name finite values whose products overflow float32."""
    with open(file, "rb") as f:
        data = bytearray(f.read())
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    for name, info in header.items():
        if not name.endswith(name_end):
            continue
        begin, end = (8 + size + offset for offset in info["data_offsets"])
        value = b"\xe1\x7d" if info["dtype"] == "BF16" else b"\x00\x00\xe1\x7d"  # 3.7e37
        data[begin:end] = value * ((end - begin) // len(value))
    with open(file, "wb") as f:
        f.write(data)
