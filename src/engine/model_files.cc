#include "engine/model_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "format/text.h"
#include "host/heap.h"
#include "io/paths.h"
#include "model/registry.h"
#include "source/source_experts.h"
#include "source/stored_form.h"
#include "store/slot_layout.h"

namespace penstock {
namespace {

using OptionalText = std::optional<std::string>;

std::optional<std::string_view> view(const OptionalText& text) {
  return text ? std::optional<std::string_view>(*text) : std::nullopt;
}

Result<void> read_texts(ModelFiles& files) {
  const auto tokenizer = PENSTOCK_TRY(files.optional_text("tokenizer.json"));
  const auto config = PENSTOCK_TRY(files.optional_text("tokenizer_config.json"));
  const auto added = PENSTOCK_TRY(files.optional_text("added_tokens.json"));
  if (tokenizer) {
    const std::string path = files.path_of("tokenizer.json");
    const TokenizerFiles texts{*tokenizer, path, view(config), view(added)};
    files.texts.tokenizer = PENSTOCK_TRY(Tokenizer::create(texts, files.config.vocab_size));
  }
  const auto jinja = PENSTOCK_TRY(files.optional_text("chat_template.jinja"));
  Result<ChatTemplate> chat_template = load_chat_template(view(jinja), view(config));
  if (chat_template) {
    files.texts.chat_template = std::move(*chat_template);
  } else {
    files.texts.template_note = chat_template.error().message;
  }
  const auto generation = PENSTOCK_TRY(files.optional_text("generation_config.json"));
  if (generation) {
    files.generation_config =
        PENSTOCK_TRY(parse_json(*generation, files.path_of("generation_config.json")));
  }
  if (files.source) files.source->forget_text("tokenizer.json");
  // Parsing left holes behind that the weights should not have to live beside.
  give_back_heap();
  return {};
}

Result<void> open_packed(Storage& storage, const std::string& path, ModelFiles& files) {
  files.packed = PENSTOCK_TRY(Container::open(storage, path));
  const Container& container = *files.packed;
  files.config = PENSTOCK_TRY(
      parse_model_config(container.config(), container.path_of(kManifestName) + ": config"));
  const ModelConfig& config = files.config;
  const ExpertParts& experts = container.experts();
  if (experts.num_layers == config.num_moe_layers() && experts.num_experts == config.num_experts &&
      experts.hidden_size == config.hidden_size &&
      experts.intermediate_size == config.moe_intermediate_size) {
    return {};
  }
  return Error{ErrorCode::kCorrupt,
               fmt::format("{}: its experts do not have the shape of its configuration",
                           container.path_of(kManifestName))};
}

// A template that somebody names has to be one: no fallback.
Result<void> read_template_file(Storage& storage, const std::string& path, ModelFiles& files) {
  constexpr uint64_t kTemplateBytesMax = 16 << 20;
  const std::string text = PENSTOCK_TRY(read_text(storage, path, kTemplateBytesMax));
  const auto config = PENSTOCK_TRY(files.optional_text("tokenizer_config.json"));
  Result<ChatTemplate> loaded =
      load_chat_template(text, config ? std::optional<std::string_view>(*config) : std::nullopt);
  if (!loaded) return loaded.error().with_context("--chat-template-file " + path);
  files.texts.chat_template = std::move(*loaded);
  files.texts.template_note.clear();
  return {};
}

}  // namespace

const std::string& ModelFiles::path() const {
  return packed ? packed->directory() : source->path();
}

std::string ModelFiles::path_of(std::string_view name) const {
  if (packed) return packed->path_of(name);
  return source->format() == SourceFormat::kGguf
             ? fmt::format("{}: {} made of its keys", path(), name)
             : fmt::format("{}/{}", path(), name);
}

Result<std::optional<std::string>> ModelFiles::optional_text(std::string_view name) const {
  if (!packed) {
    const std::string* text = source->find_text(name);
    return text == nullptr ? OptionalText() : OptionalText(*text);
  }
  Result<std::string> text = packed->text_file(name);
  if (text) return OptionalText(std::move(*text));
  if (text.error().code == ErrorCode::kNotFound) return OptionalText();
  return text.error();
}

Hash128 ModelFiles::id() const {
  return packed ? packed->id() : source->id();
}

std::string ModelFiles::id_text() const {
  return hex_text(id());
}

bool ModelFiles::has_codes() const {
  return source != nullptr || packed->manifest().version() > 1;
}

uint64_t ModelFiles::resident_bytes() const {
  return packed ? packed->resident_bytes() : source_weights->bytes();
}

uint64_t ModelFiles::tensor_bytes(std::string_view name) const {
  if (packed) {
    const ResidentTensor* tensor = packed->find(name);
    return tensor == nullptr ? 0 : tensor->bytes;
  }
  const SourceTensor* tensor = source->find(name);
  if (tensor == nullptr) return 0;
  const auto placed = place_matrix(resident_form(*tensor), tensor->rows, tensor->columns);
  return placed ? placed->bytes : 0;
}

uint64_t ModelFiles::expert_bytes() const {
  return packed ? packed->experts().file_bytes() : expert_file_bytes(*source);
}

std::optional<DType> ModelFiles::experts_dtype() const {
  return packed ? packed->experts().one_dtype() : std::nullopt;
}

std::string ModelFiles::experts_coding() const {
  return packed ? packed->experts().codings() : expert_codings(*source);
}

std::string ModelFiles::resident_coding() const {
  if (!packed) return "as in the file";
  const std::string& option = packed->manifest().resident_option;
  if (option != "keep") return option;
  return packed->manifest().version() > 1 ? "as in the file" : "as trained";
}

std::vector<std::string> ModelFiles::expert_paths() const {
  if (packed) return {packed->experts_path()};
  std::vector<std::string> paths;
  for (const uint32_t file : expert_files(*source)) paths.push_back(source->files()[file].path);
  return paths;
}

Result<ModelFiles::ExpertSizes> ModelFiles::expert_sizes(int num_layers) const {
  if (packed) {
    const ExpertParts& parts = packed->experts();
    return ExpertSizes{parts.largest_record(), parts.num_sums() * sizeof(Hash128),
                       parts.largest_part(), 0};
  }
  const ExpertTable table =
      PENSTOCK_TRY(lay_out_source_experts(*source, num_layers)).table(*source);
  uint64_t part_bytes = 0;
  for (const LayerPlaces& layer : table.layers) {
    for (const PartPlace& part : layer.parts) part_bytes = std::max(part_bytes, part.bytes);
  }
  return ExpertSizes{SlotLayout(table).slot_bytes(), table.checksum_bytes(), part_bytes,
                     layout_bytes(*source)};
}

Result<ExpertSource> ModelFiles::open_experts(Storage& storage, int num_layers) const {
  return packed ? open_packed_experts(storage, *packed, num_layers)
                : open_source_experts(storage, *source, num_layers);
}

Result<bool> is_checkpoint(Storage& storage, const std::string& path) {
  const Result<bool> is_folder = storage.is_directory(path);
  if (!is_folder) return false;
  if (*is_folder) {
    const std::string manifest = fmt::format("{}/{}", path, kManifestName);
    if (PENSTOCK_TRY(exists(storage, manifest))) return false;
    const std::vector<std::string> names = PENSTOCK_TRY(storage.list(path));
    return std::ranges::any_of(names, [](const std::string& name) {
      return name == "config.json" || name.ends_with(".gguf");
    });
  }
  if (path.ends_with(".gguf")) return true;
  constexpr std::string_view kMagic = "GGUF";
  char start[kMagic.size()] = {};
  const Result<std::unique_ptr<StorageFile>> file = storage.open(path, OpenMode::kRead);
  if (!file) return false;
  const auto read = (*file)->read_some(0, std::as_writable_bytes(std::span(start)));
  return read && *read == kMagic.size() && std::string_view(start, kMagic.size()) == kMagic;
}

Result<ModelFiles> open_model(Storage& storage, const std::string& path,
                              const std::string& chat_template_file) {
  ModelFiles files;
  if (PENSTOCK_TRY(is_checkpoint(storage, path))) {
    files.source = std::make_unique<ModelSource>(PENSTOCK_TRY(ModelSource::open(storage, path)));
    files.source_weights.emplace(*files.source);
    files.config = files.source->config();
  } else {
    PENSTOCK_TRY(open_packed(storage, path, files));
  }
  files.texts.folder = path;
  PENSTOCK_TRY(read_texts(files));
  if (!chat_template_file.empty()) {
    PENSTOCK_TRY(read_template_file(storage, chat_template_file, files));
  }
  return files;
}

}  // namespace penstock
