// Puts records onto a log byte for byte and takes them off again, for tests that must say what no command of assay can.
//   log_probe embedded DIR|kafka BROKERS produce        lines of standard input: TOPIC PARTITION TIMESTAMP_MS KEY VALUE HEADER…
//   log_probe embedded DIR|kafka BROKERS read TOPIC     lines on standard output: PARTITION OFFSET TIMESTAMP_MS KEY VALUE HEADER…
//   log_probe embedded DIR|kafka BROKERS cut TOPIC PARTITION OFFSET     takes away what lies before, as retention does
//   log_probe embedded DIR|kafka BROKERS members        a group's name per line of standard input: how many members it has, or why
//   not
// KEY and VALUE are "-" (null) or "=HEX"; a header is the name in hex and then the same.
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "streams/embedded_log.h"
#include "streams/kafka_log.h"
#include "streams/read_to_end.h"

namespace assay::streams {
namespace {

std::string hex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const unsigned char c : bytes) (out += kDigits[c >> 4]) += kDigits[c & 15];
  return out;
}

std::string written(std::optional<std::string_view> bytes) { return bytes ? "=" + hex(*bytes) : "-"; }

std::string unhex(std::string_view text) {
  CHECK(text.size() % 2 == 0);
  std::string out;
  for (size_t i = 0; i < text.size(); i += 2) out += static_cast<char>(std::stoi(std::string(text.substr(i, 2)), nullptr, 16));
  return out;
}

std::optional<std::string> value_of(std::string_view word) {
  CHECK(word == "-" || word.starts_with('='));
  return word == "-" ? std::nullopt : std::optional(unhex(word.substr(1)));
}

Result<void> produce(Log& log) {
  TRY_ASSIGN(auto producer, log.open_producer());
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    OutRecord record;
    std::string key, value;
    words >> record.to.topic >> record.to.partition >> record.timestamp.value >> key >> value;
    record.key = value_of(key);
    record.value = value_of(value);
    for (std::string word; words >> word;) {
      const size_t cut = word.find_first_of("=-");
      CHECK(cut != std::string::npos);
      record.headers.push_back({unhex(word.substr(0, cut)), value_of(word.substr(cut))});
    }
    TRY(producer->send(std::move(record)));
  }
  return producer->flush();
}

Result<void> read(Log& log, const std::string& topic) {
  TRY_ASSIGN(auto partitions, partitions_of(log, topic));
  TRY(read_to_end(log, partitions, [&](const TopicPartition& from, const RecordView& record) -> Result<bool> {
    std::cout << from.partition << ' ' << record.offset.value << ' ' << record.timestamp.value << ' ' << written(record.key) << ' '
              << written(record.value);
    for (const HeaderView& header : record.headers) std::cout << ' ' << hex(header.name) << written(header.value);
    std::cout << '\n';
    return true;
  }));
  return {};
}

Result<void> members(Log& log) {
  for (std::string group; std::getline(std::cin, group);) {
    const auto view = log.members(group);
    std::cout << (view ? std::to_string(view->members.size()) : view.error().message) << std::endl;
  }
  return {};
}

Result<std::unique_ptr<Log>> open(std::string_view kind, const std::string& where, bool read_only) {
  if (kind == "kafka") {
    KafkaLogOptions options;
    options.brokers = where;
    return open_kafka_log(options);
  }
  EmbeddedLogOptions options;
  options.read_only = read_only;
  return open_embedded_log(where, options);
}

Result<void> run(const std::vector<std::string>& words) {
  const bool reads = words.size() == 4 && words[2] == "read";
  const bool cuts = words.size() == 6 && words[2] == "cut";
  const bool asks = words.size() == 3 && words[2] == "members";
  if (!reads && !cuts && !asks && !(words.size() == 3 && words[2] == "produce"))
    return Error{Errc::kUsage, "see the head of log_probe.cc"};
  TRY_ASSIGN(auto log, open(words[0], words[1], reads));
  if (asks) return members(*log);
  if (cuts) return log->delete_before({words[3], std::stoi(words[4])}, Offset(std::stoll(words[5])));
  return reads ? read(*log, words[3]) : produce(*log);
}

}  // namespace
}  // namespace assay::streams

int main(int argc, char** argv) {
  auto done = assay::streams::run({argv + 1, argv + argc});
  if (!done) std::cerr << "log_probe: " << done.error().message << "\n";
  return done ? 0 : 1;
}
