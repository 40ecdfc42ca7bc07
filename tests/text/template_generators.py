"""Random templates for template_oracle.py: one function a family, all listed in ALL."""
import datetime
import unicodedata

VALUES = ["7", "-42", "0", "123456789", "-1", "3.14159", "-2.5", "0.0", "1e20", "1e-7", "100.0", "0.5", "99999.5", "1e16", "2.675", "'abc'", "''", "'é世'", "true", "false", "none", "[1, 'a']", "{'a': 1}", "(1,)"]
NUMBERS = VALUES[:15]


def case(source, variables=None):
    return {"template": source, "variables": variables or {}}


def percent_format(rng):
    """'%-08.3f' % value, with every flag, width, precision and letter."""
    def field():
        flags = "".join(rng.sample("-+ 0#", rng.choice([0, 0, 1, 1, 2])))
        width = rng.choice(["", "", "1", "5", "12"])
        precision = rng.choice(["", "", ".0", ".1", ".3", ".10", "."])
        return "%" + flags + width + precision + rng.choice("ddiuoxXeEfFgGsrac%")
    count = rng.choice([1, 1, 1, 2, 3])
    values = [rng.choice(VALUES if rng.random() < 0.4 else NUMBERS) for _ in range(count)]
    text = "|".join(field() for _ in range(count))
    if rng.random() < 0.1:
        return case("{{ '%s' | format(%s) }}" % (text, ", ".join(values)))
    return case("{{ '%s' %% (%s,) }}" % (text, ", ".join(values)))


def brace_format(rng):
    """'{:*^+12,.3f}'.format(value), with every part of the specification."""
    fill = rng.choice(["", "", "", "*", "0", "世", "<"])
    align = rng.choice(["<", ">", "^", "="]) if fill or rng.random() < 0.4 else ""
    sign = rng.choice(["", "", "+", "-", " "])
    other = rng.choice(["", "", "", "#"]) + rng.choice(["", "", "0"])
    width = rng.choice(["", "", "3", "8", "15"])
    group = rng.choice(["", "", "", ",", "_"])
    precision = rng.choice(["", "", ".0", ".1", ".4", ".12"])
    kind = rng.choice(["", "", "d", "b", "o", "x", "X", "e", "E", "f", "F", "g", "G", "%", "s", "c"])
    value = rng.choice(VALUES if rng.random() < 0.3 else NUMBERS)
    return case("{{ '[{:%s}]'.format(%s) }}" % (fill + align + sign + other + width + group + precision + kind, value))


def rounding(rng):
    """round() and the printing of what it gives."""
    value = rng.choice(["%.*f" % (rng.randint(0, 8), rng.uniform(-1000, 1000)), "%d.5" % rng.randint(-50, 50), str(rng.randint(-10**6, 10**6)), repr(rng.uniform(-1, 1) * 10.0 ** rng.randint(-12, 22))])
    method = rng.choice(["", "", ", 'ceil'", ", 'floor'", ", 'common'"])
    return case("{{ (%s) | round(%d%s) }}" % (value, rng.randint(-4, 6), method))


PIECES = ["a", "b", "l", "o", "ab", "ba", "aab", " ", "  ", "\\t", "\\n", "é", "世", "A", "B", "1", "-", "+", ".", "ǅ", "²", "ß", "İ"]


def text_method(rng):
    """The methods of str on texts of few letters, where there are many ways to be almost right."""
    def text(longest):
        return "'" + "".join(rng.choice(PIECES[:8] if rng.random() < 0.6 else PIECES[:19]) for _ in range(rng.randint(0, longest))) + "'"
    bounds = "".join(", %s" % rng.choice(["none", str(rng.randint(-9, 9))]) for _ in range(rng.choice([0, 0, 1, 2])))
    width = rng.randint(-2, 14)
    call = rng.choice([
        lambda: "%s(%s%s)" % (rng.choice(["find", "rfind", "index", "rindex", "count", "startswith", "endswith"]), text(2), bounds),
        lambda: "%s(%s)" % (rng.choice(["partition", "rpartition", "removeprefix", "removesuffix"]), text(2)),
        lambda: "%s(%s%s)" % (rng.choice(["split", "rsplit"]), rng.choice(["none", text(1), text(2)]), rng.choice(["", ", %d" % rng.randint(-1, 3)])),
        lambda: "%s(%d%s)" % (rng.choice(["center", "ljust", "rjust"]), width, rng.choice(["", ", '*'", ", '世'"])),
        lambda: "%s(%d)" % (rng.choice(["zfill", "expandtabs"]), width),
        lambda: "splitlines(%s)" % rng.choice(["", "true", "false"]),
        lambda: "%s()" % rng.choice(["isdigit", "isdecimal", "isnumeric", "isalpha", "isalnum", "isspace", "islower", "isupper", "istitle", "isascii", "isprintable", "swapcase", "strip", "upper", "lower", "title", "capitalize"]),
        lambda: "replace(%s, %s, %d)" % (text(1), text(1), rng.randint(-1, 3)),
        lambda: "%s(%s)" % (rng.choice(["strip", "lstrip", "rstrip"]), text(2)),
    ])()
    return case("{{ [%s.%s] }}" % (text(9), call))


def character_class(rng):
    """What one character is."""
    c = chr(rng.choice([rng.randrange(0x250), rng.randrange(0x3000), rng.randrange(0x20000)]))
    while unicodedata.category(c) in ("Cs", "Cn"):  # Python and we may have other editions of Unicode
        c = chr(rng.randrange(0x3000))
    methods = ["isdigit", "isdecimal", "isnumeric", "isalpha", "isalnum", "isspace", "islower", "isupper", "istitle", "isprintable"]
    return case("".join("{{ c.%s() }}" % m for m in methods) + "{{ [c] }}{{ c | wordcount }}{{ c is lower }}", {"c": c})


DIRECTIVES = "aAbBcCdDeFgGhHIjklmMnpPrRStTuUVwWxXyYzZ%f"


def date(rng):
    """strftime_now at any time."""
    moment = datetime.datetime(rng.randint(1970, 2100), 1, 1) + datetime.timedelta(days=rng.randrange(366), seconds=rng.randrange(86400), microseconds=rng.randrange(10**6))
    text = "".join(rng.choice(["", "-", ", ", "世", " "]) + "%" + rng.choice(["", "", "", "-", "_", "0", "^", "#"]) + rng.choice(DIRECTIVES) for _ in range(rng.randint(1, 6)))
    text = text.replace("%#f", "%f").replace("%-f", "%f")
    return dict(case("{{ strftime_now(f) }}", {"f": text}), now=[moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second, moment.microsecond])


def block(rng, depth=3):
    """Blocks inside blocks, with names that are set at every level.

    What is handed in is never set: inside of macros and call blocks Jinja2 takes such a name for undefined
    until the template has set it, although it was handed in; and the arguments of a filter block see what
    is set inside of it (text/jinja/template.h).
    """
    def body(level):
        return "".join(piece(level) for _ in range(rng.randint(1, 3)))

    def piece(level):
        kind = rng.randrange(13) if level > 0 else rng.randrange(3)
        if kind == 0:
            return rng.choice(["a", "<b>", " ", "x\n"])
        if kind == 1:
            return "{{ %s }}" % rng.choice(["x", "y", "w", "loop.index", "n", "caller is defined", "kwargs", "loop.changed(x)", "loop.cycle(1, 2)", "loop.depth", "c.next()", "j()", "ns.v", "(x | string)[:3] + '<'"])
        if kind == 2:
            return "{%% set %s = %s %%}" % (rng.choice(["x", "y", "ns.v"]), rng.choice(["n + 1", "'t'", "x", "[x, y]", "loop.index0", "'<' | e"]))
        inner = body(level - 1)
        if kind == 3:
            return "{%% for %s in %s %%}%s{%% endfor %%}" % (rng.choice(["x", "y", "z"]), rng.choice(["[1, 2]", "'ab'", "[]", "range(3)"]), inner)
        if kind == 4:
            return "{%% for x in tree recursive %%}%s{{ loop(x.c) if x is mapping and x.c }}{%% endfor %%}" % inner
        if kind == 5:
            return "{%% filter %s %%}%s{%% endfilter %%}" % (rng.choice(["upper", "trim", "replace('a', 'b')", "escape", "trim | lower"]), inner)
        if kind == 6:
            return "{%% with %s = %s %%}%s{%% endwith %%}" % (rng.choice(["x", "y"]), rng.choice(["1", "x", "y"]), inner)
        if kind == 7:
            return "{%% set %s%s %%}%s{%% endset %%}" % (rng.choice(["x", "y"]), rng.choice(["", " | upper", " | trim"]), inner)
        if kind == 8:
            return "{%% macro m(x%s) %%}%s{%% endmacro %%}" % (rng.choice(["", ", y=5", ", y=x"]), inner)
        if kind == 9:
            return "{{ m(%s) if m }}" % rng.choice(["1", "x", "*[1]", "x=2", "1, y=3", "1, 2, 3", "1, q=2", "**{'x': 1}"])
        if kind == 10:
            return "{%% call wrap(%s) %%}%s{%% endcall %%}" % (rng.choice(["1", "x", "'t'"]), inner)
        if kind == 11:
            return "{%% call(x) each([1, n]) %%}%s{%% endcall %%}" % inner
        return "{%% if %s %%}%s{%% else %%}%s{%% endif %%}" % (rng.choice(["x", "y", "w", "n > 3", "loop.first"]), inner, body(level - 1))

    head = "{% macro wrap(t) %}[{{ t }}{{ caller() }}]{% endmacro %}{% macro each(all) %}{% for i in all %}{{ caller(i) }}{% endfor %}{% endmacro %}{% set ns = namespace(v=0) %}{% set c = cycler('p', 'q') %}{% set j = joiner() %}"
    return case(head + body(depth), {"n": 7, "w": "W", "tree": [{"c": [1, {"c": []}]}, 2]})


ALL = [percent_format, brace_format, rounding, text_method, character_class, date, block]
