#include "tools/replay_source.h"

#include <algorithm>

#include "schemas/time.h"
#include "streams/config_feed.h"
#include "streams/s3_objects.h"
#include "tools/open_log.h"
#include "tools/session.h"

namespace assay::tools {

namespace {

Result<std::unique_ptr<streams::ObjectStore>> open_bucket(const Settings& settings, std::string_view place) {
  const size_t slash = std::min(place.find('/'), place.size());
  streams::S3Options options;
  options.endpoint = settings.s3.endpoint;
  options.region = settings.s3.region;
  options.bucket = place.substr(0, slash);
  options.prefix = place.substr(std::min(slash + 1, place.size()));
  while (options.prefix.ends_with('/')) options.prefix.pop_back();
  if (!settings.s3.access_key.empty() && !settings.s3.secret.empty())
    options.credentials = [keys = streams::AwsCredentials{settings.s3.access_key, settings.s3.secret, ""}] { return Result(keys); };
  if (settings.archive.lock != "none") {
    options.lock_mode = settings.archive.lock == "governance" ? "GOVERNANCE" : "COMPLIANCE";
    options.lock_for = streams::Milliseconds(settings.archive.lock_for_ms);
  }
  options.https.plain_http = settings.profile == Profile::kDevelopment;
  return streams::open_s3_objects(std::move(options));
}

}  // namespace

Result<std::shared_ptr<streams::ObjectStore>> open_objects(const Settings& settings, const std::string& place, bool create) {
  constexpr std::string_view kBucket = "s3://";
  if (place.starts_with(kBucket)) {
    TRY_ASSIGN(auto objects, open_bucket(settings, std::string_view(place).substr(kBucket.size())));
    return std::shared_ptr<streams::ObjectStore>(std::move(objects));
  }
  std::string dir = place;
  if (place.starts_with("file://")) {
    dir = place.substr(7);
    if (!dir.starts_with('/')) return Error{Errc::kUsage, place + ": a file URL is file:///DIR"};
  } else if (place.find("://") != std::string::npos || place.empty()) {
    return Error{Errc::kUsage, "\"" + place + "\": an archive is DIR, file:///DIR or s3://BUCKET/PREFIX"};
  }
  TRY_ASSIGN(auto objects, streams::open_directory_objects(dir, create));
  return std::shared_ptr<streams::ObjectStore>(std::move(objects));
}

Result<void> check_source(const std::string& from) {
  const std::string kind = from.substr(0, from.find(':'));
  if ((kind == "archive" || kind == "log+archive" || kind == "log") && !from.starts_with("log:")) return {};
  return Error{Errc::kUsage, "--from " + from + ": one of log, archive:PLACE, log+archive:PLACE"};
}

Result<std::unique_ptr<replay::Archive>> open_archive(const Settings& settings, const std::string& from) {
  const size_t colon = from.find(':');
  const std::string place = colon == std::string::npos ? settings.archive.url : from.substr(colon + 1);
  if (place.empty()) return Error{Errc::kUsage, "--from " + from + ": no archive.url is set; name the place, archive:DIR"};
  auto objects = open_objects(settings, place, false);
  if (!objects && objects.error().code == Errc::kNotFound)
    return Error{Errc::kIncomplete, "opening the archive in " + place + ": " + objects.error().message};
  if (!objects) return objects.error();
  return replay::Archive::open(std::move(*objects));
}

Result<std::string> source_or_default(const Settings& settings, const std::string& from) {
  if (!from.empty()) return from;
  if (settings.archive.url.empty()) return std::string("log");
  const auto log = open_log(settings, LogAccess::kRead);
  if (!log && log.error().code != Errc::kIncomplete) return log.error();
  const auto archive = open_archive(settings, "archive");
  if (!archive && archive.error().code != Errc::kIncomplete) return archive.error();
  if (!log && !archive) return log.error();
  if (!archive) return std::string("log");
  return (log ? "log+archive:" : "archive:") + settings.archive.url;
}

namespace {

Result<std::unique_ptr<streams::Log>> open_archived(const Settings& settings, const std::string& from,
                                                    const std::string& signers_file, std::shared_ptr<streams::Log> live) {
  TRY_ASSIGN(auto archive, open_archive(settings, from));
  streams::SignerRegistry pinned;
  if (!signers_file.empty()) {
    TRY_ASSIGN(pinned, streams::SignerRegistry::load(signers_file));
  }
  return replay::open_archive_log(std::move(archive), topic_names(settings), std::move(live),
                                  signers_file.empty() ? nullptr : &pinned);
}

}  // namespace

Result<std::unique_ptr<streams::Log>> open_replay_source(const Settings& settings, const std::string& from,
                                                         const std::string& signers_file) {
  TRY(check_source(from));
  const std::string kind = from.substr(0, from.find(':'));
  std::shared_ptr<streams::Log> live;
  if (kind != "archive") {
    TRY_ASSIGN(auto log, open_log(settings, LogAccess::kRead));
    TRY(check_partitions(settings, *log));
    if (kind == "log") return log;
    live = std::move(log);
  }
  return open_archived(settings, from, signers_file, std::move(live));
}

Result<std::shared_ptr<streams::Log>> join_replay_source(const Settings& settings, const std::string& from,
                                                         const std::string& signers_file, std::shared_ptr<streams::Log> live) {
  TRY(check_source(from));
  if (from == "log") return live;
  if (!reaches_the_end(from)) live.reset();
  TRY_ASSIGN(auto joined, open_archived(settings, from, signers_file, std::move(live)));
  return std::shared_ptr<streams::Log>(std::move(joined));
}

Result<Rules> present_rules(streams::Log& log, const Settings& settings) {
  auto feed = streams::read_rules(log, settings.topics.prefix);
  if (!feed && feed.error().code == Errc::kNotFound) return settings.rules;
  if (!feed) return feed.error();
  for (ConfigKind kind : kConfigKinds)
    if (!feed->kinds.contains(kind)) TRY(apply_json(rules_to_json(settings.rules, kind), kind, feed->rules));
  return std::move(feed->rules);
}

Result<int64_t> instant_of(const std::string& flag, const std::string& text) {
  if (auto ms = parse_rfc3339_ms(text)) return *ms;
  return Error{Errc::kUsage, flag + " " + text + ": not an RFC 3339 time with a zone, like 2026-05-01T12:00:00Z"};
}

}  // namespace assay::tools
