// Gates of checkpoints that are run in place, in the manner of gates_test.cc:
//
//   G24 a Hugging Face folder run in place == the model packed from it
//   G25 a checkpoint in any coding, run in place, in float32 == its float32 twin, the file of plain
//       floats that it decodes to; in fixed16 near that, by what 16 bits for an input do; in each of
//       them the same with any number of slots, threads, chunks, readers, instruction sets, with
//       drafts
//   G26 a coded checkpoint packed == run in place, in each arithmetic, in memory and streamed, and so
//       are its texts; packed in another type == its float32 twin packed so
//
// So the logits of a quantised checkpoint are exactly those of its dequantised weights in float32, and
// in fixed16 what compute/coded_panels.h makes of its codes; those of plain folders are held to the
// reference by the golden tests.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>

#include "compute/cpu/cpu_backend.h"
#include "support/fake_reader.h"
#include "support/source_twin.h"
#include "support/test_model.h"

namespace penstock::test {
namespace {

struct SourceAnswer {
  std::vector<float> logits;
  std::vector<std::vector<int32_t>> experts;
  std::vector<TokenId> tokens;
  uint64_t hash = 0;
  StoreStats store;

  bool operator==(const SourceAnswer& other) const {
    return same_bits(logits, other.logits) && experts == other.experts && tokens == other.tokens &&
           hash == other.hash;
  }
};

SourceAnswer source_answer(const EngineOptions& options) {
  const auto engine = open_engine(options);
  const auto prompt = random_tokens(37, engine->config().vocab_size, 7);
  Evaluation evaluation = evaluate(*engine, prompt);
  SourceAnswer answer;
  answer.logits = std::move(evaluation.logits);
  answer.experts = std::move(evaluation.experts);
  // A tokenizer says where an answer stops, and twins have none.
  if (engine->tokenizer() == nullptr) {
    Session session = value_of(engine->new_session());
    const GenerateResult result = continue_greedily(session, prompt, 10);
    answer.tokens = result.tokens;
    answer.hash = result.metrics.logits_hash;
  }
  answer.store = engine->experts().stats();
  return answer;
}

// The spread of what is compared: logits that are all the same would prove nothing.
void expect_sane(const SourceAnswer& answer) {
  const auto [low, high] = std::ranges::minmax(answer.logits);
  EXPECT_GT(high - low, 1e-3f);
  EXPECT_LT(high - low, 1e6f);
}

class FolderGate : public ::testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Models, FolderGate,
                         ::testing::Values("r0-gva2", "r1-tied", "r2-top1", "r3-wrapped",
                                           "m0-plain", "m1-raw", "m2-dense", "m3-tied"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST_P(FolderGate, g24_a_folder_in_place_is_the_model_packed_from_it) {
  const SourceAnswer packed = source_answer(small_options(packed_random(GetParam())));
  EngineOptions with = small_options(data_path(std::string("random/") + GetParam()));
  expect_sane(packed);
  EXPECT_TRUE(source_answer(with) == packed);
  with.threads = 3;
  with.chunk_tokens = 5;
  EXPECT_TRUE(source_answer(with) == packed);
}

struct Coded {
  const char* name;
  const char* file;  // "": the folder
};

class CodedGate : public ::testing::TestWithParam<Coded> {
 protected:
  static std::string path() {
    const Coded& c = GetParam();
    const std::string folder = data_path(std::string("sources/") + c.name);
    return *c.file == '\0' ? folder : folder + "/" + c.file;
  }
  static const SourceAnswer& twin() {
    static std::map<std::string, SourceAnswer> known;
    auto [place, is_new] = known.try_emplace(GetParam().name);
    if (is_new) {
      place->second = source_answer(small_options(write_f32_twin(path(), temporary_folder())));
      if (open_engine(small_options(path()))->tokenizer() != nullptr) {
        place->second.tokens.clear();
        place->second.hash = 0;
      }
    }
    return place->second;
  }
  static const SourceAnswer& in_fixed16() {
    static std::map<std::string, SourceAnswer> known;
    auto [place, is_new] = known.try_emplace(GetParam().name);
    if (is_new) place->second = source_answer(small_options(path()));
    return place->second;
  }
};

INSTANTIATE_TEST_SUITE_P(Sources, CodedGate,
                         ::testing::Values(Coded{"gguf-mixed", "m.gguf"},
                                           Coded{"gguf-old", "m-00001-of-00003.gguf"},
                                           Coded{"gguf-mtp", "m.gguf"},
                                           Coded{"gguf-next", "m.gguf"}, Coded{"mlx-4", ""},
                                           Coded{"mlx-mxfp4", ""}, Coded{"fp8", ""}),
                         [](const auto& test) {
                           std::string name = test.param.name;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST_P(CodedGate, g25_a_coded_checkpoint_in_place_is_its_float32_twin) {
  expect_sane(twin());
  EngineOptions with = small_options(path());
  with.arithmetic = Arithmetic::kFloat32;
  EXPECT_TRUE(source_answer(with) == twin());
  with.threads = 2;
  with.speculation = Speculation::kOff;
  EXPECT_TRUE(source_answer(with) == twin()) << "two threads, no drafts";
  with.num_slots = 1;
  EXPECT_TRUE(source_answer(with) == twin()) << "one slot";
}

TEST_P(CodedGate, g25_in_fixed16_it_is_near_its_float32_twin) {
  const std::vector<float>& exact = twin().logits;
  const std::vector<float>& got = in_fixed16().logits;
  ASSERT_EQ(got.size(), exact.size());
  float largest = 0, difference = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    largest = std::max(largest, std::fabs(exact[i]));
    difference = std::max(difference, std::fabs(got[i] - exact[i]));
  }
  EXPECT_EQ(in_fixed16().experts, twin().experts);
  EXPECT_LT(difference, 1e-3f * largest);
  // FP8 has no whole numbers to multiply.
  const bool is_fp8 = std::string(GetParam().name) == "fp8";
  EXPECT_EQ(difference == 0, is_fp8);
}

TEST_P(CodedGate, g25_in_fixed16_threads_chunks_and_instructions_change_nothing) {
  for (const std::string& target : CpuBackend::targets()) {
    EngineOptions with = small_options(path());
    with.simd_target = target;
    with.threads = 3;
    with.chunk_tokens = 5;
    with.speculation = Speculation::kOff;
    EXPECT_TRUE(source_answer(with) == in_fixed16()) << target;
  }
}

TEST_P(CodedGate, g25_streamed_it_is_the_same_as_in_memory) {
  const auto engine = open_engine(small_options(path()));
  const int64_t all = engine->plan().num_experts;
  const int64_t top_k = engine->experts_per_token();
  for (const int64_t slots : {all / 2, top_k, int64_t{1}}) {
    EngineOptions with = small_options(path());
    with.num_slots = slots;
    with.chunk_tokens = 3 + slots;
    const SourceAnswer streamed = source_answer(with);
    EXPECT_TRUE(streamed == in_fixed16()) << slots << " slots";
    EXPECT_GT(streamed.store.evictions, 0u) << slots << " slots";
    with.reader_factory = [] {
      return std::make_unique<FakeReader>(FakeReaderOptions{.seed = 3, .depth = 5}, nullptr);
    };
    EXPECT_TRUE(source_answer(with) == in_fixed16()) << slots << " slots, another reader";
  }
}

TEST_P(CodedGate, g26_packed_it_is_the_same_as_in_place) {
  const std::string model = packed(path());
  EngineOptions with = small_options(model);
  EXPECT_TRUE(source_answer(with) == in_fixed16());
  with.threads = 3;
  with.chunk_tokens = 5;
  with.num_slots = 1;
  const SourceAnswer streamed = source_answer(with);
  EXPECT_TRUE(streamed == in_fixed16()) << "one slot, three threads";
  EXPECT_GT(streamed.store.evictions, 0u);
  EXPECT_GT(streamed.store.bytes_verified, 0u);
  for (const std::string& target : CpuBackend::targets()) {
    EngineOptions exact = small_options(model);
    exact.arithmetic = Arithmetic::kFloat32;
    exact.simd_target = target;
    EXPECT_TRUE(source_answer(exact) == twin()) << target;
  }
}

TEST_P(CodedGate, g26_packed_it_has_the_same_texts) {
  const auto in_place = open_engine(small_options(path()));
  const auto engine = open_engine(small_options(packed(path())));
  EXPECT_EQ(engine->tokenizer() == nullptr, in_place->tokenizer() == nullptr);
  EXPECT_EQ(engine->stop_ids(), in_place->stop_ids());
  EXPECT_EQ(normal_config(engine->config()), normal_config(in_place->config()));
  const auto* tokenizer = engine->tokenizer();
  if (tokenizer == nullptr) return;
  for (const char* text : {"ab ba", "<|im_end|>", "abba\n"}) {
    EXPECT_EQ(tokenizer->encode(text), in_place->tokenizer()->encode(text));
  }
}

TEST_P(CodedGate, g26_packed_in_another_type_it_is_its_twin_packed_so) {
  const std::string twin_file = write_f32_twin(path(), temporary_folder());
  // What keeps its codes is multiplied as floats, as its twin is.
  const auto exact_answer = [&](const std::string& source) {
    EngineOptions with = small_options(packed(source, std::nullopt, DType::kQ8));
    with.arithmetic = Arithmetic::kFloat32;
    return source_answer(with);
  };
  const SourceAnswer own = exact_answer(path()), of_twin = exact_answer(twin_file);
  EXPECT_FALSE(same_bits(own.logits, twin().logits)) << "the weights are others";
  EXPECT_TRUE(same_bits(own.logits, of_twin.logits));
  EXPECT_EQ(own.experts, of_twin.experts);
}

TEST(FloatGate, g26_a_file_of_floats_is_quantised_as_the_folder_is) {
  const std::string folder = data_path("random/r2-top1");
  const std::string file = write_f32_twin(folder, temporary_folder());
  const SourceAnswer expected =
      source_answer(small_options(packed(folder, DType::kQ4, DType::kQ8)));
  const SourceAnswer found = source_answer(small_options(packed(file, DType::kQ4, DType::kQ8)));
  EXPECT_TRUE(same_bits(found.logits, expected.logits));
  EXPECT_EQ(found.experts, expected.experts);
}

TEST(KeptChecksumsGate, a_file_that_is_not_what_it_was_at_its_first_read_is_noticed) {
  namespace fs = std::filesystem;
  const std::string folder = temporary_folder();
  const std::string path = folder + "/m.gguf";
  fs::copy_file(data_path("sources/gguf-next/m.gguf"), path);
  fs::permissions(path, fs::perms::owner_all);
  EngineOptions with = small_options(path);
  with.checksum_file = folder + "/state/sums";
  std::vector<float> logits;
  for (const bool is_first : {true, false}) {
    const auto engine = open_engine(with);
    const auto prompt = random_tokens(37, engine->config().vocab_size, 7);
    const Evaluation evaluation = evaluate(*engine, prompt);
    EXPECT_EQ(engine->experts().stats().checksums_learned > 0, is_first);
    EXPECT_GT(engine->experts().stats().bytes_verified, 0u);
    EXPECT_EQ(engine->checksum_note(), "");
    if (is_first) logits = evaluation.logits;
    EXPECT_TRUE(same_bits(evaluation.logits, logits));
    value_of(engine->keep_checksums());
  }
  // One bit of an expert, without a new time.
  const ModelSource source = value_of(ModelSource::open(posix_storage(), path));
  const auto place = source.experts()[0][ExpertPart::kDown].of(1).codes.offset + 5;
  const auto time = fs::last_write_time(path);
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(place));
    const auto byte = static_cast<char>(file.get() ^ 4);
    file.seekp(static_cast<std::streamoff>(place));
    file.put(byte);
  }
  fs::last_write_time(path, time);
  const auto engine = open_engine(with);
  Session session = value_of(engine->new_session());
  const auto prompt = random_tokens(37, engine->config().vocab_size, 7);
  const auto evaluated = session.evaluate(prompt, {}, {}, {});
  ASSERT_FALSE(evaluated.has_value());
  EXPECT_EQ(evaluated.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(evaluated.error().message.find("first read"), std::string::npos);
  // With a new time it is another file, and its sums are made anew.
  fs::last_write_time(path, time + std::chrono::seconds(1));
  const auto anew = open_engine(with);
  EXPECT_NE(anew->checksum_note(), "");
  EXPECT_FALSE(same_bits(evaluate(*anew, prompt).logits, logits));
}

}  // namespace
}  // namespace penstock::test
