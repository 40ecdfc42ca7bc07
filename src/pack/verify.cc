#include "pack/verify.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/memory.h"
#include "format/container.h"
#include "pack/piece_check.h"

namespace penstock {
namespace {

class Verifier {
 public:
  Verifier(Storage& storage, const Container& model, const VerifyCallback& progress,
           const std::stop_token& stop)
      : storage_(storage), model_(model), progress_(progress), stop_(stop) {
    total_ = model.resident_bytes() + model.experts().file_bytes();
    for (const ManifestFile& file : model.manifest().files) total_ += file.bytes;
  }

  Result<VerifyReport> run();

 private:
  Result<void> check_resident();
  Result<void> check_experts();
  Result<void> check_record(const StorageFile& file, uint64_t record, std::span<std::byte> bytes,
                            std::span<const Hash128> sums);
  Result<void> check_file(const ManifestFile& file);
  Result<void> step(uint64_t bytes);
  void add_fault(std::string fault);

  // The bytes, or false and a fault: a disk that cannot read them is a finding, not an end.
  bool read(const StorageFile& file, uint64_t offset, std::span<std::byte> target);

  Storage& storage_;
  const Container& model_;
  const VerifyCallback& progress_;
  const std::stop_token& stop_;
  uint64_t total_ = 0;
  VerifyReport report_;
};

void Verifier::add_fault(std::string fault) {
  if (++report_.num_faults <= kFaultsToldMax) report_.faults.push_back(std::move(fault));
}

Result<void> Verifier::step(uint64_t bytes) {
  report_.bytes += bytes;
  if (progress_) progress_(report_.bytes, total_);
  if (stop_.stop_requested()) return Error{ErrorCode::kCancelled, "verifying was stopped"};
  return {};
}

bool Verifier::read(const StorageFile& file, uint64_t offset, std::span<std::byte> target) {
  const Result<void> read = read_exactly(file, offset, target);
  file.drop_cached(offset, target.size());
  if (!read) add_fault(read.error().message);
  return read.has_value();
}

Result<void> Verifier::check_resident() {
  const std::vector<Hash128> sums = PENSTOCK_TRY(model_.load_resident_checksums());
  const std::unique_ptr<StorageFile> file =
      PENSTOCK_TRY(storage_.open(model_.resident_path(), OpenMode::kRead));
  std::vector<std::byte> block(kResidentBlockBytes);
  for (uint64_t i = 0; i < sums.size(); ++i) {
    const uint64_t offset = i * kResidentBlockBytes;
    const auto bytes =
        std::span(block).first(std::min(kResidentBlockBytes, model_.resident_bytes() - offset));
    if (read(*file, offset, bytes) && block_checksum(model_.model_id(), i, bytes) != sums[i]) {
      add_fault(fmt::format("{}: block of {} bytes at {:#x} ({}): checksum does not match",
                            file->path(), bytes.size(), offset, model_.place_of(offset)));
    }
    PENSTOCK_TRY(step(bytes.size()));
  }
  return {};
}

Result<void> Verifier::check_record(const StorageFile& file, uint64_t record,
                                    std::span<std::byte> bytes, std::span<const Hash128> sums) {
  const ExpertParts& parts = model_.experts();
  const ExpertRecord& form = parts.record_of(record);
  const uint64_t offset = parts.offset_of(record);
  const auto layer = static_cast<int>(parts.layer_of(record));
  const auto expert = static_cast<int>(record % static_cast<uint64_t>(parts.num_experts));
  if (read(file, offset, bytes)) {
    for (const PackedPart part : kPackedParts) {
      const auto [begin, size] = form.extent(part);
      const auto payload = bytes.subspan(begin, size);
      const auto padding = bytes.subspan(begin + size, form.padded_end(part) - begin - size);
      const bool good = part_checksum(model_.model_id(), layer, expert, part, payload) ==
                        sums[ExpertParts::sum_index(record, part)];
      if (good && all_zero(padding)) continue;
      add_fault(fmt::format("{}: layer {} expert {}, {} at {:#x}: {}", file.path(), layer, expert,
                            part == kGateUpPart ? "gate and up" : "down", offset + begin,
                            good ? "padding is not zero" : "checksum does not match"));
    }
  }
  return step(bytes.size());
}

Result<void> Verifier::check_experts() {
  const std::vector<Hash128> sums = PENSTOCK_TRY(model_.load_expert_checksums());
  const std::unique_ptr<StorageFile> file =
      PENSTOCK_TRY(storage_.open(model_.experts_path(), OpenMode::kRead));
  AlignedMemory memory = PENSTOCK_TRY(
      AlignedMemory::create(model_.experts().largest_record(), "one expert to be verified"));
  for (uint64_t record = 0; record < model_.experts().num_records(); ++record) {
    PENSTOCK_TRY(check_record(
        *file, record, memory.bytes().first(model_.experts().record_of(record).bytes), sums));
  }
  return {};
}

Result<void> Verifier::check_file(const ManifestFile& listed) {
  const std::unique_ptr<StorageFile> file =
      PENSTOCK_TRY(storage_.open(model_.path_of(listed.name), OpenMode::kRead));
  std::vector<std::byte> bytes(std::min(kCheckStepBytes, listed.bytes));
  RunningChecksum sum;
  bool complete = true;
  for (uint64_t offset = 0; offset < listed.bytes; offset += kCheckStepBytes) {
    const auto part = std::span(bytes).first(std::min(kCheckStepBytes, listed.bytes - offset));
    complete = complete && read(*file, offset, part);
    sum.update(part);
    PENSTOCK_TRY(step(part.size()));
  }
  if (complete && sum.value() != listed.sum) {
    add_fault(fmt::format("{}: checksum does not match", file->path()));
  }
  return {};
}

Result<VerifyReport> Verifier::run() {
  for (const ManifestFile& file : model_.manifest().files) PENSTOCK_TRY(check_file(file));
  // Damaged sums end it here, with the error of the loader: nothing can be compared with them.
  PENSTOCK_TRY(check_resident());
  PENSTOCK_TRY(check_experts());
  return std::move(report_);
}

}  // namespace

Result<VerifyReport> verify_model(Storage& storage, const std::string& directory,
                                  const VerifyCallback& progress, std::stop_token stop) {
  const Container model = PENSTOCK_TRY(Container::open(storage, directory));
  return Verifier(storage, model, progress, stop).run();
}

}  // namespace penstock
