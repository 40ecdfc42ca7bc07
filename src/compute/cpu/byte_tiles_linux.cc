#include "compute/cpu/byte_tiles.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace penstock {
namespace {

#if defined(__x86_64__)

// The registers of tiles are 8 KiB of every thread's state, which the system keeps for those only
// that ask (arch/x86/include/uapi/asm/prctl.h).
constexpr long kRequestPermission = 0x1023;
constexpr long kTileData = 18;

}  // namespace

bool has_byte_tiles() {
  static const bool has = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
    const bool tiles = (d >> 24 & 1) != 0, bytes = (d >> 25 & 1) != 0;
    return tiles && bytes && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return has;
}

#else

}  // namespace

bool has_byte_tiles() {
  return false;
}

#endif

}  // namespace penstock
