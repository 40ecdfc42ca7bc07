#include <span>

#include "cli/program.h"

int main(int argc, char** argv) {
  const std::span<const char* const> all(argv, static_cast<size_t>(argc));
  const auto arguments = all.empty() ? all : all.subspan(1);
  return penstock::run_program(arguments, penstock::Environment::of_process());
}
