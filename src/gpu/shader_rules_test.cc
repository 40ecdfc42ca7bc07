// Every shader as it is run, read word by word: nothing in it computes with floats but additions,
// subtractions and multiplications that may not be contracted, and rounding is declared.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "gpu/shaders.h"

namespace penstock {
namespace {

using testing::IsEmpty;
using Words = std::vector<uint32_t>;

// Numbers of the SPIR-V specification.
enum Op : uint32_t {
  kExtInst = 12,
  kExecutionMode = 16,
  kTypeFloat = 22,
  kConvertFToU = 109,
  kConvertFToS = 110,
  kConvertSToF = 111,
  kConvertUToF = 112,
  kQuantizeToF16 = 116,
  kFConvert = 115,
  kFNegate = 127,
  kFAdd = 129,
  kFSub = 131,
  kFMul = 133,
  kFDiv = 136,
  kFRem = 140,
  kFMod = 141,
  kVectorTimesScalar = 142,
  kFirstOfMatrices = 143,
  kUDiv = 134,
  kSMod = 139,
  kISub = 130,
  kSelect = 169,
  kSpecConstantOp = 52,
  kDot = 148,
  kDecorate = 71,
  kGroupFAdd = 265,
  kFirstOfGroupFloat = 350,
  kLastOfGroupFloat = 358,
};
constexpr uint32_t kNoContraction = 42, kFma = 50;
constexpr uint32_t kSignedZeroInfNanPreserve = 4461, kRoundingModeRte = 4462;
constexpr size_t kHeaderWords = 5;

// What is wrong with a module; empty: nothing.
std::vector<std::string> faults_of(std::span<const uint32_t> words, bool may_fuse = false) {
  std::vector<std::string> faults;
  const auto fault = [&](const std::string& text) { faults.push_back(text); };
  if (words.size() < kHeaderWords || words[0] != 0x07230203u) return {"no SPIR-V"};
  std::set<uint32_t> not_contracted, modes;
  std::vector<uint32_t> arithmetic;
  std::set<uint32_t> differences;  // of constants that are chosen when a kernel is made
  for (size_t at = kHeaderWords; at < words.size();) {
    const uint32_t length = words[at] >> 16, op = words[at] & 0xffffu;
    if (length == 0 || at + length > words.size()) return {"an instruction is cut"};
    const auto word = [&](size_t i) { return i < length ? words[at + i] : 0; };
    switch (op) {
      case kDecorate:
        if (word(2) == kNoContraction) not_contracted.insert(word(1));
        break;
      case kExecutionMode:
        if (word(3) == 32) modes.insert(word(2));
        break;
      case kFAdd:
      case kFSub:
      case kFMul: arithmetic.push_back(word(2)); break;
      case kTypeFloat:
        if (word(2) != 32) fault("a float of " + std::to_string(word(2)) + " bits");
        break;
      case kExtInst:
        // GLSL.std.450: of integers alone UMin, SMin, UMax, SMax, the clamps and FindMsb; and Fma where a
        // device was seen to do it as it should.
        if (!(word(4) == kFma && may_fuse) &&
            !std::set<uint32_t>{38, 39, 41, 42, 44, 45, 73, 74, 75}.contains(word(4))) {
          fault("function " + std::to_string(word(4)) + " of GLSL");
        }
        break;
      case kConvertSToF: break;
      case kSpecConstantOp:
        // Computed when a kernel is made, also where its code is never run.
        if (word(3) == kISub) differences.insert(word(2));
        if (word(3) >= kUDiv && word(3) <= kSMod && word(3) != kFDiv &&
            differences.contains(word(5))) {
          fault("a constant divides by a difference, which may be zero");
        }
        break;
      default:
        if ((op >= kFDiv && op <= kDot && op != 137 && op != 138 && op != 139) ||
            (op >= kConvertFToU && op <= kQuantizeToF16 && op != 113 && op != 114) ||
            op == kFNegate || op == kGroupFAdd ||
            (op >= kFirstOfGroupFloat && op <= kLastOfGroupFloat)) {
          fault("instruction " + std::to_string(op));
        }
    }
    at += length;
  }
  for (const uint32_t id : arithmetic) {
    if (!not_contracted.contains(id)) fault("%" + std::to_string(id) + " may be contracted");
  }
  if (!modes.contains(kRoundingModeRte)) fault("rounding is not declared");
  if (!modes.contains(kSignedZeroInfNanPreserve)) fault("signed zeros may be lost");
  return faults;
}

TEST(ShaderRules, hold_in_every_shader) {
  for (const Shader shader : kShaders) {
    EXPECT_THAT(faults_of(spirv_of(shader), has_own_fused(shader)), IsEmpty()) << name_of(shader);
    EXPECT_EQ(faults_of(spirv_of(shader)).empty(), !has_own_fused(shader)) << name_of(shader);
  }
}

// Each rule finds what it is there for: one word of a good module is changed.
TEST(ShaderRules, are_broken_by_a_changed_word) {
  const std::span<const uint32_t> words = spirv_of(Shader::kProbe);
  const Words good(words.begin(), words.end());
  std::map<std::string, int> broken;
  for (size_t at = kHeaderWords; at < good.size(); at += good[at] >> 16) {
    const uint32_t op = good[at] & 0xffffu;
    Words bad = good;
    if (op == kDecorate && good[at + 2] == kNoContraction) {
      bad[at + 2] = 0;  // RelaxedPrecision
      EXPECT_EQ(faults_of(bad).size(), 1u);
      ++broken["contraction"];
    } else if (op == kExecutionMode && good[at + 2] >= kSignedZeroInfNanPreserve) {
      bad[at + 3] = 16;
      EXPECT_EQ(faults_of(bad).size(), 1u);
      ++broken["mode"];
    } else if (op == kFMul) {
      bad[at] = (good[at] & 0xffff0000u) | kFDiv;
      EXPECT_EQ(faults_of(bad).size(), 1u);
      ++broken["division"];
    } else if (op == kTypeFloat) {
      bad[at + 2] = 16;
      EXPECT_EQ(faults_of(bad).size(), 1u);
      ++broken["half"];
    } else if (op == kConvertSToF) {
      bad[at] = (good[at] & 0xffff0000u) | kFConvert;
      EXPECT_EQ(faults_of(bad).size(), 1u);
      ++broken["conversion"];
    }
  }
  EXPECT_EQ(broken["mode"], 2);
  for (const char* rule : {"contraction", "division", "half", "conversion"}) {
    EXPECT_GE(broken[rule], 1) << rule;
  }
  // The divisor that is a choice between a difference and one becomes the difference.
  Words product(spirv_of(Shader::kProduct).begin(), spirv_of(Shader::kProduct).end());
  for (size_t at = kHeaderWords; at < product.size(); at += product[at] >> 16) {
    if ((product[at] & 0xffffu) != kSpecConstantOp || product[at + 3] != kSelect) continue;
    Words bad = product;
    bad[at + 3] = kISub;
    broken["constant"] += static_cast<int>(faults_of(bad).size());
  }
  EXPECT_EQ(broken["constant"], 1);
  const Words cut(good.begin(), good.begin() + kHeaderWords + 1);  // of two words, the first
  EXPECT_THAT(faults_of(cut), testing::ElementsAre("an instruction is cut"));
}

}  // namespace
}  // namespace penstock
