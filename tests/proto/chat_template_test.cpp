#include "proto/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"

namespace mla::proto {
namespace {

using testing::HasSubstr;

// What makes a template of each form known; the real ones say more.
constexpr const char* kV2 =
    "{{ bos_token }}{{ 'User: ' + message['content'] + '\n\n' }}"
    "{{ 'Assistant: ' + message['content'] + eos_token }}{{ 'Assistant:' }}";
constexpr const char* kV3 =
    "{% set ns.system_prompt = message['content'] %}{{'<｜User｜>' + message['content']}}"
    "{{'<｜Assistant｜>' + message['content'] + '<｜end▁of▁sentence｜>'}}{{'<｜Assistant｜>'}}";
constexpr const char* kJoins = "{%- if ns.is_first_sp %}";
constexpr const char* kDrops = "{% set content = content.split('</think>')[-1] %}";
constexpr const char* kOpens = "{{'<｜Assistant｜><think>\\n'}}";

const std::vector<ChatMessage> kTalk{{"system", "Be brief."},
                                     {"user", "Hi"},
                                     {"assistant", "<think>hm</think>Hello"},
                                     {"system", "Be kind."},
                                     {"user", "Bye"}};

std::string rendered(const std::string& jinja) {
  return ChatTemplate(jinja, "<b>", "<e>").render(kTalk);
}

TEST(ChatTemplate, WritesTheFormOfV2) {
  EXPECT_EQ(rendered(kV2),
            "<b>Be brief.\n\nUser: Hi\n\nAssistant: <think>hm</think>Hello<e>Be kind.\n\n"
            "User: Bye\n\nAssistant:");
}

TEST(ChatTemplate, WritesTheFormOfV3) {
  EXPECT_EQ(rendered(kV3),
            "<b>Be kind.<｜User｜>Hi<｜Assistant｜><think>hm</think>Hello<｜end▁of▁sentence｜>"
            "<｜User｜>Bye<｜Assistant｜>");
  EXPECT_THAT(rendered(std::string(kV3) + kJoins), HasSubstr("<b>Be brief.\n\nBe kind.<｜User｜>"));
}

TEST(ChatTemplate, WritesTheLaterFormOfV3) {
  const ChatTemplate form(
      "{{'<｜User｜>' + message['content'] + '<｜Assistant｜>'}}{{ ns.system_prompt }}", "<b>", "");
  EXPECT_EQ(form.render(kTalk),
            "<b>Be kind.<｜User｜>Hi<｜Assistant｜><think>hm</think>Hello<｜end▁of▁sentence｜>"
            "<｜User｜>Bye<｜Assistant｜>");
  const std::vector<ChatMessage> two{{"user", "a"}, {"user", "b"}, {"assistant", "c"}};
  EXPECT_EQ(form.render(two),
            "<b><｜User｜>a<｜Assistant｜><｜User｜>b<｜Assistant｜>c"
            "<｜end▁of▁sentence｜><｜Assistant｜>");
}

TEST(ChatTemplate, WritesTheFormOfR1) {
  EXPECT_EQ(rendered(std::string(kV3) + kJoins + kDrops + kOpens),
            "<b>Be brief.\n\nBe kind.<｜User｜>Hi<｜Assistant｜>Hello<｜end▁of▁sentence｜>"
            "<｜User｜>Bye<｜Assistant｜><think>\n");
}

TEST(ChatTemplate, RefusesOtherForms) {
  for (const std::string& jinja : {std::string("{{ '<|im_start|>' + message['role'] }}"),
                                   kV3 + std::string("{% if thinking %}")}) {
    EXPECT_THAT(
        error_of([&] { rendered(jinja); }),
        HasSubstr("chat_template: of another model family; expected a template of DeepSeek"));
  }
}

TEST(ChatTemplate, RefusesOtherRoles) {
  const ChatTemplate form(kV3, "", "");
  const std::vector<ChatMessage> messages{{"tool", "42"}};
  EXPECT_THAT(error_of([&] { form.render(messages); }), HasSubstr("role: tool; expected system"));
}

TEST(ChatTemplate, IsReadFromTheModelsFolder) {
  const TempDir folder;
  EXPECT_THAT(error_of([&] { read_chat_template(folder.path()); }),
              HasSubstr("chat_template: the model has none"));
  const std::vector<ChatMessage> hi{{"user", "Hi"}};
  write_file(folder / "tokenizer_config.json",
             std::string(R"({"bos_token": {"content": "<b>"}, "chat_template": [)"
                         R"({"name": "tool", "template": "x"}, {"name": "default", "template": )"
                         R"("{{'<｜User｜>' + message['content']}}{{'<｜Assistant｜>' + x}})"
                         R"(ns.system_prompt"}]})"));
  EXPECT_EQ(read_chat_template(folder.path()).render(hi), "<b><｜User｜>Hi<｜Assistant｜>");
  write_file(folder / "chat_template.jinja", std::string(kV2));
  EXPECT_EQ(read_chat_template(folder.path()).render(hi), "<b>User: Hi\n\nAssistant:");
}

}  // namespace
}  // namespace mla::proto
