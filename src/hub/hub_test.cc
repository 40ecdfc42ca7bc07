#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "hub/choice.h"
#include "hub/hash.h"
#include "hub/kept_ranges.h"
#include "hub/name.h"
#include "hub/range_journal.h"
#include "hub/range_reads.h"
#include "hub/response_head.h"
#include "hub/retries.h"
#include "hub/url.h"
#include "support/sim_storage.h"

namespace penstock {
namespace {

using testing::HasSubstr;

TEST(HubName, has_one_slash_and_perhaps_a_quantisation) {
  EXPECT_EQ(*parse_hub_name("org/Model-3.5"), (HubName{"org", "Model-3.5", ""}));
  EXPECT_EQ(*parse_hub_name("org/m:UD-Q4_K_XL"), (HubName{"org", "m", "UD-Q4_K_XL"}));
  for (const char* text :
       {"", "m", "/m", "org/", "a/b/c", "a/b:", "a/b:c:d", "../b", "a/..", "a/b..c", "a/b--c",
        "a/.b", "a/b.", "-a/b", "a/b c", "a/b:c/d", "a/\xc3\xa4", "a/b\n"}) {
    EXPECT_FALSE(parse_hub_name(text)) << text;
  }
  EXPECT_FALSE(parse_hub_name("a/" + std::string(97, 'b')));
  EXPECT_TRUE(parse_hub_name("a/" + std::string(96, 'b')));
}

TEST(HubName, revisions_and_file_names_stay_in_their_folders) {
  for (const char* text : {"main", "v1.0", "refs/pr/3"}) EXPECT_TRUE(check_revision(text)) << text;
  for (const char* text : {"", "/main", "main/", "a//b", "a/../b", ".git", "-x", "a b"}) {
    EXPECT_FALSE(check_revision(text)) << text;
  }
  for (const char* name : {"a.gguf", "Q4/a b.gguf", "..a", "a..b/c"}) {
    EXPECT_TRUE(check_repo_file_name(name)) << name;
  }
  for (const char* name : {"", "/a", "a/", "a//b", "..", "a/..", "./a", "a\\b", "a\x1b", "a\x7f"}) {
    EXPECT_FALSE(check_repo_file_name(name)) << name;
  }
}

std::vector<RepoFile> files_named(const std::vector<std::string>& names) {
  std::vector<RepoFile> files;
  for (const std::string& name : names) files.push_back({name, 10, std::string(40, 'a'), false});
  return files;
}

// The names of what is chosen, or the sentence of the error.
std::vector<std::string> choice_of(const std::vector<std::string>& names, const std::string& name) {
  const std::vector<RepoFile> files = files_named(names);
  const auto choice = choose_model(files, *parse_hub_name(name), "there");
  if (!choice) return {choice.error().message};
  std::vector<std::string> chosen;
  for (const RepoFile* file : choice->files) chosen.push_back(file->name);
  return chosen;
}

TEST(ModelChoice, the_tag_that_is_typed_wins_over_one_that_ends_with_it) {
  const std::vector<std::string> names = {"M-Q4_K_M.gguf", "M-UD-Q4_K_M.gguf", "M.Q8_0.gguf"};
  using Names = std::vector<std::string>;
  EXPECT_EQ(choice_of(names, "o/m:q4_k_m"), Names{"M-Q4_K_M.gguf"});
  EXPECT_EQ(choice_of(names, "o/m:UD-Q4_K_M"), Names{"M-UD-Q4_K_M.gguf"});
  EXPECT_EQ(choice_of(names, "o/m:Q8_0"), Names{"M.Q8_0.gguf"});
  EXPECT_EQ(choice_of({"M-UD-Q4_K_M.gguf"}, "o/m:Q4_K_M"), Names{"M-UD-Q4_K_M.gguf"});
  EXPECT_THAT(choice_of(names, "o/m:K_M").front(), HasSubstr("has several files of K_M"));
  EXPECT_THAT(choice_of(names, "o/m:Q2_K").front(), HasSubstr("it has Q4_K_M"));
}

TEST(ModelChoice, splits_are_one_model_and_must_all_be_there) {
  const std::string a = "Q8_0/M-Q8_0-00001-of-00002.gguf", b = "Q8_0/M-Q8_0-00002-of-00002.gguf";
  EXPECT_EQ(choice_of({b, a, "mmproj-F16.gguf", "imatrix.gguf"}, "o/m"),
            (std::vector<std::string>{a, b}));
  EXPECT_THAT(choice_of({b}, "o/m:Q8_0").front(), HasSubstr("has 1 of the 2 parts"));
  EXPECT_EQ(choice_of({"M-00003-of-00002.gguf"}, "o/m"),
            std::vector<std::string>{"M-00003-of-00002.gguf"});
}

TEST(ModelChoice, safetensors_come_where_no_tag_is_typed) {
  const std::vector<std::string> names = {"M-Q8_0.gguf", "config.json", "consolidated.safetensors",
                                          "model.safetensors", "tokenizer.json"};
  EXPECT_EQ(choice_of(names, "o/m"),
            (std::vector<std::string>{"config.json", "model.safetensors", "tokenizer.json"}));
  EXPECT_EQ(choice_of(names, "o/m:Q8_0"), std::vector<std::string>{"M-Q8_0.gguf"});
  EXPECT_THAT(choice_of({"config.json", "model.safetensors"}, "o/m:Q8_0").front(),
              HasSubstr("no GGUF"));
  EXPECT_THAT(choice_of({"model.bin"}, "o/m").front(), HasSubstr("it has model.bin"));
}

TEST(ModelChoice, a_file_of_weights_is_one_in_any_letters_that_are_chosen) {
  for (const char* name : {"m.gguf", "Q4/M-Q4_0.GGUF", "model.safetensors"}) {
    EXPECT_TRUE(is_weights(name)) << name;
  }
  for (const char* name : {"config.json", "m.gguf.txt", "gguf", "model.safetensors.index.json"}) {
    EXPECT_FALSE(is_weights(name)) << name;
  }
  EXPECT_EQ(choice_of({"M-Q4_0.GGUF"}, "o/m:Q4_0"), std::vector<std::string>{"M-Q4_0.GGUF"});
}

TEST(RangeReads, ranges_that_lie_near_come_together_and_not_too_many) {
  using Ranges = std::vector<ByteRange>;
  EXPECT_EQ(merged({{50, 10}, {0, 20}, {10, 20}, {55, 2}}), (Ranges{{0, 30}, {50, 10}}));
  EXPECT_EQ(num_joined(Ranges{{0, 256}, {256 + kRangeGapBytes, 256}, {1 << 20, 256}}), 2u);
  EXPECT_EQ(num_joined(Ranges{{0, 256}, {257 + kRangeGapBytes, 256}}), 1u);
  EXPECT_EQ(num_joined(Ranges{{0, 1u << 30}}), 1u) << "one alone may be as large as it is";
  // Small tensors one after the other, to the end of a file that nobody has room for.
  Ranges many;
  for (uint64_t at = 0; at < 1u << 30; at += 50'000) many.push_back({at, 256});
  const size_t count = num_joined(many);
  EXPECT_GT(count, 10u);
  EXPECT_LE(many[count - 1].end(), kJoinedBytesMax);
}

// What an earlier run left: each as "file@offset: bytes".
std::vector<std::string> kept_in(Storage& disk, const std::string& commit,
                                 std::optional<KeptRanges>& kept) {
  std::vector<std::string> told;
  kept.reset();
  kept.emplace(*KeptRanges::open(disk, "/kept", commit, [&](const KeptRange& range) {
    const auto* text = reinterpret_cast<const char*>(range.bytes.data());
    told.push_back(std::to_string(range.file) + "@" + std::to_string(range.offset) + ": " +
                   std::string(text, range.bytes.size()));
  }));
  return told;
}

void keep(KeptRanges& kept, uint64_t file, uint64_t offset, const std::string& text) {
  const KeptRange range{file, offset, std::as_bytes(std::span(text))};
  kept.add(std::span(&range, 1)).value();
}

TEST(KeptRanges, a_later_run_has_what_came_and_nothing_that_is_torn_or_of_another_commit) {
  using Told = std::vector<std::string>;
  const std::string commit(40, 'a');
  SimStorage disk;
  std::optional<KeptRanges> kept;
  EXPECT_EQ(kept_in(disk, commit, kept), Told{});
  keep(*kept, 7, 0, "head");
  keep(*kept, UINT64_MAX, UINT64_MAX, "");
  keep(*kept, 8, 1000, "middle");
  const Told all = {"7@0: head", "18446744073709551615@18446744073709551615: ", "8@1000: middle"};
  EXPECT_EQ(kept_in(disk, commit, kept), all);
  // Cut anywhere, what is whole counts, and it is gone on with.
  const std::string whole = *read_text(disk, "/kept", 1 << 20);
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    disk.truncate("/kept", bytes);
    const Told left = kept_in(disk, commit, kept);
    ASSERT_TRUE(std::equal(left.begin(), left.end(), all.begin())) << bytes;
    keep(*kept, 9, 5, "new");
    Told more = left;
    more.push_back("9@5: new");
    const Told again = kept_in(disk, commit, kept);
    ASSERT_EQ(again, more) << bytes;
    disk.open("/kept", OpenMode::kCreate)
        .value()
        ->write(0, std::as_bytes(std::span(whole)))
        .value();
  }
  // So with a bit that is wrong, wherever it is.
  for (size_t bit = 0; bit < whole.size() * 8; bit += 3) {
    disk.flip_stored_bit("/kept", bit);
    const Told left = kept_in(disk, commit, kept);
    ASSERT_LT(left.size(), all.size()) << bit;
    ASSERT_TRUE(std::equal(left.begin(), left.end(), all.begin())) << bit;
    disk.open("/kept", OpenMode::kCreate)
        .value()
        ->write(0, std::as_bytes(std::span(whole)))
        .value();
  }
  EXPECT_EQ(kept_in(disk, commit, kept), all);
  EXPECT_EQ(kept_in(disk, std::string(40, 'b'), kept), Told{});
}

HttpDone refused_for_now(const std::string& wait_s) {
  HttpDone done;
  done.head.add_line("HTTP/1.1 429 Too Many Requests\r\n");
  done.head.add_line("Retry-After: " + wait_s + "\r\n");
  return done;
}

TEST(Retries, transfers_that_are_told_to_wait_together_are_one_wait) {
  Retries retries({}, [](const std::string&) {});
  for (int transfer = 0; transfer < 200; ++transfer) {
    ASSERT_TRUE(retries.failed(refused_for_now("300"), "a file").has_value()) << transfer;
  }
  EXPECT_FALSE(retries.may_start());
  EXPECT_FALSE(retries.failed(refused_for_now("7200"), "a file").has_value());
}

TEST(Retries, waits_that_bring_nothing_end) {
  Retries retries({}, [](const std::string&) {});
  const auto num_waits = [&] {
    for (int wait = 0; wait < 1000; ++wait) {
      if (!retries.failed(refused_for_now("0"), "a file")) return wait;
    }
    return 1000;
  };
  EXPECT_EQ(num_waits(), 50);
  retries.made_progress();
  EXPECT_EQ(num_waits(), 50);
}

TEST(RangeJournal, tells_what_is_whole_and_forgets_what_does_not_fit) {
  const std::string text = "penstock-ranges 1 100 30 \"e\"\n0\n3\n9\nx\n-1\n2";
  const PieceMap map = parse_journal(text, 100, 30);
  EXPECT_EQ(map.etag, "\"e\"");
  EXPECT_EQ(map.done, (std::vector<bool>{true, false, false, true}));  // the last line is torn
  EXPECT_EQ(map.bytes_done(), 40u);
  EXPECT_EQ(parse_journal(text, 101, 30).bytes_done(), 0u);
  EXPECT_EQ(parse_journal(text, 100, 31).bytes_done(), 0u);
  EXPECT_EQ(parse_journal("", 100, 30).bytes_done(), 0u);
  EXPECT_TRUE(parse_journal("", 0, 30).done.empty());
}

TEST(ResponseHead, is_read_line_by_line) {
  ResponseHead head;
  for (const char* line :
       {"HTTP/1.1 100 Continue\r\n", "ETag: \"old\"\r\n", "\r\n",
        "HTTP/1.1 206 Partial Content\r\n", "etag: W/\"a\"\r\n", "Content-Range: bytes 0-9/20\r\n",
        "content-length: 10\r\n", "rubbish", "RateLimit: \"api\";r=0;t=55\r\n"}) {
    head.add_line(line);
  }
  EXPECT_EQ(head.status, 206);
  EXPECT_EQ(head.strong_etag(), "");
  EXPECT_EQ(head.content_range->last, 9u);
  EXPECT_EQ(head.content_length, 10u);
  EXPECT_EQ(head.wait_s(0), 55u);
  head.add_line("Retry-After: Thu, 01 Jan 1970 00:02:00 GMT");
  EXPECT_EQ(head.wait_s(100), 20u);
  head.add_line("Retry-After: 7");
  EXPECT_EQ(head.wait_s(100), 7u);
}

TEST(ResponseHead, ranges_that_say_nothing_are_none) {
  EXPECT_EQ(parse_content_range("bytes 5-9/10")->first, 5u);
  EXPECT_FALSE(parse_content_range("bytes 5-9/*")->total);
  for (const char* text :
       {"", "bytes", "bytes */10", "bytes 9-5/10", "bytes 0-10/10", "bytes 0-9/x", "items 0-9/10",
        "bytes 0-99999999999999999999/10", "bytes 1/2-3"}) {
    EXPECT_FALSE(parse_content_range(text)) << text;
  }
}

TEST(Url, redirects_stay_encrypted_and_without_names) {
  EXPECT_EQ(*follow("https://a.example/x/y?z=1", "/b"), "https://a.example/b");
  EXPECT_EQ(*follow("https://a.example/x/y", "https://b.example/c?d=%2F"),
            "https://b.example/c?d=%2F");
  EXPECT_TRUE(follow("http://a.example/", "https://a.example/"));
  for (const char* target : {"http://a.example/", "ftp://a.example/", "file:///etc/passwd",
                             "https://me@b.example/", "https://", "https://a b/"}) {
    EXPECT_FALSE(follow("https://a.example/x", target)) << target;
  }
}

TEST(Url, an_origin_is_scheme_host_and_port) {
  EXPECT_EQ(*parse_origin("https://A.example/b"), *parse_origin("https://a.example:443"));
  EXPECT_FALSE(*parse_origin("https://a.example") == *parse_origin("http://a.example:443"));
  EXPECT_FALSE(*parse_origin("https://a.example") == *parse_origin("https://a.example.evil"));
  EXPECT_FALSE(parse_origin("https://a.example@evil/"));
  EXPECT_FALSE(parse_origin("a.example"));
  EXPECT_TRUE(parse_origin("http://[::1]:80")->is_this_machine());
  EXPECT_FALSE(parse_origin("http://10.0.0.1")->is_this_machine());
  EXPECT_EQ(percent_encoded("a b/ä%"), "a%20b%2F%C3%A4%25");
}

TEST(BlobHash, is_what_git_and_sha256sum_print) {
  BlobHash sha(BlobHash::Kind::kSha256, 3), git(BlobHash::Kind::kGitBlob, 6);
  const std::string abc = "abc", hello = "hello\n";
  sha.add(std::as_bytes(std::span(abc)));
  git.add(std::as_bytes(std::span(hello)));
  EXPECT_EQ(sha.finish(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(git.finish(), "ce013625030ba8dba906f756967f9e9ca394464a");
}

TEST(Listing, is_refused_as_a_whole_where_a_name_is_hostile) {
  const std::string commit(40, 'c'), blob(40, 'b');
  const auto text = [&](const std::string& name) {
    return R"({"sha":")" + commit + R"(","siblings":[{"rfilename":")" + name +
           R"(","size":3,"blobId":")" + blob + R"("}]})";
  };
  EXPECT_EQ(parse_listing(text("a/b.json"), "list")->files.front().name, "a/b.json");
  EXPECT_THAT(parse_listing(text("../b.json"), "list").error().message,
              HasSubstr("outside of its folder"));
}

}  // namespace
}  // namespace penstock
