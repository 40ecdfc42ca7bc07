#!/usr/bin/env python3
"""Our template interpreter against Jinja2, the original, on the same inputs.

Three kinds of input: snippets that each show one rule, random expressions from a grammar, and random
conversations through whole templates. Both must give the same text, or both an error.

  template_oracle.py DRIVER [FOLDER_OF_TEMPLATES] [--seed N] [--count N]

DRIVER is the program built from template_driver.cc. Templates (*.jinja) of a folder are run as well.
"""
import argparse
import copy
import datetime
import functools
import json
import os
import random
import subprocess
import sys
import warnings

from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "text")


class Generation(Extension):
    """{% generation %}: its body is rendered as it stands, with names of its own."""

    tags = {"generation"}

    def parse(self, parser):
        from jinja2 import nodes

        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("render_body"), [], [], body).set_lineno(line)

    def render_body(self, caller):
        return caller()


def raise_exception(message):
    raise ValueError(message)


def to_json(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def make_environment():
    """As the reference implementation of chat templates sets it up."""
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = to_json
    env.globals["raise_exception"] = raise_exception
    return env


@functools.lru_cache(maxsize=256)
def compiled(env, source):
    return env.from_string(source)


def reference(env, case):
    try:
        template = compiled(env, case["template"])
        if "messages" not in case:
            # A copy: the filter indent changes a list that it is given by mistake.
            return {"text": template.render(**copy.deepcopy(case["variables"]))}
        messages = json.loads(json.dumps(case["messages"]))
        for message in messages:
            for call in message.get("tool_calls") or []:
                holder = call.get("function", call)
                if isinstance(holder.get("arguments"), str):
                    holder["arguments"] = json.loads(holder["arguments"])
        extra = {k: case[k] for k in ("enable_thinking",) if case.get(k) is not None}
        text = template.render(
            messages=messages, tools=case.get("tools"), documents=None, add_generation_prompt=case["add_generation_prompt"], **extra
        )
        return {"text": text}
    except Exception as error:  # any: an error is an answer here
        return {"error": "%s: %s" % (type(error).__name__, error)}


VARIABLES = {
    "s": "Hello, World", "e": "", "u": "Ärger, 世界 👍", "w": "  \t padded \n\n", "n": 7, "z": 0, "f": 2.5, "g": -0.5, "big": 1e16,
    "small": 0.00001, "digits": 1234567890123456.0, "t": True, "no": False, "nothing": None, "l": [3, 1, 2], "ls": ["b", "a", "C"],
    "le": [], "ld": [{"k": "x", "v": 1}, {"k": "y", "v": 2}, {"k": "x", "v": 3}], "d": {"b": 1, "a": [1, "two", None], "items": "key"},
    "de": {}, "nest": {"a": {"b": {"c": "deep"}}, "list": [[1, 2], [3]]}, "q": "it's \"quoted\" \\ and\nnew\x07\x7f\u00a0\u200b",
    "mixed": [1, "1", 1.0, True, None, [1], {"a": 1}],
}

SNIPPETS = r"""
{{ s }}|{{ e }}|{{ n }}|{{ f }}|{{ t }}|{{ nothing }}|{{ l }}|{{ d }}|{{ mixed }}|{{ q }}|{{ [q] }}|{{ missing }}|{{ [u] }}
{{ big }} {{ small }} {{ digits }} {{ 1e15 }} {{ 123456789.125 }} {{ 1e300 }} {{ 0.1 + 0.2 }} {{ 100.0 }} {{ -0.0 }} {{ 1.5e-7 }}
{{ missing is defined }} {{ s is defined }} {{ nothing is none }} {{ s is string }} {{ n is number }} {{ t is number }} {{ t is integer }} {{ n is integer }} {{ f is float }}
{{ l is iterable }} {{ s is iterable }} {{ d is mapping }} {{ l is sequence }} {{ d is sequence }} {{ n is sequence }} {{ missing is iterable }} {{ missing is sequence }} {{ missing is mapping }} {{ none is iterable }}
{{ t is true }} {{ n is true }} {{ no is false }} {{ z is false }} {{ t is boolean }} {{ z is boolean }} {{ n is odd }} {{ n is even }} {{ n is divisibleby 7 }} {{ n is divisibleby(2) }}
{{ n is eq 7 }} {{ n is equalto(7) }} {{ n is ne 7 }} {{ n is lt 8 }} {{ n is gt 8 }} {{ n is ge 7 }} {{ n is le 7 }} {{ 3 is in l }} {{ 'x' is in 'xyz' }} {{ n is not in l }}
{{ s is lower }} {{ 'abc' is lower }} {{ 'ABC' is upper }} {{ '123' is upper }} {{ range is callable }} {{ s is callable }} {{ 1 is sameas 1 }} {{ l is sameas l }}
{{ 'a' 'b' "c" }} {{ 'it''s' }} {{ "tab\there" }} {{ 'line\nbreak' }} {{ '\x41\u00e9\U0001F600\101\0' }} {{ 'un\known \d' }} {{ 'back\\slash' }} {{ "quote\"d" }}
{{ 1 + 2 * 3 }} {{ (1 + 2) * 3 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7 / 2 }} {{ 6 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }}
{{ 7.5 // 2 }} {{ -7.5 // 2 }} {{ 7.5 % 2 }} {{ -7.5 % 2 }} {{ 7 % 2.5 }} {{ 1 / 3 }} {{ 10 // 0.3 }} {{ 1.0 // 0.1 }}
{{ 1 / 0 }}
{{ 1 % 0 }}
{{ 'a' + 1 }}
{{ s + missing }}
{{ missing + s }}
{{ missing.attribute }}
{{ missing['key'] }}
{{ missing() }}
{{ s.missing_method() }}
{{ nothing.attribute is defined }}|{{ nothing.attribute.more }}
{{ n.attribute is defined }} {{ s.attribute is defined }} {{ l.attribute is defined }} {{ d.attribute is defined }} {{ d['b'] }} {{ d.b }} {{ d.items is callable }} {{ d['items'] }}
{{ l[0] }} {{ l[-1] }} {{ l[5] is defined }} {{ s[0] }} {{ s[-1] }} {{ s[99] is defined }} {{ u[7] }} {{ u[-1] }} {{ l['0'] is defined }} {{ l.0 }} {{ nest.list.0.1 }} {{ nest.list[1][0] }}
{{ l[1:] }} {{ l[:-1] }} {{ l[::-1] }} {{ l[::2] }} {{ s[1:4] }} {{ s[::-1] }} {{ u[::-1] }} {{ u[2:9] }} {{ s[-5:] }} {{ s[5:2] }} {{ l[10:] }} {{ l[-10:2] }} {{ s[::3] }} {{ s[10:1:-2] }} {{ l[none:2] }}
{{ l[::0] }}
{{ l['a':] }}
{{ d[1:] }}
{{ s ~ n ~ nothing ~ t ~ missing ~ f ~ l }} {{ 'a' ~ 1 + 2 }} {{ 1 ~ 2 * 3 }} {{ 1 + 2 ~ 3 }}
{{ s * 2 }} {{ 2 * s }} {{ l * 2 }} {{ s * -1 }} {{ [0] * 3 }} {{ (1,) * 2 }} {{ s * 0 }}|
{{ l + [4] }} {{ (1, 2) + (3,) }} {{ () }} {{ (1,) }} {{ (1, 2) }} {{ {} }} {{ {'a': 1, 'b': [2]} }} {{ [1, 2, ] }} {{ {'a': 1, } }} {{ {1: 2, 'x': none} }}
{{ l + (1,) }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ 1 == true }} {{ '1' == 1 }} {{ l == [3, 1, 2] }} {{ d == d }} {{ (1,) == [1] }} {{ none == missing }} {{ missing == missing2 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 'Z' < 'a' }} {{ 1 != 2 }}
{{ 1 < 'a' }}
{{ none < 1 }}
{{ d < d }}
{{ 'a' in 'abc' }} {{ 'x' not in 'abc' }} {{ 1 in l }} {{ 'b' in d }} {{ 'zz' in d }} {{ 1.0 in l }} {{ 'a' in missing }} {{ '' in s }} {{ not 1 in l }} {{ true in [1] }}
{{ 1 in 'abc' }}
{{ 1 in 5 }}
{{ missing in 'abc' }}
{{ 'a' and 'b' }} {{ '' or 'x' }} {{ none or 0 or [] }} {{ not '' }} {{ not not n }} {{ t and no or 5 }} {{ (not t) == no }} {{ missing or 'fallback' }} {{ missing and 1 }}|
{{ 'yes' if t else 'no' }} {{ 'yes' if no }}|{{ 'a' if no else 'b' if no else 'c' }} {{ ('x' if t else 'y') ~ 'z' }} {{ 1 if t else 2 + 3 }} {{ s if s is string else 'not' }}
{{ w | trim }}| {{ '--x--' | trim('-') }} {{ n | trim }} {{ missing | trim }}| {{ w.strip() }}| {{ w.lstrip() }}| {{ w.rstrip() }}| {{ 'xyx'.strip('x') }} {{ 'abcba'.lstrip('ab') }} {{ '\x1c\u3000a\x85' | trim }}|
{{ s.split(', ') }} {{ w.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a b  c'.split(' ') }} {{ ' a b c '.split(none, 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'abc'.split('abc') }} {{ 'a\nb\r\nc\x0bd'.splitlines() }} {{ 'a--b--c'.split('--')[-1] }}
{{ s.split('') }}
{{ s.startswith('Hell') }} {{ s.endswith('x') }} {{ s.startswith(('a', 'H')) }} {{ s.endswith(()) }} {{ s.upper() }} {{ s.lower() }} {{ s.title() }} {{ s.capitalize() }} {{ u.upper() }} {{ 'они'.title() }} {{ "it's ok".title() }} {{ "it's ok" | title }} {{ 'foo-bar (baz)' | title }} {{ 'hELLO wORLD' | capitalize }}
{{ s.startswith(1) }}
{{ s.replace('l', 'L') }} {{ s.replace('l', 'L', 1) }} {{ 'aaa'.replace('a', '') }} {{ 'abc'.replace('', '-') }} {{ s | replace('o', '0') }} {{ s | replace('l', 'L', 2) }} {{ n | replace('7', 'seven') }} {{ 'üü'.replace('', '.') }}
{{ s.find('World') }} {{ s.find('zz') }} {{ u.find('世') }} {{ s.count('l') }} {{ s.count('') }} {{ '-'.join(['a', 'b']) }} {{ ', '.join([]) }}| {{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.txt'.removesuffix('.txt') }}
{{ '-'.join([1]) }}
{{ d.items() | list }} {{ d.keys() | list }} {{ d.values() | list }} {{ d.get('a') }} {{ d.get('zz') }} {{ d.get('zz', 'default') }} {{ d | items | list }} {{ missing | items | list }} {{ d | list }} {{ d | length }}
{{ d.get() }}
{{ n | items | list }}
{{ l | first }} {{ l | last }} {{ le | first }}| {{ s | first }} {{ u | last }} {{ d | first }} {{ l | length }} {{ u | length }} {{ s | count }} {{ missing | length }}
{{ n | length }}
{{ nothing | length }}
{{ l | join(', ') }} {{ ls | join }} {{ ld | join('+', attribute='k') }} {{ s | join('.') }} {{ le | join(',') }}| {{ mixed | join('|') }}
{{ l | sort }} {{ ls | sort }} {{ ls | sort(case_sensitive=true) }} {{ l | sort(reverse=true) }} {{ ld | sort(attribute='v', reverse=true) | map(attribute='v') | list }} {{ d | dictsort }} {{ de | dictsort }} {{ {'B': 1, 'a': 2} | dictsort }} {{ {'b': 1, 'a': 2} | dictsort(by='value') }} {{ {'b': 1, 'a': 2} | dictsort(false, 'key', true) }}
{{ l | min }} {{ l | max }} {{ ls | max }} {{ ld | max(attribute='v') }} {{ le | min }}| {{ ['b', 'B', 'a'] | min }} {{ ['a', 'A'] | max(true) }}
{{ mixed | max }}
{{ mixed | sort }}
{{ [1, 1, 2, 1] | unique | list }} {{ ['a', 'A', 'b'] | unique | list }} {{ ['a', 'A'] | unique(true) | list }} {{ ld | unique(attribute='k') | map(attribute='v') | list }} {{ l | reverse | list }} {{ s | reverse }} {{ u | reverse }} {{ le | unique | list }}
{{ ls | map('upper') | list }} {{ ld | map(attribute='k') | list }} {{ ld | map(attribute='zz', default='-') | list }} {{ nest.list | map('first') | list }} {{ ls | map('replace', 'a', 'z') | list }} {{ nest | items | map(attribute='0') | list }} {{ nest | items | map(attribute=0) | list }} {{ [nest] | map(attribute='a.b.c') | list }}
{{ ld | selectattr('k', 'equalto', 'x') | list }} {{ ld | rejectattr('k', '==', 'x') | list }} {{ ld | selectattr('v') | list | length }} {{ l | select('>', 1) | list }} {{ l | reject('odd') | list }} {{ mixed | select | list }} {{ mixed | select('string') | list }} {{ ld | selectattr('zz', 'defined') | list }} {{ ld | selectattr('v', 'in', [1, 3]) | map(attribute='v') | list }}
{{ 'x' if le | select else 'y' }} {{ 'x' if le | map('upper') | list else 'y' }} {{ l | map('string') | join }} {{ (l | reverse) is sequence }} {{ (l | reverse) is iterable }}
{% set g = l | reverse %}{% for x in g %}{{ x }}{% endfor %}-{% for x in g %}{{ x }}{% endfor %}
{{ missing | default('x') }} {{ e | default('x') }}| {{ e | default('x', true) }} {{ nothing | default('x') }} {{ nothing | default('x', boolean=true) }} {{ missing | d(5) }} {{ missing | default }}|
{{ '12' | int }} {{ ' 12 ' | int }} {{ 'x' | int }} {{ 'x' | int(5) }} {{ '3.9' | int }} {{ 3.9 | int }} {{ -3.9 | int }} {{ 'ff' | int(0, 16) }} {{ '0x1f' | int(base=16) }} {{ t | int }} {{ nothing | int }} {{ '1_000' | int }} {{ '-5' | int }} {{ '+5' | int }}
{{ '1.5' | float }} {{ 'x' | float }} {{ 3 | float }} {{ '1e3' | float }} {{ nothing | float(1.0) }} {{ 'inf' | float }} {{ ' -2.5 ' | float }}
{{ missing | int }}
{{ n | string }} {{ nothing | string }} {{ f | string ~ 'x' }} {{ l | string | length }} {{ s | safe }} {{ s | lower }} {{ n | upper }} {{ t | upper }} {{ nothing | lower }}
{{ l | list }} {{ s[:3] | list }} {{ d | list }} {{ missing | list }} {{ (1, 2) | list }} {{ range(3) | list }} {{ range(2, 8, 3) | list }} {{ range(3, 0, -1) | list }} {{ range(0) | list }}
{{ range(1.5) }}
{{ range(1000000) | list }}
{{ n | list }}
{{ 'a\nb\n\nc' | indent }} {{ 'a\nb' | indent(2, true) }} {{ 'a\n\nb' | indent(2, false, true) }} {{ 'a\nb' | indent('>') }} {{ 'a\n' | indent(first=true) }}|
{{ d | tojson }} {{ mixed | tojson }} {{ q | tojson }} {{ u | tojson }} {{ u | tojson(ensure_ascii=true) }} {{ f | tojson }} {{ nest | tojson(indent=2) }} {{ le | tojson(indent=2) }} {{ de | tojson(indent=2) }} {{ d | tojson(separators=(',', ':')) }} {{ d | tojson(sort_keys=true) }} {{ (1, 2) | tojson }} {{ {1: 2, none: 3, true: 4} | tojson }} {{ digits | tojson }} {{ nest | tojson(indent=0) }} {{ l | tojson(indent='\t') }}
{{ missing | tojson }}
{{ range | tojson }}
{{ namespace(a=1).a }} {% set ns = namespace(x=1, y='a') %}{% set ns.x = ns.x + 1 %}{{ ns.x }}{{ ns.y }}{{ ns.z }}|{{ ns.z is defined }}{% set ns = namespace({'q': 1}, r=2) %}{{ ns.q }}{{ ns.r }}{{ dict(a=1, b=2) }}{{ dict({'a': 1}, a=3) }}
{% set d.x = 1 %}
{% set x = 1 %}{% for i in l %}{% set x = i %}{{ x }}{% endfor %}{{ x }}{% if t %}{% set x = 9 %}{% endif %}{{ x }}{% for i in [1, 2] %}{{ y }}{% set y = i %}{{ y }}{% endfor %}
{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}{{ loop }}
{% for i in l %}{% for j in ls %}{{ loop.index }}{{ loop.depth }}{{ j }}{% endfor %}{{ loop.index }}{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k, v in d | items %}{{ k }}{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for c in u %}{{ c }}.{% endfor %}{% for a, b in [(1, 2), [3, 4], 'xy'] %}{{ a }}{{ b }}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{% endfor %}
{% for a, b in [1] %}{% endfor %}
{% for x in n %}{% endfor %}
{% for x in nothing %}{% endfor %}
{% for x in missing %}{{ x }}{% else %}none{% endfor %}{% for x in le %}{% else %}empty{% endfor %}{% for x in l if x > 1 %}{{ x }}{{ loop.index }}{{ loop.length }}{% else %}no{% endfor %}{% for x in l if x > 9 %}{% else %}no{% endfor %}
{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}{% for i in l %}{% for j in l %}{% break %}{% endfor %}{{ i }}{% endfor %}
{% if s %}a{% elif n %}b{% else %}c{% endif %}{% if e %}a{% elif n %}b{% else %}c{% endif %}{% if e %}a{% elif z %}b{% else %}c{% endif %}{% if missing %}a{% endif %}{% if f and l %}x{% endif %}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, d2) = [3, 4] %}{{ c }}{{ d2 }}{% set t3 = 1, 2 %}{{ t3 }}{% set blk %}x{{ n }}y{% endset %}{{ blk }}{{ blk | length }}
{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(1, c=9) }} {{ m() }} {{ m(b=5) }} {{ m(1) | length }} {{ m is callable }}
{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{% endmacro %}{{ m(zz=2) }}
{% macro m(a) %}{% endmacro %}{{ m(1, a=2) }}
{% macro f1(x) %}{% if x > 0 %}{{ x }}{{ f1(x - 1) }}{% endif %}{% endmacro %}{{ f1(5) }}{% macro one() %}{{ two() }}{% endmacro %}{% macro two() %}2{% endmacro %}{{ one() }}
{% set outer = 1 %}{% macro m() %}{{ outer }}{% set outer2 = 5 %}{% endmacro %}{% set outer = 2 %}{{ m() }}{{ outer2 }}
{% for i in l %}{% macro inner() %}{{ i }}{% endmacro %}{{ inner() }}{% endfor %}{{ inner is defined }}
{% macro m() %}{% for i in l %}{{ i }}{% endfor %}{% endmacro %}[{{ m() }}][{{ m() ~ m() }}]
a  {%- if t -%}  b  {%- endif -%}  c
  {% if t %}  {# comment #}  x {% endif %}  y
a{#- both -#}   b {# left #} c {#- #}   d
{{- s -}}   {{ n }}  {{- f }}
{%+ if t %} plus {% endif +%} z
text with { braces } and }} and %} and {{ '{{' }} {{ '}}' }} {{ {'a': {'b': 1}}['a']['b'] }}
{# a comment with {{ s }} and {% if %} #}after
{{ 1_000 }} {{ 1.5 }} {{ 0.5e2 }} {{ 2e3 }} {{ 1E-2 }}
{{ true }} {{ True }} {{ none }} {{ None }} {{ false }} {{ False }}
{{ n|string|length }} {{ n | string() | upper }} {{ (n | string) ~ '!' }} {{ -n | string }} {{ -f }} {{ +n }} {{ - -n }} {{ not t }} {{ -5 | abs_missing }}
{{ s | nonexistent }}
{{ s is nonexistent }}
{% unknown %}
{% if t %}
{{ s
{{ }}
{{ 1 + }}
{{ (1 }}
{{ [1, 2 }}
{{ 'abc }}
{% for x l %}{% endfor %}
{% endif %}
{% break %}
{% set %}
{{ a b }}
{{ s.upper is callable }} {{ d.items is callable }} {{ d.items() is callable }}
{% generation %}in {{ n }}{% set hidden = 1 %}{% endgeneration %}{{ hidden }}
{{ ld[0].k }}{{ ld[-1]['v'] }}{{ ld[7].k }}
{{ ld[0].k.k }}|{{ ld[0].zz is defined }}|{{ ld[0].zz }}|
{{ (ld | selectattr('k', 'equalto', 'y') | first).v }} {{ (ld | first)['k'] }} {{ [1, 2][1] }} {{ 'abc'[1] }} {{ {'x': 1}.x }} {{ 'a-b'.split('-')[1] ~ 'c' }} {{ s | upper | lower | first }}
{{ raise_exception('stop') }}
{{ 'ok' if no else raise_exception('bad ' ~ n) }}
{{ strftime_now is defined }} {{ messages is defined }} {{ loop is defined }} {{ self is defined and false }}
{{ d.update({'x': 1}) }}
{{ l.append(1) }}
{{ l.index(2) }} {{ l.count(1) }}
{{ l.index(99) }}
{{ x if x is defined else 'undefined' }} {{ missing if t }}| {{ (missing if t) is defined }} {{ ('a' if no) is defined }}
{%- set joined -%}   a   {%- endset -%}[{{ joined }}]
{{ s, n }} {{ (s) }} {{ (s,)[0] }}
{{ "a" if "x" in s and not "y" in s or n > 3 else "b" }} {{ 1 if n == 7 and not no else 0 }} {{ n > 3 and n < 9 }} {{ not n > 3 }}
{{ n is number and n is not string }} {{ n is not none and s is not mapping }} {{ l is iterable and l is not mapping and l is not string }}
"""

WHITE_SPACE_PIECES = ["{% if t %}", "{%- if t %}", "{% if t -%}", "{%- if t -%}", "{%+ if t %}", "{% if t +%}", "{% endif %}", "{%- endif -%}",
                      "{{ n }}", "{{- n }}", "{{ n -}}", "{{- n -}}", "{# c #}", "{#- c -#}", "{#- c #}", "{# c -#}", "{#+ c +#}", "\n", "\n\n", " ", "  ", "\t",
                      "x", "\r\n", "\r", "\u00a0", "\u2028", "{% set y = 1 %}", "{%- set y = 1 -%}", "\x0b"]


def white_space_case(rng):
    """Tags between blanks and line ends: balanced ifs in random order."""
    out, depth = [], 0
    for _ in range(rng.randint(3, 16)):
        piece = rng.choice(WHITE_SPACE_PIECES)
        if "endif" in piece:
            if depth == 0:
                continue
            depth -= 1
        elif "if t" in piece:
            depth += 1
        out.append(piece)
    out.extend(["{% endif %}"] * depth)
    if rng.random() < 0.3:
        out.append(rng.choice(["\n", "\n\n", "\r\n"]))
    return {"template": "".join(out), "variables": {"t": True, "n": 1}}


NAMES = ["s", "e", "u", "w", "n", "z", "f", "g", "t", "no", "nothing", "l", "ls", "le", "ld", "d", "de", "nest", "missing", "mixed"]
FILTERS = ["trim", "string", "upper", "lower", "length", "list", "first", "last", "join(', ')", "default('d')", "default('d', true)", "int", "float", "tojson", "reverse | list",
           "capitalize", "title", "replace('a', 'bb')", "unique | list", "sort", "dictsort", "items | list", "map('string') | list", "select | list", "indent(2)", "map('upper') | join('/')"]
TESTS = ["defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "integer", "float", "boolean", "true", "false", "eq(1)", "in([1, 'a'])", "odd", "lt(2)"]
METHODS = ["strip()", "upper()", "split()", "split(',')", "startswith('H')", "endswith('d')", "items() | list", "keys() | list", "get('b')", "replace('l', '')", "lstrip('H')", "rsplit(' ', 1)", "title()", "splitlines()"]
BINARY = ["+", "-", "*", "/", "//", "~", "==", "!=", "<", ">", "<=", ">=", "and", "or", "in", "not in"]


def expression(rng, depth):
    if depth <= 0 or rng.random() < 0.15:
        return rng.choice([rng.choice(NAMES), rng.choice(NAMES), str(rng.randint(-3, 9)), "'%s'" % rng.choice(["", "a", "Hello", "b,c d", "é"]), "1.5", "true", "none", "[]", "[1, 'a']", "{'b': 2}", "(1, 2)"])
    kind = rng.randrange(10)
    inner = lambda: expression(rng, depth - 1)
    if kind == 0:
        return "(%s) | %s" % (inner(), rng.choice(FILTERS))
    if kind == 1:
        return "((%s) is %s%s)" % (inner(), rng.choice(["", "not "]), rng.choice(TESTS))
    if kind == 2:
        return "(%s).%s" % (inner(), rng.choice(METHODS))
    if kind == 3:
        # Jinja2 folds slices of constants, with other errors than it has for variables.
        index = rng.choice(["0", "-1", "'b'", "2", "1:", ":-1", "::-1", "::2"])
        return "(%s)[%s]" % (rng.choice(NAMES) if ":" in index else inner(), index)
    if kind == 4:
        return "(%s) if (%s) else %s" % (inner(), inner(), inner())
    if kind == 5:
        return "(not %s)" % inner()
    if kind == 6:
        return "[%s, %s]" % (inner(), inner())
    if rng.random() < 0.1:  # with a text on its left % would format, which we do not have
        return "%s %% (%s)" % (rng.choice(["n", "z", "f", "g", "9"]), inner())
    left, right = inner(), inner()
    if rng.random() < 0.6:
        left, right = "(%s)" % left, "(%s)" % right
    return "%s %s %s" % (left, rng.choice(BINARY), right)


WORDS = "the a of to and in is it you that was for on are with as his they at be this from have or by one had not but what all were when we there can an your which their said if do will each about how up out them then she many some so these would other into has more her two like him see time could no make than first been its who now people my made over did down only way find use may water long little very after words called just where most know".split()
ODD_TEXT = ["naïve café", "世界", "👩‍👩‍👧", "<|im_end|>", "<tool_response>x</tool_response>", "</think>", "<think>\nhm\n</think>\n\n", "\n\n", "  ", "\t", "{{ s }}", "{% if %}", "\"quoted\"", "it's", "\\n", "a\r\nb", "\u2028", "&lt;"]


def text(rng, low=0, high=18):
    parts = [rng.choice(WORDS) for _ in range(rng.randint(low, high))]
    for _ in range(rng.choice([0, 0, 1, 2])):
        parts.insert(rng.randint(0, len(parts)), rng.choice(ODD_TEXT))
    return rng.choice(["", "", " ", "\n"]) + " ".join(parts) + rng.choice(["", "", " ", "\n\n"])


def json_value(rng, depth=2):
    kind = rng.randrange(8 if depth > 0 else 6)
    if kind <= 1:
        return text(rng, 0, 4)
    if kind == 2:
        return rng.randint(-1000, 1000000)
    if kind == 3:
        return rng.choice([0.5, -2.25, 1e21, 3.0, 1e-7, 123456.789])
    if kind == 4:
        return rng.choice([True, False])
    if kind == 5:
        return None
    if kind == 6:
        return [json_value(rng, depth - 1) for _ in range(rng.randint(0, 3))]
    return {rng.choice(WORDS): json_value(rng, depth - 1) for _ in range(rng.randint(0, 3))}


def tool(rng):
    fields = {}
    for _ in range(rng.randint(0, 4)):
        field = {"type": rng.choice(["string", "integer", "number", "boolean", "array", "object"])}
        if rng.random() < 0.7:
            field["description"] = text(rng, 1, 5)
        if rng.random() < 0.2:
            field["enum"] = [rng.choice(WORDS) for _ in range(rng.randint(1, 3))]
        if field["type"] == "array":
            field["items"] = {"type": "string"}
        if field["type"] == "object":
            field["properties"] = {rng.choice(WORDS): {"type": "string"}}
        if rng.random() < 0.1:
            field["x-" + rng.choice(WORDS)] = json_value(rng)
        fields[rng.choice(WORDS) + rng.choice(["", "_id", "é"])] = field
    function = {"name": rng.choice(WORDS) + "_" + rng.choice(WORDS), "description": text(rng, 1, 8),
                "parameters": {"type": "object", "properties": fields, "required": [k for k in fields if rng.random() < 0.5]}}
    return {"type": "function", "function": function}


def tool_call(rng, index):
    arguments = {rng.choice(WORDS): json_value(rng) for _ in range(rng.randint(0, 3))}
    if rng.random() < 0.5:
        arguments = json.dumps(arguments, ensure_ascii=rng.random() < 0.5)
    return {"id": "call_%d" % index, "type": "function", "function": {"name": rng.choice(WORDS), "arguments": arguments}}


def conversation(rng):
    messages = []
    if rng.random() < 0.5:
        messages.append({"role": "system", "content": text(rng)})
    for _ in range(rng.randint(0 if rng.random() < 0.05 else 1, 4)):
        content = text(rng) if rng.random() < 0.8 else [{"type": "text", "text": text(rng)} for _ in range(rng.randint(1, 3))]
        messages.append({"role": "user", "content": content})
        if rng.random() < 0.5:
            assistant = {"role": "assistant", "content": text(rng), "tool_calls": [tool_call(rng, i) for i in range(rng.randint(1, 3))]}
            if rng.random() < 0.2:
                assistant["content"] = None if rng.random() < 0.5 else ""
            messages.append(assistant)
            messages.extend({"role": "tool", "tool_call_id": call["id"], "content": text(rng)} for call in assistant["tool_calls"])
        if rng.random() < 0.7:
            answer = {"role": "assistant", "content": text(rng)}
            if rng.random() < 0.3:
                answer["reasoning_content"] = text(rng)
            elif rng.random() < 0.3:
                answer["content"] = "<think>\n" + text(rng) + "\n</think>\n\n" + answer["content"]
            messages.append(answer)
    if rng.random() < 0.03 and messages:
        messages[rng.randrange(len(messages))]["role"] = rng.choice(["developer", "system", "critic"])
    return {"messages": messages, "tools": [tool(rng) for _ in range(rng.randint(1, 4))] if rng.random() < 0.5 else None,
            "add_generation_prompt": rng.random() < 0.8, "enable_thinking": rng.choice([None, True, False])}


def cases(arguments):
    rng = random.Random(arguments.seed)
    for line in SNIPPETS.strip("\n").split("\n"):
        yield "snippet", {"template": line, "variables": VARIABLES}
    for _ in range(arguments.count):
        yield "white space", white_space_case(rng)
    for _ in range(arguments.count * 4):
        yield "expression", {"template": "{{ %s }}" % expression(rng, rng.randint(1, 4)), "variables": VARIABLES}
    folders = [DATA] + ([arguments.folder] if arguments.folder else [])
    for folder in folders:
        for name in sorted(os.listdir(folder)):
            if not name.endswith(".jinja"):
                continue
            with open(os.path.join(folder, name), encoding="utf-8", newline="") as file:
                source = file.read()
            for _ in range(arguments.count if folder == DATA else 40):
                yield name, {"template": source, **conversation(rng)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("driver")
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=600)
    arguments = parser.parse_args()

    warnings.simplefilter("ignore")  # of Python code that Jinja2 generates
    env = make_environment()
    all_cases = list(cases(arguments))
    lines = "".join(json.dumps(case) + "\n" for _, case in all_cases)
    started = datetime.datetime.now()
    run = subprocess.run([arguments.driver], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    seconds = (datetime.datetime.now() - started).total_seconds()
    answers = [json.loads(line) for line in run.stdout.decode().rstrip("\n").split("\n")]
    assert len(answers) == len(all_cases), "the driver ended early"

    texts, errors, differences = {}, {}, 0
    for (kind, case), ours in zip(all_cases, answers):
        theirs = reference(env, case)
        same = ours.get("text") == theirs.get("text") and ("text" in ours) == ("text" in theirs)
        counter = texts if "text" in theirs else errors
        counter[kind] = counter.get(kind, 0) + 1
        if not same:
            differences += 1
            if differences <= 20:
                shown = case["template"] if "messages" not in case else json.dumps({k: v for k, v in case.items() if k != "template"})
                print("DIFFERENT %s\n  %s\n  ours   %r\n  theirs %r" % (kind, shown[:3000], ours, theirs))
    for kind in sorted(set(texts) | set(errors)):
        print("%-24s %5d texts %5d errors" % (kind, texts.get(kind, 0), errors.get(kind, 0)))
    print("%d cases, %d differences, driver %.2f s" % (len(all_cases), differences, seconds))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
