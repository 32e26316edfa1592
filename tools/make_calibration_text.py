#!/usr/bin/env python3
"""Makes data/calibration.txt.zst, the text that mica calibrates on where no other is given, and data/CALIBRATION.md, which says what it is made of.

    tools/make_calibration_text.py [--packages FOLDER]

Downloads Debian packages (apt-get download; FOLDER keeps them) and unpacks them beside the system. From each come documents: HTML, Mallard pages,
book texts, modules of the SWORD project and R's data become prose without navigation, licences and repeated paragraphs; code stays as it is. Documents
of some kilobytes are drawn from each source up to its share and shuffled, all by a fixed seed: the same packages give the same bytes.

Needs apt-get, dpkg-deb and zstd. No source is one of the texts that models are measured on (WikiText-2, Penn Treebank, C4)."""
import argparse
import gzip
import hashlib
import html.parser
import pathlib
import random
import re
import struct
import subprocess
import tempfile
import xml.etree.ElementTree as xml
import zlib

DATA = pathlib.Path(__file__).parent.parent / "data"
TEXT, LISTING, LICENCES = DATA / "calibration.txt.zst", DATA / "CALIBRATION.md", DATA / "CALIBRATION-LICENCES.txt"
SEED = "mica"
SHORTEST, LONGEST = 400, 6000  # characters of a document; longer ones are cut between paragraphs
DOC = "usr/share/doc/"
HANDBOOK, GNOME = "debian-handbook", "gnome-user-docs"


# From files to paragraphs.

class HtmlText(html.parser.HTMLParser):
    """Paragraphs of a page: block elements end one, what is preformatted keeps its lines, what is no prose is left out."""
    BLOCKS = {"p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "li", "dt", "dd", "tr", "td", "th", "table", "ul", "ol", "dl", "blockquote", "pre", "br", "section", "body"}
    OUT = {"script", "style", "head", "nav", "svg", "sup", "title", "footer"}
    OUT_CLASS = re.compile(r"\b(docnav|navheader|navfooter|toc|nosearch|related|sphinxsidebar|footer|headerlink|fancy_toc|menu|index|footnote|versionmodified|searchmenu)\b")

    def __init__(self, tables):
        super().__init__(convert_charrefs=True)
        self.paragraphs, self.line, self.pre = [], [], 0
        self.out, self.nested = None, 0  # the element that is left out, and those of its name within it: not all others are closed
        self.left_out = self.OUT if tables else self.OUT | {"table"}

    def end_paragraph(self):
        text = "".join(self.line)
        text = text.strip("\n").rstrip() if self.pre else " ".join(text.split())
        if text.strip():
            self.paragraphs.append(text)
        self.line = []

    def handle_starttag(self, tag, attributes):
        if tag in self.BLOCKS:
            self.end_paragraph()
        self.pre += tag == "pre"
        place = dict(attributes)
        marks = f"{place.get('class') or ''} {place.get('role') or ''} {place.get('id') or ''}"
        if self.out is not None:
            self.nested += tag == self.out
        elif tag in self.left_out or (tag in ("div", "ul", "p", "a", "table", "span", "h1") and self.OUT_CLASS.search(marks)):
            self.out, self.nested = tag, 1

    def handle_endtag(self, tag):
        if tag in self.BLOCKS:
            self.end_paragraph()
        self.pre -= tag == "pre" and self.pre > 0
        if tag == self.out:
            self.nested -= 1
            if self.nested == 0:
                self.out = None

    def handle_data(self, data):
        if self.out is None:
            self.line.append(data)


def of_html(path, tables=False):
    raw = path.read_bytes()
    reader = HtmlText(tables)
    reader.feed(raw.decode("utf-8", "replace") if b"utf-8" in raw[:2000].lower() else raw.decode("cp1252", "replace"))
    reader.end_paragraph()
    return reader.paragraphs


def of_mallard(path):
    """A help page of GNOME: its title, paragraphs and list items."""
    paragraphs = []

    def walk(element):
        name = element.tag.rpartition("}")[2]
        if name in ("info", "media", "links", "comment"):
            return
        if name in ("p", "title", "code", "screen"):
            paragraphs.append(" ".join("".join(element.itertext()).split()))
            return
        for child in element:
            if isinstance(child.tag, str):
                walk(child)

    walk(xml.fromstring(path.read_bytes()))
    return [paragraph for paragraph in paragraphs if paragraph]


def of_lines(text):
    """Paragraphs of a book with wrapped lines; verses, lists and tables, whose lines are indented, keep them."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", text.replace("\r", "")):
        lines = [line.rstrip() for line in block.split("\n") if line.strip()]
        if not lines:
            continue
        verse = len(lines) > 1 and all(line.startswith("    ") for line in lines[1:])
        paragraphs.append("\n".join(line.strip() for line in lines) if verse else " ".join(" ".join(lines).split()))
    return paragraphs


def of_r_data(folder):
    """Vectors of strings in the data base of an R package: each a zlib stream of R's serialisation, length in front."""
    content = (folder / "Rdata.rdb").read_bytes()
    at = 0
    while at < len(content):
        # The index, Rdata.rdx, has the same places; streams follow one another.
        stream = zlib.decompressobj()
        raw = stream.decompress(content[at + 4:])
        at = len(content) - len(stream.unused_data)
        place = raw.index(struct.pack(">I", 16), 14)  # a vector of strings
        count, place = struct.unpack_from(">I", raw, place + 4)[0], place + 8
        lines = []
        for _ in range(count):
            size = struct.unpack_from(">I", raw, place + 4)[0]
            lines.append(raw[place + 8:place + 8 + size].decode("utf-8"))
            place += 8 + size
        yield "\n".join(lines)


def of_sword(folder):
    """Books of a zText module: zlib blocks of OSIS, listed by (place, bytes, bytes inside)."""
    for part in ("ot", "nt"):
        index, blocks = (folder / f"{part}.bzs").read_bytes(), (folder / f"{part}.bzz").read_bytes()
        for place, size, _ in struct.iter_unpack("<III", index):
            book = zlib.decompress(blocks[place:place + size]).decode("utf-8")
            book = re.sub(r"<(note|title)\b.*?</\1>", " ", book, flags=re.DOTALL)
            book = re.sub(r"<(p|/p|lg|chapter|div)\b[^>]*>|<milestone\b[^>]*type=\"x-p\"[^>]*>", "\n\n", book)
            yield re.sub(r"[ \t]+", " ", re.sub(r"<[^>]*>", " ", book)).replace(" ,", ",").replace(" .", ".").replace("¶", "")


# From paragraphs to documents.

BOILERPLATE = re.compile(
    r"(?i)copyright|©|all rights reserved|general public license|warranty|project gutenberg|creative commons|licen[sc]ed? under|redistribut|"
    r"this page (was )?(last modified|originally)|report(ing)? a bug|javascript is|download the ebook")


def clean(paragraphs, seen, language):
    """Those that are no boilerplate, that no document before had and that are translated; short ones, headings and lines of dialogue, may come again."""
    kept = []
    for paragraph in paragraphs:
        key = hashlib.sha256(" ".join(paragraph.lower().split()).encode()).digest()
        if BOILERPLATE.search(paragraph) or (len(paragraph) > 60 and (key in seen or (language and not re.search(LETTERS[language], paragraph.lower())))):
            continue
        seen.add(key)
        kept.append(paragraph)
    return kept


def cut(paragraphs, between):
    """Documents of about a third of LONGEST to LONGEST characters, which begin and end with paragraphs."""
    documents, document, size = [], [], 0
    # Not all documents of a book are equally long: the beginning of one says how long it is.
    wanted = 0
    for paragraph in paragraphs:
        if not document:
            wanted = LONGEST // 3 + int.from_bytes(hashlib.sha256(paragraph.encode()).digest()[:4], "big") % (LONGEST * 2 // 3)
        document.append(paragraph)
        size += len(paragraph)
        if size >= wanted:
            documents.append(between.join(document))
            document, size = [], 0
    documents.append(between.join(document))
    return [document for document in documents if len(document) >= SHORTEST]


def of_code(path):
    """A file of code without the licence in front of it, cut where a line begins anew."""
    text = path.read_text(encoding="utf-8", errors="replace")
    comment = re.match(r"\s*(?:(?:(?://|#(?!include|pragma|if|define)).*\n\s*)+|/\*[\s\S]*?\*/)", text)
    if comment and BOILERPLATE.search(comment.group()):
        text = text[comment.end():]
    if re.search(r"(?i)permission is hereby granted|generated by|do not edit", text) or max(map(len, text.split("\n"))) > 300:
        return []
    documents, document = [], ""
    for block in re.split(r"\n(?=[^\s})\]#])", text.strip("\n")):
        if document and len(document) + len(block) > LONGEST:
            documents.append(document)
            document = ""
        document += block + "\n"
    return [document for document in documents + [document] if SHORTEST <= len(document) <= 2 * LONGEST and not re.search(r"(?i)copyright (\(c\)|js)", document)]


LETTERS = {"zh": "[一-鿿]", "ja": "[぀-ヿ]", "ru": "[а-яё]", "de": r"\b(?:der|die|und|nicht|ist|das|ein|eine|mit|auf)\b",
           "fr": r"\b(?:le|la|les|des|est|une|pour|dans|que|vous)\b", "es": r"\b(?:el|la|los|que|una|para|con|por|del|se)\b"}


def is_in(language, text):
    """Whether a document is in this language: parts of translations are not translated."""
    found = len(re.findall(LETTERS[language], text.lower()))
    return found > len(text) * (0.15 if language in ("zh", "ja", "ru") else 0.012) * (0.5 if language == "ja" else 1)


# The sources: package, part of the whole, what it is, licence, bytes, and how its documents are made.

def pages(folder, pattern, reader=of_html, between="\n", skip="$^"):
    for path in sorted(folder.glob(pattern)):
        if not re.search(skip, path.name):
            yield reader(path), between


def books(texts):
    for text in texts:
        yield of_lines(text), "\n\n"


def handbook(locale):
    return lambda root: pages(root / DOC / HANDBOOK / "html" / locale, "*.html")


def gnome(locale):
    return lambda root: pages(root / "usr/share/help" / locale / "gnome-help", "*.page", of_mallard)


PROSE, TECHNICAL, CODE, LANGUAGES = "English prose", "technical English", "code", "other languages"
PUBLIC = "public domain"
SHARE_ALIKE = "CC-BY-SA-3.0"
SOURCES = [
    ("r-cran-janeaustenr", PROSE, "novels of Jane Austen", PUBLIC, 500, None,
     lambda root: books(of_r_data(root / "usr/lib/R/site-library/janeaustenr/data"))),
    ("cfi-en", PROSE, "Linus Walleij, Copyright Does Not Exist", PUBLIC, 500, None,
     lambda root: pages(root / DOC / "cfi-en/html", "*web.htm", lambda path: of_html(path, tables=True))),
    ("jargon-text", PROSE, "the Jargon File: articles and entries", PUBLIC, 380, None,
     lambda root: books([re.sub(r"[{}]", "", gzip.decompress((root / DOC / "jargon-text/jargon.txt.gz").read_bytes()).decode("utf-8"))])),
    (GNOME, PROSE, "GNOME Help", SHARE_ALIKE, 260, None, gnome("C")),
    ("sword-text-web", PROSE, "World English Bible", PUBLIC, 130, None,
     lambda root: books(of_sword(root / "usr/share/sword/modules/texts/ztext/engWEB2015eb"))),
    ("golang-1.19-src", PROSE, "Isaac Newton, Opticks", PUBLIC, 100, None,
     lambda root: books([(root / "usr/share/go-1.19/src/testdata/Isaac.Newton-Opticks.txt").read_text(encoding="utf-8").split("*** END")[0]])),
    ("dict-devil", PROSE, "Ambrose Bierce, The Devil's Dictionary", PUBLIC, 100, None,
     lambda root: books([gzip.decompress((root / "usr/share/dictd/devil.dict.dz").read_bytes()).decode("utf-8", "replace")])),
    ("python3.11-doc", TECHNICAL, "Python: tutorial, how-tos, questions, library", "PSF-2", 330, None,
     lambda root: (page for part in ("tutorial", "howto", "faq", "library")
                   for page in pages(root / DOC / "python3.11/html" / part, "*.html", skip="index|license"))),
    ("sqlite3-doc", TECHNICAL, "SQLite: articles", PUBLIC, 220, None,
     lambda root: pages(root / DOC / "sqlite3", "*.html", skip="doc_|keyword|copyright|consortium|changes|news|toc|cves|code(of)|sitemap")),
    ("postgresql-doc-15", TECHNICAL, "PostgreSQL manual", "PostgreSQL", 200, None,
     lambda root: pages(root / DOC / "postgresql-doc-15/html", "*.html", skip="release|legalnotice|bookindex|biblio|contrib")),
    (HANDBOOK, TECHNICAL, "The Debian Administrator's Handbook", SHARE_ALIKE, 170, None, handbook("en-US")),
    ("libpython3.11-stdlib", CODE, "Python: standard library", "PSF-2", 260, None,
     lambda root: (of_code(path) for path in sorted((root / "usr/lib/python3.11").glob("*.py")) if not path.is_symlink())),
    ("golang-1.19-src", CODE, "Go: standard library", "BSD-3-clause", 190, None,
     lambda root: (of_code(path) for part in ("strings", "bufio", "net/http", "encoding/json", "sort", "text/template", "time", "os", "fmt", "container/list", "archive/zip")
                   for path in sorted((root / "usr/share/go-1.19/src" / part).glob("*.go")) if not path.name.endswith("_test.go"))),
    ("googletest", CODE, "GoogleTest, C++", "BSD-3-clause", 100, None,
     lambda root: (of_code(path) for path in sorted((root / "usr/src/googletest").rglob("*")) if path.suffix in (".cc", ".h"))),
    ("librust-regex-dev", CODE, "regex, Rust", "MIT or Apache-2.0", 60, None,
     lambda root: (of_code(path) for path in sorted((root / "usr/share/cargo/registry").glob("regex-*/src/**/*.rs")))),
    ("libjs-jquery", CODE, "jQuery, JavaScript", "MIT", 50, None,
     lambda root: (of_code(path) for path in [root / "usr/share/javascript/jquery/jquery.js"])),
    ("sword-text-sparv", LANGUAGES, "Reina-Valera 1909, Spanish", PUBLIC, 60, "es",
     lambda root: books(of_sword(root / "usr/share/sword/modules/texts/ztext/spaRV1909eb"))),
] + [(HANDBOOK, LANGUAGES, f"The Debian Administrator's Handbook, {name}", SHARE_ALIKE, kilobytes, locale[:2], handbook(locale))
     for locale, name, kilobytes in (("de-DE", "German", 70), ("fr-FR", "French", 80), ("es-ES", "Spanish", 50), ("ru-RU", "Russian", 70),
                                     ("zh-CN", "Chinese", 150), ("ja-JP", "Japanese", 70))
     ] + [(GNOME, LANGUAGES, f"GNOME Help, {name}", SHARE_ALIKE, kilobytes, locale[:2], gnome(locale))
          for locale, name, kilobytes in (("de", "German", 70), ("fr", "French", 60), ("es", "Spanish", 40), ("ru", "Russian", 70),
                                          ("zh_CN", "Chinese", 30), ("ja", "Japanese", 60))]
LICENCE_OF = {"libpython3.11-stdlib": "python3.11-doc"}  # packages of one source, of which one has the file


def documents_of(source, root, seen):
    """All documents of a source, without what others before it had."""
    _, group, _, _, _, language, make = source
    found = []
    for made in make(root):
        if group == CODE:
            documents = [document for document in made if hashlib.sha256(document.encode()).digest() not in seen]
            seen.update(hashlib.sha256(document.encode()).digest() for document in documents)
        else:
            paragraphs, between = made
            documents = cut(clean(paragraphs, seen, language), between)
        found += [document.strip("\n") for document in documents if language is None or is_in(language, document)]
    return found


def draw(documents, size, random_of_source):
    """Documents in random order until they have this many bytes."""
    random_of_source.shuffle(documents)
    drawn, total = [], 0
    for document in documents:
        if total >= size:
            break
        drawn.append(document)
        total += len(document.encode()) + 2
    return drawn


def obtain(name, packages, folder):
    """Downloads a package unless it is there, and unpacks it; what apt says of it, and where it is."""
    found = sorted(packages.glob(f"{name}_*.deb"))
    if not found:
        subprocess.run(["apt-get", "download", name], cwd=packages, check=True, stdout=subprocess.DEVNULL)
        found = sorted(packages.glob(f"{name}_*.deb"))
    package, root = found[-1], folder / name
    subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    version = subprocess.run(["dpkg-deb", "-f", package, "Version"], check=True, capture_output=True, text=True).stdout.strip()
    return root, version, hashlib.sha256(package.read_bytes()).hexdigest()


def listing(text, packed, rows, packages):
    shares = {}
    for row in rows:
        shares[row[1]] = shares.get(row[1], 0) + row[5]
    whole = sum(shares.values())
    lines = ["# The built-in calibration text", "",
             f"`calibration.txt.zst` ({len(packed)} bytes, {len(text)} once decompressed, SHA-256 of the text {hashlib.sha256(text).hexdigest()}) is what mica calibrates on",
             "where no text is given with `--calib`. It is a collection of documents from packages of Debian 12, drawn and shuffled by `tools/make_calibration_text.py`, and no part of",
             "the program's own work: each document keeps the licence of its source, in CALIBRATION-LICENCES.txt (of CC-BY-SA-3.0 the text is at https://creativecommons.org/licenses/by-sa/3.0/legalcode).",
             "What was changed: layout, navigation, notices and repeated paragraphs were left out, wrapped lines joined, texts cut into pieces of some kilobytes, and their order is random.",
             "The Debian Administrator's Handbook is by Raphaël Hertzog, Roland Mas and its translators, GNOME Help by the GNOME Documentation Project and its translators.", "",
             "Shares: " + ", ".join(f"{group} {100 * size / whole:.0f} %" for group, size in shares.items()) + ".", "",
             "| package | what | group | licence | documents | bytes |", "|---|---|---|---|---|---|"]
    lines += [f"| {name} | {what} | {group} | {licence} | {count} | {size} |" for name, group, what, licence, count, size in rows]
    lines += ["", "| package | version | SHA-256 of the package |", "|---|---|---|"]
    lines += [f"| {name} | {version} | {digest} |" for name, (version, digest) in packages.items()]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=pathlib.Path, help="where packages are kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        packages = (options.packages or folder).resolve()
        obtained, rows, all_documents, seen = {}, [], [], set()
        for source in SOURCES:
            name, group, what, licence, kilobytes = source[:5]
            if name not in obtained:
                obtained[name] = obtain(name, packages, folder)
            documents = documents_of(source, obtained[name][0], seen)
            drawn = draw(documents, 1000 * kilobytes, random.Random(f"{SEED} {what}"))
            size = sum(len(document.encode()) + 2 for document in drawn)
            print(f"{name}: {what}: {size} bytes in {len(drawn)} of {len(documents)} documents")
            rows.append((name, group, what, licence, len(drawn), size))
            all_documents += drawn
        random.Random(SEED).shuffle(all_documents)
        text = ("\n\n".join(all_documents) + "\n").encode()
        plain = folder / "calibration.txt"
        plain.write_bytes(text)
        DATA.mkdir(exist_ok=True)
        subprocess.run(["zstd", "-q", "-f", "-19", plain, "-o", TEXT], check=True)
        LISTING.write_text(listing(text, TEXT.read_bytes(), rows, {name: facts[1:] for name, facts in obtained.items()}), encoding="utf-8")
        licences = []
        for name in obtained:
            holder = LICENCE_OF.get(name, name)
            file = obtained[holder][0] / DOC / holder / "copyright"
            if holder == name:
                licences.append(f"==== {name} ====\n\n" + file.read_text(encoding="utf-8", errors="replace").strip() + "\n")
        LICENCES.write_text("\n\n".join(licences), encoding="utf-8")
        print(f"{TEXT}: {TEXT.stat().st_size} bytes, {len(text)} once decompressed, {len(all_documents)} documents")


if __name__ == "__main__":
    main()
