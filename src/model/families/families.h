// The families, for registry.cc alone.
#pragma once

#include "model/registry.h"

namespace penstock {

const Family& qwen3_5_moe_family();  // and qwen3_next
const Family& qwen3_moe_family();

}  // namespace penstock
