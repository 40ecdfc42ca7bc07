#include "pack/pack.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/json.h"
#include "base/memory.h"
#include "format/quantisation.h"
#include "format/text.h"
#include "pack/checkpoint_input.h"
#include "pack/in_place.h"
#include "pack/pack_input.h"
#include "pack/packer.h"
#include "pack/piece_check.h"
#include "pack/source_input.h"
#include "pack/workspace.h"
#include "source/model_source.h"

namespace penstock {
namespace {

uint64_t other_bytes(const PackInput& input) {
  return input.experts().num_sums() * sizeof(Hash128) +
         (input.resident_bytes() / kResidentBlockBytes + 1) * sizeof(Hash128) + input.file_bytes();
}

}  // namespace

// Folders in BF16, F16 and F32 are read as such; MLX has such folders too, with shapes of its own.
Result<std::unique_ptr<PackInput>> open_pack_input(Storage& storage, const PackOptions& options,
                                                   const std::stop_token& stop) {
  const Result<bool> is_folder = storage.is_directory(options.source);
  if (is_folder && !*is_folder) return open_source_input(storage, options, stop);
  const std::string config_path = options.source + "/config.json";
  const Result<FileStat> config = storage.stat(config_path);
  if (config) {
    const std::string text = PENSTOCK_TRY(read_text(storage, config_path, kModelTextBytesMax));
    const Json json = PENSTOCK_TRY(parse_json(text, config_path));
    const Quantisation quantisation = PENSTOCK_TRY(read_quantisation(json, config_path));
    if (quantisation.kind != Quantisation::Kind::kNone)
      return open_source_input(storage, options, stop);
  }
  Result<std::unique_ptr<PackInput>> input = open_checkpoint_input(storage, options, stop);
  if (input || input.error().code != ErrorCode::kCorrupt) return input;
  const Result<ModelSource> source = ModelSource::open(storage, options.source);
  if (!source || source->format() != SourceFormat::kMlx) return input;
  return open_source_input(storage, options, stop);
}

WorkspaceOptions workspace_options_of(const PackInput& input, const std::string& target) {
  return {.target = target,
          .key = input.pack_key(),
          .resident_bytes = input.resident_bytes(),
          .experts_bytes = input.experts().file_bytes(),
          .other_bytes = other_bytes(input)};
}

std::string_view name_of(PackStage stage) {
  switch (stage) {
    case PackStage::kResident: return "resident weights";
    case PackStage::kExperts: return "experts";
    case PackStage::kReadingBack: return "and reading back";
    case PackStage::kFinishing: return "finishing";
  }
  return "?";
}

Result<PackReport> pack_model(Storage& storage, const PackOptions& options,
                              const PackCallback& progress, std::stop_token stop) {
  PENSTOCK_CHECK(!options.experts || is_quantised(*options.experts));
  PENSTOCK_CHECK(!options.resident || options.resident->is_coded() ||
                 is_quantised(options.resident->dtype));
  std::string target = options.target;
  while (target.size() > 1 && target.ends_with('/')) target.pop_back();
  if (options.in_place || options.arriving)
    return pack_in_place(storage, options, target, progress, stop);
  PENSTOCK_TRY(Workspace::check_target(storage, target, options.force));
  // Its source is not whole any more, and would be refused for that.
  PENSTOCK_TRY(ShrinkingSource::check_nothing_consumed(storage, target));

  const std::unique_ptr<PackInput> input = PENSTOCK_TRY(open_pack_input(storage, options, stop));
  if (options.on_note) std::ranges::for_each(input->notes(), options.on_note);
  AlignedMemory memory =
      PENSTOCK_TRY(AlignedMemory::create(piece_check_bytes(*input), "one packed expert"));
  WorkspaceOptions workspace_options = workspace_options_of(*input, target);
  workspace_options.replace = options.force;
  Workspace workspace = PENSTOCK_TRY(Workspace::open(storage, workspace_options));
  const Consumption order = plain_order(input->resident().size() + input->experts().num_records());
  return Packer({options, progress, stop, *input, workspace, memory, order}).run();
}

}  // namespace penstock
