#include "tools/open_source.h"

#include "tools/open_log.h"
#include "tools/session.h"

namespace assay::tools {

Result<std::shared_ptr<streams::ObjectStore>> open_objects(const std::string& place, bool create) {
  std::string dir = place;
  if (place.starts_with("file://")) {
    dir = place.substr(7);
    if (!dir.starts_with('/')) return Error{Errc::kUsage, place + ": a file URL is file:///DIR"};
  } else if (place.find("://") != std::string::npos || place.empty()) {
    return Error{Errc::kUsage, "\"" + place + "\": an archive is a directory, DIR or file:///DIR"};
  }
  TRY_ASSIGN(auto objects, streams::open_directory_objects(dir, create));
  return std::shared_ptr<streams::ObjectStore>(std::move(objects));
}

Result<Source> open_source(const Settings& settings, const std::string& from, const std::string& signers_file) {
  const size_t colon = from.find(':');
  const std::string kind = from.substr(0, colon);
  std::string place = colon == std::string::npos ? settings.archive.url : from.substr(colon + 1);
  if ((kind != "archive" && kind != "log+archive" && kind != "log") || (kind == "log" && colon != std::string::npos))
    return Error{Errc::kUsage, "--from " + from + ": one of log, archive:PLACE, log+archive:PLACE"};
  Source source;
  if (kind != "archive") {
    TRY_ASSIGN(source.live, open_log(settings, LogAccess::kRead));
    TRY(check_partitions(settings, *source.live));
    if (kind == "log") {
      source.log = std::move(source.live);
      return source;
    }
  }
  if (place.empty()) return Error{Errc::kUsage, "--from " + from + ": no archive.url is set; name the place, archive:DIR"};
  auto objects = open_objects(place, false);
  if (!objects && objects.error().code == Errc::kNotFound)
    return Error{Errc::kIncomplete, "opening the archive in " + place + ": " + objects.error().message};
  if (!objects) return objects.error();
  TRY_ASSIGN(auto archive, replay::Archive::open(std::move(*objects)));
  streams::SignerRegistry pinned;
  if (!signers_file.empty()) {
    TRY_ASSIGN(pinned, streams::SignerRegistry::load(signers_file));
  }
  TRY_ASSIGN(source.log, replay::open_archive_log(std::move(archive), topic_names(settings), source.live.get(),
                                                  signers_file.empty() ? nullptr : &pinned));
  source.to_the_end = source.live != nullptr;
  return source;
}

}  // namespace assay::tools
