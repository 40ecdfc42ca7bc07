#include "io/readers.h"

namespace penstock {

bool system_has_uring() {
  return false;
}

Result<std::unique_ptr<Reader>> make_uring_reader(int) {
  return Error{ErrorCode::kIo, "io_uring is Linux's own"};
}

}  // namespace penstock
