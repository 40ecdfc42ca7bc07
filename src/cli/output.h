// Standard output: results, and nothing else.
//
// Unbuffered, because an answer is read while it is made. A reader that went away (a closed pipe)
// is the end of the work and no failure; any other failure is kept and ends the program with it.
//
// Threads  one
// Errors  failure(): kIo of the first write that failed, but not that nobody reads
#pragma once

#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace penstock {

class Output {
 public:
  // False when nothing can be written any more; later calls do nothing.
  bool write(std::string_view text);
  bool write_line(const Json& json);

  bool is_closed() const { return closed_; }
  bool is_usable() const { return !closed_ && failure_.has_value(); }

  // The first failure other than a closed pipe.
  const Result<void>& failure() const { return failure_; }

 private:
  bool closed_ = false;
  Result<void> failure_;
};

}  // namespace penstock
