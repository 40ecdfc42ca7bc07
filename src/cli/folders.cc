#include "cli/folders.h"

#include <fmt/format.h>

#include "engine/judge_texts.h"
#include "format/checkpoint.h"
#include "format/container.h"
#include "format/text.h"
#include "io/places.h"

namespace penstock {

Result<std::string> target_folder(Storage& storage, const std::string& path) {
  std::string name = path;
  while (name.size() > 1 && name.ends_with('/')) name.pop_back();
  const size_t slash = name.rfind('/');
  const std::string last = slash == std::string::npos ? name : name.substr(slash + 1);
  if (last.empty() || last == "." || last == "..") {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("the target \"{}\" names no new folder; write one such as ./model.penstock",
                    path)};
  }
  return PENSTOCK_TRY(place_of(storage, name)).path;
}

Result<std::vector<std::string>> judge_folder(Storage& storage, const std::string& path) {
  const bool is_packed = storage.stat(path + "/" + std::string(kManifestName)).has_value();
  if (is_packed) {
    const Container model = PENSTOCK_TRY(Container::open(storage, path));
    const ModelConfig config = PENSTOCK_TRY(
        parse_model_config(model.config(), model.path_of(kManifestName) + ": \"config\""));
    return judge_texts(storage, std::span(&path, 1), config, model.config());
  }
  const Result<bool> is_folder = storage.is_directory(path);
  if (is_folder && !*is_folder) {
    return judge_texts(PENSTOCK_TRY(ModelSource::open(storage, path)));
  }
  const Checkpoint checkpoint = PENSTOCK_TRY(Checkpoint::open(storage, path));
  const ModelConfig config =
      PENSTOCK_TRY(parse_model_config(checkpoint.config(), checkpoint.path_of("config.json")));
  return judge_texts(storage, std::span(&path, 1), config, checkpoint.config());
}

Result<std::vector<std::string>> judge_replacement(Storage& storage, const std::string& folder,
                                                   const std::string& model) {
  constexpr uint64_t kManifestBytesMax = 16 << 20;
  // Not as a Container: texts that were edited in it do not have their sizes any more.
  const std::string path = fmt::format("{}/{}", model, kManifestName);
  const Result<std::string> text = read_text(storage, path, kManifestBytesMax);
  if (!text && text.error().code == ErrorCode::kNotFound) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("{} is no penstock model: no {} in it", model, kManifestName)};
  }
  if (!text) return text.error();
  const Manifest manifest = PENSTOCK_TRY(parse_manifest(*text, path));
  const ModelConfig config =
      PENSTOCK_TRY(parse_model_config(manifest.config, path + ": \"config\""));
  const std::string folders[] = {folder, model};
  return judge_texts(storage, folders, config, manifest.config);
}

}  // namespace penstock
