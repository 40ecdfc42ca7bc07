#include "cli/settings.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

using Variables = Environment::Variables;

CommandLine line(std::map<std::string, std::string, std::less<>> flags) {
  return {Verb::kRun, std::move(flags), {"model"}};
}

Settings resolved(const CommandLine& command_line, const Environment& environment,
                  const std::string& file) {
  const Result<ConfigFile> config = parse_config_file(file, "settings.toml");
  EXPECT_TRUE(config) << config.error().message;
  Result<Settings> settings = Settings::resolve(command_line, environment, *config);
  EXPECT_TRUE(settings) << settings.error().message;
  return std::move(settings).value();
}

TEST(Settings, flag_wins_over_environment_over_file_over_built_in) {
  const Environment none(Variables{});
  const Environment variable(Variables{{"PENSTOCK_TOP_K", "3"}});
  const Settings built_in = resolved(line({}), none, "");
  EXPECT_EQ(built_in.get("top-k").origin, Origin::kBuiltIn);
  EXPECT_FALSE(built_in.is_given("top-k"));
  const Settings file = resolved(line({}), none, "\ntop-k = 2\n");
  EXPECT_EQ(file.integer("top-k"), 2);
  EXPECT_EQ(file.get("top-k").place, "settings.toml:2");
  const Settings environment = resolved(line({}), variable, "top-k = 2\n");
  EXPECT_EQ(environment.integer("top-k"), 3);
  EXPECT_EQ(environment.get("top-k").place, "PENSTOCK_TOP_K");
  const Settings flag = resolved(line({{"top-k", "4"}}), variable, "top-k = 2\n");
  EXPECT_EQ(flag.integer("top-k"), 4);
  EXPECT_EQ(flag.get("top-k").place, "--top-k");
}

TEST(Settings, values_have_their_types) {
  const Settings settings = resolved(line({{"memory", "1.5GiB"}, {"temp", "0.25"}, {"json", "on"}}),
                                     Environment(Variables{}), "");
  EXPECT_EQ(settings.bytes("memory"), 3u << 29);
  EXPECT_EQ(settings.number("temp"), 0.25);
  EXPECT_TRUE(settings.is_on("json"));
  EXPECT_FALSE(settings.is_on("quiet"));
  EXPECT_TRUE(settings.is_on("verify"));
  EXPECT_EQ(settings.text("reader"), "auto");
}

TEST(Settings, inputs_of_one_call_are_not_taken_from_the_environment) {
  const Settings settings =
      resolved(line({}), Environment(Variables{{"PENSTOCK_PROMPT", "hello"}}), "");
  EXPECT_FALSE(settings.is_given("prompt"));
}

TEST(Settings, empty_variables_are_unset) {
  const Settings settings = resolved(line({}), Environment(Variables{{"PENSTOCK_TEMP", ""}}), "");
  EXPECT_FALSE(settings.is_given("temp"));
}

TEST(Options, every_name_and_letter_means_one_thing_per_verb) {
  for (const VerbText& verb : all_verbs()) {
    std::map<std::string, int> names;
    std::map<char, int> letters;
    for (const Option& option : all_options()) {
      if ((option.verbs & bit(verb.verb)) == 0) continue;
      EXPECT_EQ(++names[std::string(option.name)], 1) << option.name;
      if (option.letter != 0) {
        EXPECT_EQ(++letters[option.letter], 1) << option.name;
      }
      EXPECT_NE(option.letter, 'h') << option.name;
    }
  }
}

TEST(Options, every_built_in_value_is_one_that_the_option_takes) {
  for (const Option& option : all_options()) {
    if (option.fallback.empty()) continue;
    EXPECT_TRUE(check_value(option, std::string(option.fallback))) << option.name;
  }
}

TEST(Environment, settings_follow_the_base_directory_specification) {
  EXPECT_EQ(Environment(Variables{{"HOME", "/h"}}).config_directory(), "/h/.config/penstock");
  EXPECT_EQ(Environment(Variables{{"HOME", "/h"}}).state_directory(), "/h/.local/state/penstock");
  EXPECT_EQ(Environment(Variables{{"XDG_CONFIG_HOME", "/c"}, {"HOME", "/h"}}).config_directory(),
            "/c/penstock");
  EXPECT_EQ(Environment(Variables{{"XDG_CONFIG_HOME", "c"}, {"HOME", "/h"}}).config_directory(),
            "/h/.config/penstock");
  EXPECT_EQ(Environment(Variables{}).config_directory(), std::nullopt);
}

TEST(MisspeltVariables, are_told_with_what_was_meant) {
  const auto told = [](const std::string& name, const std::string& value) {
    const std::vector<std::string> texts =
        misspelt_variables(Environment(Variables{{name, value}}));
    return texts.empty() ? std::string() : texts.front();
  };
  EXPECT_EQ(told("PENSTOCK_MEMROY", "8G"),
            "PENSTOCK_MEMROY is no setting; did you mean PENSTOCK_MEMORY?");
  EXPECT_EQ(told("PENSTOCK_TOP-K", "1"),
            "PENSTOCK_TOP-K is no setting; did you mean PENSTOCK_TOP_K?");
  EXPECT_EQ(told("PENSTOCK_ZZZZZZZZZZZZ", "1"), "PENSTOCK_ZZZZZZZZZZZZ is no setting");
  EXPECT_EQ(told("PENSTOCK_PROMPT", "x"),
            "PENSTOCK_PROMPT is not read: --prompt is given with each call");
  for (const char* known :
       {"PENSTOCK_MEMORY", "PENSTOCK_CONFIG", "PENSTOCK_FORCE_TARGET", "PENSTOCK_JSON"}) {
    EXPECT_EQ(told(known, "1"), "") << known;
  }
  EXPECT_EQ(told("PENSTOCK_MEMROY", ""), "");
  EXPECT_EQ(told("PENSTOCKS", "1"), "");
}

}  // namespace
}  // namespace penstock
