// Rules of the house that are cheap to check (CONTRIBUTING.md): who may print, who may call what only
// Linux has, what a header says before anything else.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace penstock {
namespace {

namespace fs = std::filesystem;

struct Source {
  fs::path path;
  std::string room, name;  // "io", "io/reader.h"
  std::string text;

  bool is_header() const { return path.extension() == ".h"; }
  bool is_test() const {
    return name.ends_with("_test.cc") || name.find("/test_") != std::string::npos;
  }
};

void for_each_source(const std::function<void(const Source&)>& visit) {
  const fs::path src = fs::path(PENSTOCK_SOURCE_DIR) / "src";
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(src)) {
    const fs::path extension = entry.path().extension();
    if (extension != ".h" && extension != ".cc") continue;
    std::ifstream in(entry.path());
    const fs::path relative = fs::relative(entry.path(), src);
    visit({entry.path(),
           relative.begin()->string(),
           relative.string(),
           {std::istreambuf_iterator<char>(in), {}}});
    ++files;
  }
  EXPECT_GT(files, 300);
}

// The text without comments and without what strings say.
std::string code_of(const std::string& text) {
  std::string code;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text.compare(i, 2, "//") == 0) {
      while (i < text.size() && text[i] != '\n') ++i;
      code += '\n';
    } else if (text[i] == '"') {
      for (++i; i < text.size() && text[i] != '"' && text[i] != '\n'; ++i) {
        if (text[i] == '\\') ++i;
      }
      code += "\"\"";
    } else {
      code += text[i];
    }
  }
  return code;
}

// Every way to write to the terminal or to leave, whatever stands before the parenthesis.
const std::regex kPrintsOrEnds(
    R"(\bstd::(cout|cerr|clog)\b|\b(printf|fprintf|vprintf|vfprintf|puts|fputs|putchar|perror)\s*\(|)"
    R"(\bfmt::(print|println)\b|\b(exit|_exit|quick_exit|abort|getenv|secure_getenv)\s*\()");

TEST(Rules, the_pattern_of_prints_and_ends_finds_them) {
  for (const char* line :
       {"std::cout << x;", "std::fprintf(stderr, x);", "fmt::print(\"\");", "printf (x);",
        "std::exit(1);", "::_exit(0)", "std::cerr<<x", "perror(x)", "std::getenv(x)"}) {
    EXPECT_TRUE(std::regex_search(line, kPrintsOrEnds)) << line;
  }
  for (const char* line :
       {"std::snprintf(b, 4, x)", "on_exit_code(x)", "print(x)", "outputs (x)"}) {
    EXPECT_FALSE(std::regex_search(line, kPrintsOrEnds)) << line;
  }
}

TEST(Rules, only_the_command_line_reads_the_environment_prints_and_ends_the_program) {
  for_each_source([](const Source& source) {
    if (source.room == "cli" || source.name == "base/check.cc" || source.is_test()) return;
    std::smatch match;
    const std::string code = code_of(source.text);
    EXPECT_FALSE(std::regex_search(code, match, kPrintsOrEnds))
        << source.name << ": " << match.str();
  });
}

// What Linux alone has stands in files that are named after it, each with a twin for macOS beside it.
// Everywhere else the code is plain POSIX and C++; where it reads /proc and /sys it finds nothing on
// other systems, which is an answer.
TEST(Rules, each_file_of_one_system_has_a_twin_for_the_other) {
  int files = 0;
  for_each_source([&](const Source& source) {
    std::string twin = source.path;
    const bool is_linux = twin.ends_with("_linux.cc");
    if (!is_linux && !twin.ends_with("_macos.cc")) return;
    twin.replace(twin.size() - 9, 6, is_linux ? "_macos" : "_linux");
    EXPECT_TRUE(fs::exists(twin)) << source.name << " has no twin";
    ++files;
  });
  EXPECT_GT(files, 10);
}

TEST(Rules, only_files_of_one_system_ask_which_system_it_is) {
  const std::regex which(R"(#\s*(if|ifdef|ifndef|elif)\b.*\b(__linux__|__APPLE__|__MACH__)\b)");
  for_each_source([&](const Source& source) {
    std::smatch match;
    EXPECT_FALSE(std::regex_search(source.text, match, which))
        << source.name << ": " << match.str();
  });
}

TEST(Rules, only_the_named_files_call_what_only_linux_has) {
  const std::regex linux_only(
      R"(#include <linux/|#include <liburing|#include <sys/(sysmacros|eventfd|epoll|prctl)\.h>|)"
      R"(\b(O_DIRECT|O_PATH|O_TMPFILE|FALLOC_\w+|MADV_\w+|MAP_POPULATE|posix_fadvise|fallocate|statx|eventfd|)"
      R"(epoll_\w+|sched_getaffinity|gnu_dev_\w+|prctl|malloc_trim|renameat2|copy_file_range|SYS_\w+)\s*[,()|;])");
  for_each_source([&](const Source& source) {
    if (source.is_test() || source.name.ends_with("_linux.cc")) return;
    std::smatch match;
    EXPECT_FALSE(std::regex_search(source.text, match, linux_only))
        << source.name << ": " << match.str();
  });
}

// Whether `new Name` ends here.
bool ends_with_new(std::string_view code) {
  const size_t space = code.find_last_of(" \n(");
  return space != std::string_view::npos && code[space] == ' ' &&
         code.substr(0, space).ends_with("new");
}

// How often PENSTOCK_TRY stands behind another element of a braced list, or among the arguments of a
// `new`. It leaves by a return from within, and then compilers forget to destroy the elements that were
// made before, and to give back the memory that was taken: a leak.
int tries_behind_elements(const std::string& code) {
  struct Bracket {
    char open;
    bool is_of_new = false;
    bool has_comma = false, has_statement = false;
  };
  std::vector<Bracket> open;
  int found = 0;
  for (size_t i = 0; i < code.size(); ++i) {
    const char c = code[i];
    if (c == '\'' && i + 2 < code.size() && (code[i + 1] == '\\' || code[i + 2] == '\'')) {
      i = code.find('\'', i + 2);  // a character
      if (i == std::string::npos) break;
    } else if (c == '(' || c == '{' || c == '[') {
      open.push_back({.open = c, .is_of_new = ends_with_new(std::string_view(code).substr(0, i))});
    } else if ((c == ')' || c == '}' || c == ']') && !open.empty()) {
      open.pop_back();
    } else if (c == ',' && !open.empty()) {
      open.back().has_comma = true;
    } else if (c == ';' && !open.empty()) {
      open.back().has_statement = true;
    } else if (code.compare(i, 13, "PENSTOCK_TRY(") == 0) {
      const auto brace = std::find_if(open.rbegin(), open.rend(),
                                      [](const Bracket& bracket) { return bracket.open == '{'; });
      const bool is_behind = brace != open.rend() && brace->has_comma && !brace->has_statement;
      const auto made = std::find_if(open.rbegin(), open.rend(), [](const Bracket& bracket) {
        return bracket.is_of_new || bracket.has_statement;
      });
      if (is_behind || (made != open.rend() && made->is_of_new)) ++found;
    }
  }
  return found;
}

TEST(Rules, nothing_leaves_from_the_middle_of_a_braced_list_or_a_new) {
  EXPECT_EQ(tries_behind_elements("f() { Json j = {{a, PENSTOCK_TRY(x)}}; }"), 1);
  EXPECT_EQ(tries_behind_elements("v.push_back({name, PENSTOCK_TRY(x)});"), 1);
  EXPECT_EQ(tries_behind_elements("v.push_back({PENSTOCK_TRY(x), name});"), 0);
  EXPECT_EQ(tries_behind_elements("f(a, b) { g(a, b); h(a, PENSTOCK_TRY(x)); }"), 0);
  EXPECT_EQ(tries_behind_elements("f() { std::unique_ptr<A> a(new A(PENSTOCK_TRY(x))); }"), 1);
  EXPECT_EQ(
      tries_behind_elements("f() { p = new (a::B)(x); new C{[] { g(); PENSTOCK_TRY(x); }}; }"), 0);
  EXPECT_EQ(tries_behind_elements("f() { auto a = PENSTOCK_TRY(x); return new A(a); }"), 0);
  for_each_source([](const Source& source) {
    EXPECT_EQ(tries_behind_elements(code_of(source.text)), 0) << source.name;
  });
}

// A header says what it is before it says anything else, and which errors come from it where it
// hands out Results.
TEST(Rules, headers_begin_with_what_they_are_and_tell_their_errors) {
  for_each_source([](const Source& source) {
    if (!source.is_header() || source.is_test()) return;
    const size_t end = source.text.find("#pragma once");
    if (source.name.ends_with("-inl.h")) return;  // included once for each instruction set
    ASSERT_NE(end, std::string::npos) << source.name;
    const std::string top = source.text.substr(0, end);
    EXPECT_TRUE(top.starts_with("// ")) << source.name << " does not say what it is";
    if (code_of(source.text.substr(end)).find("Result<") == std::string::npos) return;
    EXPECT_NE(top.find("// Error"), std::string::npos)
        << source.name << " hands out Results; which errors?";
  });
}

}  // namespace
}  // namespace penstock
