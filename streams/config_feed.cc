#include "streams/config_feed.h"

#include "schemas/topics.h"
#include "streams/read_to_end.h"

namespace assay::streams {
namespace {

TopicPartition config_partition(const std::string& prefix) { return {prefix + std::string(topic_spec(Topic::kConfig).name), 0}; }

}  // namespace

Result<RuleFeed> read_rules(Log& log, const std::string& prefix) {
  const TopicPartition tp = config_partition(prefix);
  RuleFeed feed;
  TRY_ASSIGN(auto places, read_to_end(log, {tp}, [&](const TopicPartition&, const RecordView& record) -> Result<bool> {
               if (!record.value) return true;  // a tombstone says nothing: rules are replaced, never taken away
               auto kind = fold_config_event(*record.value, feed.rules);
               if (!kind)
                 return Error{kind.error().code,
                              to_string(tp) + " offset " + std::to_string(record.offset.value) + ": " + kind.error().message};
               feed.kinds.insert(*kind);
               return true;
             }));
  feed.next = places[tp];
  return feed;
}

Result<std::vector<PublishedRules>> publish_rules(Log& log, const std::string& prefix, const Rules& rules, WallTime now) {
  TRY_ASSIGN(RuleFeed feed, read_rules(log, prefix));
  std::vector<PublishedRules> published;
  std::unique_ptr<LogProducer> producer;
  for (ConfigKind kind : kConfigKinds) {
    PublishedRules one{kind, rules_version(rules, kind), false};
    one.changed = !feed.kinds.contains(kind) || rules_version(feed.rules, kind) != one.version;
    if (one.changed) {
      if (producer == nullptr) {
        TRY_ASSIGN(producer, log.open_producer());
      }
      TRY(producer->send(
          {config_partition(prefix), now, std::string(config_kind_name(kind)), encode_config_event(rules, kind), {}}));
    }
    published.push_back(std::move(one));
  }
  if (producer != nullptr) TRY(producer->flush());
  return published;
}

}  // namespace assay::streams
