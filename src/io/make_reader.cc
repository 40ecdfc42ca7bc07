#include "io/readers.h"

namespace penstock {

Result<std::unique_ptr<Reader>> make_reader(const ReaderOptions& options, std::string* note) {
  if (options.depth < 1 || options.threads < 1) {
    return Error{ErrorCode::kInvalidArgument,
                 "a reader needs a depth and a thread count of 1 or more"};
  }
  const bool wants_uring = options.kind == ReaderKind::kUring ||
                           (options.kind == ReaderKind::kAuto && system_has_uring());
  if (wants_uring) {
    Result<std::unique_ptr<Reader>> uring = make_uring_reader(options.depth);
    if (uring) return uring;
    if (options.kind == ReaderKind::kUring) {
      return Error{uring.error().code, "--reader uring: " + uring.error().message +
                                           "; --reader auto and --reader threads do without it"};
    }
    if (note != nullptr) *note = "reading with threads: " + uring.error().message;
  }
  return start_thread_reader(options.threads, options.depth);
}

}  // namespace penstock
