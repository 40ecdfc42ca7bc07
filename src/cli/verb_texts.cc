// What the verbs are called, take and say of themselves.

#include <algorithm>

#include "cli/options.h"

namespace penstock {
namespace {

constexpr VerbText kVerbs[] = {
    {Verb::kRun, "run", "MODEL", 1, 1, "answer one prompt",
     "The prompt comes from --prompt, --file or standard input and is continued as it is; with\n"
     "--chat it is one message of a user. The answer goes to standard output, all else to\n"
     "standard error."},
    {Verb::kChat, "chat", "MODEL | --server URL", 0, 1, "talk with a model",
     "/help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves. With --server: with the "
     "model "
     "of\n"
     "a server that has OpenAI's API. With --allow the model may use tools of this machine, each "
     "shown\n"
     "before it acts, in the folder of --workspace; a command runs when you agree to it."},
    {Verb::kServe, "serve", "MODEL", 1, 1,
     "answer over HTTP: the APIs of OpenAI, Anthropic and Ollama, and a web page",
     "Listens at http://127.0.0.1:8080, for this machine only. --host with another address needs\n"
     "--api-key or --api-key-file; a path that ends with .sock is a unix socket. SIGTERM lets\n"
     "running answers end. Requests and what they may hold: docs/server.md."},
    {Verb::kPack, "pack", "SOURCE TARGET | --verify MODEL | --texts SOURCE MODEL", 1, 2,
     "turn a checkpoint into a penstock model",
     "SOURCE is a Hugging Face or MLX folder, or a GGUF file (the first of its shards); it stays "
     "as\n"
     "it is, unless --in-place consumes it, for who has no room for both. What is quantised "
     "already\n"
     "keeps every code unless --experts or --resident is given.\n"
     "Interrupted packing goes on where it was when the same command is given again. With "
     "--verify\n"
     "and one MODEL: check every byte of a packed model; of another one read all, and compare\n"
     "experts with their first reads. With --texts:\n"
     "give a packed model the tokenizer, template and generation config of SOURCE, those that it\n"
     "has; SOURCE may be MODEL itself, after its texts were edited."},
    {Verb::kPull, "pull", "USER/REPO[:QUANT]", 1, 1,
     "download a model from Hugging Face, or from a mirror of it",
     "Of GGUF the files of QUANT, as in user/repo:Q4_K_M; without QUANT the safetensors and the "
     "texts\n"
     "beside them. They go where other programs look for them: --cache, else $HF_HUB_CACHE, else\n"
     "$HF_HOME/hub, else ~/.cache/huggingface/hub. Interrupted, it goes on where it was when the "
     "same\n"
     "command is given again; every file is checked against its hash. HF_TOKEN or the token's "
     "file\n"
     "opens what is private, HF_ENDPOINT names a mirror. Afterwards the name stands for MODEL in "
     "all\n"
     "verbs. With --pack TARGET it is packed as well, by the flags of `pack`: the room for both "
     "is\n"
     "looked for before anything is downloaded, and interrupted, both go on where they were.\n"
     "Where there is no room for both, --shard-by-shard downloads a file of weights, verifies it,\n"
     "packs what is made of it, reads that back and removes the file before the next one but one\n"
     "comes: the same bytes, with room for TARGET and two files. They are in TARGET.source, not "
     "in\n"
     "the cache."},
    {Verb::kLs, "ls", "", 0, 0, "list the models that were pulled", ""},
    {Verb::kRm, "rm", "USER/REPO[:QUANT]", 1, 1, "remove a model that was pulled",
     "All of it, or the files of QUANT, or one --revision. Bytes that another revision needs "
     "stay."},
    {Verb::kShow, "show", "MODEL|FOLDER|FILE", 1, 1,
     "say what is in a model, a Hugging Face or MLX folder, or a GGUF file", ""},
    {Verb::kPlan, "plan", "MODEL|SHAPE", 1, 1,
     "say what would be kept in memory and how fast it would be, without loading",
     "Speeds need the rates of a machine: --flash-gbps and --dram-gbps, better with --gflops, or "
     "the\n"
     "profile that `penstock doctor` keeps. SHAPE is a model that need not be here: 35b, 122b, "
     "397b,\n"
     "next-80b, 2.4t, as in `penstock plan 397b --memory 48G --flash-gbps 7 --dram-gbps 60\n"
     "--gflops 1200`."},
    {Verb::kDoctor, "doctor", "[MODEL]", 0, 1, "measure this machine and say what makes it slow",
     "Takes about a minute. The disk is measured where MODEL lies, with its own experts. GPUs are\n"
     "listed with their memory, their rates, and whether they compute the bits that the CPU does.\n"
     "The rates of the rest are kept for `penstock plan` and --gpu auto."},
    {Verb::kBench, "bench", "MODEL", 1, 1, "measure the speed of a model on this machine",
     "Prompts (-p) and answers (-n) of these lengths, at these depths of the context, at these\n"
     "budgets. A warm cache has run before; a cold one is empty at every repetition. The rows are\n"
     "Markdown, or with --json one object a line with the keys of llama-bench."},
    {Verb::kSynth, "synth", "SHAPE TARGET", 2, 2,
     "write a model of a published shape with random weights",
     "For benchmarks without downloads: 35b, 122b, 397b, next-80b, coder-next, 30b, 235b, 2.4t, "
     "or\n"
     "the full name. Interrupted, it goes on where it was when the same command is given again."},
    {Verb::kLogits, "logits", "MODEL", 1, 1, "write the logits of given tokens to a file",
     "--ids names a JSON file: a list of token ids, or an object with the key input_ids.\n"
     "Writes safetensors: logits [tokens, vocabulary], with --routes also router.L.ids and\n"
     "router.L.weights [tokens, experts per token]."},
    {Verb::kScore, "score", "MODEL", 1, 1, "measure how well a model predicts texts",
     "--texts names a file of JSON lines with id and text. Each text is cut into windows of 1,024\n"
     "predicted tokens, each from an empty state. With --json one line per text: id, tokens,\n"
     "nll (summed, in nats), bytes."},
    {Verb::kAnswer, "answer", "MODEL", 1, 1, "answer a file of conversations, greedily",
     "--items names a file of JSON lines with id, messages, tools and enable_thinking.\n"
     "With --json one line per item: id, text."},
    {Verb::kEval, "eval", "MODEL", 1, 1, "measure a model's quality, also against another one",
     "--data names a folder with eval_text.jsonl (lines with id and text) and sets of items,\n"
     "eval_NAME.jsonl (id, messages, tools, expected). Told are perplexity and how many answers "
     "are\n"
     "exactly as expected, and valid as calls or JSON. --write-base keeps the run; with --base "
     "the\n"
     "next model is compared with it: KL divergence, same most likely token, items lost and "
     "gained\n"
     "and whether that is chance. --rows collects several runs in one table and one picture. What\n"
     "the numbers are and how sure: docs/quality.md."},
    {Verb::kConfig, "config", "show|knobs", 1, 1, "show every setting and where it comes from",
     "knobs: what time depends on and answers do not, with what won on this machine and is kept in "
     "its\n"
     "profile (lab/auto searches them). show: the settings. A flag wins over the environment, "
     "that\n"
     "over the configuration file, that over the model's generation_config.json, that over the\n"
     "built-in value."},
    {Verb::kCompletions, "completions", "bash|zsh|fish", 1, 1, "print a shell's completion script",
     ""},
    {Verb::kVersion, "version", "", 0, 0, "print the version", ""},
    {Verb::kHelp, "help", "[VERB]", 0, 1, "explain a verb", ""},
};
static_assert(std::size(kVerbs) == kNumVerbs);

}  // namespace

std::span<const VerbText> all_verbs() {
  return kVerbs;
}

const VerbText& text_of(Verb verb) {
  return kVerbs[static_cast<int>(verb)];
}

const VerbText* find_verb(std::string_view name) {
  const auto found = std::ranges::find(kVerbs, name, &VerbText::name);
  return found == std::end(kVerbs) ? nullptr : found;
}

}  // namespace penstock
