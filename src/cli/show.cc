// show: what is in a packed model, a Hugging Face or MLX folder, a GGUF or a safetensors file.

#include "cli/program.h"
#include "pack/describe.h"

namespace penstock {

Result<int> show_verb(Call& call) {
  const DescribeDetail detail =
      call.settings.is_on("tensors") ? DescribeDetail::kTensors : DescribeDetail::kSummary;
  const Description description = PENSTOCK_TRY(describe(call.storage, call.argument(0), detail));
  if (call.json()) {
    call.output.write_line(description.json);
  } else {
    call.output.write(table_text(description.text));
  }
  return kExitDone;
}

}  // namespace penstock
