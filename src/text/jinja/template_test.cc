// The rules themselves are compared with Jinja2 by tests/text/template_oracle.py; here stand the
// ones that everything else leans on, the limits, and the errors.
#include "text/jinja/template.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "text/jinja/python_text.h"
#include "text/test_data.h"

namespace penstock::jinja {
namespace {

Result<std::string> render(const std::string& source, const Template::Variables& variables = {}) {
  const Template compiled = PENSTOCK_TRY(Template::compile(source));
  return compiled.render(variables);
}

std::string text_of(const std::string& source, const Template::Variables& variables = {}) {
  const auto text = render(source, variables);
  EXPECT_TRUE(text) << text.error().message;
  return text ? *text : "";
}

Error error_of(const std::string& source, const Template::Variables& variables = {}) {
  const auto text = render(source, variables);
  EXPECT_FALSE(text) << *text;
  return text ? Error{} : text.error();
}

std::string repeated(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

TEST(Interpreter, prints_values_as_python_does) {
  EXPECT_EQ(
      text_of("{{ true }} {{ none }} {{ 1.0 }} {{ 1e16 }} {{ 0.00001 }} {{ ['a', \"it's\"] }}"),
      "True None 1.0 1e+16 1e-05 ['a', \"it's\"]");
  EXPECT_EQ(text_of("{{ {'a': none} | tojson }}{{ missing }}"), "{\"a\": null}");
  EXPECT_EQ(python_str(1234567890123456.0), "1234567890123456.0");
  EXPECT_EQ(python_str(-0.1), "-0.1");
  EXPECT_EQ(python_str(5e-324), "5e-324");
}

TEST(Interpreter, trims_lines_of_blocks_and_keeps_those_of_values) {
  EXPECT_EQ(text_of("a\n  {% if true %}\nb\n  {% endif %}\nc\n"), "a\nb\nc");
  EXPECT_EQ(text_of("a\n  {{ 1 }}\nb\n\n"), "a\n  1\nb\n");
  EXPECT_EQ(text_of("a \n {{- 1 -}} \n b"), "a1b");
  EXPECT_EQ(text_of("{# c #}\n\nx"), "\nx");
}

TEST(Interpreter, keeps_the_names_of_a_loop_inside_but_a_namespace_reaches_out) {
  EXPECT_EQ(
      text_of("{% set x = 1 %}{% set n = namespace(x=1) %}"
              "{% for i in [5, 6] %}{% set x = i %}{% set n.x = i %}{% endfor %}{{ x }}{{ n.x }}"),
      "16");
}

TEST(Interpreter, keeps_what_a_macro_saw_after_its_loop_ended) {
  EXPECT_EQ(text_of("{% set n = namespace(f=none) %}{% for i in [1, 2] %}"
                    "{% macro f() %}{{ i }}{% endmacro %}{% set n.f = f %}{% endfor %}"
                    "{% for j in [7] %}{{ n.f() }}{% endfor %}{{ n.f() }}"),
            "22");
}

TEST(Interpreter, keeps_a_loop_that_outlives_itself) {
  EXPECT_EQ(
      text_of("{% set n = namespace(l=none) %}{% for i in [1, 2] %}{% set n.l = loop %}{% endfor %}"
              "{{ n.l.length }}{{ n.l.previtem }}"),
      "22");
}

TEST(Interpreter, hides_dict_keys_behind_methods_only_after_a_dot) {
  const Template::Variables variables = {{"d", Json{{"items", 1}, {"x", 2}}}};
  EXPECT_EQ(text_of("{{ d['items'] }}{{ d.items() | length }}{{ d.x }}", variables), "122");
}

TEST(Interpreter, does_not_change_its_arguments) {
  for (const char* source :
       {"{{ l.append(1) }}", "{{ d.update({}) }}", "{{ l.sort() }}", "{{ d.pop('a') }}"}) {
    EXPECT_EQ(error_of(source, {{"l", Json::array({3})}, {"d", Json{{"a", 1}}}}).code,
              ErrorCode::kInvalidArgument)
        << source;
  }
}

TEST(Interpreter, names_the_line_of_an_error) {
  EXPECT_EQ(error_of("a\n\n{{ missing.x }}").message, "line 3: 'missing' is undefined");
  EXPECT_EQ(error_of("{% if true %}\n{{ 'a' |\n nonsense }}").code, ErrorCode::kCorrupt);
  EXPECT_EQ(error_of("\n{{ raise_exception('stop') }}").message, "line 2: stop");
  EXPECT_EQ(error_of("\n\n{{ 1 | nonsense }}").message,
            "line 3: the filter 'nonsense' is not known");
  EXPECT_EQ(error_of("{{ 1 | nonsense }}").code, ErrorCode::kUnsupported);
  EXPECT_EQ(error_of("{{ 1 is nonsense }}").code, ErrorCode::kUnsupported);
}

TEST(Interpreter, refuses_what_it_cannot_parse) {
  for (const char* source :
       {"{{ 1",
        "{% if x",
        "{# no end",
        "{{ 'open }}",
        "{{ ( }}",
        "{{ ) }}",
        "{{ 1 1 }}",
        "{% endif %}",
        "{% if x %}",
        "{% for x in y %}",
        "{% break %}",
        "{% macro f(a=1, b) %}{% endmacro %}",
        "{{ $ }}",
        "{{ 99999999999999999999 }}",
        "{{ '\\ud800' }}",
        "{% set x.y.z = 1 %}",
        "\xFF",
        "{{ f(a=1, 2) }}",
        "{{ x[] }}",
        "{{ and }}",
        "{% for x in y %}{% macro m() %}{% continue %}{% endmacro %}{% endfor %}",
        "{% raw %}",
        "{% call f %}{% endcall %}",
        "{% call f() %}",
        "{% filter %}{% endfilter %}",
        "{% with a = 1 b = 2 %}{% endwith %}",
        "{{ f(*a, *b) }}",
        "{{ f(**a, b) }}",
        "{% macro m(caller) %}{{ caller() }}{% endmacro %}",
        "{% for true in x %}{% endfor %}",
        "{{ 007 }}"}) {
    EXPECT_EQ(error_of(source).code, ErrorCode::kCorrupt) << source;
  }
  for (const char* source : {"{% include 'a' %}", "{% block a %}{% endblock %}",
                             "{% autoescape true %}", "{% extends 'a' %}", "{% do x %}"}) {
    EXPECT_EQ(error_of(source).code, ErrorCode::kUnsupported) << source;
  }
}

TEST(InterpreterLimits, end_templates_that_work_too_much) {
  const std::vector<std::string> sources = {
      "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
      "{% set n = namespace(s='12345678') %}{% for a in range(99) %}{% set n.s = n.s + n.s %}{% "
      "endfor %}",
      "{% set n = namespace(s=[1]) %}{% for a in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
      "{% set n = namespace(s=[], t=[]) %}{% for a in range(99) %}{% set n.s = [n.s, n.s] %}"
      "{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.s == n.t }}",
      "{% for a in range(100000) %}{{ 'x' * 10000 }}{% endfor %}",
      "{{ 'x' * 1000000000000 }}",
      "{{ [0] * 1000000000000 }}",
      "{% set a = 'a' * 4000000 %}{{ a.replace('a', a) }}",
      "{% set a = 'a' * 4000000 %}{{ range(100000) | join(a) }}",
      "{% set a = 'ab' * 1000000 %}{% for i in range(99999) %}{% if a.upper() %}{% endif %}{% "
      "endfor %}",
      "{{ range(1000000000) }}",
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% set n = namespace(s=[]) %}{% for a in range(9999) %}{% set n.s = [n.s] %}{% endfor %}{{ "
      "n.s }}",
      "{% set n = namespace() %}{% set n.s = n %}{{ n }}",
      "{% set n = namespace(s=[]) %}{% for a in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor "
      "%}{{ n.s | tojson }}",
      "{{ [1] | batch(1000000000000, 0) | list }}",
      "{{ [1] | slice(1000000000000) | list }}",
      "{{ 'x'.center(1000000000000) }}",
      "{{ 'x'.ljust(9223372036854775807) }}",
      "{{ 'x'.rjust(20000000, '世') }}",
      "{{ 'x' | center(1000000000000) }}",
      "{{ '1'.zfill(1000000000000) }}",
      "{{ 'a\tb'.expandtabs(1000000000000) }}",
      "{{ '%1000000000000d' % 1 }}",
      "{{ '%*d' % (1000000000000, 1) }}",
      "{{ '%*d' % (-9223372036854775807 - 1, 1) }}",
      "{{ '%.1000000000f' % 1.5 }}",
      "{{ '%.99999d' % 1 }}",
      "{{ '{:1000000000000}'.format(1) }}",
      "{{ '{:0>99999999999,}'.format(1) }}",
      "{{ '{:016777217,}'.format(1) }}",
      "{{ '{:.99999f}'.format(1.5) }}",
      "{{ ('{:9000000}' * 4).format(*range(9)) }}",
      "{{ ('%9000000d' * 4) % (1, 2, 3, 4) }}",
      "{{ strftime_now('%9999999999d') }}",
      "{{ strftime_now('%A' * 20000) }}",
      "{% set t = ['x' * 8000000] %}{% for a in range(9) %}{% set u = t[0] | escape %}{% endfor %}",
      "{% set t = '&' * 8000000 %}{{ t | escape }}",
      "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}",
      "{% for x in range(9) recursive %}{{ loop(range(9)) }}{% endfor %}",
      "{% macro m() %}{{ caller() }}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}"
      "{% call m() %}{% endcall %}",
      "{% set c = cycler(1) %}{% for a in range(100000) %}{% for b in range(100000) %}"
      "{% set x = c.next() %}{% endfor %}{% endfor %}",
      "{% for a in range(100000) %}{% macro m() %}{% endmacro %}{% for b in range(100000) %}"
      "{% call m() %}{% endcall %}{% endfor %}{% endfor %}",
      "{% set l = range(100000) | list %}{% for a in l %}{% set x = l | sum %}{% endfor %}",
      "{{ [range(50000) | list] * 1000 | sum(start=[]) | length }}",
      "{% set t = 'ab' * 4000000 %}{% for a in range(99999) %}{% set x = t.rfind('b' * 99 + 'a') %}"
      "{% endfor %}",
      "{% set f = '{}' * 4000000 %}{{ f.format(1) }}",
  };
  for (const std::string& source : sources) {
    EXPECT_EQ(error_of(source).code, ErrorCode::kInvalidArgument) << source;
  }
}

TEST(InterpreterLimits, end_templates_that_nest_too_deep) {
  const std::vector<std::string> sources = {
      "{{ " + repeated("(", 10000) + "1" + repeated(")", 10000) + " }}",
      "{{ " + repeated("[", 10000) + " }}",
      "{{ " + repeated("not ", 10000) + "1 }}",
      "{{ " + repeated("- ", 10000) + "1 }}",
      "{{ " + repeated("1 + ", 10000) + "1 }}",
      "{{ " + repeated("1 if 1 else ", 5000) + "1 }}",
      "{{ a" + repeated(".b", 10000) + " }}",
      "{{ a" + repeated("|trim", 10000) + " }}",
      "{{ a" + repeated("[0]", 10000) + " }}",
      repeated("{% if a %}", 5000),
      repeated("{% macro a() %}", 5000),
      repeated("{% for a in b %}", 5000),
      repeated("{% filter trim %}", 5000),
      repeated("{% with %}", 5000),
      repeated("{% call f() %}", 5000),
      "{% filter trim" + repeated("|trim", 10000) + " %}",
      "{% for " + repeated("(", 10000) + "a",
      "{{ f(*" + repeated("f(*", 10000) + " }}",
  };
  for (const std::string& source : sources) {
    EXPECT_EQ(error_of(source).code, ErrorCode::kCorrupt) << source.substr(0, 40);
  }
  EXPECT_EQ(error_of(std::string(kSourceBytesMax + 1, ' ')).code, ErrorCode::kUnsupported);
  for (const char* piece : {"{{1}}", "{%if a%}{%endif%}", "{{a+b}}", "{{[1,2,{3:4}]}}"}) {
    EXPECT_EQ(error_of(repeated(piece, 20000)).code, ErrorCode::kUnsupported) << piece;
  }
}

TEST(InterpreterLimits, leave_room_for_a_long_conversation) {
  Json messages = Json::array();
  for (int i = 0; i < 2000; ++i) {
    messages.push_back(
        {{"role", i % 2 == 0 ? "user" : "assistant"}, {"content", std::string(2000, 'x')}});
  }
  const std::string text = text_of(read_test_file("chat_template.jinja"),
                                   {{"messages", messages}, {"add_generation_prompt", true}});
  EXPECT_GT(text.size(), 4'000'000u);
}

TEST(Interpreter, tells_the_time_that_it_is_given) {
  LocalTime now;
  now.fields.tm_year = 2024 - 1900;
  now.fields.tm_mon = 1;
  now.fields.tm_mday = 29;
  now.fields.tm_wday = 4;
  now.microseconds = 42;
  const auto compiled = Template::compile("{{ strftime_now('%A %d %b %Y %f%Z') }}");
  ASSERT_TRUE(compiled);
  EXPECT_EQ(*compiled->render({}, now), "Thursday 29 Feb 2024 000042");
  // Without one it is the machine's.
  const LocalTime before = local_time_now();
  const std::string year = text_of("{{ strftime_now('%Y') }}");
  const int64_t told = std::stoll(year);
  EXPECT_GE(told, before.fields.tm_year + 1900);
  EXPECT_LE(told, local_time_now().fields.tm_year + 1900);
}

TEST(Interpreter, finds_the_last_in_linear_time) {
  // Comparing at every place would be 10^13 steps.
  const std::string text(8'000'000, 'a');
  const std::string needle = "b" + std::string(1'000'000, 'a');
  EXPECT_EQ(find_last(text, needle), std::string_view::npos);
  EXPECT_EQ(find_last("b" + text, "b" + std::string("aa")), 0u);
  EXPECT_EQ(split_right(text, needle, -1).size(), 1u);
}

TEST(PythonText, splits_and_strips_like_python) {
  using Parts = std::vector<std::string_view>;
  EXPECT_EQ(split_at_space("  a b\u3000c ", -1), (Parts{"a", "b", "c"}));
  EXPECT_EQ(split_at_space(" a b c ", 1), (Parts{"a", "b c "}));
  EXPECT_EQ(split("a,,b", ",", -1), (Parts{"a", "", "b"}));
  EXPECT_EQ(split_right("a,b,c", ",", 1), (Parts{"a,b", "c"}));
  EXPECT_EQ(strip("\x1c\u2003x\u0085", Side::kBoth), "x");
  EXPECT_EQ(strip("xyzx", Side::kLeft, "x"), "yzx");
}

}  // namespace
}  // namespace penstock::jinja
