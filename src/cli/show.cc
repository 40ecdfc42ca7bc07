// show: what is in a packed model, a Hugging Face or MLX folder, a GGUF or a safetensors file.

#include "cli/folders.h"
#include "cli/program.h"
#include "pack/describe.h"

namespace penstock {
namespace {

// What `pack` and `run` will say about the texts beside the weights.
void add_judgement(Call& call, Description& description) {
  const Result<std::vector<std::string>> notes = judge_folder(call.storage, call.argument(0));
  const std::vector<std::string> lines =
      notes ? *notes : std::vector<std::string>{"not usable: " + notes.error().message};
  for (const std::string& line : lines) description.text += "note: " + line + '\n';
  description.json["notes"] = lines;
}

}  // namespace

Result<int> show_verb(Call& call) {
  const DescribeDetail detail =
      call.settings.is_on("tensors") ? DescribeDetail::kTensors : DescribeDetail::kSummary;
  Description description = PENSTOCK_TRY(describe(call.storage, call.argument(0), detail));
  if (PENSTOCK_TRY(call.storage.is_directory(call.argument(0)))) add_judgement(call, description);
  if (call.json()) {
    call.output.write_line(description.json);
  } else {
    call.output.write(table_text(description.text));
  }
  return kExitDone;
}

}  // namespace penstock
