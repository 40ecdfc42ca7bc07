// The product of a matrix in coded panels: rows of some file's own coding, side by side
// (quant/row_panels.h).
//
// Where its weights are scale * code + minimum with whole numbers (quant/code_groups.h), with
// Arithmetic::kFixed16; m, q and s of a block of x as in compute/panel.h:
//   total = 0
//   for each block, for each group in it (all of it where a group is longer), by rising column:
//     total = total + scale * (float(sum of code(c) * q(c) over the group) * s)
//     total = total + minimum * (float(sum of q(c) over the group) * s)      codings with minima
// So affine codes of 64 neighbours with bf16 scales give the bits of q8, q4, q3 and q2. In all other
// cases (FP8, kFloat32) it is multiplied as the f32 matrix that it decodes to, exactly.
//
// The sums fit into 32 bits: 255 * 32639 * 64. Files may have scales smaller than 2^-28; then only
// devices that keep subnormals give these bits. Columns in another order stay where they are, and x
// is put into theirs; blocks are those of the stored order.
//
// Source  compute/panel.h, quant/code_groups.h
#pragma once

#include "compute/panel.h"
#include "quant/code_groups.h"
#include "quant/row_panels.h"

namespace penstock {

inline bool is_in_coded_panels(const Matrix& matrix) {
  return matrix.is_coded() && is_in_panels(matrix.coded);
}

// Whether a product multiplies the whole numbers of a matrix, as above.
inline bool multiplies_codes(const Matrix& matrix, Arithmetic arithmetic) {
  return is_in_coded_panels(matrix) && arithmetic == Arithmetic::kFixed16 &&
         code_group_columns(matrix.coded.coding) > 0;
}

}  // namespace penstock
