# SPDX-License-Identifier: GPL-2.0-only
"""Makes mutants of C code: each is the code with one thing changed.

    rig/mutate.py FILE...       lists them

What is changed is a piece of text inside of a function, or one of the flags that a
macro is made of. Locks, references, memory that is freed and what is printed stay as
they are: lockdep, KASAN and people look after them. So do what is there for other
configurations and the arguments of assertions.

A mutant is told by its name: the function, the kind, the line as it is written, and
which one of several that have all of it the same. So it keeps its name when it moves.
"""
import bisect
import dataclasses
import re
import sys

# Calls that come in pairs, free, print, or assert.
KEPT = re.compile(
    r"(\w*lock\w*|rcu_\w+|lockdep_\w+|\w*_(get|put|ref_get)|mmgrab|mmdrop|kfree\w*|"
    r"WARN\w*|pr_\w+|dev_(err|warn|info|dbg)\w*|pci_(err|warn|info|dbg)|"
    r"trace_\w+|module_put|cond_resched)$")
# Conditions of what cannot be had in a test, or only asserts
PRINTING = re.compile(r"\b(pr_|dev_|pci_)(err|warn|info|dbg)\w*\(|\bWARN|lockdep_")
RETURNS = {"void": [""], "bool": [" false", " true"], "int": [" 0"],
           "unsigned int": [" 0"], "ssize_t": [" 0"], "u16": [" 0"], "u32": [" 0"],
           "u64": [" 0"]}
COMPARED = {"==": "!=", "!=": "==", "<": "<=", "<=": "<", ">": ">=", ">=": ">"}


@dataclasses.dataclass
class Mutant:
    file: str
    function: str
    kind: str
    line: int
    shown: str          # the line as it is written
    start: int
    end: int
    instead: str
    number: int = 1     # of those that have all else the same

    @property
    def name(self):
        return (f"{self.function}: {self.kind}: {self.shown}"
                + (f" (#{self.number})" if self.number > 1 else ""))

    def __str__(self):
        return f"{self.file}: {self.name}"

    def apply(self, source):
        return source[:self.start] + self.instead + source[self.end:]


@dataclasses.dataclass
class Function:
    name: str
    kind: str           # what it returns
    start: int          # the brace
    end: int


def blank(source):
    """The code with comments, strings and directives as blanks, as long as it was."""
    def spaces(match):
        return re.sub(r"[^\n]", " ", match.group())

    code = re.sub(r"/\*.*?\*/|//[^\n]*", spaces, source, flags=re.S)
    code = re.sub(r'"(\\.|[^"\\\n])*"|\'(\\.|[^\'\\\n])+\'', spaces, code)
    return re.sub(r"^[ \t]*#[^\n]*(?:(?<=\\)\n[^\n]*)*", spaces, code, flags=re.M)


def functions(code):
    """They begin and end with a brace in the first column."""
    for match in re.finditer(r"^\{$(.*?)^\}$", code, re.M | re.S):
        head = re.split(r"[;}]|\n\n", code[:match.start()])[-1].strip()
        said = re.match(r"(.*?)(\w+)\s*\(", head, re.S)
        if said:
            kind = re.sub(r"\b(static|inline|__init|const|noinline)\b", "",
                          said[1]).split()
            yield Function(said[2], " ".join(kind), match.start(),
                           match.end())


def closing(code, start):
    """Where the parenthesis that opens at start is closed."""
    depth = 0
    for at in range(start, len(code)):
        depth += {"(": 1, ")": -1}.get(code[at], 0)
        if not depth:
            return at
    raise ValueError("a parenthesis is not closed")


class Maker:
    """What can be changed in one file. `lines` are those that count, or None."""

    def __init__(self, file, source, lines=None):
        self.file, self.source, self.lines = file, source, lines
        self.code = blank(source)
        self.starts = [0] + [m.end() for m in re.finditer("\n", source)]
        self.texts = source.split("\n")
        self.found = {}

    def line(self, at):
        return bisect.bisect(self.starts, at)

    def change(self, function, kind, start, end, instead):
        line = self.line(start)
        if self.lines is not None and line not in self.lines:
            return
        if self.source[start:end] == instead:
            return
        shown = " ".join(self.texts[line - 1].split())
        self.found.setdefault((start, end, instead), Mutant(
            self.file, function, kind, line, shown, start, end, instead))

    def statements(self, body):
        """Start and end of what ends in a semicolon and begins a line."""
        for match in re.finditer(r"(?:^|\n)[ \t]+(?=[\w*+-])", body):
            end, depth = match.end(), 0
            while end < len(body) and (depth or body[end] not in ";{}:"):
                depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(body[end], 0)
                if depth < 0:
                    break
                end += 1
            if end < len(body) and body[end] == ";" and depth == 0:
                yield match.end(), end + 1

    def conditions(self, body):
        for match in re.finditer(r"\b(if|while)\s*\(", body):
            yield match.end(), closing(body, match.end() - 1), match[1]
        for match in re.finditer(r"\bfor\s*\(", body):
            end = closing(body, match.end() - 1)
            parts = body[match.end():end].split(";")
            if len(parts) == 3 and parts[1].strip():
                start = match.end() + len(parts[0]) + 1
                yield start + 1, start + len(parts[1]), "for"
        for match in re.finditer(r"(?:return|=|:)\s+([^;?=]+?)\s*\?(?!:)", body):
            yield match.start(1), match.end(1), "?:"

    def in_function(self, f):
        body = self.code[f.start:f.end]

        def change(kind, start, end, instead):
            self.change(f.name, kind, f.start + start, f.start + end, instead)

        printed = [(m.start(), closing(body, body.index("(", m.start())))
                   for m in PRINTING.finditer(body) if "(" in body[m.start():]]

        def prints(at):
            return any(start <= at < end for start, end in printed)

        for kind in ([f.kind] if f.kind in RETURNS else []):
            for value in RETURNS[kind]:
                # After the variables, so that it is C as the kernel writes it
                first = re.match(r"\{\n((?:\t[^\n]*\n)*?)\n", body)
                at = first.end() if first else 2
                change(f"return{value} at once", at, at, f"\treturn{value};\n")
        for start, end, _ in self.conditions(body):
            text = body[start:end]
            if prints(start):
                continue
            one = re.fullmatch(r"[^&|=!<>?]*[=!]=[^&|=!<>?]*", text)
            if not one:
                change("negate", start, end, f"!({self.source[f.start + start:f.start + end]})")
        for match in re.finditer(r"(?<![-<>=!&|])(==|!=|<=|>=|<|>)(?![<>=])", body):
            if not prints(match.start()) and body[match.start() - 1] == " ":
                change(f"{match[1]} to {COMPARED[match[1]]}", *match.span(),
                       COMPARED[match[1]])
        for match in re.finditer(r"&&|\|\|", body):
            instead = {"&&": "||", "||": "&&"}[match[0]]
            if not prints(match.start()):
                change(f"{match[0]} to {instead}", *match.span(), instead)
        # One of the terms does not count
        for match in re.finditer(r"(?<=[(\s])!(?=[\w(])", body):
            if not prints(match.start()):
                change("drop !", *match.span(), "")
        for match in re.finditer(r" (\||&|\+|-|<<|>>) (?=[\w(~])", body):
            instead = {"|": "&", "&": "|", "+": "-", "-": "+",
                       "<<": ">>", ">>": "<<"}[match[1]]
            if not prints(match.start()):
                change(f"{match[1]} to {instead}", match.start(1), match.end(1),
                       instead)
        for match in re.finditer(r" (\|=|&=|\+=|-=)", body):
            change(f"{match[1]} to =", match.start(1), match.end(1), "=")
        for match in re.finditer(r"(?<![\w.])(0x[0-9a-f]+|\d+)(ull)?\b", body):
            # How much room there is for a text is of no consequence.
            if prints(match.start()) or re.search(r"char \w+\[$", body[:match.start()]):
                continue
            value = int(match[1], 0)
            change(f"{value} to {value + 1}", match.start(1), match.end(1),
                   str(value + 1))
            if value > 1:
                change(f"{value} to {value - 1}", match.start(1), match.end(1),
                       str(value - 1))
        for match in re.finditer(r"(?<!return )\b(true|false)\b", body):
            instead = {"true": "false", "false": "true"}[match[1]]
            if not prints(match.start()):
                change(f"{match[1]} to {instead}", *match.span(), instead)
        for start, end in self.statements(body):
            self.statement(change, body, start, end)

    def statement(self, change, body, start, end):
        text = body[start:end]
        call = re.match(r"(\w+)\s*\(", text)
        if call and closing(text, call.end() - 1) == len(text) - 2 \
                and not KEPT.match(call[1]) \
                and call[1] not in ("if", "while", "for", "switch", "sizeof"):
            change("drop", start, end, ";")
        # Of a variable the first value is given where it is declared, as a rule
        stored = re.match(r"[\w*][\w.>\[\]-]*\s*((?:[|&+-])?=)(?!=)", text)
        if stored and (re.search(r"->|\.|\[|\*", text[:stored.start(1)])
                       or stored[1] != "=") or re.match(r"\w+(\+\+|--);", text):
            change("drop", start, end, ";")
        value = re.fullmatch(r"return\s+(.+);", text, re.S)
        if value:
            for instead in {"true": ["false"], "false": ["true"], "0": ["1"],
                            "NULL": []}.get(value[1], []):
                change(f"return {instead}", start, end, f"return {instead};")
            if re.match(r"-E\w+$", value[1]):
                change("return 0", start, end, "return 0;")
            if value[1] == "ret":
                change("return 0", start, end, "return 0;")
        if text == "return;":
            change("drop", start, end, ";")
        if text in ("continue;", "break;"):
            other = {"continue;": "break;", "break;": "continue;"}[text]
            change(f"{other[:-1]}", start, end, other)
            change("drop", start, end, ";")
        if text.startswith("goto "):
            change("drop", start, end, ";")

    def macros(self):
        """Flags that a macro of this file is made of: it has each of them."""
        for match in re.finditer(r"^#define\s+(\w+)\s+\(((?:\w+ \| )+\w+)\)$",
                                 self.source, re.M):
            flags = match[2].split(" | ")
            for flag in flags:
                self.change(match[1], f"without {flag}", *match.span(2),
                            " | ".join(f for f in flags if f != flag))

    def make(self):
        self.macros()
        for function in functions(self.code):
            if function.name.startswith(("module_", "early_")):
                continue
            self.in_function(function)
        seen = {}
        made = sorted(self.found.values(), key=lambda m: (m.start, m.end))
        for mutant in made:
            seen[mutant.name] = number = seen.get(mutant.name, 0) + 1
            mutant.number = number
        return made


def mutants(file, source, lines=None):
    """All of a file, in the order of the code; of some lines only, if given."""
    return Maker(file, source, lines).make()


def main():
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            source = file.read()
        for mutant in mutants(path.rpartition("/")[2], source):
            instead = mutant.apply(source)
            line = instead.split("\n")[mutant.line - 1].strip()
            print(f"{mutant.name}\n    {mutant.line}: {line}")


if __name__ == "__main__":
    main()
