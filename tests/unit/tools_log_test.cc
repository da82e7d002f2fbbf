// Commands that write to a log, on the embedded one: produce, dead letters, topics, rules.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "schemas/eval_report.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "schemas/topics.h"
#include "streams/config_feed.h"
#include "streams/read_to_end.h"
#include "tools/commands.h"
#include "tools/dead_letters.h"
#include "tools/fleet.h"
#include "tools/open_log.h"
#include "tools/produce.h"

namespace assay::tools {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Stored {
  TopicPartition from;
  Offset offset;
  int64_t timestamp_ms;
  std::optional<std::string> key, value;
  std::vector<Header> headers;
};

class LogToolsTest : public ::testing::Test {
 protected:
  LogToolsTest() {
    static int count = 0;
    dir_ = std::filesystem::temp_directory_path() / ("assay-tools-" + std::to_string(getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(dir_);
  }
  ~LogToolsTest() override { std::filesystem::remove_all(dir_); }

  struct Outcome {
    int code;
    std::string out, err;
    Json json() const {
      auto parsed = parse_json(out);
      EXPECT_TRUE(parsed) << out << err;
      return parsed ? *parsed : Json();
    }
  };
  Outcome assay(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"-q", "--data-dir", (dir_ / "data").string()});
    std::ostringstream out, err;
    const int code =
        run_cli(arguments, {}, {register_produce, register_config, register_topics, register_dlq, register_doctor}, out, err);
    return {code, out.str(), err.str()};
  }
  std::string file(const std::string& name, const std::string& bytes) {
    std::ofstream(dir_ / name, std::ios::binary) << bytes;
    return (dir_ / name).string();
  }
  std::unique_ptr<streams::Log> log(LogAccess access = LogAccess::kRead) {
    Settings settings;
    settings.data_dir = (dir_ / "data").string();
    auto opened = open_log(settings, access);
    EXPECT_TRUE(opened) << opened.error().message;
    return std::move(*opened);
  }
  std::vector<Stored> records(const std::string& topic) {
    auto from = log();
    auto partitions = streams::partitions_of(*from, topic);
    EXPECT_TRUE(partitions) << partitions.error().message;
    std::vector<Stored> all;
    auto read = streams::read_to_end(*from, *partitions, [&](const TopicPartition& tp, const RecordView& record) -> Result<bool> {
      Stored& one = all.emplace_back(Stored{tp, record.offset, record.timestamp.value, {}, {}, {}});
      if (record.key) one.key = std::string(*record.key);
      if (record.value) one.value = std::string(*record.value);
      for (const HeaderView& header : record.headers)
        one.headers.push_back({std::string(header.name), header.value ? std::optional(std::string(*header.value)) : std::nullopt});
      return true;
    });
    EXPECT_TRUE(read) << read.error().message;
    return all;
  }
  static std::string fleet(int64_t reports, double bad) {
    Fleet made({.agents = 10, .reports = reports, .seed = 8, .late = 0.05, .bad = bad});
    std::string text;
    for (std::string line; made.next(line);) text += line + "\n";
    return text;
  }

  std::filesystem::path dir_;
};

std::string zstd_of(const std::string& text) {
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3));
  return packed;
}

std::string gzip_of(const std::string& text) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string packed(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

constexpr const char* kGood =
    R"({"agentId":"a1","metricSet":{"m":0.5},"timestamp":"2026-01-01T00:00:00Z","metadata":{"arrivedAt":"2026-01-01T00:00:07.250Z"}})";

TEST_F(LogToolsTest, ProduceSendsWhatDecodesAndCountsTheRest) {
  const std::string text = fleet(3000, 0.05);
  const Outcome outcome = assay({"produce", "--input", file("in.jsonl", text), "-o", "json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  // What a decoder says about each line is the judge.
  EvalReportDecoder decoder;
  std::map<std::string, uint64_t> expected;
  uint64_t good = 0;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    RecordView record;
    record.value = line;
    Reject reject;
    const EvalReport* report = decoder.decode(record, &reject);
    if (report == nullptr)
      ++expected[std::string(reason_code(reject.reason))];
    else if (line.size() + report->agent_id.size() > static_cast<size_t>(kMaxRecordBytes))
      ++expected["TOO_LARGE"];
    else
      ++good;
  }
  const Json result = outcome.json();
  EXPECT_EQ(result.number_or("sent", -1), good);
  EXPECT_EQ(result.number_or("refused", -1), 3000 - good);
  Json by_reason = Json::object();
  for (const auto& [reason, count] : expected) by_reason.set(reason, count);
  EXPECT_EQ(canonical(*result.find("byReason")), canonical(by_reason));
  EXPECT_GT(expected.size(), 8u);
  const auto stored = records("eval.reports.v1");
  ASSERT_EQ(stored.size(), good);
  for (const Stored& record : stored) {
    RecordView view;
    view.value = *record.value;
    const EvalReport* report = decoder.decode(view, nullptr);
    ASSERT_EQ(record.key, std::string(report->agent_id));
    ASSERT_EQ(record.from.partition, partition_of(*record.key, 4));
  }
}

TEST_F(LogToolsTest, ProduceUnpacksWhatItReads) {
  const std::string text = fleet(2000, 0), half = text.substr(0, text.find('\n', text.size() / 2) + 1),
                    rest = text.substr(half.size());
  const std::string forms[] = {text, zstd_of(text), gzip_of(text), zstd_of(half) + zstd_of(rest), gzip_of(half) + gzip_of(rest)};
  for (size_t i = 0; i < std::size(forms); ++i) {
    const Outcome outcome =
        assay({"--set", "topics.prefix=p" + std::to_string(i) + ".", "produce", "--input", file("in", forms[i]), "-o", "json"});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(outcome.json().number_or("sent", -1), 2000) << "form " << i;
  }
  std::vector<std::string> plain, packed;
  for (const Stored& record : records("p0.eval.reports.v1")) plain.push_back(*record.value);
  for (const Stored& record : records("p3.eval.reports.v1")) packed.push_back(*record.value);
  EXPECT_EQ(plain, packed);
}

TEST_F(LogToolsTest, ATruncatedPackedInputIsAnError) {
  const std::string text = fleet(500, 0);
  for (const std::string& whole : {zstd_of(text), gzip_of(text)}) {
    const Outcome outcome = assay({"produce", "--input", file("in", whole.substr(0, whole.size() - 20)), "-o", "json"});
    EXPECT_EQ(outcome.code, exit_code(Errc::kCorrupt));
    EXPECT_THAT(outcome.err, HasSubstr("the input ends inside a"));
    EXPECT_EQ(outcome.out, "");
  }
}

TEST_F(LogToolsTest, RecordTimeIsNowOrAField) {
  const int64_t before = wall_now().value;
  ASSERT_EQ(assay({"produce", "--input", file("in", std::string(kGood) + "\n")}).code, 0);
  ASSERT_EQ(assay({"produce", "--input", file("in", std::string(kGood) + "\n"), "--record-time", "metadata.arrivedAt"}).code, 0);
  ASSERT_EQ(assay({"produce", "--input", file("in", kGood), "--record-time", "timestamp"}).code, 0);
  const Outcome absent = assay({"produce", "--input", file("in", kGood), "--record-time", "metadata.sentAt", "-o", "json"});
  EXPECT_EQ(canonical(absent.json()), R"({"byReason":{"BAD_TIMESTAMP":1},"refused":1,"sent":0})");
  const auto stored = records("eval.reports.v1");
  ASSERT_EQ(stored.size(), 3u);
  EXPECT_GE(stored[0].timestamp_ms, before);
  EXPECT_LE(stored[0].timestamp_ms, wall_now().value);
  EXPECT_EQ(format_rfc3339_ms(stored[1].timestamp_ms), "2026-01-01T00:00:07.250Z");
  EXPECT_EQ(format_rfc3339_ms(stored[2].timestamp_ms), "2026-01-01T00:00:00.000Z");
}

TEST_F(LogToolsTest, ProtobufFormsDecodeToTheSameReport) {
  EvalReportDecoder decoder;
  RecordView view;
  view.value = kGood;
  const UInt128 expected = decoder.decode(view, nullptr)->content_hash;
  for (const char* format : {"json", "protobuf", "confluent"})
    ASSERT_EQ(assay({"produce", "--input", file("in", kGood), "--format", format}).code, 0);
  const auto stored = records("eval.reports.v1");
  ASSERT_EQ(stored.size(), 3u);
  const WireForm forms[] = {WireForm::kJson, WireForm::kProtobuf, WireForm::kConfluentProtobuf};
  for (size_t i = 0; i < 3; ++i) {
    view.value = *stored[i].value;
    const EvalReport* report = decoder.decode(view, nullptr);
    ASSERT_NE(report, nullptr);
    EXPECT_EQ(decoder.form(), forms[i]);
    EXPECT_TRUE(report->content_hash == expected);
  }
}

TEST_F(LogToolsTest, RawSendsBrokenLinesWithTheKeyTheyHave) {
  const std::string lines[] = {kGood,
                               "{\"agentId\":\"a2\",\"metricSet\":{}}",
                               "{\"agent_id\":\"a3\"",
                               "",
                               "[1]",
                               std::string("\xff\xfe"),
                               "{\"agentId\":7}"};
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  const Outcome outcome =
      assay({"produce", "--raw", "--input", file("in", text), "--record-time", "metadata.arrivedAt", "-o", "json"});
  EXPECT_EQ(canonical(outcome.json()), R"({"byReason":{},"refused":0,"sent":7})");
  std::map<std::string, std::optional<std::string>> keys;
  for (const Stored& record : records("eval.reports.v1")) {
    keys[record.value.value()] = record.key;
    EXPECT_EQ(format_rfc3339_ms(record.timestamp_ms), "2026-01-01T00:00:07.250Z") << "the time of the line before";
  }
  ASSERT_EQ(keys.size(), 7u);
  EXPECT_EQ(keys[lines[0]], "a1");
  EXPECT_EQ(keys[lines[1]], "a2");
  for (size_t i = 2; i < 7; ++i) EXPECT_EQ(keys[lines[i]], std::nullopt) << lines[i];
}

TEST_F(LogToolsTest, RawCountsWhatTheLogDoesNotTake) {
  // A record of the largest size, and one a byte over it; key and value count.
  const size_t largest = static_cast<size_t>(kMaxRecordBytes);
  const Outcome outcome = assay(
      {"produce", "--raw", "--input",
       file("in", std::string(largest, 'x') + "\n" + std::string(largest + 1, 'x') + "\n" + std::string(20 << 20, 'y') + "\nshort"),
       "-o", "json"});
  EXPECT_EQ(canonical(outcome.json()), R"({"byReason":{"TOO_LARGE":2},"refused":2,"sent":2})") << outcome.err;
  std::vector<size_t> sizes;
  for (const Stored& record : records("eval.reports.v1")) sizes.push_back(record.value->size());
  EXPECT_THAT(sizes, ::testing::UnorderedElementsAre(largest, 5u));
}

TEST(Lines, AreSplitAsTheyStand) {
  struct Chunks : ByteSource {
    std::vector<std::string> chunks;
    Result<size_t> read(char* into, size_t size) override {
      if (chunks.empty()) return size_t{0};
      const size_t count = chunks[0].copy(into, size);
      chunks[0].erase(0, count);
      if (chunks[0].empty()) chunks.erase(chunks.begin());
      return count;
    }
    std::optional<double> share() const override { return std::nullopt; }
  };
  auto source = std::make_unique<Chunks>();
  source->chunks = {"a\r", "\n\nb", "cd\n", "0123456789", "0123456789\n", "e"};
  LineReader reader(std::move(source), 8);
  std::vector<std::string> seen;
  for (;;) {
    auto line = reader.next();
    ASSERT_TRUE(line);
    if (!*line) break;
    seen.push_back(std::to_string((*line)->number) + ":" + std::string((*line)->text) + ((*line)->truncated ? "…" : ""));
  }
  EXPECT_THAT(seen, ElementsAre("1:a", "2:", "3:bcd", "4:01234567…", "5:e"));
}

OutRecord dead(const std::string& prefix, const std::string& id, const std::string& source, std::optional<std::string> key,
               std::optional<std::string> value, std::vector<Header> more = {}) {
  OutRecord record{{prefix + "eval.reports.v1.dlq", 0},
                   WallTime(1767225600000),
                   std::move(key),
                   std::move(value),
                   {{"trace", "t-1"}, {"empty", std::nullopt}}};
  record.headers.push_back({std::string(kHeaderId), id});
  record.headers.push_back({std::string(kHeaderReason), "BAD_TIMESTAMP"});
  record.headers.push_back({std::string(kHeaderDetail), "no zone\nat all"});
  record.headers.push_back({std::string(kHeaderSource), source});
  record.headers.push_back({std::string(kHeaderProcessor), "scoring"});
  record.headers.push_back({"assay-source-timestamp", "1767225600000"});
  for (Header& header : more) record.headers.push_back(std::move(header));
  return record;
}

class DeadLettersTest : public LogToolsTest {
 protected:
  DeadLettersTest() { fill(""); }
  void fill(const std::string& prefix) {
    EXPECT_EQ(assay({"--set", "topics.prefix=" + prefix, "topics", "apply"}).code, 0);
    auto to = log(LogAccess::kReadWrite);
    auto producer = to->open_producer();
    const std::string bytes("\x00\xff\n{", 4);
    for (OutRecord& record :
         std::vector<OutRecord>{dead(prefix, std::string(31, '0') + "1", "eval.reports.v1/2/17", "a1", bytes),
                                dead(prefix, std::string(31, '0') + "2", "eval.reports.v1/3/18", std::nullopt, std::nullopt),
                                dead(prefix, std::string(31, '0') + "3", "eval.reports.v1/1/19", "big", "begin",
                                     {{std::string(kHeaderTruncated), "2000000"}})})
      EXPECT_TRUE((*producer)->send(std::move(record)));
    EXPECT_TRUE((*producer)->flush());
  }
};

TEST_F(DeadLettersTest, AreListedWithReasonAndPlace) {
  const Outcome outcome = assay({"dlq", "ls", "-o", "json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const Json rows = outcome.json();
  ASSERT_EQ(rows.as_array().size(), 3u);
  EXPECT_EQ(
      ordered(rows.as_array()[0]),
      R"({"id":"00000000000000000000000000000001","topic":"eval.reports.v1","partition":2,"offset":"17","reason":"BAD_TIMESTAMP",)"
      R"("detail":"no zone\\x0aat all","processor":"scoring","ts":"2026-01-01T00:00:00.000Z"})");
  EXPECT_EQ(assay({"dlq", "ls", "--reason", "NOT_JSON", "-o", "json"}).json(), Json::array());
  EXPECT_EQ(assay({"dlq", "ls", "--limit", "2", "-o", "json"}).json().as_array().size(), 2u);
  EXPECT_EQ(assay({"dlq", "ls", "--topic", "eval.scores.v1", "-o", "json"}).json(), Json::array());
}

TEST_F(DeadLettersTest, AreShownWithTheirBytes) {
  const std::string id = std::string(31, '0') + "1";
  const Json shown = assay({"dlq", "show", id, "-o", "json"}).json();
  EXPECT_EQ(shown.string_or("value", ""), "\\x00\\xff\\x0a{");
  EXPECT_EQ(shown.string_or("valueBase64", ""), "AP8Kew==");
  EXPECT_EQ(shown.string_or("key", ""), "a1");
  EXPECT_EQ(ordered(*shown.find("headers")), R"([{"name":"trace","value":"t-1"},{"name":"empty","value":null}])");
  EXPECT_EQ(assay({"dlq", "show", id, "--bytes"}).out, std::string("\x00\xff\n{", 4));
  EXPECT_EQ(assay({"dlq", "show", "nothing"}).code, 2);
}

TEST_F(DeadLettersTest, GoBackAsTheyCameUnlessTruncated) {
  EXPECT_EQ(assay({"dlq", "redrive"}).code, 2) << "nothing named";
  EXPECT_EQ(assay({"dlq", "redrive", "no-such-id"}).code, 2);
  EXPECT_THAT(records("eval.reports.v1"), IsEmpty());
  const Outcome outcome = assay({"dlq", "redrive", "--reason", "BAD_TIMESTAMP", "-o", "json"});
  EXPECT_EQ(canonical(outcome.json()), R"({"byReason":{"TRUNCATED":1},"refused":1,"sent":2})") << outcome.err;
  auto stored = records("eval.reports.v1");
  ASSERT_EQ(stored.size(), 2u);
  std::sort(stored.begin(), stored.end(), [](const Stored& a, const Stored& b) { return a.key > b.key; });
  const std::vector<Header> headers = {{"trace", "t-1"}, {"empty", std::nullopt}};
  EXPECT_EQ(stored[0].key, "a1");
  EXPECT_EQ(stored[0].value, std::string("\x00\xff\n{", 4));
  EXPECT_EQ(stored[0].headers, headers);
  EXPECT_EQ(stored[0].from.partition, partition_of("a1", 4));
  EXPECT_EQ(stored[1].key, std::nullopt);
  EXPECT_EQ(stored[1].value, std::nullopt) << "a tombstone stays one";
  EXPECT_EQ(stored[1].from.partition, 3);
}

TEST_F(DeadLettersTest, GoBackBelowTheirPrefix) {
  fill("eu.");
  const std::vector<std::string> under = {"--set", "topics.prefix=eu."};
  auto with = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), under.begin(), under.end());
    return assay(arguments);
  };
  const Json rows = with({"dlq", "ls", "-o", "json"}).json();
  ASSERT_EQ(rows.as_array().size(), 3u);
  EXPECT_EQ(rows.as_array()[0].string_or("topic", ""), "eval.reports.v1");
  EXPECT_EQ(with({"dlq", "redrive", std::string(31, '0') + "1"}).code, 0);
  EXPECT_EQ(records("eu.eval.reports.v1").size(), 1u);
  EXPECT_THAT(records("eval.reports.v1"), IsEmpty());
}

TEST_F(LogToolsTest, TopicsArePlannedCreatedAndCompared) {
  Json plan = assay({"topics", "plan", "-o", "json"}).json();
  std::map<std::string, std::string> actions;
  for (const Json& row : plan.as_array()) actions[std::string(row.string_or("topic", ""))] = row.string_or("action", "");
  EXPECT_EQ(actions.size(), 15u);
  for (const auto& [topic, action] : actions) EXPECT_EQ(action, "create") << topic;
  EXPECT_TRUE(actions.contains("eval.reports.v1.dlq"));
  EXPECT_FALSE(actions.contains("assay.manifests.v1.dlq"));
  EXPECT_EQ(assay({"topics", "apply"}).code, 0);
  EXPECT_EQ(assay({"topics", "apply"}).code, 0);
  const auto topics = log()->topics();
  ASSERT_TRUE(topics);
  for (const streams::TopicConfig& topic : *topics) {
    if (topic.name == "assay.manifests.v1") {
      EXPECT_EQ(topic.partitions, 9);
    }
    if (topic.name == "audit-events" || topic.name == "config.v1") {
      EXPECT_EQ(topic.partitions, 1);
    }
    EXPECT_EQ(topic.max_record_bytes, topic.name.ends_with(".dlq") ? kMaxDeadLetterBytes : kMaxRecordBytes) << topic.name;
    EXPECT_EQ(topic.compacted, topic.name == "eval.scores.live.v1");
  }
  const Outcome differs = assay({"--set", "topics.partitions=8", "topics", "apply", "-o", "csv"});
  EXPECT_EQ(differs.code, 3);
  EXPECT_THAT(differs.out, HasSubstr("eval.reports.v1,differs,\"partitions 4, wanted 8\""));
  EXPECT_THAT(differs.out, HasSubstr("assay.manifests.v1,differs,\"partitions 9, wanted 17\""));
  EXPECT_THAT(differs.out, HasSubstr("audit-events,ok,"));
}

TEST_F(LogToolsTest, RulesArePublishedOnceAndFoldedBack) {
  auto statuses = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"config", "apply", "-o", "json"});
    std::string text;
    const Json rows = assay(arguments).json();
    for (const Json& row : rows.as_array())
      text += std::string(row.string_or("kind", "").substr(0, 3)) +
              std::string(row.string_or("status", "") == "published" ? "+ " : " ");
    return text;
  };
  EXPECT_EQ(statuses({}), "sco+ pro+ pol+ all+ key+ ");
  EXPECT_EQ(statuses({}), "sco pro pol all key ");
  EXPECT_EQ(statuses({"--set", "scoring.grace=10m"}), "sco+ pro pol all key ");
  EXPECT_EQ(statuses({"--set", "scoring.grace=10m", "--set", "promotion.enter=0.9"}), "sco pro+ pol all key ");
  EXPECT_EQ(statuses({}), "sco+ pro+ pol all key ") << "back to the first ones, which are not the last";
  auto feed = streams::read_rules(*log(), "");
  ASSERT_TRUE(feed) << feed.error().message;
  EXPECT_EQ(feed->rules, default_rules());
  EXPECT_EQ(feed->kinds.size(), 5u);
  EXPECT_EQ(feed->next, log()->range({"config.v1", 0})->end);
}

TEST_F(LogToolsTest, ARuleThatCannotBeReadIsNamedByItsPlace) {
  ASSERT_EQ(assay({"config", "apply"}).code, 0);
  {
    auto to = log(LogAccess::kReadWrite);
    auto producer = to->open_producer();
    ASSERT_TRUE((*producer)->send({{"config.v1", 0}, wall_now(), "scoring", "{}", {}}));
    ASSERT_TRUE((*producer)->flush());
  }
  auto feed = streams::read_rules(*log(), "");
  ASSERT_FALSE(feed);
  EXPECT_EQ(feed.error().code, Errc::kCorrupt);
  EXPECT_THAT(feed.error().message, HasSubstr("config.v1-0 offset 5: config event"));
  const Outcome doctor = assay({"doctor", "-o", "json"});
  EXPECT_EQ(doctor.code, 3);
  EXPECT_THAT(doctor.out, HasSubstr(R"("check":"rules","status":"fail")"));
}

TEST_F(LogToolsTest, DoctorNamesWhatIsNotWell) {
  Outcome fresh = assay({"doctor", "-o", "json"});
  EXPECT_EQ(fresh.code, 0) << fresh.out;
  ASSERT_EQ(assay({"config", "apply"}).code, 0);
  Outcome well = assay({"doctor", "-o", "json"});
  EXPECT_EQ(well.code, 0) << well.out;
  EXPECT_THAT(well.out, HasSubstr(R"("check":"rules","status":"ok")"));
  EXPECT_THAT(well.out, HasSubstr(R"("check":"topics","status":"ok","detail":"15 as configured")"));
  // Nothing listens on port 1.
  Outcome ill = assay({"--database-url", "postgresql://u@127.0.0.1:1/x", "doctor", "-o", "json"});
  EXPECT_EQ(ill.code, 3);
  EXPECT_THAT(ill.out, HasSubstr(R"("check":"database","status":"fail","detail":"PostgreSQL at 127.0.0.1:1: Connection refused")"));
}

TEST_F(LogToolsTest, TheDirectoryOfAnotherProcessIsRefused) {
  ASSERT_EQ(assay({"topics", "apply"}).code, 0);
  auto held = log(LogAccess::kReadWrite);
  const Outcome outcome = assay({"produce", "--input", file("in", kGood)});
  EXPECT_EQ(outcome.code, 5);
  EXPECT_THAT(outcome.err, HasSubstr((dir_ / "data" / "log").string()));
}

}  // namespace
}  // namespace assay::tools
