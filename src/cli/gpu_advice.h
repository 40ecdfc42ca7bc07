// What `--gpu auto` comes to: this machine's GPU where the rates that `doctor` measured say that it makes the
// model faster, with or without the matrices that every token needs; otherwise none.
//
// A GPU that nobody measured is not used: whether one pays depends on the link, on memory and on flash
// as much as on the card, and beside many processors it may be slower. One that is named is used.
//
// Errors  those of the model and of the profile's file; what --vram asks of the card and it has not
#pragma once

#include "cli/program.h"
#include "engine/options.h"

namespace penstock {

// Makes of options.gpu.device "auto" what it comes to: "off", or "auto" with a choice of the trunk. Says
// in a line why a GPU is left out, where somebody asked for one or the machine has one.
Result<void> settle_gpu(Call& call, EngineOptions& options);

}  // namespace penstock
