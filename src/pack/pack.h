// Packing: from a checkpoint (Hugging Face folder, MLX folder, GGUF file) to a penstock model.
//
// Built in TARGET.partial/, piece by piece, with a journal of what is durable. Only at the very end
// the manifest is written and the directory gets its name, so a half model is never one. Stopped by
// Ctrl-C, a full disk or a power cut, the same call continues and ends with the same bytes as an
// uninterrupted one. The source is never written to, unless it is to be consumed (`in_place`).
//
// Invariants
//   (1) What the journal says is durable: data is synced before its entry is written.
//   (2) The manifest is written after all else is durable; the rename comes after the manifest.
//   (3) An existing target is touched only by the rename at the end, and only with `force`.
//   (4) A file of a consumed source is removed after everything made from it is durable, was read back
//       from the disk and had its sums; and what has to be known of it to go on is durable
//       (pack/shrinking_source.h). A pack of which that is true of any file is never started over.
//
// Memory   About 50 MiB and one expert, whatever the size of the model.
// Threads  Call from one thread; converting uses `num_threads`.
// Errors   kInvalidArgument: target exists, options. kOutOfMemory: the disk is too small, with the
//          numbers. kCancelled: stopped, can be continued. kIo: also when another packer works on
//          the same target. kNotFound, kCorrupt, kUnsupported: the source.
// See also docs/formats.md, pack/plan.h
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "compute/quantiser.h"
#include "io/storage.h"
#include "pack/bit_plan.h"
#include "pack/calibration.h"

namespace penstock {

// What a pack that consumes its source would do, for who has to agree.
struct InPlaceFacts {
  struct File {
    std::string path;
    uint64_t bytes = 0;
  };
  std::vector<File> files;  // that will be removed
  size_t num_gone = 0;      // earlier runs removed so many
  uint64_t bytes = 0;       // of `files`
  // The disk holds at most so much more than now; 0: an earlier run has begun.
  uint64_t staging_bytes = 0;
  // What will be nowhere then, a sentence each: weights in the precision they have, what is left out.
  std::vector<std::string> lost;
};

// Part of a file of the source.
struct FileRange {
  std::string path;
  uint64_t offset = 0, bytes = 0;
};

// A source whose files are not here yet and come one by one, as `storage` of pack_model() shows them:
// headers and samples can be read of all of them, the rest of those that were brought. A file that is
// removed gives its room back, and may be brought again.
struct ArrivingFiles {
  // These will be read soon, before anything is brought.
  std::function<Result<void>(std::span<const FileRange>)> expect;
  // The whole of a file, verified.
  std::function<Result<void>(const std::string& path)> bring;
  // Room of the disk that the file takes, whole or begun.
  std::function<uint64_t(const std::string& path)> bytes_here;
  // The id of what will be packed, before anything of it is.
  std::function<Result<void>(uint64_t model_id)> on_model;
};

struct PackOptions {
  std::string source;
  std::string target;
  std::optional<DType> experts;  // q8, q4, q3, q2; nullopt: keep the source's precision
  std::optional<DType> down;     // of their down matrices; nullopt: as `experts`
  bool is_usual = false;         // `experts` is for floats; codes of a source stay as they are
  // Experts of several types, chosen so that they fit into so many bytes and lose least
  // (pack/bit_plan.h); `experts` and `down` are not asked then.
  std::optional<uint64_t> target_bytes;
  std::optional<MatrixForm> resident;       // quantised_form(); nullopt: keep
  Quantiser quantiser = Quantiser::kRound;  // of both
  bool without_prediction = false;          // leave the prediction block out
  bool force = false;  // replace a model at `target`, once the new one is complete
  int num_threads = 1;
  // Told before the work: what of the source is left out or not used, a sentence each. May be empty.
  std::function<void(const std::string&)> on_note;
  // Told what was chosen for target_bytes before the work, and how far measuring for it is, in experts.
  std::function<void(const BitPlan&)> on_plan;
  std::function<void(uint64_t done, uint64_t total)> on_survey;
  // Runs the source over texts (pack/calibration.h), once what can be wrong with the request is known
  // not to be. Empty: experts are quantised by what they are alone.
  std::function<Result<Calibration>()> calibrate;
  // Consumes the source (docs/formats.md): its files go one by one, each when all that was made of it
  // is durable and was read back. Asked before anything is written or removed; an Error ends it there.
  // Not with `force`, `target_bytes` or `calibrate`. Empty: the source is never written to.
  std::function<Result<void>(const InPlaceFacts&)> in_place;
  // The source arrives file by file, and two of them are here at most. Excludes what `in_place` does, and
  // `in_place`. Empty: all of it is here.
  std::optional<ArrivingFiles> arriving;
  uint64_t sync_bytes = uint64_t{256} << 20;  // written between two syncs: what a crash can cost
};

enum class PackStage { kResident, kExperts, kReadingBack, kFinishing };
std::string_view name_of(PackStage stage);

struct PackProgress {
  PackStage stage = PackStage::kResident;
  uint64_t bytes_done = 0;  // written, of the whole model
  uint64_t bytes_total = 0;
  std::string note;  // something to tell once: "continuing ..."; else empty
};

struct PackReport {
  std::string id;                  // Container::id_text
  uint64_t source_bytes_read = 0;  // in this run
  uint64_t resident_bytes = 0;
  uint64_t experts_bytes = 0;
  uint64_t resumed_bytes = 0;               // done by earlier runs
  std::vector<InPlaceFacts::File> removed;  // of the source, in this run
  std::vector<std::string> unknown_keys;    // of config.json, as of ModelConfig
};

using PackCallback = std::function<void(const PackProgress&)>;

Result<PackReport> pack_model(Storage& storage, const PackOptions& options,
                              const PackCallback& progress, std::stop_token stop);

}  // namespace penstock
