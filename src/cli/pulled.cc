// ls and rm: the models that were pulled, and giving back their room.

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <string>

#include "base/byte_text.h"
#include "cli/consent.h"
#include "cli/hub_access.h"
#include "cli/program.h"
#include "hub/inventory.h"

namespace penstock {
namespace {

std::string day_of(int64_t seconds) {
  const std::time_t time = static_cast<std::time_t>(seconds);
  std::tm parts{};
  char text[32] = "";
  if (seconds <= 0 || ::localtime_r(&time, &parts) == nullptr) return "-";
  std::strftime(text, sizeof text, "%Y-%m-%d", &parts);
  return text;
}

std::string revision_of(const CachedModel& model) {
  const std::string commit = model.commit.substr(0, 12);
  if (model.revisions.empty()) return commit;
  return fmt::format("{} ({})", commit, fmt::join(model.revisions, ", "));
}

Json to_json(const CachedModel& model) {
  return Json{{"name", model.name.text()},
              {"repo", model.name.repo_id()},
              {"quant", model.name.quant.empty() ? Json() : Json(model.name.quant)},
              {"commit", model.commit},
              {"revisions", model.revisions},
              {"path", model.path},
              {"bytes", model.bytes},
              {"last_used", model.last_used_s},
              {"whole", model.is_whole}};
}

std::string table_of(const std::vector<CachedModel>& models) {
  size_t name_width = 4, revision_width = 8;
  for (const CachedModel& model : models) {
    name_width = std::max(name_width, model.name.text().size());
    revision_width = std::max(revision_width, revision_of(model).size());
  }
  std::string text = fmt::format("{:{}}  {:{}}  {:>12}  {}\n", "name", name_width, "revision",
                                 revision_width, "size", "last used");
  for (const CachedModel& model : models) {
    text +=
        fmt::format("{:{}}  {:{}}  {:>12}  {}{}\n", model.name.text(), name_width,
                    revision_of(model), revision_width, format_bytes(model.bytes),
                    day_of(model.last_used_s), model.is_whole ? "" : "  not whole; pull it again");
  }
  return text;
}

// The name, typed; anything else keeps what is there.
Result<void> confirm(Call& call, const Removal& removal, const std::string& what) {
  if (call.settings.is_on("yes")) return {};
  if (!call.terminal.input_is_interactive()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("rm would remove {}; say so with --yes", what)};
  }
  return type_name(call, fmt::format("this removes {}; ", what), removal.name.text());
}

}  // namespace

Result<int> ls_verb(Call& call) {
  const HubCache cache = PENSTOCK_TRY(hub_cache(call.settings, call.environment, call.storage));
  const std::vector<CachedModel> models = list_models(cache);
  if (call.json()) {
    for (const CachedModel& model : models) call.output.write_line(to_json(model));
    return kExitDone;
  }
  if (models.empty()) {
    call.terminal.note(
        fmt::format("no models in {}; `penstock pull user/repo` gets one", cache.folder()));
    return kExitDone;
  }
  call.output.write(table_text(table_of(models)));
  return kExitDone;
}

Result<int> rm_verb(Call& call) {
  const HubName name = PENSTOCK_TRY(parse_hub_name(call.argument(0)));
  const HubCache cache = PENSTOCK_TRY(hub_cache(call.settings, call.environment, call.storage));
  const Removal removal = PENSTOCK_TRY(plan_removal(cache, name, call.settings.text("revision")));
  const std::string what = fmt::format("{} ({} files, {})", name.text(), removal.links.size(),
                                       format_bytes(removal.bytes));
  PENSTOCK_TRY(confirm(call, removal, what));
  PENSTOCK_TRY(remove(cache, removal));
  if (call.json()) {
    call.output.write_line(
        Json{{"removed", name.text()}, {"files", removal.links.size()}, {"bytes", removal.bytes}});
  } else {
    call.output.write(table_text(fmt::format("removed {}\n", what)));
  }
  return kExitDone;
}

}  // namespace penstock
