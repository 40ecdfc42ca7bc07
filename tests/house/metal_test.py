#!/usr/bin/env python3
"""Every shader also translates to Metal source, in the variant without packed dots.

That it translates is all that is shown here: no Metal compiler and no such device is asked.
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

SHADERS = pathlib.Path(__file__).resolve().parents[2] / "src" / "gpu" / "shaders"
# 2.3 is the first Metal with addresses of buffers in arguments.
METAL = "20300"


def tool(name):
    found = shutil.which(name)
    if not found:
        raise RuntimeError(f"{name} is missing: scripts/install test")
    return found


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=SHADERS)


def to_metal(shader, folder):
    """The translation's text, or an AssertionError with what a tool said."""
    spirv, metal = pathlib.Path(folder) / "shader.spv", pathlib.Path(folder) / "shader.metal"
    metal.unlink(missing_ok=True)
    compiled = run(tool("glslc"), "-DPENSTOCK_NO_PACKED_DOTS", "--target-env=vulkan1.3", "-Werror",
                   str(shader), "-o", str(spirv))
    if compiled.returncode != 0:
        raise AssertionError(f"{shader.name} does not compile: {compiled.stderr}")
    done = run(tool("spirv-cross"), str(spirv), "--msl", "--msl-version", METAL, "--output", str(metal))
    if done.returncode != 0 or not metal.exists():
        raise AssertionError(f"{shader.name} does not translate to Metal: {done.stderr.strip()}")
    return metal.read_text()


class Metal(unittest.TestCase):
    def test_every_shader_translates(self):
        shaders = sorted(SHADERS.glob("*.comp"))
        self.assertGreater(len(shaders), 3)
        with tempfile.TemporaryDirectory() as folder:
            for shader in shaders:
                with self.subTest(shader=shader.name):
                    text = to_metal(shader, folder)
                    self.assertIn("kernel void main0", text)
                    # Where something is added or multiplied, it is by functions that nothing contracts.
                    self.assertNotRegex(text, r"float \w+ = \w+ [-+*/] \w+;")

    def test_what_metal_has_not_is_found(self):
        source = "#version 460\nlayout(local_size_x = 1) in;\n" \
                 "layout(std430, binding = 0) buffer B { double x; };\nvoid main() { x = x * x; }\n"
        with tempfile.TemporaryDirectory() as folder:
            shader = pathlib.Path(folder) / "doubles.comp"
            shader.write_text(source)
            with self.assertRaisesRegex(AssertionError, "doubles.comp does not translate"):
                to_metal(shader, folder)
            shader.write_text(source.replace("void main", "void main("))
            with self.assertRaisesRegex(AssertionError, "doubles.comp does not compile"):
                to_metal(shader, folder)


if __name__ == "__main__":
    sys.exit(unittest.main())
