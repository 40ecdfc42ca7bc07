#include "cli/options.h"

#include <algorithm>
#include <cctype>

#include "quality/base_file.h"

namespace penstock {
namespace {

constexpr uint32_t kRun = bit(Verb::kRun);
constexpr uint32_t kChat = bit(Verb::kChat);
constexpr uint32_t kServe = bit(Verb::kServe);
constexpr uint32_t kPack = bit(Verb::kPack);
constexpr uint32_t kPull = bit(Verb::kPull);
constexpr uint32_t kPacking = kPack | kPull;  // pull --pack
constexpr uint32_t kRm = bit(Verb::kRm);
constexpr uint32_t kPlan = bit(Verb::kPlan);
constexpr uint32_t kDoctor = bit(Verb::kDoctor);
constexpr uint32_t kBench = bit(Verb::kBench);
constexpr uint32_t kSynth = bit(Verb::kSynth);
constexpr uint32_t kAnswer = bit(Verb::kAnswer);
constexpr uint32_t kEval = bit(Verb::kEval);
constexpr uint32_t kTalk = kRun | kChat;
constexpr uint32_t kAsks = kTalk | kServe;
constexpr uint32_t kLoads =
    kAsks | bit(Verb::kLogits) | bit(Verb::kScore) | kAnswer | kEval | kBench;
constexpr uint32_t kPlans = kLoads | kPlan;
constexpr uint32_t kModels = kPlans | kPack | bit(Verb::kShow) | kDoctor;
constexpr uint32_t kHub = kPull | kRm | bit(Verb::kLs);
constexpr uint32_t kAll = (1u << kNumVerbs) - 1;

using enum OptionKind;
constexpr std::string_view kInput = "Input";
constexpr std::string_view kSampling = "Sampling";
constexpr std::string_view kServing = "Server";
constexpr std::string_view kMachine = "Machine";
constexpr std::string_view kForecast = "Forecast";
constexpr std::string_view kBenchmark = "Benchmark";
constexpr std::string_view kHubGroup = "Models from a hub";
constexpr std::string_view kQuality = "Quality";
constexpr std::string_view kGeneral = "General";

constexpr Option per_call(Option option) {
  option.per_call = true;
  return option;
}

constexpr Option hidden(Option option) {
  option.hidden = true;
  return option;
}

constexpr Option in_range(Option option, double low, double high) {
  option.low = low;
  option.high = high;
  return option;
}

constexpr Option kOptions[] = {
    // Input and output of one call.
    per_call(Option{"prompt", 'p', kText, kRun, kInput, "TEXT", "", "the prompt"}),
    per_call(Option{"file", 'f', kText, kRun, kInput, "FILE", "",
                    "read the prompt from FILE; - is standard input"}),
    {"chat", 0, kFlag, kRun, kInput, "", "", "the prompt is a user's message, not raw text"},
    {"system", 's', kText, kTalk, kInput, "TEXT", "", "system message of a chat"},
    per_call(Option{"tools", 0, kText, kTalk, kInput, "FILE", "", "JSON list of tools to offer"}),
    {"think", 0, kChoice, kAsks, kInput, "on|off|auto", "auto",
     "reasoning before the answer; auto: the template's default", "on|off|auto"},
    {"chat-template-file", 0, kText, kAsks | kAnswer | kEval | kPlan, kInput, "FILE", "",
     "a chat template (Jinja) in place of the model's own"},
    {"parse-special", 0, kFlag, kTalk, kInput, "", "",
     "let text like <|im_end|> in messages become control tokens"},
    per_call(Option{"ids", 0, kText, kRun | bit(Verb::kLogits), kInput, "FILE", "",
                    "the prompt as token ids: a JSON list"}),
    per_call(Option{"out", 'o', kText, bit(Verb::kLogits), kInput, "FILE", "",
                    "file to write (safetensors)"}),
    per_call(Option{"routes", 0, kFlag, bit(Verb::kLogits), kInput, "", "",
                    "also write the chosen experts"}),
    per_call(Option{"texts", 0, kText, bit(Verb::kScore), kInput, "FILE", "",
                    "JSON lines with id and text"}),
    per_call(
        Option{"items", 0, kText, kAnswer, kInput, "FILE", "", "JSON lines with id and messages"}),
    in_range(Option{"max-tokens", 'n', kInteger, kEval, kInput, "N", "200",
                    "longest answer to an item in tokens"},
             1, 1 << 20),
    {"max-tokens", 'n', kInteger, kAsks | kAnswer, kInput, "N", "0",
     "longest answer in tokens; 0: until the context is full"},
    {"stop", 0, kText, kTalk, kInput, "TEXT", "",
     "end the answer before this text; several as a JSON list: '[\"a\", \"b\"]'"},
    per_call(Option{"trace-routing", 0, kText, kTalk | bit(Verb::kScore) | kAnswer, kInput, "FILE",
                    "", "record which experts are used, for bench/cache_replay"}),
    {"no-history", 0, kFlag, kChat, kInput, "", "", "do not keep the lines typed"},
    {"allow", 0, kText, kChat, kInput, "read,list,run", "",
     "tools that the model may use: read a file, list a folder, run a command that you agree to"},
    {"workspace", 0, kText, kChat, kInput, "DIRECTORY", "",
     "the folder that files are read in and commands run in; default: where it was started"},
    {"server", 0, kText, kChat, kInput, "URL", "",
     "talk with the model of this server (OpenAI's API, http), such as http://127.0.0.1:8080"},
    {"model", 0, kText, kChat, kInput, "NAME", "",
     "of the server; default: the first that it names"},
    {"api-key", 0, kText, kChat, kInput, "KEY", "",
     "the server's key; better in PENSTOCK_API_KEY or a file"},
    {"api-key-file", 0, kText, kChat, kInput, "FILE", "", "a file with the server's key"},
    per_call(Option{"tensors", 0, kFlag, bit(Verb::kShow), kInput, "", "", "list every tensor"}),

    // Sampling: without a flag, as the model's generation_config.json says.
    {"greedy", 0, kFlag, kAsks, kSampling, "", "", "always the most likely token (--temp 0)"},
    in_range(Option{"temp", 0, kNumber, kAsks, kSampling, "X", "", "temperature; 0 is greedy"}, 0,
             5),
    in_range(Option{"top-k", 0, kInteger, kAsks, kSampling, "N", "",
                    "draw among the N most likely; 0: off"},
             0, 1 << 24),
    in_range(Option{"top-p", 0, kNumber, kAsks, kSampling, "X", "",
                    "draw among the most likely that make up X"},
             1e-6, 1),
    in_range(Option{"min-p", 0, kNumber, kAsks, kSampling, "X", "",
                    "leave out what is less likely than X times the most likely"},
             0, 1),
    in_range(Option{"presence-penalty", 0, kNumber, kAsks, kSampling, "X", "",
                    "against tokens that were in the answer"},
             -2, 2),
    in_range(Option{"frequency-penalty", 0, kNumber, kAsks, kSampling, "X", "",
                    "the same, for each time they were"},
             -2, 2),
    in_range(Option{"repeat-penalty", 0, kNumber, kAsks, kSampling, "X", "",
                    "divides the logits of tokens in prompt and answer"},
             1e-3, 10),
    in_range(Option{"repeat-last-n", 0, kInteger, kAsks, kSampling, "N", "",
                    "of the last N tokens the penalties take notice; -1: of all; default: of all"},
             -1, 1 << 24),
    in_range(Option{"seed", 0, kInteger, kAsks, kSampling, "N", "",
                    "of the draw; default: another one each time"},
             0, 0x1p53),

    // The machine.
    {"memory", 0, kBytes, kPlans, kMachine, "BYTES", "",
     "the whole memory budget, such as 6G; default: what is free, less a reserve"},
    {"context", 'c', kInteger, kPlans, kMachine, "N", "0",
     "positions for prompt and answer; 0: the model's, at most 8192"},
    in_range(Option{"threads", 't', kInteger, kPlans | kPacking | kDoctor, kMachine, "N", "0",
                    "0: one per processor"},
             0, 1024),
    {"experts-per-token", 0, kInteger, kPlans, kMachine, "N", "0",
     "LOSSY: use another number of experts than the model was trained with; 0: its own"},
    {"lossy-experts-by-layer", 0, kText, kPlans, kMachine, "LIST", "",
     "LOSSY: at most so many experts per token in each layer that has some, as in 8*20,6*20"},
    in_range(Option{"lossy-expert-weight", 0, kNumber, kPlans, kMachine, "X", "1",
                    "LOSSY: leave a token's weakest experts out once the others have this share of "
                    "the weight; 1: none"},
             1e-6, 1),
    {"lossy-low-bits-copy", 0, kText, kPlans, kMachine, "FOLDER", "",
     "LOSSY: a second packed model of the same checkpoint, with experts in fewer bits, from "
     "which a token's last experts come; without GPU, warm starts and mirrors of its own"},
    in_range(
        Option{"lossy-low-bits-from", 0, kInteger, kPlans, kMachine, "RANK", "0",
               "the first of a token's experts, by falling weight, that comes from that copy; 1: "
               "all of them"},
        0, 1 << 16),
    {"lossy-kv", 0, kChoice, kPlans, kMachine, "32|8", "32",
     "LOSSY: bits of keys and values; 8: a quarter of the memory for each position of the context; "
     "32: exact",
     "32|8"},
    {"reader", 0, kChoice, kLoads | kDoctor, kMachine, "auto|uring|threads", "auto",
     "how experts are read; auto: io_uring where the system grants it", "auto|uring|threads"},
    {"verify", 0, kSwitch, kLoads, kMachine, "on|off", "on",
     "compare the checksum of every expert that is read"},
    {"mirror", 0, kText, kLoads, kMachine, "FOLDER,...", "",
     "folders on other drives with copies of the files of experts: each read goes to the drive "
     "that "
     "brings it soonest, and past one that fails"},
    {"prefetch", 0, kChoice, kPlans, kMachine, "auto|off", "auto",
     "read the next layer's likely experts while the disk is idle; auto: where it pays",
     "auto|off"},
    {"speculate", 0, kChoice, kPlans & ~kServe, kMachine, "auto|on|off", "auto",
     "draft tokens with the model's own prediction block, where it has one; the answer is the "
     "same; auto: while it is measured to pay",
     "auto|on|off"},
    {"warm-start", 0, kChoice, kAsks, kMachine, "auto|eager|off", "auto",
     "start with the experts that earlier runs used most: chat reads them while you type; eager: "
     "before the first prompt; off: neither read nor remember",
     "auto|eager|off"},
    {"kv-dir", 0, kText, kServe | kChat | kPlan, kMachine, "DIRECTORY", "",
     "keep what prompts left behind in files here: a prefix that comes again is not read again, "
     "also after a restart; the files tell what was said to who may read them (plan: with --for "
     "chat or serve, counts its memory)"},
    {"kv-disk-max", 0, kBytes, kServe | kChat, kMachine, "BYTES", "8G",
     "how large these files may be together; the oldest make room"},
    {"gpu", 0, kText, kPlans, kMachine, "auto|off|NAME", "auto",
     "keep what every token needs and experts in a GPU's memory as well and compute them there "
     "(Vulkan): auto: where `penstock doctor` measured that it pays; NAME: part of a name, or a "
     "number; the answer is the same (plan: also of a card that is not here, or "
     "memory=24G,gbps=900)"},
    {"vram", 0, kBytes, kPlans, kMachine, "BYTES", "",
     "how much of the GPU's memory to use, such as 12G; default: what is free there, less 1 GiB"},
    {"gpu-trunk", 0, kChoice, kPlans, kMachine, "auto|on|off", "auto",
     "of that memory, first to the matrices that every token needs: head, projections, shared "
     "experts; auto: where the GPU has memory of its own",
     "auto|on|off"},
    {"memory-pressure", 0, kChoice, kLoads, kMachine, "shrink|ignore", "shrink",
     "when other programs need the memory: give slots of experts back until they do not",
     "shrink|ignore"},
    {"simd", 0, kText, kLoads | kDoctor, kMachine, "TARGET", "",
     "instruction set to compute with; default: the best one"},
    {"arithmetic", 0, kChoice, kLoads, kMachine, "fixed16|float32", "fixed16",
     "products of quantised weights: 16-bit fixed point inputs with exact sums, or float32",
     "fixed16|float32"},
    hidden(Option{"chunk-tokens", 0, kInteger, kPlans, kMachine, "N", "0",
                  "tokens of a prompt in one pass"}),
    hidden(Option{"slots", 0, kInteger, kPlans, kMachine, "N", "0", "experts kept in memory"}),
    hidden(per_call(
        Option{"knob", 0, kText, kPlans, kMachine, "NAME=VALUE,...", "",
               "in place of the built-in value or the profile's: `penstock config knobs`"})),
    hidden(Option{"eviction", 0, kText, kLoads, kMachine, "POLICY", "",
                  "which expert has to go: a name from store/eviction.h"}),

    // The server.
    {"host", 0, kText, kServe, kServing, "ADDRESS", "127.0.0.1",
     "address to listen at; a path that ends with .sock is a unix socket"},
    in_range(Option{"port", 0, kInteger, kServe, kServing, "N", "8080", "0: any free one"}, 0,
             65535),
    {"api-key", 0, kText, kServe, kServing, "KEY,...", "",
     "keys, one of which every request must bring; better in PENSTOCK_API_KEY or a file"},
    {"api-key-file", 0, kText, kServe, kServing, "FILE", "", "a file with a key on each line"},
    {"i-know", 0, kFlag, kServe, kServing, "", "", "listen beyond this machine without any key"},
    {"allowed-host", 0, kText, kServe, kServing, "NAME,...", "",
     "further names of this machine that requests may have as their Host"},
    {"cors-origin", 0, kText, kServe, kServing, "URL,...", "",
     "web pages of other origins that may ask; * is all of them"},
    {"alias", 0, kText, kServe, kServing, "NAME,...", "", "further names of the model"},
    in_range(Option{"parallel", 0, kInteger, kServe | kPlan, kServing, "N", "1",
                    "requests that are answered side by side (plan: with --for serve)"},
             1, 64),
    in_range(Option{"max-queue", 0, kInteger, kServe, kServing, "N", "32",
                    "requests that may wait; the next one gets 429"},
             0, 1024),
    in_range(Option{"queue-timeout", 0, kInteger, kServe, kServing, "SECONDS", "0",
                    "how long a request may wait; then it gets 503; 0: as long as it takes"},
             0, 86400),
    in_range(Option{"max-connections", 0, kInteger, kServe, kServing, "N", "256",
                    "connections at a time; the next one gets 503"},
             1, 65536),
    in_range(Option{"max-connections-per-address", 0, kInteger, kServe, kServing, "N", "64",
                    "of these, by one other machine; where given, by this one too"},
             1, 65536),
    in_range(Option{"sse-ping-interval", 0, kInteger, kServe, kServing, "SECONDS", "10",
                    "heartbeat of streams while there is no token yet; 0: none"},
             0, 3600),
    in_range(Option{"json-ping-interval", 0, kInteger, kServe, kServing, "SECONDS", "0",
                    "for clients that wait for an answer that is not streamed: the status at once, "
                    "then a space this often, so that nobody gives up; 0: off"},
             0, 3600),
    in_range(
        Option{"drain-timeout", 0, kInteger, kServe, kServing, "SECONDS", "30",
               "how long running answers may take to end after SIGTERM; 0: as long as it takes"},
        0, 86400),
    in_range(Option{"reasoning-budget", 0, kInteger, kServe, kServing, "N", "",
                    "tokens of reasoning after which the answer has to begin"},
             0, 1 << 24),
    {"reasoning-field", 0, kChoice, kServe, kServing, "NAME", "reasoning_content",
     "member of a message that the reasoning is told in", "reasoning_content|reasoning|both"},
    {"strict-fields", 0, kFlag, kServe, kServing, "", "",
     "refuse requests with fields that are not known"},
    {"strict-model", 0, kFlag, kServe, kServing, "", "",
     "refuse requests for another model than this one"},
    {"page", 0, kSwitch, kServe, kServing, "on|off", "on", "serve the web page at /"},

    // Forecasts.
    per_call(Option{"for", 0, kChoice, kPlan, kForecast, "run|chat|serve", "run",
                    "the verb that will run: chat and serve keep states to go back to",
                    "run|chat|serve"}),
    {"machine", 0, kText, kPlan | kDoctor, kForecast, "FILE", "",
     "measured rates of a machine; default: $XDG_STATE_HOME/penstock/profile.json"},
    in_range(Option{"sustained", 0, kNumber, kDoctor, kForecast, "MINUTES", "0",
                    "also read for so long: drives slow down when they get warm"},
             0, 600),
    in_range(Option{"flash-gbps", 0, kNumber, kPlan, kForecast, "X", "0",
                    "rate of the disk in GB/s, in place of a measured one"},
             0, 1e4),
    {"mirror-gbps", 0, kText, kPlan, kForecast, "X,...", "",
     "rates of further drives with copies of the experts (--mirror of run): they read side by "
     "side"},
    in_range(Option{"dram-gbps", 0, kNumber, kPlan, kForecast, "X", "0",
                    "rate of memory in GB/s, likewise"},
             0, 1e5),
    in_range(Option{"gflops", 0, kNumber, kPlan, kForecast, "X", "0",
                    "rate of prompts in GFLOP/s, likewise"},
             0, 1e6),
    {"hits", 0, kText, kPlan, kForecast, "session|topics|uniform|X", "session",
     "how much of a token's experts the cache holds: one topic, changing topics, chance, or a "
     "rate"},
    in_range(Option{"prompt-length", 0, kInteger, kPlan, kForecast, "N", "1024",
                    "length of the prompt whose first token is forecast"},
             1, 1 << 24),
    {"over", 0, kChoice, kPlan, kForecast, "budgets|bits|experts|vram", "budgets",
     "what the table goes over", "budgets|bits|experts|vram"},
    per_call(Option{"svg", 0, kText, kPlan, kForecast, "FILE", "", "write a chart of the speeds"}),
    per_call(Option{"html", 0, kText, kPlan, kForecast, "FILE", "", "write a page with charts"}),
    {"experts", 0, kChoice, kPlan, kForecast, "4|8|3|2|16", "4",
     "bits of expert weights of a SHAPE", "4|8|3|2|16"},
    {"resident", 0, kChoice, kPlan, kForecast, "8|6|5|4|16", "8", "bits of its other weights",
     "8|6|5|4|16"},

    // Benchmarks.
    {"prompt-tokens", 'p', kText, kBench, kBenchmark, "N,...", "512",
     "lengths of prompts; 0: none"},
    {"answer-tokens", 'n', kText, kBench, kBenchmark, "N,...", "64", "lengths of answers; 0: none"},
    {"depth", 'd', kText, kBench, kBenchmark, "N,...", "0",
     "positions of the context that are filled before"},
    in_range(
        Option{"repetitions", 'r', kInteger, kBench, kBenchmark, "N", "5", "of each measurement"},
        1, 10000),
    {"budgets", 0, kText, kBench, kBenchmark, "BUDGET,...", "default",
     "50%: of the experts in memory; floor: the smallest workable; 6G; default: --memory"},
    {"routing", 0, kText, kBench, kBenchmark, "WORD", "model",
     "who chooses experts: model, uniform, session or trace:FILE"},
    {"cold", 0, kFlag, kBench, kBenchmark, "", "", "start with no expert in memory"},
    {"warm", 0, kFlag, kBench, kBenchmark, "", "", "start after a run (with --cold: both)"},
    per_call(Option{"text", 0, kText, kBench, kBenchmark, "FILE", "",
                    "cut prompts from this text; default: random tokens"}),
    in_range(Option{"drafts-right", 0, kNumber, kBench, kBenchmark, "X", "0",
                    "make such a share of drafts right, 0 to 1; default: what is drafted is taken"},
             0, 1),
    in_range(Option{"disk-seconds", 0, kNumber, kBench, kBenchmark, "X", "3",
                    "measure the disk for so long; 0: not"},
             0, 600),
    in_range(Option{"seed", 0, kInteger, kBench | kSynth, kBenchmark, "N", "1",
                    "of weights, tokens and routing"},
             0, 0x1p53),

    // Packing.
    {"experts", 0, kChoice, kPacking, "Packing", "4|8|3|2|keep", "4",
     "bits of expert weights; keep: as in the source, which is usual where that is quantised",
     "4|8|3|2|keep"},
    {"resident", 0, kChoice, kPacking, "Packing", "keep|8|6|5|4", "keep",
     "bits of the large weights that every token needs", "keep|8|6|5|4"},
    {"quantiser", 0, kChoice, kPacking, "Packing", "auto|search|round", "auto",
     "search: for 2 to 4 bits, the scales that lose least; round: from the smallest to the largest "
     "value; auto: search where experts get 2 or 3 bits",
     "auto|search|round"},
    {"experts-down", 0, kChoice, kPacking, "Packing", "same|8|4|3|2", "same",
     "bits of the down matrices of experts, which are a third of them", "same|8|4|3|2"},
    per_call(Option{"target-bytes", 0, kBytes, kPack, "Packing", "BYTES", "",
                    "mix 2, 3, 4 and 8 bits by layer and part so that all experts fit into so many "
                    "bytes, such as 12G, and lose least"}),
    per_call(Option{"calibrate", 0, kText, kPack, "Packing", "FILE", "",
                    "run SOURCE over a text or JSON lines, and quantise experts for what they see "
                    "there"}),
    in_range(Option{"calibrate-tokens", 0, kInteger, kPack, "Packing", "N", "131072",
                    "so many tokens of it, evenly chosen; 0: all"},
             0, 1 << 24),
    {"experts", 0, kChoice, kSynth, "Packing", "4|8|3|2|keep", "4",
     "bits of expert weights; keep: bf16", "4|8|3|2|keep"},
    {"resident", 0, kChoice, kSynth, "Packing", "8|4|keep", "8",
     "bits of the large weights that every token needs", "8|4|keep"},
    in_range(Option{"layers", 0, kInteger, kSynth, "Packing", "N", "0",
                    "fewer layers than the shape has; 0: all"},
             0, 1024),
    {"mtp", 0, kFlag, kSynth, "Packing", "", "",
     "with a prediction block, which drafts tokens for --speculate"},
    in_range(Option{"num-experts", 0, kInteger, kSynth, "Packing", "N", "0",
                    "experts per layer, for studies of scaling; 0: as the shape has"},
             0, 65536),
    per_call(Option{"without-prediction", 0, kFlag, kPacking, "Packing", "", "",
                    "leave the block out that drafts tokens"}),
    per_call(Option{"texts", 0, kFlag, kPack, "Packing", "", "",
                    "replace the texts of a packed model; its weights stay"}),
    per_call(Option{"force", 0, kFlag, kPacking | kSynth, "Packing", "", "",
                    "replace TARGET if it exists; try also where the disk tells too little room"}),
    per_call(
        Option{"in-place", 0, kFlag, kPack, "Packing", "", "",
               "consume SOURCE: remove each of its files when what is made of it was read back"}),
    per_call(Option{"yes", 0, kFlag, kPack, "Packing", "", "",
                    "do not ask before --in-place removes files"}),
    {"verify", 0, kFlag, kPacking, "Packing", "", "", "check every byte after packing"},

    per_call(Option{"man", 0, kFlag, bit(Verb::kHelp), kInput, "", "",
                    "print the manual page, of the verb or of all (roff, for man)"}),

    // Models from a hub.
    per_call(Option{"revision", 0, kText, kPull, kHubGroup, "REVISION", "main",
                    "a branch, a tag or a commit"}),
    per_call(Option{"revision", 0, kText, kRm, kHubGroup, "REVISION", "",
                    "this one alone: a branch, a tag or a commit"}),
    per_call(Option{"include", 0, kText, kPull, kHubGroup, "PATTERN", "",
                    "the files that PATTERN fits instead of a model's, as in *.json,*Q8_0*"}),
    per_call(Option{"pack", 0, kText, kPull, kHubGroup, "TARGET", "",
                    "make a penstock model of it, as `pack` does, which stays when it is removed"}),
    per_call(Option{"shard-by-shard", 0, kFlag, kPull, kHubGroup, "", "",
                    "with --pack: keep two files of the source at most, and none at the end"}),
    {"offline", 0, kFlag, kPull, kHubGroup, "", "",
     "ask nobody: tell what is there; HF_HUB_OFFLINE=1 says the same"},
    in_range(Option{"connections", 0, kInteger, kPull, kHubGroup, "N", "6",
                    "parts of a file that are downloaded at a time"},
             1, 16),
    hidden(Option{"piece-bytes", 0, kBytes, kPull, kHubGroup, "BYTES", "16M",
                  "how much of a file one request asks for"}),
    per_call(Option{"yes", 0, kFlag, kRm, kHubGroup, "", "", "do not ask before removing"}),
    {"cache", 0, kText, kHub | kModels, kHubGroup, "FOLDER", "",
     "where pulled models are; default: as other programs of the field have it"},

    // Quality.
    per_call(Option{"data", 0, kText, kEval, kQuality, "FOLDER", "",
                    "eval_text.jsonl and sets of items, eval_NAME.jsonl"}),
    per_call(Option{"sets", 0, kText, kEval, kQuality, "LIST", "",
                    "only these of the folder, such as text,tools"}),
    {"constrained", 0, kFlag, kEval, kQuality, "", "",
     "answer items that ask for calls or JSON a second time, held to their grammar"},
    in_range(
        Option{"generations", 0, kInteger, kEval, kQuality, "N", "0",
               "also continue N texts by up to 1,024 tokens: what repeats itself, loops or ends "
               "early"},
        0, 10000),
    {"recall", 0, kFlag, kEval, kQuality, "", "",
     "also ask for a code that stands somewhere in a text, of all lengths that the context holds"},
    per_call(Option{"base", 0, kText, kEval, kQuality, "FILE", "",
                    "compare with the run that was kept there"}),
    per_call(Option{"write-base", 0, kText, kEval, kQuality, "FILE", "",
                    "keep this run there, for others to be compared with"}),
    in_range(Option{"base-top", 0, kInteger, kEval, kQuality, "N", "128",
                    "of how many tokens --write-base keeps the probability at each position"},
             1, kBaseTopMax),
    {"label", 0, kText, kEval, kQuality, "TEXT", "", "the row's name; default: the model's"},
    per_call(Option{"rows", 0, kText, kEval, kQuality, "FILE", "",
                    "add the row to those in FILE (JSON lines), and show all of them"}),
    per_call(Option{"svg", 0, kText, kEval, kQuality, "FILE", "",
                    "write a chart: divergence from the base against bytes per token"}),

    // Every verb.
    {"json", 0, kFlag, kAll, kGeneral, "", "", "machine-readable output, also of errors"},
    {"quiet", 'q', kFlag, kAll, kGeneral, "", "", "no progress and no figures"},
    {"verbose", 'v', kFlag, kAll, kGeneral, "", "", "more figures"},
    per_call(Option{"config", 0, kText, kAll, kGeneral, "FILE", "",
                    "settings; default: $XDG_CONFIG_HOME/penstock/config.toml"}),
};

}  // namespace

std::span<const Option> all_options() {
  return kOptions;
}

const Option* find_option(Verb verb, std::string_view name) {
  const auto found = std::ranges::find_if(kOptions, [&](const Option& option) {
    return option.name == name && (option.verbs & bit(verb)) != 0;
  });
  return found == std::end(kOptions) ? nullptr : found;
}

bool takes_model(Verb verb) {
  return (kModels & bit(verb)) != 0;
}

bool is_setting(std::string_view name) {
  return std::ranges::any_of(
      kOptions, [&](const Option& option) { return option.name == name && !option.per_call; });
}

std::string environment_name(const Option& option) {
  std::string name = "PENSTOCK_";
  for (const char c : option.name) {
    name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

}  // namespace penstock
