// Tables, CSV, JSON and progress.
#include <gtest/gtest.h>

#include <random>
#include <sstream>

#include "schemas/json_parse.h"
#include "tools/output.h"
#include "tools/progress.h"

namespace assay::tools {
namespace {

Json row(const char* text) {
  auto json = parse_json(text);
  EXPECT_TRUE(json) << text;
  return *json;
}

TEST(Table, AlignsNumbersRightAndTextLeft) {
  const std::vector<Json> rows = {row(R"({"agent":"a","score":0.5,"offset":"7","note":"x"})"),
                                  row(R"({"agent":"longer","score":12,"offset":"1234","note":null})")};
  EXPECT_EQ(render_rows(rows, Format::kTable),
            "agent   score  offset  note\n"
            "a         0.5       7  x\n"
            "longer     12    1234  -\n");
}

TEST(Table, CountsColumnsAsATerminalDoes) {
  EXPECT_EQ(display_width("abc"), 3u);
  EXPECT_EQ(display_width("日本"), 4u);
  EXPECT_EQ(display_width("e\u0301"), 1u);
  EXPECT_EQ(display_width("é"), 1u);
  EXPECT_EQ(display_width("🚀"), 2u);
  EXPECT_EQ(display_width("\xff"), 1u);
  const std::vector<Json> rows = {row(R"({"a":"日本","b":"x"})"), row(R"({"a":"abc","b":"y"})")};
  EXPECT_EQ(render_rows(rows, Format::kTable), "a     b\n日本  x\nabc   y\n");
}

TEST(Table, LetsNoIdDriveTheTerminal) {
  const std::vector<Json> rows = {Json::object().set("id", "a\x1b[2Jb\nc")};
  EXPECT_EQ(render_rows(rows, Format::kTable), "id\na\\x1b[2Jb\\x0ac\n");
  EXPECT_EQ(printable("a\\b\xff\xc3\xa9"), "a\\\\b\\xff\xc3\xa9");
}

TEST(Table, OfNothing) {
  EXPECT_EQ(render_rows({}, Format::kTable), "");
  EXPECT_EQ(render_rows({}, Format::kTable, {"a", "b"}), "a  b\n");
  EXPECT_EQ(render_rows({}, Format::kJson), "[]\n");
  EXPECT_EQ(render_rows({}, Format::kCsv, {"a", "b"}), "a,b\r\n");
}

TEST(JsonRows, AreOneDocumentInTheOrderGiven) {
  const std::vector<Json> rows = {row(R"({"z":1,"a":{"y":[1,2],"b":null}})"), row(R"({"z":2})")};
  const std::string text = render_rows(rows, Format::kJson, {"z"});
  EXPECT_EQ(text, "[\n{\"z\":1,\"a\":{\"y\":[1,2],\"b\":null}},\n{\"z\":2}\n]\n");
  EXPECT_TRUE(parse_json(text));
  EXPECT_EQ(render_object(rows[1], Format::kJson), "{\"z\":2}\n");
}

/// A reader of RFC 4180 that knows nothing of the writer.
std::vector<std::vector<std::string>> read_csv(const std::string& text) {
  std::vector<std::vector<std::string>> rows(1, std::vector<std::string>(1));
  bool inside = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    std::string& field = rows.back().back();
    if (inside) {
      if (c != '"')
        field += c;
      else if (i + 1 < text.size() && text[i + 1] == '"')
        field += text[++i];
      else
        inside = false;
    } else if (c == '"') {
      EXPECT_EQ(field, "");
      inside = true;
    } else if (c == ',') {
      rows.back().emplace_back();
    } else if (c == '\r') {
      EXPECT_EQ(text[i + 1], '\n');
    } else if (c == '\n') {
      rows.emplace_back(1);
    } else {
      field += c;
    }
  }
  EXPECT_FALSE(inside);
  rows.pop_back();
  return rows;
}

TEST(Csv, ReadsBackWhateverTheText) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 300; ++round) {
    std::vector<Json> rows;
    std::vector<std::vector<std::string>> expected = {{"a", "b,c", "\"d\""}};
    for (uint64_t n = random() % 5; n > 0; --n) {
      Json one = Json::object();
      expected.emplace_back();
      for (const std::string& column : expected[0]) {
        std::string text;
        for (uint64_t k = random() % 6; k > 0; --k) text += "a,\"\r\n é"[random() % 7];
        // A lone byte of é is no UTF-8; CSV carries bytes as they are.
        one.set(column, text);
        expected.back().push_back(text);
      }
      rows.push_back(one);
    }
    const std::string text = render_rows(rows, Format::kCsv, expected[0]);
    ASSERT_EQ(read_csv(text), expected) << text;
  }
}

TEST(Csv, NumbersNullsAndDocuments) {
  const std::vector<Json> rows = {row(R"({"a":1.5,"b":null,"c":{"x":"y"},"d":true})")};
  EXPECT_EQ(render_rows(rows, Format::kCsv), "a,b,c,d\r\n1.5,,\"{\"\"x\"\":\"\"y\"\"}\",true\r\n");
}

TEST(Object, AsTableHasALineForEachMember) {
  EXPECT_EQ(render_object(row(R"({"sent":12,"byReason":{"LATE":1}})"), Format::kTable), "sent      12\nbyReason  {\"LATE\":1}\n");
}

TEST(ProgressLines, ComeEveryFewSecondsWithRateAndTimeLeft) {
  std::ostringstream err;
  int64_t now_ms = 0;
  Progress progress("fold", "records", err, ProgressForm::kLines, [&] { return now_ms; });
  for (uint64_t i = 1; i <= 20000; ++i) {
    now_ms += 1;
    progress.update(i, static_cast<double>(i) / 40000);
  }
  progress.finish();
  std::istringstream lines(err.str());
  std::string first, line, last;
  int count = 0;
  while (std::getline(lines, line)) {
    if (count++ == 0) first = line;
    last = line;
  }
  EXPECT_EQ(count, 4) << err.str();  // after 5, 10 and 15 seconds (and a little), and the end
  EXPECT_EQ(first, "fold 12%  5,121 records  1,000/s  00:34 left");
  EXPECT_EQ(last, "fold  20,000 records  1,000/s  in 00:20");
}

TEST(ProgressBar, OverwritesItsLineAndEndsIt) {
  std::ostringstream err;
  int64_t now_ms = 0;
  {
    Progress progress("read", "rows", err, ProgressForm::kBar, [&] { return now_ms += 60; });
    progress.update(1, 0.5);
    for (uint64_t i = 2; i < 600; ++i) progress.update(i, 0.5);
  }
  const std::string text = err.str();
  EXPECT_EQ(text.rfind("\r\x1b[Kread [############            ] 50%", 0), 0u) << text;
  EXPECT_TRUE(text.ends_with("\n"));
}

TEST(ProgressQuiet, SaysNothing) {
  std::ostringstream err;
  Progress progress("read", "rows", err, ProgressForm::kSilent);
  for (uint64_t i = 0; i < 1000; ++i) progress.update(i);
  progress.finish();
  EXPECT_EQ(err.str(), "");
}

TEST(Grouped, ThreeDigitsEach) {
  EXPECT_EQ(grouped(0), "0");
  EXPECT_EQ(grouped(999), "999");
  EXPECT_EQ(grouped(1000), "1,000");
  EXPECT_EQ(grouped(1234567), "1,234,567");
}

}  // namespace
}  // namespace assay::tools
