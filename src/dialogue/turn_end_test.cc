#include "dialogue/turn_end.h"

#include <gtest/gtest.h>

#include "dialogue/test_tokenizer.h"

namespace penstock {
namespace {

using test::load_tokenizer;

std::string end_of(const char* chat_template) {
  ModelTexts texts;
  texts.tokenizer.emplace(load_tokenizer());
  texts.chat_template.emplace(*load_chat_template(chat_template, std::nullopt));
  const auto token = turn_end(texts);
  return token ? std::string(texts.tokenizer->token_bytes(*token)) : "none";
}

TEST(TurnEnd, is_the_token_behind_an_answer) {
  EXPECT_EQ(end_of("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
                   "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"),
            "<|im_end|>");
  EXPECT_EQ(end_of("{% for m in messages %}{{ m.role }}: {{ m.content }} \n<|endoftext|>"
                   "{% endfor %}"),
            "<|endoftext|>")
      << "blanks before it";
  EXPECT_EQ(end_of("{% for m in messages %}{% if m.role == 'user' %}<|im_start|>{{ m.content }}"
                   "{% else %}{{ m.content | trim }}<|im_end|>{% endif %}{% endfor %}"),
            "<|im_end|>");
}

TEST(TurnEnd, plain_text_behind_an_answer_is_none) {
  EXPECT_EQ(end_of("{% for m in messages %}{{ m.role }}: {{ m.content }}\nEnd.\n{% endfor %}"),
            "none");
  EXPECT_EQ(end_of("{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"), "none");
}

TEST(TurnEnd, a_template_that_refuses_or_hides_the_example_has_none) {
  EXPECT_EQ(end_of("{{ raise_exception('no assistant') }}"), "none");
  EXPECT_EQ(end_of("nothing of the messages<|im_end|>"), "none");
}

TEST(TurnEnd, texts_without_tokenizer_or_template_have_none) {
  EXPECT_FALSE(turn_end(ModelTexts()).has_value());
  ModelTexts texts;
  texts.tokenizer.emplace(load_tokenizer());
  EXPECT_FALSE(turn_end(texts).has_value());
}

}  // namespace
}  // namespace penstock
