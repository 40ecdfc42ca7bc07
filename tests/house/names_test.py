#!/usr/bin/env python3
"""A function that a file keeps for itself has a name and parameters of its own, a constant or a type a name.

Where another file of its room, or a header, has the same, the two meet as soon as the files are built
together (cmake/from_nothing.cmake) or the header is included: CI's build fails where the everyday one
does not. And as a rule one of the two should have been the other. In a namespace within penstock's
the name alone is enough: it hides a header's from the other files, whose arguments' own namespace is
another.
"""
import collections
import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# A function that begins at the margin: what it returns, its name, its parameters, how it goes on.
FUNCTION = re.compile(r"^(?!return\b|else\b|using\b|#)([A-Za-z_][\w:<>,&*\s]*[\s&*])(\w+)\(([^;{}]*?)\)"
                      r"\s*(?:const)?\s*(?:noexcept)?\s*[{;]", re.MULTILINE)
# A constant or a type that is defined at the margin.
LASTING = re.compile(r"^(?:inline )?constexpr [\w:<>,\s*]+?[\s*](k\w+)(?:\[\w*\])?\s*[={]|"
                     r"^(?:struct|class|enum class) (\w+)\b[^;()]*?\{", re.MULTILINE)
OWN = re.compile(r"^namespace \{\n(.*?)^\}  // namespace$", re.MULTILINE | re.DOTALL)
SPACE = re.compile(r"^namespace (penstock[\w:]*) \{$", re.MULTILINE)


def types_of(parameters):
    """The types alone: "const std::string& a, int b = 1" as "std::string&,int"."""
    types, depth, current = [], 0, ""
    for char in parameters + ",":
        depth += (char == "<") - (char == ">")
        if char != "," or depth > 0:
            current += char
            continue
        words = re.sub(r"=.*", "", current, flags=re.DOTALL).split()
        if len(words) > 1:
            words[-1] = words[-1].lstrip("&*") and re.match(r"[&*]*", words[-1]).group()
        types.append("".join(word for word in words if word != "const"))
        current = ""
    return ",".join(types)


def functions_of(text, part):
    space = SPACE.search(text)
    for match in FUNCTION.finditer(part):
        yield (space.group(1) if space else "", match.group(2), types_of(match.group(3)))


def lasting_clashes(files):
    """[(name, where)] of constants and types that a file keeps and its room has too: their name alone counts."""
    of_rooms = collections.defaultdict(set)
    for path, text in files.items():
        # Tests of a room are a program of their own, which sees its headers.
        for part in [text] if path.suffix == ".h" else OWN.findall(text):
            for match in LASTING.finditer(part):
                name = match.group(1) or match.group(2)
                is_test = path.stem.endswith("_test")
                for program in (False, True) if path.suffix == ".h" else (is_test,):
                    of_rooms[path.parent, program, name].add(path)
    return [((name,), sorted(paths)) for (_, _, name), paths in of_rooms.items()
            if len(paths) > 1 and any(path.suffix == ".cc" for path in paths)]


def clashes(files):
    """[(function, where)] of {path: text}."""
    of_headers, of_files, of_rooms = {}, collections.defaultdict(list), {}
    for path, text in files.items():
        if path.suffix == ".h":
            for function in functions_of(text, text):
                of_headers[function] = path
                of_rooms[path.parent, *function[:2]] = path
        for part in OWN.findall(text) if path.suffix == ".cc" else []:
            for function in functions_of(text, part):
                of_files[function].append(path)
    found = []
    for function, paths in of_files.items():
        if function in of_headers:
            found.append((function, [of_headers[function], *paths]))
        elif "::" in function[0]:
            found += [(function, [of_rooms[path.parent, *function[:2]], path]) for path in paths
                      if (path.parent, *function[:2]) in of_rooms]
        for room, count in collections.Counter(path.parent for path in set(paths)).items():
            if count > 1:
                found.append((function, [path for path in paths if path.parent == room]))
    return found


class Names(unittest.TestCase):
    def test_each_kind_is_found(self):
        def files(space="penstock", **texts):
            return {pathlib.Path(name.replace("_", ".").replace("0", "/")):
                    f"namespace {space} {{\n{text}\n}}  // namespace {space}\n" for name, text in texts.items()}

        def own(text):
            return f"namespace {{\n\n{text}\n}}  // namespace"

        one = own("std::string f(const std::string& path) {\n  return path;\n}\n")
        self.assertEqual(len(clashes(files(a0x_cc=one, b0y_h="std::string f(const std::string& name);"))), 1)
        self.assertEqual(len(clashes(files(a0x_cc=one, a0y_cc=one))), 1)
        self.assertEqual(clashes(files(a0x_cc=one, b0y_cc=one)), [])
        self.assertEqual(clashes(files(a0x_cc=one, b0y_h="std::string f(std::string_view name);")), [])
        other = "std::string f(int number);"
        self.assertEqual(clashes(files(a0x_cc=one, a0y_h=other)), [])
        self.assertEqual(len(clashes(files("penstock::test", a0x_cc=one, a0y_h=other))), 1)
        self.assertEqual(clashes(files(a0x_cc=one, b0y_h="struct A {\n  std::string f(const std::string& a);\n};")), [])

    def test_constants_and_types_are_found_by_their_names(self):
        def own(text):
            return f"namespace penstock {{\nnamespace {{\n\n{text}\n\n}}  // namespace\n}}  // namespace penstock\n"

        def found(*files):
            texts = {pathlib.Path(name): text for name, text in files}
            return [name for (name,), _ in lasting_clashes(texts)]

        constant, header = own("constexpr uint64_t kMiB = 1 << 20;"), "inline constexpr uint64_t kMiB = 2;\n"
        self.assertEqual(found(("a/x_test.cc", constant), ("a/sizes.h", header)), ["kMiB"])
        self.assertEqual(found(("a/x.cc", constant), ("a/y.cc", constant)), ["kMiB"])
        self.assertEqual(found(("a/x.cc", constant), ("a/y_test.cc", constant)), [])
        self.assertEqual(found(("a/x.cc", constant), ("b/sizes.h", header)), [])
        self.assertEqual(found(("a/x.cc", own("struct Step {\n  int a;\n};")), ("a/y.cc", own("class Step {\n};"))), ["Step"])
        self.assertEqual(found(("a/x.cc", own("struct Step;")), ("a/y.cc", own("class Step {\n};"))), [])

    def test_no_file_keeps_what_another_has(self):
        # A program of its own is each file of bench/ and tests/fuzz/.
        paths = [path for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.*")
                 if path.suffix in (".h", ".cc") and path.parent.name != "fuzz"]
        self.assertGreater(len(paths), 500)
        texts = {path: path.read_text() for path in paths}
        found = clashes(texts)
        self.assertEqual([(name, [str(path.relative_to(ROOT)) for path in where])
                          for (name,), where in lasting_clashes(texts)], [])
        self.assertEqual([(f"{name}({types})", [str(path.relative_to(ROOT)) for path in where])
                          for (_, name, types), where in found], [])


if __name__ == "__main__":
    unittest.main()
