#include "support/faulty_storage.h"

#include <algorithm>
#include <cerrno>
#include <csignal>

namespace penstock {
namespace {

class FaultyFile final : public StorageFile {
 public:
  FaultyFile(std::unique_ptr<StorageFile> real, FaultyStorage& storage, bool has_bad_reads)
      : real_(std::move(real)), storage_(storage), has_bad_reads_(has_bad_reads) {}

  const std::string& path() const override { return real_->path(); }
  int64_t try_read(uint64_t offset, std::span<std::byte> target) const override {
    if (!has_bad_reads_) return real_->try_read(offset, target);
    uint64_t place = 0;
    const FaultyStorage::Fate fate = storage_.draw(place);
    if (fate == FaultyStorage::Fate::kError) return -EIO;
    const int64_t got = real_->try_read(offset, target);
    if (fate == FaultyStorage::Fate::kFlip && got > 0) {
      const uint64_t bit = place % (static_cast<uint64_t>(got) * 8);
      target[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
    }
    return got;
  }
  Result<void> write(uint64_t offset, std::span<const std::byte> source) override {
    storage_.count_change();
    return real_->write(offset, source);
  }
  Result<void> reserve(uint64_t bytes) override { return real_->reserve(bytes); }
  Result<void> sync() override {
    storage_.count_change();
    return real_->sync();
  }
  Result<FileStat> stat() const override { return real_->stat(); }
  void drop_cached(uint64_t offset, uint64_t bytes) const override {
    real_->drop_cached(offset, bytes);
  }
  uint64_t alignment() const override { return real_->alignment(); }
  int descriptor() const override { return -1; }

 private:
  std::unique_ptr<StorageFile> real_;
  FaultyStorage& storage_;
  const bool has_bad_reads_;
};

}  // namespace

FaultyStorage::FaultyStorage(Storage& real, FaultRates rates)
    : real_(real), rates_(std::move(rates)), dice_(rates_.seed) {}
FaultyStorage::~FaultyStorage() = default;

Result<std::unique_ptr<StorageFile>> FaultyStorage::open(const std::string& path, OpenMode mode) {
  if (mode == OpenMode::kCreate) count_change();
  std::unique_ptr<StorageFile> real = PENSTOCK_TRY(real_.open(path, mode));
  const bool may_fail = std::ranges::any_of(rates_.path_parts, [&](const std::string& part) {
    return path.find(part) != std::string::npos;
  });
  if (!may_fail && rates_.killed_at == 0) return real;
  return std::unique_ptr<StorageFile>(
      std::make_unique<FaultyFile>(std::move(real), *this, may_fail));
}

void FaultyStorage::count_change() {
  if (++changes_ == rates_.killed_at) std::raise(SIGKILL);
}

FaultyStorage::Fate FaultyStorage::draw(uint64_t& place) const {
  const std::scoped_lock lock(mutex_);
  const double drawn = std::uniform_real_distribution<double>(0, 1)(dice_);
  place = dice_();
  if (drawn < rates_.errors) return Fate::kError;
  return drawn < rates_.errors + rates_.flips ? Fate::kFlip : Fate::kGood;
}

}  // namespace penstock
