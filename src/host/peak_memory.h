// The high-water mark of this process's memory, set back so that one part of a run can be measured.
#pragma once

namespace penstock {

// peak_resident_bytes() counts from now on. False where the kernel does not allow it: the peak is
// then that of the whole life of the process.
// Source  Linux Documentation/filesystems/proc.rst, clear_refs
bool reset_peak_resident_bytes();

}  // namespace penstock
