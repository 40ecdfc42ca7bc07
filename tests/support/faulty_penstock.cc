// The whole program on a disk that fails: as penstock, but a share of the reads of experts and of kept
// prefixes goes wrong. PENSTOCK_TEST_ERRORS and PENSTOCK_TEST_FLIPS are these shares ("0.01"). It is
// killed at its PENSTOCK_TEST_KILLED_AT-th change of the disk, and told that PENSTOCK_TEST_FREE bytes of
// the disk are free.

#include <cstdlib>
#include <span>

#include "cli/program.h"
#include "support/faulty_storage.h"

int main(int argc, char** argv) {
  using namespace penstock;
  const std::span<const char* const> all(argv, static_cast<size_t>(argc));
  const Environment environment = Environment::of_process();
  const auto share = [&](const char* name) {
    return std::strtod(environment.get(name).value_or("0").c_str(), nullptr);
  };
  FaultyStorage storage(posix_storage(),
                        {.errors = share("PENSTOCK_TEST_ERRORS"),
                         .flips = share("PENSTOCK_TEST_FLIPS"),
                         .path_parts = {"/experts.bin", ".state", ".page"},
                         .killed_at = static_cast<uint64_t>(share("PENSTOCK_TEST_KILLED_AT")),
                         .free_bytes = static_cast<uint64_t>(share("PENSTOCK_TEST_FREE"))});
  return run_program(all.empty() ? all : all.subspan(1), environment, storage);
}
