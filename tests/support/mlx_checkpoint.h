// An MLX folder of a small model, for tests that run one.
#pragma once

#include <string>

#include "quant/coding.h"

namespace penstock::test {

// Of a delta-net model whose matrices and experts are random codes of an affine coding or MLX's MXFP4;
// their scales are such that activations stay of order one. Written once per program; its path.
std::string mlx_checkpoint(const std::string& name, const Coding& coding);

}  // namespace penstock::test
