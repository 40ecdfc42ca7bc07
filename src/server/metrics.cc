// /metrics: Prometheus' text format.

#include <fmt/format.h>

#include "server/server.h"

namespace penstock {
namespace {

void family(std::string& out, std::string_view name, std::string_view type, std::string_view help) {
  out += fmt::format("# HELP penstock_{0} {2}\n# TYPE penstock_{0} {1}\n", name, type, help);
}

template <class Number>
void single(std::string& out, std::string_view name, std::string_view type, std::string_view help,
            Number value) {
  family(out, name, type, help);
  out += fmt::format("penstock_{} {}\n", name, value);
}

// One of a family's lines that a label tells apart.
template <class Number>
void labelled(std::string& out, std::string_view name, std::string_view label,
              std::string_view value, Number number) {
  out += fmt::format("penstock_{}{{{}=\"{}\"}} {}\n", name, label, value, number);
}

void histogram(std::string& out, std::string_view name, std::string_view help,
               const Histogram& times) {
  family(out, name, "histogram", help);
  uint64_t count = 0;
  for (size_t i = 0; i < Histogram::kBounds.size(); ++i) {
    count += times.count(i);
    out += fmt::format("penstock_{}_bucket{{le=\"{}\"}} {}\n", name, Histogram::kBounds[i], count);
  }
  count += times.count(Histogram::kBounds.size());
  out += fmt::format("penstock_{0}_bucket{{le=\"+Inf\"}} {1}\npenstock_{0}_sum {2}\n", name, count,
                     times.sum());
  out += fmt::format("penstock_{}_count {}\n", name, count);
}

// "KV cache and states" to "kv_cache_and_states".
std::string label_of(std::string_view purpose) {
  std::string label;
  for (const char c : purpose) {
    const bool is_upper = c >= 'A' && c <= 'Z';
    label += c == ' ' ? '_' : is_upper ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return label;
}

void prefix_metrics(std::string& out, const PrefixStoreFigures& prefixes) {
  single(out, "kv_disk_saved_total", "counter", "files of states written", prefixes.saved);
  single(out, "kv_disk_loaded_total", "counter", "files of states read", prefixes.loaded);
  single(out, "kv_disk_loaded_tokens_total", "counter", "tokens of prompts that came from files",
         prefixes.loaded_tokens);
  single(out, "kv_disk_damaged_total", "counter", "files that were damaged", prefixes.damaged);
  single(out, "kv_disk_evicted_total", "counter", "files removed to make room", prefixes.evicted);
  single(out, "kv_disk_written_bytes_total", "counter", "bytes written", prefixes.written_bytes);
  single(out, "kv_disk_read_bytes_total", "counter", "bytes read", prefixes.read_bytes);
  single(out, "kv_disk_bytes", "gauge", "bytes of files that are kept", prefixes.held_bytes);
}

void store_metrics(std::string& out, const StoreStats& store) {
  single(out, "expert_reads_total", "counter", "reads of experts", store.reads);
  single(out, "expert_bytes_read_total", "counter", "bytes read for experts", store.bytes_read);
  single(out, "expert_cache_hits_total", "counter", "experts that were in memory", store.hits);
  single(out, "expert_cache_misses_total", "counter", "experts that were not", store.misses);
  single(out, "expert_wait_seconds_total", "counter", "time without an expert to compute",
         static_cast<double>(store.wait_ns) / 1e9);
  single(out, "io_retries_total", "counter", "reads tried again", store.io_retries);
  single(out, "checksum_failures_total", "counter", "experts whose bytes were wrong",
         store.checksum_failures);
}

// By number: 0 holds the model's own files, the others their copies.
void drive_metrics(std::string& out, const std::vector<DriveReport>& drives) {
  const auto each = [&](std::string_view name, std::string_view type, std::string_view help,
                        const auto& number_of) {
    family(out, name, type, help);
    for (size_t i = 0; i < drives.size(); ++i) {
      labelled(out, name, "drive", std::to_string(i), number_of(drives[i]));
    }
  };
  if (drives.size() < 2) return;
  each("drive_bytes_read_total", "counter", "bytes of experts read from a drive",
       [](const DriveReport& drive) { return drive.stats.bytes; });
  each("drive_failures_total", "counter", "reads that failed on a drive",
       [](const DriveReport& drive) { return drive.stats.failures; });
  each("drive_is_resting", "gauge", "1 while it is not asked because it failed again and again",
       [](const DriveReport& drive) { return drive.is_resting ? 1 : 0; });
}

void generator_metrics(std::string& out, const GeneratorFigures& figures) {
  single(out, "requests_running", "gauge", "requests that are answered now", figures.running);
  single(out, "requests_waiting", "gauge", "requests in the queue", figures.waiting);
  single(out, "prompt_tokens_total", "counter", "tokens of prompts", figures.prompt_tokens);
  single(out, "prompt_cached_tokens_total", "counter", "of these, not evaluated again",
         figures.cached_tokens);
  single(out, "generated_tokens_total", "counter", "tokens of answers", figures.answer_tokens);
  single(out, "prompt_seconds_total", "counter", "time spent on prompts",
         static_cast<double>(figures.prompt_ns) / 1e9);
  single(out, "generation_seconds_total", "counter", "time spent on answers",
         static_cast<double>(figures.answer_ns) / 1e9);
  family(out, "cancelled_total", "counter",
         "requests that were given up: their client left, or the server ends");
  labelled(out, "cancelled_total", "reason", "disconnect", figures.cancelled.disconnect);
  labelled(out, "cancelled_total", "reason", "shutdown", figures.cancelled.shutdown);
  single(out, "failed_total", "counter", "requests that ended with an error", figures.failed);
  family(out, "rejected_total", "counter",
         "requests that were refused before any work: no room in the queue or too long in it, a "
         "prompt beyond the context, or the server ends");
  labelled(out, "rejected_total", "reason", "queue_full", figures.rejected.queue_full);
  labelled(out, "rejected_total", "reason", "queue_timeout", figures.rejected.queue_timeout);
  labelled(out, "rejected_total", "reason", "context", figures.rejected.context);
  labelled(out, "rejected_total", "reason", "shutdown", figures.rejected.shutdown);
  single(out, "spec_draft_tokens_total", "counter", "tokens drafted", figures.drafts);
  single(out, "spec_accepted_tokens_total", "counter", "of these, accepted",
         figures.drafts_accepted);
  single(out, "kv_tokens", "gauge", "positions held", figures.held_tokens);
  single(out, "memory_budget_bytes", "gauge", "the budget", figures.memory_budget_bytes);
  family(out, "memory_used_bytes", "gauge", "taken of it now, by purpose");
  for (const MemoryPart& part : figures.memory_parts) {
    labelled(out, "memory_used_bytes", "part", label_of(part.purpose), part.bytes);
  }
  single(out, "expert_slots", "gauge", "experts that memory can hold now", figures.num_slots);
  store_metrics(out, figures.store);
  drive_metrics(out, figures.drives);
  family(out, "io_errors_total", "counter",
         "requests that ended because experts could not be read");
  labelled(out, "io_errors_total", "kind", "read", figures.read_errors);
  labelled(out, "io_errors_total", "kind", "checksum", figures.checksum_errors);
  histogram(out, "expert_read_seconds",
            "of reads of experts, from asking the disk to taking the bytes in",
            figures.expert_reads);
  prefix_metrics(out, figures.prefixes);
  histogram(out, "queue_seconds", "time in the queue", figures.seconds.queue);
  histogram(out, "time_to_first_token_seconds", "from the queue's end to the first token",
            figures.seconds.first_token);
  histogram(out, "inter_token_seconds", "between two tokens of an answer",
            figures.seconds.between_tokens);
  histogram(out, "request_seconds", "of whole requests, the queue included",
            figures.seconds.request);
}

}  // namespace

std::string Server::metrics() const {
  std::string out;
  const ServedModel* model = model_;
  family(out, "build_info", "gauge", "what runs here");
  out += fmt::format("penstock_build_info{{version=\"{}\",fingerprint=\"{}\"}} 1\n",
                     options_.version, model == nullptr ? "" : model->fingerprint);
  family(out, "requests_total", "counter", "requests of HTTP by route and status");
  {
    const std::scoped_lock lock(mutex_);
    for (const auto& [key, count] : requests_) {
      out += fmt::format("penstock_requests_total{{route=\"{}\",code=\"{}\"}} {}\n", key.first,
                         key.second, count);
    }
  }
  const HttpServer* listening = listening_;
  const HttpFigures http = listening == nullptr ? HttpFigures{} : listening->figures();
  single(out, "connections", "gauge", "open connections", http.connections);
  single(out, "connections_refused_total", "counter", "over the limit", http.refused);
  if (model != nullptr && model->call_failures != nullptr) {
    single(out, "tool_parse_failures_total", "counter",
           "calls that broke off, and arguments that were not of their schema's type",
           model->call_failures->load());
  }
  if (const Generator* generator = generator_) generator_metrics(out, generator->figures());
  return out;
}

}  // namespace penstock
