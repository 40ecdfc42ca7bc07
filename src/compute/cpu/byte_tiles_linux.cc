#include "compute/cpu/byte_tiles.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(PENSTOCK_ARM_BYTE_TILES)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace penstock {
namespace {

#if defined(__x86_64__)

// The registers of tiles are 8 KiB of every thread's state, which the system keeps for those only
// that ask (arch/x86/include/uapi/asm/prctl.h).
constexpr long kRequestPermission = 0x1023;
constexpr long kTileData = 18;

}  // namespace

const char* byte_tiles_name() {
  static const bool has = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
    const bool tiles = (d >> 24 & 1) != 0, bytes = (d >> 25 & 1) != 0;
    return tiles && bytes && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return has ? "AMX" : nullptr;
}

#elif defined(PENSTOCK_ARM_BYTE_TILES)

}  // namespace

bool has_byte_matrices() {
  static const bool has = (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
  return has;
}

const char* byte_tiles_name() {
  if (has_byte_matrices()) return "I8MM";
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0 ? "DOT" : nullptr;
}

#else

}  // namespace

const char* byte_tiles_name() {
  return nullptr;
}

#endif

}  // namespace penstock
