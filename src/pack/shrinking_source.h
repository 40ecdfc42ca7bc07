// A source that is consumed while it is packed (`pack --in-place`), as a Storage: its files are there,
// or are gone and look as they did.
//
// A pack that goes on has to open its source again, though some of its files were removed. All that
// opening reads of a file, its header and samples, is therefore kept in TARGET.in-place, durable before
// the first file goes. Afterwards a file that is gone has its size and time, and those bytes; a read of
// anything else of it fails (ENODATA). Everything but the source's files goes to the real storage.
//
//   TARGET.in-place   "PSSOURCE", then numbers of 64 bits: model id, number of files; of each file the
//                   length of its path, the path, its size, inode, time, number of ranges; of
//                   each range offset, length, the bytes. At the end a checksum of all before (16 bytes)
//
// Threads  as Storage; remove_file() while nobody reads
// Memory   what was read at opening
// Errors   kCorrupt: the record is damaged, or a file is not the one that it tells of. As Storage
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/storage.h"

namespace penstock {

std::string source_record_path(const std::string& target);

class ShrinkingSource final : public Storage {
 public:
  // With the record of `target`, where there is one.
  static Result<std::unique_ptr<ShrinkingSource>> open(Storage& real, const std::string& target);
  ~ShrinkingSource() override;

  // kInvalidArgument, with what to do, when files that a record of `target` tells of are gone: what
  // was made of them is in TARGET.partial alone, and must not be started over.
  static Result<void> check_nothing_consumed(Storage& real, const std::string& target);

  // Removes the record of `target`: what it tells of will not be gone on with.
  static Result<void> forget(Storage& real, const std::string& target);

  struct File {
    std::string path;
    FileStat stat;
    bool is_gone = false;
  };
  bool has_record() const { return record_ != nullptr; }
  bool goes_on() const { return goes_on_; }  // there is one, and some of its files are gone

  // has_record(): of the model that was being made, and of the files as they were.
  uint64_t recorded_model() const;
  std::vector<File> recorded_files() const;
  // Those that are still there and still the same; `on_removed` is told of each.
  Result<void> remove_recorded_files(const std::function<void(const File&)>& on_removed);

  // The source was opened, and these are its files; only reads until now are kept.
  Result<void> settle(std::span<const std::string> paths);
  const std::vector<File>& files() const { return files_; }
  Result<void> save(uint64_t model_id);

  // For good. From now on the file looks as it did.
  Result<void> remove_file(size_t index);
  Result<void> remove_record();

  // Whether any byte of the file was read since the last call.
  bool take_was_read(size_t index);

  Result<std::unique_ptr<StorageFile>> open(const std::string& path, OpenMode mode) override;
  Result<FileStat> stat(const std::string& path) const override;
  Result<bool> is_directory(const std::string& path) const override;
  Result<std::vector<std::string>> list(const std::string& directory) const override;
  Result<void> make_directory(const std::string& path) override;
  Result<void> rename(const std::string& from, const std::string& to) override;
  Result<void> remove(const std::string& path) override;
  Result<void> remove_tree(const std::string& path) override;
  Result<void> sync_directory(const std::string& path) override;
  Result<uint64_t> free_bytes(const std::string& path) const override;
  Result<std::unique_ptr<Lock>> lock(const std::string& path) override;

 private:
  class Reading;  // an open file
  struct Entry;
  struct Record;

  ShrinkingSource(Storage& real, std::string target);
  static Result<std::unique_ptr<Record>> read_record(Storage& real, const std::string& target);
  const Entry* find_gone(const std::string& path) const;

  Storage& real_;
  std::string target_;
  std::unique_ptr<Record> record_;
  bool goes_on_ = false;
  bool is_settled_ = false;
  std::map<std::string, std::shared_ptr<Entry>> entries_;  // by path; of files that were opened
  std::vector<std::shared_ptr<Entry>> of_files_;           // [files()]
  std::vector<File> files_;
};

}  // namespace penstock
