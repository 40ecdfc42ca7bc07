// The process's environment, read in this one place and nowhere else in the program.
//
// Handed down as a value, so that a test can put any environment under the code above it.
#pragma once

#include <map>
#include <optional>
#include <string>

namespace penstock {

class Environment {
 public:
  using Variables = std::map<std::string, std::string>;

  static Environment of_process();
  explicit Environment(Variables variables) : variables_(std::move(variables)) {}

  const Variables& variables() const { return variables_; }

  // Set and not empty: an empty variable is the shell's way to unset one.
  std::optional<std::string> get(const std::string& name) const;

  // $XDG_CONFIG_HOME/penstock, $XDG_STATE_HOME/penstock, with their defaults under $HOME.
  // Nothing where there is no $HOME either.
  std::optional<std::string> config_directory() const;
  std::optional<std::string> state_directory() const;

 private:
  std::optional<std::string> directory(const std::string& variable,
                                       const std::string& below_home) const;

  Variables variables_;
};

}  // namespace penstock
