#include "survey/machine_profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "io/output_file.h"

namespace penstock {
namespace {

constexpr uint64_t kProfileBytesMax = 1 << 20;
constexpr double kRateMax = 1e6;  // GB/s, GFLOP/s, microseconds: beyond it a number is a mistake

enum class Zero { kIsAnError, kMeansNotMeasured };

// Reads the members of one object; the first failure stays.
class Fields {
 public:
  Fields(const Json& object, std::string what) : object_(object), what_(std::move(what)) {}

  void read(const char* key, std::string& value) { take(json_string(object_, key, what_), value); }
  void read(const char* key, bool& value) { take(json_bool(object_, key, what_), value); }
  template <class Integer>
  void read(const char* key, Integer& value, int64_t minimum, int64_t maximum) {
    int64_t number = 0;
    take(json_int(object_, key, what_, minimum, maximum), number);
    value = static_cast<Integer>(number);
  }
  void read_rate(const char* key, double& value, Zero zero) {
    take(json_number(object_, key, what_), value);
    const bool is_good = value > 0 || (value == 0 && zero == Zero::kMeansNotMeasured);
    if (is_good && value <= kRateMax) return;
    fail(fmt::format("{}: {} is {}, expected a number {} 0 and up to {}", what_, key, value,
                     zero == Zero::kIsAnError ? "above" : "from", kRateMax));
  }
  const Json& object(const char* key) {
    static const Json kNothing = Json::object();
    const Json* found = json_find(object_, key);
    if (found != nullptr && found->is_object()) return *found;
    fail(fmt::format("{}: {} is not an object", what_, key));
    return kNothing;
  }
  template <class Point>
  void read_list(const char* key, std::vector<Point>& points, void (*read_point)(Fields&, Point&)) {
    const Json* list = json_find(object_, key);
    if (list == nullptr || !list->is_array()) {
      return fail(fmt::format("{}: {} is not a list", what_, key));
    }
    for (const Json& item : *list) {
      Fields fields(item, fmt::format("{}: {}[{}]", what_, key, points.size()));
      read_point(fields, points.emplace_back());
      adopt(fields);
    }
  }
  void adopt(const Fields& part) {
    if (status_ && !part.status_) status_ = part.status_;
  }

  const Result<void>& status() const { return status_; }

 private:
  template <class T>
  void take(Result<T> result, T& value) {
    if (result) {
      value = std::move(*result);
    } else if (status_) {
      status_ = result.error();
    }
  }
  void fail(std::string message) {
    if (status_) status_ = Error{ErrorCode::kCorrupt, std::move(message)};
  }

  const Json& object_;
  std::string what_;
  Result<void> status_;
};

void read_flash(Fields& fields, FlashPoint& point) {
  fields.read("read_bytes", point.read_bytes, 1, int64_t{1} << 32);
  fields.read("depth", point.depth, 1, 4096);
  fields.read("direct", point.is_direct);
  fields.read_rate("gbps", point.gbps, Zero::kIsAnError);
  fields.read_rate("p50_us", point.p50_us, Zero::kMeansNotMeasured);
  fields.read_rate("p99_us", point.p99_us, Zero::kMeansNotMeasured);
}

void read_burst(Fields& fields, BurstPoint& point) {
  fields.read("read_bytes", point.read_bytes, 1, int64_t{1} << 32);
  fields.read("reads", point.reads, 1, 4096);
  fields.read_rate("us", point.us, Zero::kIsAnError);
}

void read_memory(Fields& fields, MemoryPoint& point) {
  fields.read("threads", point.threads, 1, 4096);
  fields.read_rate("read_gbps", point.read_gbps, Zero::kIsAnError);
  fields.read_rate("copy_gbps", point.copy_gbps, Zero::kIsAnError);
}

void read_pages(Fields& fields, PagePoint& point) {
  fields.read_rate("small_gbps", point.small_gbps, Zero::kMeansNotMeasured);
  fields.read_rate("largest_gbps", point.largest_gbps, Zero::kMeansNotMeasured);
  fields.read("differ", point.differ);
}

void read_kernel(Fields& fields, KernelPoint& point) {
  fields.read("dtype", point.dtype);
  fields.read_rate("token_gbps", point.token_gbps, Zero::kIsAnError);
  fields.read_rate("prompt_gflops", point.prompt_gflops, Zero::kIsAnError);
  fields.read_rate("pause_us", point.pause_us, Zero::kMeansNotMeasured);
}

// In doctor's report there are also devices without rates: these are left out.
Result<std::vector<GpuCard>> read_gpus(const Json& json, const std::string& what) {
  std::vector<GpuCard> gpus;
  const Json* list = json_find(json, "gpus");
  if (list == nullptr) return gpus;
  if (!list->is_array()) {
    return Error{ErrorCode::kCorrupt, fmt::format("{}: gpus is not a list", what)};
  }
  for (const Json& item : *list) {
    if (item.is_object() && json_find(item, "read_gbps") == nullptr) continue;
    GpuCard card;
    card.origin = "measured here";
    Fields fields(item, fmt::format("{}: gpus[{}]", what, gpus.size()));
    fields.read("name", card.name);
    fields.read("memory_bytes", card.memory_bytes, 1, int64_t{1} << 60);
    fields.read("unified", card.is_unified);
    fields.read_rate("read_gbps", card.read_gbps, Zero::kIsAnError);
    fields.read_rate("to_device_gbps", card.link_gbps, Zero::kIsAnError);
    fields.read_rate("round_trip_us", card.round_trip_us, Zero::kIsAnError);
    fields.read_rate("dispatch_us", card.dispatch_us, Zero::kIsAnError);
    if (json_find(item, "experts_gbps") != nullptr) {
      fields.read_rate("experts_gbps", card.experts_gbps, Zero::kMeansNotMeasured);
    }
    PENSTOCK_TRY(fields.status());
    gpus.push_back(std::move(card));
  }
  return gpus;
}

Json to_json(const GpuCard& card) {
  return Json{{"name", card.name},
              {"memory_bytes", card.memory_bytes},
              {"unified", card.is_unified},
              {"read_gbps", card.read_gbps},
              {"to_device_gbps", card.link_gbps},
              {"round_trip_us", card.round_trip_us},
              {"dispatch_us", card.dispatch_us},
              {"experts_gbps", card.experts_gbps}};
}

Json to_json(const FlashPoint& point) {
  return Json{{"read_bytes", point.read_bytes}, {"depth", point.depth},
              {"direct", point.is_direct},      {"gbps", point.gbps},
              {"p50_us", point.p50_us},         {"p99_us", point.p99_us}};
}

Json to_json(const BurstPoint& point) {
  return Json{{"read_bytes", point.read_bytes}, {"reads", point.reads}, {"us", point.us}};
}

Json to_json(const MemoryPoint& point) {
  return Json{
      {"threads", point.threads}, {"read_gbps", point.read_gbps}, {"copy_gbps", point.copy_gbps}};
}

Json to_json(const PagePoint& point) {
  return Json{{"small_gbps", point.small_gbps},
              {"largest_gbps", point.largest_gbps},
              {"differ", point.differ}};
}

Json to_json(const KernelPoint& point) {
  return Json{{"dtype", point.dtype},
              {"token_gbps", point.token_gbps},
              {"prompt_gflops", point.prompt_gflops},
              {"pause_us", point.pause_us}};
}

template <class Point>
Json list_json(const std::vector<Point>& points) {
  Json list = Json::array();
  for (const Point& point : points) list.push_back(to_json(point));
  return list;
}

// Absent where none has won. Another version may know other knobs and ranges: who applies them looks.
Result<std::vector<KnobSetting>> read_knobs(const Json& json, const std::string& what) {
  std::vector<KnobSetting> knobs;
  const Json* object = json_find(json, "knobs");
  if (object == nullptr) return knobs;
  if (!object->is_object()) {
    return Error{ErrorCode::kCorrupt, fmt::format("{}: knobs is not an object", what)};
  }
  for (const auto& [name, value] : object->items()) {
    const int64_t number =
        PENSTOCK_TRY(json_int(*object, name, what + ": knobs", INT64_MIN, INT64_MAX));
    knobs.push_back({name, number});
  }
  return knobs;
}

Json knobs_json(const std::vector<KnobSetting>& knobs) {
  Json object = Json::object();
  for (const KnobSetting& knob : knobs) object[knob.name] = knob.value;
  return object;
}

void read_machine(const Json& json, const std::string& what, Fields& parent,
                  MachineProfile& profile) {
  Fields machine(json, what + ": machine");
  machine.read("cpu_model", profile.machine.cpu_model);
  machine.read("processors", profile.machine.processors, 1, 1 << 20);
  machine.read("memory_bytes", profile.machine.memory_bytes, 1, int64_t{1} << 60);
  machine.read("kernel", profile.machine.kernel);
  parent.adopt(machine);
}

void read_disk(const Json& json, const std::string& what, Fields& parent, MachineProfile& profile) {
  Fields disk(json, what + ": disk");
  disk.read("device", profile.disk.device);
  disk.read("source", profile.disk.source);
  disk.read("filesystem", profile.disk.filesystem);
  parent.adopt(disk);
}

// Time over bytes of the bursts, as a straight line of least squares: where it begins is what a
// burst costs besides its bytes. Its slope is the disk's rate once more.
void use_bursts(const std::vector<BurstPoint>& bursts, MachineRates& rates) {
  double n = 0, x = 0, y = 0, xx = 0, xy = 0;
  for (const BurstPoint& burst : bursts) {
    const double bytes = static_cast<double>(burst.read_bytes) * burst.reads;
    n += 1, x += bytes, y += burst.us, xx += bytes * bytes, xy += bytes * burst.us;
  }
  const double spread = n * xx - x * x;
  if (spread <= 0) return;
  const double us_per_byte = (n * xy - x * y) / spread;
  rates.first_read_us = std::max(0.0, (y - x * us_per_byte) / n);
}

Error lacking(const char* what) {
  return {ErrorCode::kNotFound,
          fmt::format("the machine profile has no {}; run `penstock doctor MODEL` again", what)};
}

}  // namespace

Json to_json(const MachineProfile& profile) {
  return Json{{"profile_version", kProfileVersion},
              {"date", profile.date},
              {"version", profile.version},
              {"machine",
               {{"cpu_model", profile.machine.cpu_model},
                {"processors", profile.machine.processors},
                {"memory_bytes", profile.machine.memory_bytes},
                {"kernel", profile.machine.kernel}}},
              {"disk",
               {{"device", profile.disk.device},
                {"source", profile.disk.source},
                {"filesystem", profile.disk.filesystem}}},
              {"reader", profile.reader},
              {"compute", profile.compute},
              {"flash", list_json(profile.flash)},
              {"bursts", list_json(profile.bursts)},
              {"sustained_gbps", profile.sustained_gbps},
              {"sustained_s", profile.sustained_s},
              {"memory", list_json(profile.memory)},
              {"pages", to_json(profile.pages)},
              {"kernels", list_json(profile.kernels)},
              {"op_us", profile.op_us},
              {"gpus", list_json(profile.gpus)},
              {"knobs", knobs_json(profile.knobs)}};
}

Result<MachineProfile> parse_profile(const Json& json, const std::string& what) {
  const int64_t version = PENSTOCK_TRY(json_int(json, "profile_version", what, 0, INT32_MAX));
  if (version != kProfileVersion) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{}: profile_version is {}, this program reads {}; run `penstock "
                             "doctor MODEL` again",
                             what, version, kProfileVersion)};
  }
  MachineProfile profile;
  Fields fields(json, what);
  fields.read("date", profile.date);
  fields.read("version", profile.version);
  read_machine(fields.object("machine"), what, fields, profile);
  read_disk(fields.object("disk"), what, fields, profile);
  fields.read("reader", profile.reader);
  fields.read("compute", profile.compute);
  fields.read_list("flash", profile.flash, &read_flash);
  fields.read_list("bursts", profile.bursts, &read_burst);
  fields.read_rate("sustained_gbps", profile.sustained_gbps, Zero::kMeansNotMeasured);
  fields.read_rate("sustained_s", profile.sustained_s, Zero::kMeansNotMeasured);
  fields.read_list("memory", profile.memory, &read_memory);
  if (json_find(json, "pages") != nullptr) {  // profiles of before have none
    Fields pages(fields.object("pages"), what + ": pages");
    read_pages(pages, profile.pages);
    fields.adopt(pages);
  }
  fields.read_list("kernels", profile.kernels, &read_kernel);
  fields.read_rate("op_us", profile.op_us, Zero::kMeansNotMeasured);
  PENSTOCK_TRY(fields.status());
  profile.gpus = PENSTOCK_TRY(read_gpus(json, what));
  profile.knobs = PENSTOCK_TRY(read_knobs(json, what));
  return profile;
}

Result<MachineProfile> load_profile(Storage& storage, const std::string& path) {
  const std::string text = PENSTOCK_TRY(read_text(storage, path, kProfileBytesMax));
  return parse_profile(PENSTOCK_TRY(parse_json(text, path)), path);
}

Result<void> save_profile(Storage& storage, const std::string& path,
                          const MachineProfile& profile) {
  const std::string text = to_text(to_json(profile), 2) + '\n';
  const std::string folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) PENSTOCK_TRY(storage.make_directory(folder));
  return write_output(storage, path, std::as_bytes(std::span(text)));
}

const FlashPoint* flash_near(const MachineProfile& profile, uint64_t read_bytes) {
  const auto distance = [&](const FlashPoint& point) {
    return std::abs(std::log2(static_cast<double>(point.read_bytes) /
                              static_cast<double>(std::max<uint64_t>(read_bytes, 1))));
  };
  // Direct before buffered, then the nearest size, then the fastest depth.
  const auto better = [&](const FlashPoint& a, const FlashPoint& b) {
    if (a.is_direct != b.is_direct) return a.is_direct;
    if (a.read_bytes != b.read_bytes) return distance(a) < distance(b);
    return a.gbps > b.gbps;
  };
  const auto best = std::min_element(profile.flash.begin(), profile.flash.end(), better);
  return best == profile.flash.end() ? nullptr : &*best;
}

Result<MachineRates> rates_of(const MachineProfile& profile, uint64_t read_bytes, DType experts) {
  const FlashPoint* flash = flash_near(profile, read_bytes);
  if (flash == nullptr) return lacking("rate of the disk");
  if (profile.memory.empty()) return lacking("bandwidth of memory");
  if (profile.kernels.empty()) return lacking("rate of a product");
  const auto kernel = std::ranges::find(profile.kernels, name_of(experts), &KernelPoint::dtype);
  const KernelPoint& product = kernel != profile.kernels.end() ? *kernel : profile.kernels.front();
  MachineRates rates;
  rates.flash_gbps = flash->gbps;
  if (profile.sustained_gbps > 0) {
    rates.flash_gbps = std::min(rates.flash_gbps, profile.sustained_gbps);
  }
  for (const MemoryPoint& point : profile.memory) {
    rates.memory_gbps = std::max(rates.memory_gbps, point.read_gbps);
  }
  rates.weights_gbps = std::min(product.token_gbps, rates.memory_gbps);
  rates.prefill_gflops = product.prompt_gflops;
  rates.layer_us = kCostOpsPerLayer * profile.op_us;
  rates.pause_us = product.pause_us;
  // A read alone, as the first of a layer is.
  const auto alone = std::ranges::find_if(profile.flash, [&](const FlashPoint& point) {
    return point.depth == 1 && point.is_direct == flash->is_direct &&
           point.read_bytes == flash->read_bytes;
  });
  if (alone != profile.flash.end()) {
    const double transfer_us = static_cast<double>(alone->read_bytes) / (flash->gbps * 1e3);
    rates.first_read_us = std::max(0.0, alone->p50_us - transfer_us);
  }
  use_bursts(profile.bursts, rates);
  return rates;
}

}  // namespace penstock
