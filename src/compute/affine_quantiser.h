// Weights as affine codes in panels (quant/row_panels.h), for the bits that have no panels of a type of
// their own: groups of 64 with scale and bias in bf16, by the quantisers of compute/quantiser.h.
//
// Threads  Plain functions over the caller's values
// Memory   sixteen coded rows
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "compute/quantiser.h"
#include "quant/row_panels.h"

namespace penstock {

// One plane of the panels of `rows` rows [rows, columns]; columns % 64 == 0, coding: affine_coding() of
// some bits. Each plane quantises anew: they lie apart, and a matrix is larger than memory may be.
// out: as many bytes as row_panel_bytes() says for each panel.
void quantise_affine_panels(const Coding& coding, CodedPlane plane, Quantiser quantiser,
                            std::span<const float> values, int64_t rows, int64_t columns,
                            std::span<std::byte> out);

}  // namespace penstock
