// A conversation to the prompt text that a model was trained on: the checkpoint's own template.
//
// Templates come with the weights as Jinja2 source. They are run by our own interpreter of the part
// of Jinja2 that chat templates use (jinja/template.h), in the setting that the reference
// implementation gives them: trim_blocks, lstrip_blocks, tojson without escapes of non-ASCII,
// raise_exception, strftime_now.
//
// Threads  render() is const and keeps nothing; any number of threads may call it.
// Limits   kChatBytesMax; steps, output bytes and nesting (jinja/template.h): a hostile template
// ends
//          in an Error within a second, or some for a conversation of megabytes.
// Errors   create(): kCorrupt or kUnsupported with the template's line; load_chat_template():
//          kNotFound if neither text has one.
//          render(): kInvalidArgument when the template itself refuses the messages
//          (raise_exception), kUnsupported or kInvalidArgument with the line for anything else.
// Source   the chat templates of Qwen3.5, Qwen3-Next and Qwen3-Coder-Next; Jinja2's documentation.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "text/jinja/strftime.h"

namespace penstock {

// Of all texts in the messages and tools of one prompt.
inline constexpr size_t kChatBytesMax = size_t{15} << 20;

struct ChatOptions {
  bool add_generation_prompt = true;
  std::optional<bool> enable_thinking;  // unset: the template's own default
  Json extra = Json::object();  // chat_template_kwargs: further variables; win over the rest
  // What the template's strftime_now tells; unset, the machine's clock is read at each render().
  std::optional<jinja::LocalTime> now;
};

class ChatTemplate {
 public:
  // `what` names the source in errors.
  static Result<ChatTemplate> create(std::string_view source, std::string_view what);
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // messages: an array as in the OpenAI API; tool_calls[].function.arguments may be JSON text and
  // is then parsed. tools: an array or null.
  Result<std::string> render(const Json& messages, const Json& tools,
                             const ChatOptions& options) const;

  size_t memory_bytes()
      const;  // for the memory plan; render() takes its own for the time of the call

  // Whether this word stands anywhere in its source: a variable that does not changes nothing.
  bool mentions(std::string_view name) const;

 private:
  struct Parts;
  explicit ChatTemplate(std::unique_ptr<const Parts> parts);
  // special_tokens: name to text, further variables for the template.
  static Result<ChatTemplate> create(std::string_view source, std::string_view what,
                                     Json special_tokens);
  friend Result<ChatTemplate> load_chat_template(std::optional<std::string_view>,
                                                 std::optional<std::string_view>);

  std::unique_ptr<const Parts> parts_;
};

// From the texts of a checkpoint's files, where they exist: chat_template.jinja wins over the
// "chat_template" of tokenizer_config.json (a string, or a list of {name, template}: "default").
// The template also sees that file's bos_token, eos_token and so on, as the reference shows them.
Result<ChatTemplate> load_chat_template(std::optional<std::string_view> jinja_file,
                                        std::optional<std::string_view> tokenizer_config_json);

}  // namespace penstock
