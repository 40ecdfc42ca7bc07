// The arrows of the house: which room may include which (docs/architecture.md).
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>

namespace penstock {
namespace {

namespace fs = std::filesystem;

const std::map<std::string, std::set<std::string>> kMayInclude = {
    {"base", {"base"}},
    {"quant", {"quant", "base"}},
    {"io", {"io", "base"}},
    {"agent", {"agent", "io", "base"}},
    {"client", {"client", "base"}},
    {"format", {"format", "quant", "io", "base"}},
    {"store", {"store", "io", "base"}},
    {"compute", {"compute", "quant", "base"}},
    {"gpu", {"gpu", "compute", "quant", "base"}},
    {"experts", {"experts", "gpu", "compute", "store", "format", "quant", "io", "base"}},
    {"model", {"model", "experts", "compute", "format", "io", "base"}},
    {"text", {"text", "base"}},
    {"grammar", {"grammar", "text", "base"}},
    {"source",
     {"source", "model", "experts", "text", "store", "compute", "format", "quant", "io", "base"}},
    {"pack", {"pack", "source", "model", "compute", "format", "io", "base"}},
    {"host", {"host", "io", "base"}},
    {"engine",
     {"engine", "source", "model", "experts", "text", "store", "gpu", "compute", "format", "host",
      "io", "base"}},
    {"survey",
     {"survey", "engine", "model", "experts", "text", "store", "gpu", "compute", "format", "host",
      "io", "base"}},
    {"dialogue", {"dialogue", "engine", "grammar", "text", "store", "io", "base"}},
    {"quality",
     {"quality", "dialogue", "engine", "model", "experts", "grammar", "text", "store", "compute",
      "format", "io", "base"}},
    {"server", {"server", "dialogue", "engine", "grammar", "text", "store", "io", "base"}},
    {"hub", {"hub", "format", "io", "base"}},
    {"cli", {"cli",      "server",  "client", "agent", "hub",     "survey",  "quality",
             "dialogue", "engine",  "pack",   "model", "experts", "grammar", "text",
             "store",    "compute", "format", "host",  "io",      "base"}},
};

std::string read(const fs::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

bool is_source(const fs::path& path) {
  return path.extension() == ".h" || path.extension() == ".cc" || path.extension() == ".inc";
}

TEST(House, a_room_includes_only_the_rooms_below_it) {
  const fs::path src = fs::path(PENSTOCK_SOURCE_DIR) / "src";
  const std::regex include("#include \"([a-z]+)/[^\"]+\"");
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(src)) {
    if (!entry.is_regular_file() || !is_source(entry.path())) continue;
    const std::string room = fs::relative(entry.path(), src).begin()->string();
    ASSERT_TRUE(kMayInclude.contains(room)) << room << " is not a room";
    const std::string text = read(entry.path());
    for (std::sregex_iterator it(text.begin(), text.end(), include), end; it != end; ++it) {
      const std::string target = (*it)[1];
      if (!kMayInclude.contains(target)) continue;
      EXPECT_TRUE(kMayInclude.at(room).contains(target))
          << entry.path() << " includes " << (*it)[0];
    }
    ++files;
  }
  EXPECT_GT(files, 50);
}

// Doubles of the disk and the like are no part of the product.
TEST(House, only_tests_include_what_stands_under_tests) {
  const fs::path src = fs::path(PENSTOCK_SOURCE_DIR) / "src";
  const std::regex doubles("#include \"(support/|[^\"]*_test\\.|[^\"]*test_)[^\"]*\"");
  int tests_with_doubles = 0;
  for (const auto& entry : fs::recursive_directory_iterator(src)) {
    if (!entry.is_regular_file() || !is_source(entry.path())) continue;
    const std::string name = entry.path().filename();
    const bool is_test = name.ends_with("_test.cc") || name.starts_with("test_");
    const bool has_doubles = std::regex_search(read(entry.path()), doubles);
    EXPECT_TRUE(is_test || !has_doubles) << entry.path();
    tests_with_doubles += has_doubles;
  }
  EXPECT_GT(tests_with_doubles, 5);
}

TEST(House, no_room_leaves_work_for_later_in_its_text) {
  const std::regex later(R"(\b(TODO|FIXME|XXX|HACK)\b)");
  for (const char* folder : {"src", "tests", "bench"}) {
    for (const auto& entry :
         fs::recursive_directory_iterator(fs::path(PENSTOCK_SOURCE_DIR) / folder)) {
      if (!entry.is_regular_file() || !is_source(entry.path())) continue;
      if (entry.path().filename() == "arrows_test.cc") continue;
      EXPECT_FALSE(std::regex_search(read(entry.path()), later)) << entry.path();
    }
  }
}

}  // namespace
}  // namespace penstock
