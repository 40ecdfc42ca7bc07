// The processor's unit for products of tiles of bytes (AMX on x86; on Arm instructions for two by two rows,
// i8mm, or for dot products), and the same in plain code.
//
// Activations in 16-bit fixed point split exactly into two bytes (compute/fixed16.h), so the sums
// of a block of 64 columns are two products of tiles: [16 rows of x, 64] bytes times the codes
// [64, 16 rows of a panel]. Integer sums are exact, so the bits are those of every other kernel.
//
// Threads  functions of their arguments alone; the unit's registers are set up and given back
//          within one product
// Source   Intel 64 manual, volume 1, chapter 18 (tiles), volume 2 (TDPBSUD, TDPBUUD); Arm Architecture
//          Reference Manual, C7.2 (USMMLA, UMMLA, UDOT)
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace penstock {

enum class ByteTiles : uint8_t {
  kNone,
  kEmulated,  // for tests, on every instruction set
  kProcessor,
};

// What processor and system offer: "AMX", "I8MM", "DOT"; nullptr: nothing. Asks the system for its use, once.
const char* byte_tiles_name();
inline bool has_byte_tiles() {
  return byte_tiles_name() != nullptr;
}

// A tile has 16 rows of 64 bytes. Of x: per tile the high bytes (signed), then the low bytes
// (unsigned). Of the codes: row k holds four columns of each of 16 rows of the panel.
inline constexpr int kByteTileRows = 16;
inline constexpr int kByteTileBytes = 1024;
inline constexpr int kByteTileSums = 256;  // [16 rows of x, 16 rows of the panel] of 32 bits

// The registers that the unit has room for: two tiles of x by those of two panels, in one sum each.
inline constexpr int kByteTilesAtOnce = 2;
inline constexpr int kByteTilePanels = 2;

// A tile of codes of each of some panels.
template <int kPanels>
using TilesOfCodes = std::array<const uint32_t*, kPanels>;

// Clang's assembler of this age, macOS's too, does not know the instructions.
#if defined(__aarch64__) && !defined(__clang__)
#define PENSTOCK_ARM_BYTE_TILES
bool has_byte_matrices();  // i8mm; else dot products
#endif

struct ProcessorTiles {
  static void begin();
  static void end();

  // x: [kTiles, 2 tiles]; sums: [kPanels, kTiles, 2, kByteTileSums], of the high bytes and of the low
  // ones.
  template <int kTiles, int kPanels>
  static void products(const std::byte* x, const TilesOfCodes<kPanels>& codes, int32_t* sums);
};

struct EmulatedTiles {
  static void begin() {}
  static void end() {}
  template <int kTiles, int kPanels>
  static void products(const std::byte* x, const TilesOfCodes<kPanels>& codes, int32_t* sums);
};

}  // namespace penstock

#include "compute/cpu/byte_tiles-inl.h"
