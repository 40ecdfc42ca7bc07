// strftime_now(format): the date and time of a rendering, as templates ask for it.
//
// The directives are Python's datetime.strftime, which are those of the C library with %f
// (microseconds) added and without a time zone; in the C locale, whatever the process has.
//
// Errors  kInvalidArgument: a format with a NUL, or a result above 64 KiB.
#pragma once

#include <cstdint>
#include <ctime>
#include <string>

#include "base/result.h"

namespace penstock::jinja {

struct LocalTime {
  std::tm fields{};  // as localtime() gives them
  int32_t microseconds = 0;
};

// The machine's clock in the machine's time zone.
LocalTime local_time_now();

Result<std::string> format_time(const LocalTime& time, const std::string& format);

}  // namespace penstock::jinja
