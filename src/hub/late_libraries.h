// Libraries that only `pull` needs: libcurl, and OpenSSL's libcrypto for hashes.
//
// Linked as usual they would be 30 libraries in every process of penstock, 6 MiB of memory that no
// budget knows of. So they are opened when a download begins. Their functions are called by their own
// names: late_libraries_linux.cc defines these and passes each call on. On macOS both are parts of
// the system, which are there anyway.
//
// Threads  open_late_libraries() before any of their functions, from any thread
// Errors   kNotFound, with the package that has the library
#pragma once

#include "base/result.h"

namespace penstock {

Result<void> open_late_libraries();

}  // namespace penstock
