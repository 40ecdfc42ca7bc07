// Whether the scales of coded rows are numbers.
//
// A scale that is NaN or infinite makes every weight of its group, and so every answer, no number. A
// file that is damaged is told by its scales alone, at the cost of looking at one number in 16 to 256
// weights; FP8 codes, which have a NaN of their own, are looked at one by one. Not told: scales that are
// numbers and give weights beyond what f32 holds (decoding tells them, `pack` does so), and the
// exponents of both MXFP4s, which are all taken as numbers: a group of zeros may have any.
//
// Threads  A plain function; nothing is allocated.
// Source   IEEE 754 half and single precision; bfloat16; OCP 8-bit floats E4M3
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/coding.h"
#include "quant/row_panels.h"

namespace penstock {

// The first column whose scale, minimum or code in this plane is no number; -1: all are. row: one row
// of the plane as a file has it.
int64_t find_no_number(const Coding& coding, CodedPlane plane, std::span<const std::byte> row);

}  // namespace penstock
