#include "cli/pull_shards.h"

#include <fmt/format.h>

#include <memory>
#include <optional>
#include <vector>

#include "base/byte_text.h"
#include "cli/hub_access.h"
#include "cli/packing.h"
#include "cli/progress.h"
#include "format/container.h"
#include "pack/workspace.h"

namespace penstock {
namespace {

// Of one file after the other.
class ArrivalProgress {
 public:
  explicit ArrivalProgress(const Terminal& terminal) : terminal_(terminal) {}

  void update(const std::string& file, uint64_t done, uint64_t total) {
    if (file != file_) {
      file_ = file;
      progress_.emplace(terminal_, "pulling " + file, Progress::Unit::kBytes);
    }
    progress_->update(done, total);
  }
  void finish() {
    progress_.reset();
    file_.clear();
  }

 private:
  const Terminal& terminal_;
  std::string file_;
  std::optional<Progress> progress_;
};

ArrivingFiles arriving_files(ArrivingFolder& folder, ArrivalProgress& progress) {
  return {.expect =
              [&folder](std::span<const FileRange> ranges) {
                std::vector<ArrivingRange> all;
                for (const FileRange& range : ranges) {
                  all.push_back({range.path, range.offset, range.bytes});
                }
                return folder.expect(all);
              },
          .bring =
              [&folder, &progress](const std::string& path) {
                Result<void> brought = folder.bring(path);
                progress.finish();
                return brought;
              },
          .bytes_here = [&folder](const std::string& path) { return folder.bytes_here(path); },
          .on_model = [&folder](uint64_t model_id) { return folder.note_model(model_id); }};
}

void print_report(Call& call, const ArrivingFolder& folder) {
  if (call.json()) {
    call.output.write_line(
        Json{{"name", folder.name().text()},
             {"repo", folder.name().repo_id()},
             {"quant", folder.name().quant.empty() ? Json() : Json(folder.name().quant)},
             {"commit", folder.commit()},
             {"files", folder.num_files()},
             {"bytes", folder.bytes()},
             {"downloaded_bytes", folder.downloaded_bytes()}});
    return;
  }
  call.output.write(table_text(
      fmt::format("{}: {} files, {}, {} downloaded now and none kept; commit {}\n",
                  folder.name().text(), folder.num_files(), format_bytes(folder.bytes()),
                  format_bytes(folder.downloaded_bytes()), folder.commit().substr(0, 12))));
}

// The same command would be told the same again.
bool is_refusal(const Error& error) {
  return error.code == ErrorCode::kInvalidArgument || error.code == ErrorCode::kUnsupported;
}

Error with_advice(Error error) {
  const bool is_told = error.message.find("same command") != std::string::npos;
  const bool goes_on = error.code == ErrorCode::kCancelled || error.code == ErrorCode::kIo;
  if (goes_on && !is_told) error.message += "; the same command goes on where it was";
  return error;
}

}  // namespace

ArrivingRequest arriving_request(const Settings& settings, const PullRequest& request,
                                 const std::string& target) {
  std::string options;
  for (const char* flag : {"experts", "experts-down", "resident", "quantiser"}) {
    const std::string value = settings.is_given(flag) ? settings.text(flag) : "as usual";
    options += fmt::format("{} {}, ", flag, value);
  }
  options += settings.is_on("without-prediction") ? "without prediction" : "with prediction";
  return {.name = request.name,
          .revision = request.revision,
          .folder = target + ".source",
          .options = options,
          .parallel = request.parallel,
          .piece_bytes = request.piece_bytes};
}

Result<int> pull_shards(Call& call, const PullRequest& request, const std::string& target) {
  if (is_offline(call.settings, call.environment)) {
    return Error{ErrorCode::kInvalidArgument,
                 "--shard-by-shard downloads: not with --offline (HF_HUB_OFFLINE); `penstock pack` "
                 "packs what was pulled"};
  }
  const HubOptions http = PENSTOCK_TRY(hub_options(call.environment, call.storage));
  call.interrupt.set_policy(Interrupt::Policy::kStop);
  ArrivalProgress progress(call.terminal);
  ArrivingEvents events{.on_note =
                            [&](const std::string& sentence) {
                              progress.finish();
                              call.terminal.warning(sentence);
                            },
                        .on_bytes = [&](const std::string& file, uint64_t done,
                                        uint64_t total) { progress.update(file, done, total); }};
  const ArrivingRequest wanted = arriving_request(call.settings, request, target);
  auto opened =
      ArrivingFolder::open(call.storage, http, wanted, std::move(events), call.interrupt.token());
  progress.finish();
  if (!opened) return with_advice(opened.error());
  const std::unique_ptr<ArrivingFolder> folder = std::move(*opened);
  Call packing{call.line,     call.settings, call.environment, call.config_file,
               call.terminal, call.output,   call.interrupt,   *folder};
  const Result<int> packed = pack_checkpoint(packing, {.source = folder->model(), .target = target},
                                             arriving_files(*folder, progress));
  if (!packed) {
    const Error& error = folder->failure() ? *folder->failure() : packed.error();
    // What was begun is gone on with; what cannot be leaves nothing behind.
    if (is_refusal(error) && !call.storage.stat(partial_path(target))) {
      PENSTOCK_TRY(ArrivingFolder::remove_all(call.storage, wanted.folder));
    }
    return with_advice(error);
  }
  PENSTOCK_TRY(ArrivingFolder::remove_all(call.storage, wanted.folder));
  print_report(call, *folder);
  return *packed;
}

bool is_complete(const Call& call, const PullRequest& request, const std::string& target) {
  if (call.storage.stat(partial_path(target)) || !call.storage.stat(target)) return false;
  const Result<Container> model = Container::open(call.storage, target);
  const ArrivingRequest wanted = arriving_request(call.settings, request, target);
  return model && ArrivingFolder::has_made(call.storage, wanted, model->model_id());
}

Result<int> clear_up_shards(Call& call, const PullRequest& request, const std::string& target) {
  const std::string folder = arriving_request(call.settings, request, target).folder;
  const std::unique_ptr<Storage::Lock> lock =
      PENSTOCK_TRY(ArrivingFolder::hold(call.storage, folder));
  const Container model = PENSTOCK_TRY(Container::open(call.storage, target));
  const Result<void> removed = call.storage.remove(journal_path(target));
  if (!removed && removed.error().code != ErrorCode::kNotFound) return removed.error();
  PENSTOCK_TRY(ArrivingFolder::remove_all(call.storage, folder));
  if (call.json()) {
    call.output.write_line(Json{{"target", target}, {"id", model.id_text()}});
  } else {
    call.output.write(
        table_text(fmt::format("{}: was complete already; id {}\n", target, model.id_text())));
  }
  call.interrupt.set_policy(Interrupt::Policy::kStop);
  return call.settings.is_on("verify") ? verify_packed(call, target, call.interrupt.token())
                                       : kExitDone;
}

}  // namespace penstock
