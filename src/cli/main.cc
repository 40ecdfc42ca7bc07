#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/program.h"

namespace {

// Everybody on a machine may list its processes and read what they were called with.
void hide_keys(std::span<char* const> arguments) {
  constexpr std::string_view kFlag = "--api-key";
  bool is_next = false;
  for (char* const argument : arguments) {
    const std::string_view text(argument);
    const bool is_joined = text.starts_with(kFlag) && text.substr(kFlag.size()).starts_with('=');
    const size_t begin = is_next ? 0 : is_joined ? kFlag.size() + 1 : text.size();
    std::memset(argument + begin, '*', text.size() - begin);
    is_next = text == kFlag;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::span<char* const> all(argv, static_cast<size_t>(argc));
  const auto given = all.empty() ? all : all.subspan(1);
  const std::vector<std::string> texts(given.begin(), given.end());
  const std::vector<const char*> arguments = [&texts] {
    std::vector<const char*> pointers;
    for (const std::string& text : texts) pointers.push_back(text.c_str());
    return pointers;
  }();
  hide_keys(given);
  return penstock::run_program(arguments, penstock::Environment::of_process());
}
