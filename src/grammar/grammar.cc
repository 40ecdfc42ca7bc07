#include "grammar/grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "grammar/text_length.h"

namespace penstock {
namespace {

constexpr size_t kStatesMax = 200'000;
constexpr uint16_t kUnknown = UINT16_MAX;

}  // namespace

class Grammar::Compiler {
 public:
  Compiler(const GrammarSource& source, GrammarWork& work) : source_(source), work_(work) {}

  Result<Grammar> run() {
    if (source_.depth_max == 0 || source_.depth_max >= kUnknown) {
      return Error{ErrorCode::kInvalidArgument, "the depth of a grammar must be 1 to 65534"};
    }
    PENSTOCK_TRY(build_rules());
    flatten();
    find_needs();
    PENSTOCK_TRY(check_needs());
    drop_dead_ends();
    PENSTOCK_TRY(find_first_bytes());
    find_stays();
    find_live();
    find_free_rules();
    out_.depth_max_ = source_.depth_max;
    return std::move(out_);
  }

 private:
  Error in_rule(uint32_t rule, std::string_view what) const {
    return {ErrorCode::kInvalidArgument,
            fmt::format("rule \"{}\" {}", out_.rule_names_[rule], what)};
  }

  const Rule& written(uint32_t rule) const { return source_.rule_at(rule_ids_[rule]); }

  // The root's automaton, and those of all rules that are called from there.
  Result<void> build_rules() {
    const std::vector<RuleFacts> facts = PENSTOCK_TRY(rule_facts(source_));
    compiled_.assign(source_.rule_count(), kNoId);
    compiled_[source_.root] = 0;
    rule_ids_.push_back(source_.root);
    size_t total = 0;
    for (size_t i = 0; i < rule_ids_.size(); ++i) {
      const Rule& rule = source_.rule_at(rule_ids_[i]);
      auto states = PENSTOCK_TRY(build_automaton(source_, facts, rule_ids_[i], work_.steps_left));
      if (rule.kind == Rule::Kind::kLength) {
        const auto limited = limit_length(states, rule.min, rule.max, work_.steps_left);
        if (!limited) return limited.error().with_context(fmt::format("rule \"{}\"", rule.name));
      }
      total += states.size();
      if (total > kStatesMax) {
        return Error{ErrorCode::kUnsupported,
                     fmt::format("the grammar is too large: more than {} states", kStatesMax)};
      }
      for (RuleState& state : states) {
        for (RuleCall& call : state.calls) {
          if (compiled_[call.rule] == kNoId) {
            compiled_[call.rule] = static_cast<uint32_t>(rule_ids_.size());
            rule_ids_.push_back(call.rule);
          }
          call.rule = compiled_[call.rule];
        }
      }
      const bool counts = rule.kind == Rule::Kind::kCount && facts[rule.rest].is_nullable;
      accept_min_.push_back(counts ? 0 : rule.min);
      automata_.push_back(std::move(states));
      out_.rule_names_.push_back(rule.name);
    }
    return {};
  }

  uint32_t guard_index(const Guard& guard) {
    if (guard.is_open()) return 0;
    if (!(out_.guards_.back() == guard) || out_.guards_.size() == 1) out_.guards_.push_back(guard);
    return static_cast<uint32_t>(out_.guards_.size() - 1);
  }

  void flatten() {
    out_.guards_.push_back({});
    uint32_t base = 0;
    for (uint32_t r = 0; r < automata_.size(); ++r) {
      const Rule& rule = written(r);
      CompiledRule compiled;
      compiled.start = base;
      compiled.count_cap = count_cap(rule);
      const bool counts_units = rule.kind == Rule::Kind::kLength;
      const bool limits_end = counts_units || rule.kind == Rule::Kind::kCount;
      for (const RuleState& from : automata_[r]) {
        State state;
        state.rule = r;
        state.is_accepting = from.is_accepting;
        state.ends_unit = counts_units && from.ends_unit;
        state.guard = guard_index(from.guard);
        state.accept_min = limits_end ? accept_min_[r] : 0;
        state.edges_begin = static_cast<uint32_t>(out_.edges_.size());
        state.edge_count = static_cast<uint16_t>(from.edges.size());
        state.calls_begin = static_cast<uint32_t>(out_.calls_.size());
        state.call_count = static_cast<uint16_t>(from.calls.size());
        for (ByteEdge edge : from.edges) {
          edge.target += base;
          out_.edges_.push_back(edge);
        }
        for (const RuleCall& call : from.calls) {
          out_.calls_.push_back({.rule = call.rule,
                                 .target = base + call.target,
                                 .add = call.add,
                                 .guard = guard_index(call.guard),
                                 .mark = call.mark == kNoId ? Marks{} : Marks::bit(call.mark),
                                 .may_be_empty = call.may_be_empty});
        }
        out_.states_.push_back(state);
        precedes_part_.push_back(from.precedes_part);
      }
      base += static_cast<uint32_t>(automata_[r].size());
      out_.rules_.push_back(compiled);
      automata_[r].clear();
    }
  }

  static uint32_t count_cap(const Rule& rule) {
    if (rule.max != kUnlimited) return kUnlimited;
    return std::max(rule.min, static_cast<uint32_t>(rule.items.size()));
  }

  // The rules that a members or items rule calls; only those that it cannot do without.
  std::vector<uint32_t> parts_of(uint32_t r, bool only_required) const {
    const Rule& rule = written(r);
    std::vector<uint32_t> parts;
    const auto add = [&](RuleId id, bool is_required) {
      if (id == kNoId || compiled_[id] == kNoId || (only_required && !is_required)) return;
      parts.push_back(compiled_[id]);
    };
    for (const Member& member : rule.members) add(member.value, member.required);
    if (rule.others) add(rule.others->value, false);
    for (size_t i = 0; i < rule.items.size(); ++i) add(rule.items[i], i < rule.min);
    add(rule.rest, rule.items.size() < rule.min);
    return parts;
  }

  // Level by level: which states can reach their rule's end with calls nested `level` deep.
  void find_needs() {
    const size_t count = out_.states_.size();
    std::vector<std::vector<uint32_t>> edges_into(count);
    std::vector<std::vector<std::pair<uint32_t, uint32_t>>> calls_into(count);  // (from, rule)
    std::vector<std::vector<std::pair<uint32_t, uint32_t>>> calls_of(out_.rules_.size());
    for (uint32_t s = 0; s < count; ++s) {
      State& state = out_.states_[s];
      state.need = kUnknown;
      for (uint32_t e = 0; e < state.edge_count; ++e) {
        edges_into[out_.edges_[state.edges_begin + e].target].push_back(s);
      }
      for (uint32_t c = 0; c < state.call_count; ++c) {
        const Call& call = out_.calls_[state.calls_begin + c];
        calls_into[call.target].push_back({s, call.rule});
        calls_of[call.rule].push_back({s, call.target});
      }
    }
    std::vector<std::vector<uint32_t>> parts(out_.rules_.size());
    for (uint32_t r = 0; r < parts.size(); ++r) {
      parts[r] = parts_of(r, true);
      out_.rules_[r].need = kUnknown;
    }
    std::vector<uint32_t> queue;
    const auto reach = [&](uint32_t s, uint16_t level) {
      if (out_.states_[s].need != kUnknown) return;
      out_.states_[s].need = level;
      queue.push_back(s);
    };
    for (uint32_t s = 0; s < count; ++s) {
      if (out_.states_[s].is_accepting) reach(s, 0);
    }
    std::vector<uint32_t> fresh;  // rules that became affordable on the level before
    for (uint32_t level = 0; level <= source_.depth_max; ++level) {
      const auto need = static_cast<uint16_t>(level);
      for (const uint32_t r : fresh) {
        for (const auto& [from, target] : calls_of[r]) {
          if (out_.states_[target].need <= need) reach(from, need);
        }
      }
      while (!queue.empty()) {
        const uint32_t s = queue.back();
        queue.pop_back();
        for (const uint32_t from : edges_into[s]) reach(from, need);
        for (const auto& [from, rule] : calls_into[s]) {
          if (out_.rules_[rule].need < need) reach(from, need);
        }
      }
      fresh.clear();
      for (uint32_t r = 0; r < parts.size(); ++r) {
        CompiledRule& rule = out_.rules_[r];
        if (rule.need != kUnknown || out_.states_[rule.start].need > need) continue;
        const bool is_affordable = std::ranges::all_of(
            parts[r], [&](uint32_t part) { return out_.rules_[part].need < need; });
        if (is_affordable) fresh.push_back(r);
      }
      for (const uint32_t r : fresh) out_.rules_[r].need = need;
    }
    raise_needs();
  }

  // Within a frame that still lacks something, so much depth must be left that it can come; and
  // behind what separates, whichever part is left to come.
  void raise_needs() {
    for (uint32_t s = 0; s < out_.states_.size(); ++s) {
      State& state = out_.states_[s];
      if (state.need == kUnknown) continue;
      const auto afford = [&](bool only_required) {
        for (const uint32_t part : parts_of(state.rule, only_required)) {
          const uint16_t need = out_.rules_[part].need;
          if (need != kUnknown) state.need = std::max(state.need, static_cast<uint16_t>(need + 1));
        }
      };
      const Rule::Kind kind = written(state.rule).kind;
      if (kind == Rule::Kind::kPlain || kind == Rule::Kind::kLength) continue;
      afford(true);
      if (precedes_part_[s]) afford(false);
    }
  }

  Result<void> check_needs() const {
    for (uint32_t r = 0; r < out_.rules_.size(); ++r) {
      if (out_.rules_[r].need != kUnknown) continue;
      return in_rule(r, fmt::format("can never end, or only in calls nested deeper than {}",
                                    source_.depth_max));
    }
    return {};
  }

  void drop_dead_ends() {
    std::vector<ByteEdge> edges;
    std::vector<Call> calls;
    for (State& state : out_.states_) {
      const auto edges_begin = static_cast<uint32_t>(edges.size());
      const auto calls_begin = static_cast<uint32_t>(calls.size());
      for (uint32_t e = 0; e < state.edge_count; ++e) {
        const ByteEdge& edge = out_.edges_[state.edges_begin + e];
        if (out_.states_[edge.target].need != kUnknown) edges.push_back(edge);
      }
      for (uint32_t c = 0; c < state.call_count; ++c) {
        const Call& call = out_.calls_[state.calls_begin + c];
        if (out_.states_[call.target].need != kUnknown) calls.push_back(call);
      }
      state.edges_begin = edges_begin;
      state.edge_count = static_cast<uint16_t>(edges.size() - edges_begin);
      state.calls_begin = calls_begin;
      state.call_count = static_cast<uint16_t>(calls.size() - calls_begin);
      state.is_final = state.is_accepting && state.edge_count == 0 && state.call_count == 0 &&
                       state.guard == 0 && state.accept_min == 0;
    }
    out_.edges_ = std::move(edges);
    out_.calls_ = std::move(calls);
  }

  // The rules that a rule may call before it takes a byte.
  std::vector<uint32_t> calls_at_start(uint32_t r) const {
    std::vector<uint32_t> called;
    std::vector<uint32_t> states = {out_.rules_[r].start};
    for (size_t i = 0; i < states.size(); ++i) {
      const State& state = out_.states_[states[i]];
      for (uint32_t c = 0; c < state.call_count; ++c) {
        const Call& call = out_.calls_[state.calls_begin + c];
        called.push_back(call.rule);
        if (call.may_be_empty && std::ranges::find(states, call.target) == states.end()) {
          states.push_back(call.target);
        }
      }
    }
    return called;
  }

  // Depth first over those calls; a call to a rule that is still open is left recursion.
  Result<void> find_first_bytes() {
    enum class Mark : uint8_t { kNew, kOpen, kDone };
    const size_t count = out_.rules_.size();
    std::vector<Mark> marks(count, Mark::kNew);
    std::vector<std::vector<uint32_t>> called(count);
    for (uint32_t r = 0; r < count; ++r) called[r] = calls_at_start(r);
    std::vector<std::pair<uint32_t, size_t>> path;
    for (uint32_t root = 0; root < count; ++root) {
      if (marks[root] != Mark::kNew) continue;
      path.push_back({root, 0});
      marks[root] = Mark::kOpen;
      while (!path.empty()) {
        const uint32_t r = path.back().first;
        if (path.back().second < called[r].size()) {
          const uint32_t next = called[r][path.back().second++];
          if (marks[next] == Mark::kOpen) {
            return in_rule(next, "calls itself before it takes a byte (left recursion)");
          }
          if (marks[next] == Mark::kDone) continue;
          marks[next] = Mark::kOpen;
          path.push_back({next, 0});
          continue;
        }
        collect_first(r, called[r]);
        marks[r] = Mark::kDone;
        path.pop_back();
      }
    }
    return {};
  }

  void collect_first(uint32_t r, const std::vector<uint32_t>& called) {
    CompiledRule& rule = out_.rules_[r];
    for (const uint32_t other : called) rule.first |= out_.rules_[other].first;
    std::vector<uint32_t> states = {rule.start};
    for (size_t i = 0; i < states.size(); ++i) {
      const State& state = out_.states_[states[i]];
      for (uint32_t e = 0; e < state.edge_count; ++e) {
        const ByteEdge& edge = out_.edges_[state.edges_begin + e];
        for (uint32_t byte = edge.first; byte <= edge.last; ++byte) rule.first.set(byte);
      }
      for (uint32_t c = 0; c < state.call_count; ++c) {
        const Call& call = out_.calls_[state.calls_begin + c];
        if (call.may_be_empty && std::ranges::find(states, call.target) == states.end()) {
          states.push_back(call.target);
        }
      }
    }
  }

  // All bytes of [first, last] lead from `state` on to states from which `rest` more bytes of a
  // character lead to `home`. `utf8` is where the character is.
  bool returns_home(uint32_t state, uint8_t utf8, uint32_t home) const {
    if (utf8 == 0) return state == home;
    if (!work_.take(1)) return false;  // it is then found out while masks are made
    for (uint32_t byte = 0x80; byte < 0xC0;) {
      const uint8_t next = next_utf8_state(utf8, static_cast<uint8_t>(byte));
      if (next == kUtf8Broken) {
        ++byte;
        continue;
      }
      const State& from = out_.states_[state];
      const ByteEdge* found = nullptr;
      for (uint32_t e = 0; e < from.edge_count; ++e) {
        const ByteEdge& edge = out_.edges_[from.edges_begin + e];
        if (byte >= edge.first && byte <= edge.last) found = &edge;
      }
      if (found == nullptr || !returns_home(found->target, next, home)) return false;
      byte = found->last + 1u;  // one class: the sequences of UTF-8 are cut at its own borders
    }
    return true;
  }

  void find_live() {
    for (State& state : out_.states_) {
      std::bitset<256> bytes;
      for (uint32_t e = 0; e < state.edge_count; ++e) {
        const ByteEdge& edge = out_.edges_[state.edges_begin + e];
        for (uint32_t byte = edge.first; byte <= edge.last; ++byte) bytes.set(byte);
      }
      for (uint32_t c = 0; c < state.call_count; ++c) {
        const Call& call = out_.calls_[state.calls_begin + c];
        bytes |= out_.rules_[call.rule].first;
        if (call.may_be_empty) bytes.set();
      }
      state.live = groups_of(bytes);
    }
  }

  void find_free_rules() {
    for (uint32_t r = 0; r < out_.rules_.size(); ++r) {
      const Rule::Kind kind = written(r).kind;
      out_.rules_[r].is_free = kind == Rule::Kind::kPlain || kind == Rule::Kind::kLength;
    }
    for (const State& state : out_.states_) {
      CompiledRule& rule = out_.rules_[state.rule];
      const Guard& guard = out_.guards_[state.guard];
      rule.free_min = std::max({rule.free_min, state.accept_min, guard.count_min});
      rule.free_max = std::min(rule.free_max, guard.count_max);
    }
  }

  // Directly, or by a character of several bytes. Of most states it is quickly seen that not.
  bool may_lead_to(uint32_t s, uint32_t home) const {
    const State& from = out_.states_[s];
    for (uint32_t e = 0; e < from.edge_count; ++e) {
      const ByteEdge& edge = out_.edges_[from.edges_begin + e];
      if (edge.target == home || edge.last >= 0xF4) return true;
    }
    return false;
  }

  // The groups of bytes on which `s` leads to `home`.
  ByteGroups groups_to(uint32_t s, uint32_t home) const {
    if (!may_lead_to(s, home)) return 0;
    ByteGroups leaves = 0;
    for (uint32_t byte = 0; byte < 128; ++byte) {
      if (out_.next_state(s, static_cast<uint8_t>(byte)) != home) leaves |= kAsciiGroups[byte];
    }
    bool all_bytes = true;
    bool all_characters = true;
    for (uint32_t byte = 128; byte < 256; ++byte) {
      const uint32_t next = out_.next_state(s, static_cast<uint8_t>(byte));
      all_bytes = all_bytes && next == home;
      const uint8_t utf8 = next_utf8_state(0, static_cast<uint8_t>(byte));
      if (utf8 == kUtf8Broken || !all_characters) continue;
      all_characters = next != kNoState && returns_home(next, utf8, home);
    }
    if (!all_bytes) leaves |= kBrokenCharacters;
    if (!all_bytes && !all_characters) leaves |= kWholeCharacters;
    return ~leaves;
  }

  // First the states that are their own home, then those from which one byte leads there.
  void find_stays() {
    const auto is_plain = [&](const State& state) {
      const Guard& guard = out_.guards_[state.guard];
      return !guard.unseen.any() && !guard.has_needs;
    };
    for (uint32_t s = 0; s < out_.states_.size(); ++s) {
      State& state = out_.states_[s];
      state.home = s;
      if (is_plain(state)) state.stays = groups_to(s, s);
    }
    for (uint32_t s = 0; s < out_.states_.size(); ++s) {
      State& state = out_.states_[s];
      if (state.stays != 0) continue;
      for (uint32_t e = 0; e < state.edge_count && state.stays == 0; ++e) {
        const uint32_t home = out_.edges_[state.edges_begin + e].target;
        const State& other = out_.states_[home];
        if (home == s || other.home != home || other.stays == 0 || other.need > state.need)
          continue;
        const ByteGroups shared = other.stays & groups_to(s, home);
        if (shared == 0) continue;
        state.stays = shared;
        state.home = home;
      }
    }
  }

  const GrammarSource& source_;
  GrammarWork& work_;
  std::vector<uint32_t> compiled_;  // by written rule
  std::vector<RuleId> rule_ids_;    // by compiled rule
  std::vector<uint32_t> accept_min_;
  std::vector<bool> precedes_part_;  // by state
  std::vector<std::vector<RuleState>> automata_;
  Grammar out_;
};

Result<Grammar> Grammar::compile(const GrammarSource& source, GrammarWork& work) {
  return Compiler(source, work).run();
}

int64_t Grammar::memory_bytes() const {
  return static_cast<int64_t>(
      states_.capacity() * sizeof(State) + edges_.capacity() * sizeof(ByteEdge) +
      calls_.capacity() * sizeof(Call) + guards_.capacity() * sizeof(Guard) +
      rules_.capacity() * sizeof(CompiledRule));
}

}  // namespace penstock
