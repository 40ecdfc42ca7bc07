// Waiting until somebody asks for a stop.
#pragma once

#include <chrono>
#include <stop_token>

namespace penstock {

// Until `what` is requested, also before the call; then true. False: `quit` was, or the time is over.
bool wait_for_stop(const std::stop_token& what, const std::stop_token& quit,
                   std::chrono::milliseconds limit);

}  // namespace penstock
