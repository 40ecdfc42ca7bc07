#include "engine/low_bit_copy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "model/registry.h"

namespace penstock {
namespace {

Error refused(const std::string& why) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", kLowBitCopyFlag, why)};
}

// The first key in which two configurations differ; empty: none.
std::string difference_of(const Json& a, const Json& b) {
  for (const auto& [key, value] : a.items()) {
    const Json* other = json_find(b, key);
    if (other == nullptr || *other != value) return key;
  }
  for (const auto& [key, value] : b.items()) {
    if (json_find(a, key) == nullptr) return key;
  }
  return "";
}

Result<void> check_flags(const EngineOptions& options) {
  if (!options.gpu.is_on()) return {};
  return refused("a GPU computes the model's own experts alone: leave out --gpu, or the copy");
}

Result<void> check_architecture(const Container& copy, const ModelFiles& files) {
  const std::string& folder = copy.directory();
  const ModelConfig config =
      PENSTOCK_TRY(parse_model_config(copy.config(), copy.path_of(kManifestName) + ": config"));
  const std::string key = difference_of(normal_config(files.config), normal_config(config));
  if (!key.empty()) {
    return refused(
        fmt::format("{} is a copy of another model than {}: their {} differ; pack the "
                    "same checkpoint twice",
                    folder, files.path(), key));
  }
  const ExpertShape expected{config.num_moe_layers(), config.num_experts, config.hidden_size,
                             config.moe_intermediate_size};
  const ExpertShape& found = copy.experts();
  if (found == expected) return {};
  return refused(fmt::format(
      "{} has {} layers of {} experts of {} by {}, and the model {} of {} "
      "of {} by {}",
      folder, found.num_layers, found.num_experts, found.intermediate_size, found.hidden_size,
      expected.num_layers, expected.num_experts, expected.intermediate_size, expected.hidden_size));
}

// Where the bytes of a matrix begin that lies as `alike` does, whose bytes begin at `base`. nullptr: it
// lies otherwise.
const std::byte* beginning_of(const Matrix& matrix, const Matrix& alike, const std::byte* base) {
  const auto &coded = matrix.coded, &other = alike.coded;
  if (matrix.dtype != alike.dtype || (matrix.panels == nullptr) != (alike.panels == nullptr)) {
    return nullptr;
  }
  if (matrix.panels != nullptr) return matrix.panels - (alike.panels - base);
  const auto is_same_plane = [&](const std::byte* plane, const std::byte* of_other) {
    if (plane == nullptr || of_other == nullptr) return plane == of_other;
    return plane - coded.codes == of_other - other.codes;
  };
  if (coded.codes == nullptr || other.codes == nullptr || !(coded.coding == other.coding) ||
      !is_same_plane(coded.scales, other.scales) || !is_same_plane(coded.biases, other.biases)) {
    return nullptr;
  }
  return coded.codes - (other.codes - base);
}

// Whether a tensor of the copy has the bytes of a matrix that is loaded.
Result<bool> has_same_bytes(const StorageFile& file, const ResidentTensor& tensor,
                            const ResidentWeight& weight) {
  if (weight.rows != tensor.rows || weight.columns != tensor.columns) return false;
  std::vector<std::byte> room(tensor.bytes + kPanelAlignment);
  void* start = room.data();
  size_t left = room.size();
  auto* const base =
      static_cast<std::byte*>(std::align(kPanelAlignment, tensor.bytes, start, left));
  PENSTOCK_TRY(read_exactly(file, tensor.offset, std::span(base, tensor.bytes)));
  ResidentWeights of_copy;
  of_copy.add_stored(tensor.name, tensor.form, tensor.rows, tensor.columns, base, tensor.order);
  const ResidentWeight& other = *of_copy.find(tensor.name);
  if (weight.is_vector || other.is_vector) return false;
  const std::byte* const own = beginning_of(weight.matrix, other.matrix, base);
  file.drop_cached(tensor.offset, tensor.bytes);
  return own != nullptr && std::memcmp(own, base, tensor.bytes) == 0;
}

}  // namespace

Result<void> open_low_bit_copy(Storage& storage, const EngineOptions& options, ModelFiles& files) {
  if (!options.low_bits.is_on()) return {};
  const std::string& folder = options.low_bits.folder;
  PENSTOCK_TRY(check_flags(options));
  if (PENSTOCK_TRY(is_checkpoint(storage, folder))) {
    return refused(
        fmt::format("{} is a checkpoint, and the copy has to be packed: penstock pack "
                    "CHECKPOINT FOLDER --experts 2",
                    folder));
  }
  Result<Container> copy = Container::open(storage, folder);
  if (!copy) return copy.error().with_context(kLowBitCopyFlag);
  PENSTOCK_TRY(check_architecture(*copy, files));
  files.low_bit_copy = *std::move(copy);
  return {};
}

Result<void> check_routers(Storage& storage, const Container& copy, const ModelConfig& config,
                           const ResidentWeights& weights) {
  std::vector<std::string> routers;
  for (const TensorSpec& tensor : list_tensors(config).resident) {
    if (tensor.part == ModelPart::kRouter && !tensor.of_prediction_block)
      routers.push_back(tensor.name);
  }
  PENSTOCK_CHECK(!routers.empty());
  const std::unique_ptr<StorageFile> file =
      PENSTOCK_TRY(storage.open(copy.resident_path(), OpenMode::kRead));
  for (const std::string& name : {routers.front(), routers.back()}) {
    const ResidentTensor* of_copy = copy.find(name);
    const ResidentWeight* of_model = weights.find(name);
    PENSTOCK_CHECK(of_model != nullptr);
    const bool is_same =
        of_copy != nullptr && PENSTOCK_TRY(has_same_bytes(*file, *of_copy, *of_model));
    if (is_same) continue;
    return refused(
        fmt::format("{} was not made of the model's checkpoint: {} differs; pack the same one "
                    "twice",
                    copy.directory(), name));
  }
  return {};
}

std::string low_bits_text(const ModelFiles& files, const LowBitOptions& options) {
  if (!files.low_bit_copy) return "";
  return fmt::format("experts from rank {} on in {}", options.from_rank,
                     files.low_bit_copy->experts().codings());
}

std::string low_bits_identity(const ModelFiles& files, const LowBitOptions& options) {
  if (!files.low_bit_copy) return "";
  return fmt::format("low-bits {} {}", options.from_rank, files.low_bit_copy->id_text());
}

Result<std::unique_ptr<EngineCopy>> EngineCopy::open(Storage& storage, const Container& copy,
                                                     int num_layers, std::unique_ptr<Reader> reader,
                                                     const StoreOptions& store_options) {
  auto opened = std::make_unique<EngineCopy>();
  opened->source_ = PENSTOCK_TRY(open_packed_experts(storage, copy, num_layers));
  opened->store_ = PENSTOCK_TRY(
      ExpertStore::create(std::move(opened->source_.table), std::move(reader), store_options));
  return opened;
}

void EngineCopy::stand_before(LocalExperts& model, Backend& backend, Rows hidden,
                              int64_t from_rank) {
  local_.emplace(*store_, backend, source_.forms, hidden);
  split_.emplace(model, *local_, backend, from_rank);
}

}  // namespace penstock
