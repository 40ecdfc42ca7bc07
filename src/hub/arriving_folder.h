// A model on a hub whose files of weights come here one by one, when they are asked for, as a Storage.
//
// For who has no room for all of them: `pull --shard-by-shard`. Each file of weights looks from the
// beginning as if it lay in FOLDER, with its size. Before any is here, what is read of it comes by ranges
// (headers); bring() then downloads the whole of one, resumed after any end and verified by its hash, and
// what was read by ranges is compared with it; remove() gives its room back, and it can be brought again.
// Texts are downloaded at once. Everything outside FOLDER goes to the real storage.
//
//   FOLDER/from.json     repository, quantisation, revision and commit: later calls keep to this commit;
//                        what is made of it, and how
//   FOLDER/samples.bin   what was read by ranges (hub/kept_ranges.h): a later call does not ask again
//   FOLDER/lock          held while this lives
//
// Threads  as Storage; bring(), expect() and remove() while nobody reads
// Memory   what was read by ranges, and of each request on its way kJoinedBytesMax
// Errors   open(): as pull_model(), kInvalidArgument (another model is in FOLDER, the lock is taken).
//          bring(): as download_blob(), kCorrupt (ranges told otherwise). A read whose range does not come
//          is EIO, and failure() says why
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "base/result.h"
#include "hub/download.h"
#include "hub/http_client.h"
#include "hub/kept_ranges.h"
#include "hub/listing.h"
#include "hub/name.h"
#include "hub/range_reads.h"
#include "io/held_bytes.h"
#include "io/storage.h"

namespace penstock {

struct ArrivingRequest {
  HubName name;
  std::string revision = "main";
  std::string folder;
  std::string options;  // how a model is made of it, in any words
  size_t parallel = 6;
  uint64_t piece_bytes = 16 << 20;
};

struct ArrivingEvents {
  std::function<void(const std::string& sentence)> on_note;
  // A whole file on its way.
  std::function<void(const std::string& file, uint64_t done, uint64_t total)> on_bytes;
};

// Part of a file of weights.
struct ArrivingRange {
  std::string path;
  uint64_t offset = 0, bytes = 0;
};

class ArrivingFolder final : public Storage, public HeldRoom {
 public:
  static Result<std::unique_ptr<ArrivingFolder>> open(Storage& real, const HubOptions& http,
                                                      const ArrivingRequest& request,
                                                      ArrivingEvents events, std::stop_token stop);
  ~ArrivingFolder() override;

  // The folder is there, and is of an earlier call with this request that noted this model. False also
  // where it is of another one, or cannot be read.
  static bool has_made(Storage& real, const ArrivingRequest& request, uint64_t model_id);
  // kNotFound: the folder is not there any more. kIo: another call is at work in it.
  static Result<std::unique_ptr<Lock>> hold(Storage& real, const std::string& folder);
  // By who holds it, through hold() or open().
  static Result<void> remove_all(Storage& real, const std::string& folder);

  const HubName& name() const { return request_.name; }  // with the quantisation that was chosen
  const std::string& commit() const { return commit_; }
  const std::string& model() const { return model_; }  // what to open
  size_t num_files() const { return num_files_; }
  uint64_t bytes() const { return bytes_; }                        // of all files
  uint64_t downloaded_bytes() const { return downloaded_bytes_; }  // in this run
  const std::optional<Error>& failure() const { return failure_; }

  // These will be read: what is not here comes now, several at a time.
  Result<void> expect(std::span<const ArrivingRange> ranges);
  // From now on the file is read from the disk, and what is not here is not asked for any more.
  Result<void> bring(const std::string& path);
  // The id of what will be made of it, before anything is: for has_made() of a later call.
  Result<void> note_model(uint64_t model_id);
  // Room that a file of weights takes, also one that is half here.
  uint64_t bytes_here(const std::string& path) const;

  Result<std::unique_ptr<StorageFile>> open(const std::string& path, OpenMode mode) override;
  Result<FileStat> stat(const std::string& path) const override;
  Result<uint64_t> held_bytes(const std::string& path) const override;
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
  class Reading;
  struct Shard;

  ArrivingFolder(Storage& real, ArrivingRequest request, ArrivingEvents events,
                 std::stop_token stop);
  Result<void> begin(const HubOptions& http);
  Result<void> choose();
  Result<void> write_note();
  Result<void> open_samples();
  Result<void> get_texts(const std::vector<const RepoFile*>& files);
  Result<void> download(const RepoFile& file);
  BlobRequest blob_request(const RepoFile& file) const;
  HubSubject subject() const;
  std::string samples_path() const;
  Result<void> compare_with_ranges(Shard& shard);
  int64_t read_range(Shard& shard, uint64_t offset, std::span<std::byte> target);
  Result<void> fetch(std::span<const ArrivingRange> ranges);
  Result<void> keep(Shard& shard, std::span<const ByteRange> ranges, uint64_t begin,
                    std::span<const std::byte> bytes);
  const Shard* find(const std::string& path) const;

  Storage& real_;
  ArrivingRequest request_;
  ArrivingEvents events_;
  std::stop_token stop_;
  std::unique_ptr<Lock> lock_;
  std::unique_ptr<HttpClient> client_;
  std::optional<RangeReader> reader_;
  std::optional<KeptRanges> samples_;
  std::string commit_, model_;
  std::string asked_quant_;                // before one was chosen
  std::string made_options_, made_model_;  // as the note has them
  size_t num_files_ = 0;
  uint64_t bytes_ = 0, downloaded_bytes_ = 0;
  uint64_t device_ = 0;
  std::map<std::string, std::shared_ptr<Shard>> shards_;  // by path
  std::mutex mutex_;                                      // of what is read by ranges
  bool asks_for_ranges_ = true;
  std::optional<Error> failure_;
};

}  // namespace penstock
