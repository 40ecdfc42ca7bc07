// Any bytes as a settings file: refused with a message in one line that is safe to print, or entries
// that name settings, each once in its section.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "cli/config_file.h"
#include "cli/options.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const Result<ConfigFile> file = parse_config_file(text, "config.toml");
  if (!file) {
    const std::string& message = file.error().message;
    PENSTOCK_CHECK(message.starts_with("config.toml:"));
    PENSTOCK_CHECK(message.size() < 1000);
    PENSTOCK_CHECK(std::ranges::all_of(message, [](unsigned char c) { return c >= 0x20; }));
    return 0;
  }
  for (const ConfigEntry& entry : file->entries) {
    PENSTOCK_CHECK(is_setting(entry.key));
    PENSTOCK_CHECK(entry.section.empty() || find_verb(entry.section) != nullptr);
    PENSTOCK_CHECK(file->find(entry.section, entry.key) == &entry);
    PENSTOCK_CHECK(entry.line >= 1);
  }
  return 0;
}
