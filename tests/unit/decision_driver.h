// Drives one processor on a store in memory, record by record, with commits, restarts and crashes where a test wants them.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "processors/processor.h"
#include "schemas/config.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"

namespace assay::processors {

/// A record as a test writes it.
struct TestRecord {
  Topic topic;
  std::optional<std::string> key;
  std::optional<std::string> value;
  Id id;
};

inline Id test_id(uint64_t n) { return derived_id(Id{}, "test", n); }

inline std::string hour(double e) { return format_rfc3339_ms(static_cast<int64_t>(e * static_cast<double>(kHourMs))); }

inline Json parsed(const std::string& text) {
  auto document = parse_json(text);
  EXPECT_TRUE(document.has_value()) << text;
  return std::move(document).value();
}

inline std::string text_of(const Output& o) {
  return std::string(topic_spec(o.topic).name) + "|" + o.key + "|" + o.value + "|" + o.id.hex() + "|" + o.cause.hex();
}

template <class P>
class Driver {
 public:
  Driver() { open(); }

  /// Folds the record and returns what it made; also kept in all().
  Outputs feed(const TestRecord& record) {
    Outputs outputs = fold(record);
    const Tally& t = outputs.tally;
    uint64_t refused = 0, dead = 0;
    for (size_t i = 0; i < kReasonCount; ++i) {
      refused += t.refused[i];
      if (!is_filtered(static_cast<Reason>(i))) dead += t.refused[i];
    }
    EXPECT_EQ(t.delivered, 1u);
    EXPECT_EQ(t.delivered, t.accepted + refused);
    EXPECT_EQ(dead, outputs.dead_letters.size());
    since_commit_.push_back(record);
    for (const Output& o : outputs.records) {
      all_.push_back(text_of(o));
      since_commit_texts_.push_back(text_of(o));
    }
    return outputs;
  }

  void commit() {
    Outputs outputs;
    processor_->before_commit(WallTime(0), outputs);
    EXPECT_TRUE(outputs.records.empty());
    EXPECT_TRUE(store_->write(rows_->take_changes()).has_value());
    digest_ = rows_->digest();
    processor_->after_commit();
    since_commit_.clear();
    since_commit_texts_.clear();
    EXPECT_EQ(recomputed().hex(), digest_.hex()) << "the running digest is not that of the stored rows";
  }

  /// The process ends after a commit and starts again.
  void restart() {
    commit();
    open();
  }

  /// The process dies: what was not committed is folded again, and must come out the same.
  void crash() {
    open();
    std::vector<std::string> again;
    for (const TestRecord& record : since_commit_)
      for (const Output& o : fold(record).records) again.push_back(text_of(o));
    EXPECT_EQ(again, since_commit_texts_);
  }

  const std::vector<std::string>& all() const { return all_; }
  state::Digest digest() const { return rows_->digest(); }
  const state::Reader& stored() const { return *store_; }

  state::Digest recomputed() const {
    state::Digest sum;
    EXPECT_TRUE(store_
                    ->scan("",
                           [&](std::string_view key, std::string_view value) {
                             sum += state::Digest::of_row(key, value);
                             return true;
                           })
                    .has_value());
    return sum;
  }

 private:
  void open() {
    processor_.reset();
    rows_ = std::make_unique<Rows>(*store_, digest_);
    processor_ = std::make_unique<P>(*rows_);
  }
  Outputs fold(const TestRecord& record) {
    RecordView view;
    view.offset = Offset(static_cast<int64_t>(all_.size()) * 3 + 7);  // places move from run to run; nothing may depend on them
    view.timestamp = WallTime(static_cast<int64_t>(since_commit_.size()));
    if (record.key) view.key = *record.key;
    if (record.value) view.value = *record.value;
    view.headers.push_back({"h", std::string_view("v")});
    Input input{record.topic, 2, &view, record.id};
    Outputs outputs;
    processor_->process(input, outputs);
    return outputs;
  }

  std::unique_ptr<state::Store> store_ = state::open_memory_store();
  state::Digest digest_;
  std::unique_ptr<Rows> rows_;
  std::unique_ptr<P> processor_;
  std::vector<TestRecord> since_commit_;
  std::vector<std::string> since_commit_texts_;
  std::vector<std::string> all_;
};

inline TestRecord config_record(const Rules& rules, ConfigKind kind, uint64_t n) {
  return {Topic::kConfig, std::string(config_kind_name(kind)), encode_config_event(rules, kind), test_id(1000000 + n)};
}

/// A seeded source of choices; the same on every machine.
class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed * 2654435769u + 1) {}
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }
  bool chance(int percent) { return below(100) < percent; }
  template <class T>
  T pick(std::initializer_list<T> of) {
    return *(of.begin() + below(static_cast<int64_t>(of.size())));
  }

 private:
  uint64_t state_;
};

}  // namespace assay::processors
